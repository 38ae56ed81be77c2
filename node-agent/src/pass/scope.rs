//! The scope of a pass.

use std::collections::BTreeSet;

use lvs_model::ObjectName;

/// How much a pass decides again, and how much of the kernel it reads. Each variant covers those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Some virtual services that have newer versions. The pass reads their own IPVS services, and becomes one over all
    /// objects if the changes may affect more.
    Services(BTreeSet<ObjectName>),
    /// All objects. The last observation of the network is used, since no change was notified; of the IPVS table, the pass
    /// reads the services whose desired state has changed.
    Objects,
    /// All objects, and the network, which has changed.
    Network,
    /// All objects, the network, and the whole IPVS table.
    Everything,
}

impl Default for Scope {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}

impl Scope {
    /// The smallest scope that covers both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Services(mut names), Self::Services(more)) => {
                names.extend(more);
                Self::Services(names)
            }
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (Self::Network, _) | (_, Self::Network) => Self::Network,
            (Self::Objects, _) | (_, Self::Objects) => Self::Objects,
        }
    }

    /// This scope, widened to all objects if it is smaller.
    pub(crate) fn of_all_objects(self) -> Self {
        self.and(Self::Objects)
    }

    /// Returns whether the scope covers some virtual services only.
    pub(crate) const fn is_of_some_services(&self) -> bool {
        matches!(self, Self::Services(_))
    }

    /// Returns whether the scope covers nothing.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Services(names) if names.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_two_scopes_covers_both() {
        let names = |names: &[&str]| {
            let names = names
                .iter()
                .map(|name| ObjectName::new("shop", name).unwrap());
            Scope::Services(names.collect())
        };
        assert_eq!(names(&["a"]).and(names(&["b"])), names(&["a", "b"]));
        assert_eq!(names(&["a"]).and(Scope::Network), Scope::Network);
        assert_eq!(Scope::Everything.and(names(&["a"])), Scope::Everything);
        assert_eq!(names(&["a"]).of_all_objects(), Scope::Objects);
        assert_eq!(Scope::Network.of_all_objects(), Scope::Network);
        assert!(Scope::default().is_empty() && !names(&["a"]).is_empty());
    }
}

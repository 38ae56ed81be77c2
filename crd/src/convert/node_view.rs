//! Builds the view of one machine from its bindings and its LvsNode.

use std::{collections::BTreeMap, sync::Arc};

use lvs_model::{
    ClusterView, DirectorGroup, GroupName, NodeName, ObjectName, ObjectRef, Rejection,
};

use super::{
    bound::{Bound, BoundService},
    group,
};
use crate::{DirectorBinding, LvsNode, RealServerBinding, manifest::Rejected};

/// The objects for one machine, and the rejected ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// The objects that could be converted.
    pub view: ClusterView,
    /// What is wrong with the others; their last good versions stay in force.
    pub rejected: Vec<Rejected>,
}

/// Collects what one machine directs and serves, as input of `lvs_model::assign`.
///
/// 1. A DirectorBinding of the machine contributes its virtual service, and the machine as the director of its group. If
///    two bindings have the same virtual service, the older one counts; of equally old ones, the first by name.
/// 2. A group gets its other settings from the LvsNode; a group that is not there has none.
/// 3. A RealServerBinding whose virtual service has no DirectorBinding for this machine contributes the machine's own
///    addresses as real servers, and a group without a director. The older one counts here too. If there is a DirectorBinding, it
///    contributes the previous set of real servers.
#[must_use]
pub fn node_view<'a>(
    node: &NodeName,
    directs: impl IntoIterator<Item = &'a Bound<DirectorBinding>>,
    serves: impl IntoIterator<Item = &'a Bound<RealServerBinding>>,
    lvs_node: Option<&LvsNode>,
) -> NodeView {
    let mut build = NodeView::default();
    let spec = lvs_node.map(|object| &object.spec);
    let faulty_groups = spec.map_or_else(Vec::new, |spec| build.add_groups(node, spec));
    let mut directed = BTreeMap::new();
    for bound in by_age(node, directs) {
        if build.claim(bound, &mut directed) {
            build.add_director(node, bound, &faulty_groups);
        }
    }
    let mut served = BTreeMap::new();
    for bound in by_age(node, serves) {
        if !build.claim(bound, &mut served) {
            continue;
        }
        if bound
            .name()
            .is_some_and(|name| directed.contains_key(&name))
        {
            build.add_previous(bound);
        } else {
            if let Ok(service) = &bound.service {
                let no_director = || directors(Vec::new());
                let group = service.group.clone();
                build.view.groups.entry(group).or_insert_with(no_director);
            }
            build.add(bound);
        }
    }
    build
}

/// The bindings of a machine, the oldest first.
fn by_age<'a, K: BoundService>(
    node: &NodeName,
    bound: impl IntoIterator<Item = &'a Bound<K>>,
) -> Vec<&'a Bound<K>> {
    let mut bound: Vec<_> = bound
        .into_iter()
        .filter(|bound| bound.is_for(node))
        .collect();
    bound.sort_by_key(|bound| {
        let metadata = bound.object.meta();
        let created = metadata.creation_timestamp.as_ref();
        let created = created.map(|time| time.0.as_second());
        (
            created.is_none(),
            created,
            metadata.namespace.as_deref(),
            metadata.name.as_deref(),
        )
    });
    bound
}

impl NodeView {
    /// Adds the machine's groups; returns those that are faulty.
    fn add_groups(&mut self, node: &NodeName, spec: &crate::LvsNodeSpec) -> Vec<GroupName> {
        let mut faulty = Vec::new();
        for (i, membership) in spec.groups.iter().enumerate() {
            match group::membership(node, i, membership) {
                Ok((name, group)) => drop(self.view.groups.insert(name, group)),
                Err(rejections) => {
                    let name = membership.name.parse().ok();
                    let identity = name.clone().map(ObjectRef::DirectorGroup);
                    self.reject(identity.as_ref(), rejections);
                    faulty.extend(name);
                }
            }
        }
        faulty
    }

    /// Returns whether a binding is the first of its virtual service; rejects it otherwise.
    fn claim<'a, K: BoundService>(
        &mut self,
        bound: &'a Bound<K>,
        claimed: &mut BTreeMap<ObjectName, &'a str>,
    ) -> bool {
        let Some(name) = bound.name() else {
            return true;
        };
        let own = bound.object.meta().name.as_deref().unwrap_or_default();
        let first = *claimed.entry(name).or_insert(own);
        if first == own {
            return true;
        }
        let kind = K::kind(&());
        let reason = format!("must not be bound twice: {kind} {first} has it");
        self.reject(None, vec![bound.rejection("spec.virtualService", reason)]);
        false
    }

    fn add_director(
        &mut self,
        node: &NodeName,
        bound: &Bound<DirectorBinding>,
        faulty_groups: &[GroupName],
    ) {
        let group = bound.object.spec.director_group.parse::<GroupName>();
        if let Ok(group) = group
            && bound.name().is_some()
            && !faulty_groups.contains(&group)
        {
            let mine = || directors(vec![node.clone()]);
            self.view.groups.entry(group).or_insert_with(mine);
        }
        self.add(bound);
    }

    /// Adds the previous set of real servers to a virtual service that the machine directs.
    fn add_previous(&mut self, bound: &Bound<RealServerBinding>) {
        let (Some(name), Ok(served)) = (bound.name(), &bound.service) else {
            return;
        };
        if let Some(service) = self.view.services.get_mut(&name)
            && !served.previous.is_empty()
        {
            let service = Arc::make_mut(service);
            service.previous.clone_from(&served.previous);
        }
    }

    /// Adds the virtual service of a binding.
    fn add<K: BoundService>(&mut self, bound: &Bound<K>) {
        match (bound.name(), &bound.service) {
            (Some(name), Ok(service)) => drop(self.view.services.insert(name, service.clone())),
            (name, Err(rejections)) => {
                let identity = name.map(ObjectRef::VirtualService);
                self.reject(identity.as_ref(), rejections.clone());
            }
            (None, Ok(_)) => {}
        }
    }

    fn reject(&mut self, identity: Option<&ObjectRef>, rejections: Vec<Rejection>) {
        self.rejected
            .extend(rejections.into_iter().map(|rejection| Rejected {
                identity: identity.cloned(),
                rejection,
            }));
    }
}

fn directors(nodes: Vec<NodeName>) -> DirectorGroup {
    DirectorGroup {
        nodes,
        ..DirectorGroup::default()
    }
}

#[cfg(test)]
mod tests;

//! The machines of a DirectorGroup, and the one that directs.

use std::collections::BTreeSet;

use lvs_crd::{DirectorGroup, condition::Reason};
use lvs_model::NodeName;

use super::{objects::Objects, reconciled::Fault};

/// The machine of a group that directs, and what is wrong with the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Election {
    /// The director.
    pub director: NodeName,
    /// Why the group is not as it should be; the director goes on all the same.
    pub warning: Option<Fault>,
}

/// The names of a group's machines: those that it lists, or the nodes that its selector matches.
pub(crate) fn members(objects: &Objects, group: &DirectorGroup) -> BTreeSet<String> {
    let Some(selector) = &group.spec.nodes.selector else {
        return group.spec.nodes.names.iter().cloned().collect();
    };
    let nodes = objects.nodes.iter().filter(|(_, node)| {
        let labels = node.metadata.labels.as_ref();
        let has = |(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value);
        selector.match_labels.iter().all(has)
    });
    nodes.map(|(name, _)| name.to_string()).collect()
}

/// Elects the director of a group: the first by name of those machines that have bindings of the group, else of all. A machine
/// that joins a group changes nothing.
///
/// # Errors
/// Why no machine can direct.
pub(crate) fn elect(
    members: &BTreeSet<String>,
    has_bindings: impl Fn(&NodeName) -> bool,
) -> Result<Election, Fault> {
    let (mut machines, mut invalid) = (Vec::new(), None);
    for name in members {
        match name.parse::<NodeName>() {
            Ok(machine) => machines.push(machine),
            Err(error) => {
                let message = format!("must hold the names of nodes: each {error}");
                invalid.get_or_insert(Fault::new(Reason::Invalid, message));
            }
        }
    }
    let incumbent = machines.iter().find(|machine| has_bindings(machine));
    let Some(director) = incumbent.or(machines.first()).cloned() else {
        let empty = || Fault::new(Reason::NoDirector, "no node is in the group");
        return Err(invalid.unwrap_or_else(empty));
    };
    let several = (machines.len() > 1).then(|| {
        let message = format!(
            "{director} directs alone, although the group has {} nodes: failover between several is not supported yet",
            machines.len()
        );
        Fault::new(Reason::SeveralDirectors, message)
    });
    Ok(Election {
        director,
        warning: invalid.or(several),
    })
}

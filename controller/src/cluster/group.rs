//! The machines of a DirectorGroup.

use std::collections::BTreeSet;

use lvs_crd::{DirectorGroup, condition::Reason};
use lvs_model::NodeName;

use super::{objects::Objects, reconciled::Fault};

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

/// The director among a group's machines, or why there is none.
pub(crate) fn director(members: &BTreeSet<String>) -> Result<NodeName, Fault> {
    let names: Result<Vec<NodeName>, _> = members.iter().map(|name| name.parse()).collect();
    let names = names.map_err(|error| {
        let message = format!("must hold the names of nodes: each {error}");
        Fault::new(Reason::Invalid, message)
    })?;
    match names.as_slice() {
        [] => Err(Fault::new(Reason::NoDirector, "no node is in the group")),
        [director] => Ok(director.clone()),
        [..] => Err(Fault::new(
            Reason::SeveralDirectors,
            format!(
                "must not have more than one director, not {}: failover between several is not supported yet",
                names.len()
            ),
        )),
    }
}

//! The machines of a DirectorGroup.

use std::collections::BTreeSet;

use lvs_crd::DirectorGroup;
use lvs_model::NodeName;

use super::{objects::Objects, reconciled::Fault};

/// The machines of a group that direct, and what is wrong with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Election {
    /// The directors, at least one, in the order of their names.
    pub directors: Vec<NodeName>,
    /// Why the group is not as it should be; the directors go on all the same.
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

//! A set of namespaces: by their names, or by their labels.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::NodeSelector;

/// Namespaces by their names, by their labels, or both: one that matches either is included.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("size(self.names) > 0 || has(self.selector)")
        .message("must hold `names` or a `selector`"),
)]
pub struct Namespaces {
    /// The names of namespaces, at most 256.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,

    /// The labels that a namespace must have, all of them. Needs Kubernetes: files that an agent reads from disk may not use
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NodeSelector>")]
    pub selector: Option<NodeSelector>,
}

impl Namespaces {
    /// Returns whether a namespace with these labels is included.
    #[must_use]
    pub fn include(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let is_selected = |selector: &NodeSelector| {
            let mut wanted = selector.match_labels.iter();
            wanted.all(|(key, value)| labels.get(key) == Some(value))
        };
        self.names.iter().any(|known| known == name)
            || self.selector.as_ref().is_some_and(is_selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_included_by_its_name_or_its_labels() {
        let labels = |text: &str| BTreeMap::from([("tier".to_owned(), text.to_owned())]);
        let set = Namespaces {
            names: vec!["shop".to_owned()],
            selector: Some(NodeSelector {
                match_labels: labels("public"),
            }),
        };
        assert!(set.include("shop", &labels("private")));
        assert!(set.include("blog", &labels("public")));
        assert!(!set.include("blog", &labels("private")));
    }
}

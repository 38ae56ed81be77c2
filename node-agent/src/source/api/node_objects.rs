//! The objects of one machine that the last snapshot was made from.

use std::sync::Arc;

use lvs_crd::{DirectorBinding, LvsNode, convert::Bound};
use lvs_model::{NodeName, Rejection};

use super::cache;

/// The objects of one machine that the last snapshot was made from.
#[derive(Clone, Debug)]
pub(crate) struct NodeObjects {
    /// The machine.
    pub node: NodeName,
    /// The bindings in the order of their names, including those for another machine.
    pub bound: Vec<Bound>,
    /// The LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
    /// The rejections by conversion.
    pub rejections: Vec<Rejection>,
    /// The indices of the bindings that the last read updated, if nothing else had changed.
    updated: Vec<usize>,
}

impl NodeObjects {
    /// A machine without objects.
    pub(crate) const fn new(node: NodeName) -> Self {
        Self {
            node,
            bound: Vec::new(),
            lvs_node: None,
            rejections: Vec::new(),
            updated: Vec::new(),
        }
    }

    /// A machine with objects.
    #[cfg(test)]
    pub(crate) const fn for_tests(
        node: NodeName,
        bound: Vec<Bound>,
        lvs_node: Option<Arc<LvsNode>>,
        rejections: Vec<Rejection>,
    ) -> Self {
        Self {
            node,
            bound,
            lvs_node,
            rejections,
            updated: Vec::new(),
        }
    }

    /// The same machine with other objects.
    pub(super) fn with(
        &self,
        bound: Vec<Bound>,
        lvs_node: Option<Arc<LvsNode>>,
        rejections: Vec<Rejection>,
    ) -> Self {
        Self {
            node: self.node.clone(),
            bound,
            lvs_node,
            rejections,
            updated: Vec::new(),
        }
    }

    /// The bindings that the last read updated, if nothing else had changed.
    pub(crate) fn updated(&self) -> impl Iterator<Item = &Bound> {
        let indices = self.updated.iter();
        indices.filter_map(|index| self.bound.get(*index))
    }

    /// Clears the list of updated bindings, before another read.
    pub(super) fn forget_updated(&mut self) {
        self.updated.clear();
    }

    /// Replaces a binding with a newer version.
    pub(super) fn update(&mut self, index: usize, bound: Bound) {
        if let Some(known) = self.bound.get_mut(index) {
            *known = bound;
            self.updated.push(index);
        }
    }

    /// The index of a binding among those of the machine.
    pub(super) fn index(&self, object: &DirectorBinding) -> Option<usize> {
        let order = |bound: &Bound| cache::key(&bound.object).cmp(&cache::key(object));
        self.bound.binary_search_by(order).ok()
    }
}

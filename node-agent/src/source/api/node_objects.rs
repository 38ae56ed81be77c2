//! The objects of one machine that the last snapshot was made from.

use std::sync::Arc;

use lvs_crd::{DirectorBinding, LvsNode, RealServerBinding, convert::Bound};
use lvs_model::{NodeName, Rejection};

use super::cache::{self, NameOf};

/// The objects of one machine that the last snapshot was made from.
#[derive(Clone, Debug)]
pub(crate) struct NodeObjects {
    /// The machine.
    pub node: NodeName,
    /// The DirectorBindings in the order of their names, including those for another machine.
    pub bound: Vec<Bound<DirectorBinding>>,
    /// The RealServerBindings, in the same way.
    pub served: Vec<Bound<RealServerBinding>>,
    /// The LvsNode.
    pub lvs_node: Option<Arc<LvsNode>>,
    /// The rejections by conversion.
    pub rejections: Vec<Rejection>,
    /// The objects that could not be decoded, and why.
    pub unreadable: Vec<Rejection>,
    /// The indices of the DirectorBindings that the last read updated, if nothing else had changed.
    updated: Vec<usize>,
}

impl NodeObjects {
    /// A machine without objects.
    pub(crate) const fn new(node: NodeName) -> Self {
        Self {
            node,
            bound: Vec::new(),
            served: Vec::new(),
            lvs_node: None,
            rejections: Vec::new(),
            unreadable: Vec::new(),
            updated: Vec::new(),
        }
    }

    /// The bindings that the last read updated, if nothing else had changed.
    pub(crate) fn updated(&self) -> impl Iterator<Item = &Bound<DirectorBinding>> {
        let indices = self.updated.iter();
        indices.filter_map(|index| self.bound.get(*index))
    }

    /// Clears the list of updated bindings, before another read.
    pub(super) fn forget_updated(&mut self) {
        self.updated.clear();
    }

    /// Replaces a binding with a newer version.
    pub(super) fn update(&mut self, index: usize, bound: Bound<DirectorBinding>) {
        if let Some(known) = self.bound.get_mut(index) {
            *known = bound;
            self.updated.push(index);
        }
    }

    /// The index of a DirectorBinding among those of the machine.
    pub(super) fn index(&self, name: NameOf<'_>) -> Option<usize> {
        let order = |bound: &Bound<DirectorBinding>| cache::key(bound.object.as_ref()).cmp(&name);
        self.bound.binary_search_by(order).ok()
    }

    /// A RealServerBinding of the machine.
    pub(super) fn served(&self, name: NameOf<'_>) -> Option<&Bound<RealServerBinding>> {
        let order = |bound: &Bound<RealServerBinding>| cache::key(bound.object.as_ref()).cmp(&name);
        let index = self.served.binary_search_by(order).ok()?;
        self.served.get(index)
    }
}

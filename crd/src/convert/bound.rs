//! A binding with its converted virtual service.

use std::sync::Arc;

use kube::Resource;
use lvs_model::{NodeName, ObjectName, ObjectRef, Rejection, VirtualService};

use super::{binding::bound_service, served::served_service};
use crate::{BindingSlice, DirectorBinding, RealServerBinding, slice_name};

/// A kind that binds a virtual service to a machine.
pub trait BoundService: Resource<DynamicType = ()> {
    /// The machine.
    fn node(&self) -> &str;

    /// The name of the virtual service.
    fn virtual_service(&self) -> &str;

    /// The reference to an object of the kind.
    fn reference(name: ObjectName) -> ObjectRef;
}

impl BoundService for DirectorBinding {
    fn node(&self) -> &str {
        &self.spec.node
    }

    fn virtual_service(&self) -> &str {
        &self.spec.virtual_service
    }

    fn reference(name: ObjectName) -> ObjectRef {
        ObjectRef::DirectorBinding(name)
    }
}

impl BoundService for RealServerBinding {
    fn node(&self) -> &str {
        &self.spec.node
    }

    fn virtual_service(&self) -> &str {
        &self.spec.virtual_service
    }

    fn reference(name: ObjectName) -> ObjectRef {
        ObjectRef::RealServerBinding(name)
    }
}

/// A binding and its converted virtual service, so that an unchanged binding is not converted again.
#[derive(Clone, Debug)]
pub struct Bound<K> {
    /// The object.
    pub object: Arc<K>,
    /// Its slices that are there in the revision that it names.
    pub slices: Vec<Arc<K>>,
    /// Which slices are missing; empty if the set of real servers is complete.
    pub waits: String,
    /// The virtual service, or what is wrong with it.
    pub service: Result<Arc<VirtualService>, Vec<Rejection>>,
}

impl Bound<RealServerBinding> {
    /// Converts a RealServerBinding.
    #[must_use]
    pub fn served(object: Arc<RealServerBinding>) -> Self {
        let service = served_service(&object).map(Arc::new);
        Self {
            object,
            slices: Vec::new(),
            waits: String::new(),
            service,
        }
    }
}

impl Bound<DirectorBinding> {
    /// Converts a DirectorBinding, and looks its slices up by their names. It is faulty while a slice is missing or has
    /// another revision.
    #[must_use]
    pub fn directed(
        object: Arc<DirectorBinding>,
        find: impl Fn(&str) -> Option<Arc<DirectorBinding>>,
    ) -> Self {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let (mut slices, mut missing) = (Vec::new(), Vec::new());
        for (i, revision) in object.spec.slices.iter().enumerate() {
            let slice = find(&slice_name(name, i + 1)).filter(|slice| {
                let place = slice.spec.slice.as_ref();
                place.is_some_and(
                    |BindingSlice {
                         of, revision: own, ..
                     }| { of == name && own == revision },
                )
            });
            match slice {
                Some(slice) => slices.push(slice),
                None => missing.push((i + 1).to_string()),
            }
        }
        let waits = waits_for(&missing, object.spec.slices.len());
        let mut bound = Self {
            object,
            slices,
            waits,
            service: Err(Vec::new()),
        };
        bound.service = if bound.waits.is_empty() {
            let slices: Vec<&DirectorBinding> = bound.slices.iter().map(Arc::as_ref).collect();
            bound_service(&bound.object, &slices).map(Arc::new)
        } else {
            Err(vec![bound.rejection("spec.slices", &*bound.waits)])
        };
        bound
    }
}

fn waits_for(missing: &[String], count: usize) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let missing = missing.join(", ");
    format!("must all be there in these revisions: waiting for {missing} of {count}")
}

impl<K: BoundService> Bound<K> {
    /// Returns the same conversion for another version of the object with an equal spec.
    #[must_use]
    pub fn with(&self, object: Arc<K>) -> Self {
        Self {
            object,
            slices: self.slices.clone(),
            waits: self.waits.clone(),
            service: self.service.clone(),
        }
    }

    /// Returns the name of the virtual service; `None` if it is invalid.
    #[must_use]
    pub fn name(&self) -> Option<ObjectName> {
        ObjectName::new(self.namespace(), self.object.virtual_service()).ok()
    }

    /// Returns the identity of the binding; `None` if its name is invalid.
    #[must_use]
    pub fn object_ref(&self) -> Option<ObjectRef> {
        let name = self.object.meta().name.as_deref()?;
        Some(K::reference(ObjectName::new(self.namespace(), name).ok()?))
    }

    /// Returns whether the binding belongs to a machine and is not being deleted.
    #[must_use]
    pub fn is_for(&self, node: &NodeName) -> bool {
        self.object.node() == node.as_str() && self.object.meta().deletion_timestamp.is_none()
    }

    /// Returns a rejection of the binding, which is named even if its name is invalid.
    #[must_use]
    pub fn rejection(&self, field: &str, reason: impl Into<String>) -> Rejection {
        if let Some(object) = self.object_ref() {
            return Rejection::new(object, field, reason);
        }
        let name = self.object.meta().name.as_deref().unwrap_or_default();
        Rejection {
            object: None,
            origin: format!("{} {}/{name}", K::kind(&()), self.namespace()),
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    fn namespace(&self) -> &str {
        let namespace = self.object.meta().namespace.as_deref();
        namespace.unwrap_or("default")
    }
}

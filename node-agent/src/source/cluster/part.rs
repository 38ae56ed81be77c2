//! Newer versions of some bindings, when nothing else has changed.

use std::{collections::BTreeMap, sync::Arc};

use lvs_crd::{DirectorBinding, convert::Bound, manifest::Identity};
use lvs_model::{ObjectName, VirtualService};

use super::{Cluster, listed::Changes};
use crate::source::Converted;

/// A binding in another version than the one in force.
struct Version {
    /// Its place among those of the machine.
    index: usize,
    bound: Bound,
    name: ObjectName,
    service: Arc<VirtualService>,
}

impl Cluster {
    /// Takes over the newer versions of virtual services that this machine directs, when nothing else has changed since
    /// the last call of this or of `read`; otherwise returns `None`, and everything is to be read.
    pub(in crate::source) fn read_part(
        &mut self,
    ) -> Option<BTreeMap<ObjectName, Arc<VirtualService>>> {
        let (Changes::Versions(nodes), Changes::Versions(bindings)) =
            (self.lvs_nodes.changes(), self.bindings.changes())
        else {
            return None;
        };
        if !nodes.is_empty() {
            return None;
        }
        let versions: Vec<Version> = bindings
            .into_values()
            .map(|object| self.version(object))
            .collect::<Option<_>>()?;
        let saved = self.saved.as_mut()?;
        let objects = versions
            .iter()
            .map(|version| Arc::clone(&version.bound.object));
        self.saver.as_ref()?.save_versions(objects.collect());
        self.part = versions.iter().map(|version| version.index).collect();
        let mut services = BTreeMap::new();
        for Version {
            index,
            bound,
            name,
            service,
        } in versions
        {
            let identity = Identity::VirtualService(name.clone());
            let converted = Converted::Service(name.clone(), Arc::clone(&service));
            self.objects.converted.insert(identity, converted);
            saved.replace(Arc::clone(&bound.object));
            if let Some(place) = self.machine.bound.get_mut(index) {
                *place = bound;
            }
            services.insert(name, service);
        }
        Some(services)
    }

    /// Another version of a binding that is in force; `None` when it is none.
    fn version(&self, object: Arc<DirectorBinding>) -> Option<Version> {
        let index = self.machine.index(&object)?;
        let before = self.machine.bound.get(index)?;
        let name = before.name()?;
        let in_force = self
            .objects
            .converted
            .get(&Identity::VirtualService(name.clone()))?;
        let is_in_force = matches!((in_force, &before.service),
            (Converted::Service(_, in_force), Ok(before)) if Arc::ptr_eq(in_force, before));
        let bound = Bound::new(object);
        let service = Arc::clone(bound.service.as_ref().ok()?);
        let is_version = is_in_force
            && bound.name().as_ref() == Some(&name)
            && bound.is_for(&self.node)
            && before.is_for(&self.node);
        is_version.then_some(Version {
            index,
            bound,
            name,
            service,
        })
    }
}

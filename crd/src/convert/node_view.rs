//! Builds the view of one machine from its DirectorBindings and its LvsNode.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_model::{
    ClusterView, DirectorGroup, GroupName, NodeName, ObjectName, ObjectRef, Rejection,
    VirtualService,
};

use super::group;
use crate::{
    Backends, DirectorBinding, LvsNode, ServedService, VirtualServiceSpec, manifest::Rejected,
};

/// A binding and its converted virtual service, so that an unchanged binding is not converted again.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The object.
    pub object: Arc<DirectorBinding>,
    /// The virtual service, or what is wrong with it.
    pub service: Result<Arc<VirtualService>, Vec<Rejection>>,
}

impl Bound {
    /// Converts a binding.
    #[must_use]
    pub fn new(object: Arc<DirectorBinding>) -> Self {
        let whole = crate::VirtualService {
            metadata: ObjectMeta {
                namespace: object.metadata.namespace.clone(),
                name: Some(object.spec.virtual_service.clone()),
                creation_timestamp: object.metadata.creation_timestamp.clone(),
                ..Default::default()
            },
            spec: object.spec.service.clone(),
            status: None,
        };
        let service = super::virtual_service(&whole).map(|(_, service)| Arc::new(service));
        Self { object, service }
    }

    /// Returns the same conversion for another version of the object with an equal spec.
    #[must_use]
    pub fn with(&self, object: Arc<DirectorBinding>) -> Self {
        let service = self.service.clone();
        Self { object, service }
    }

    /// Returns the name of the virtual service; `None` if it is invalid.
    #[must_use]
    pub fn name(&self) -> Option<ObjectName> {
        let namespace = self.object.metadata.namespace.as_deref();
        let name = &self.object.spec.virtual_service;
        ObjectName::new(namespace.unwrap_or("default"), name).ok()
    }

    /// Returns the identity of the binding; `None` if its name is invalid.
    #[must_use]
    pub fn object_ref(&self) -> Option<ObjectRef> {
        let metadata = &self.object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let name = ObjectName::new(namespace, metadata.name.as_deref()?).ok()?;
        Some(ObjectRef::DirectorBinding(name))
    }

    /// Returns whether the binding belongs to a machine and is not being deleted.
    #[must_use]
    pub fn is_for(&self, node: &NodeName) -> bool {
        self.object.spec.node == node.as_str() && self.object.metadata.deletion_timestamp.is_none()
    }
}

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
/// 1. A binding of the machine contributes its virtual service, and the machine as the director of its group. If two
///    bindings have the same virtual service, the older one counts; of equally old ones, the first by name.
/// 2. A group gets its interface and timeouts from the LvsNode; a group that is not there has none.
/// 3. A virtual service that the LvsNode says is served here, and that has no binding for this machine, gets the
///    machine's own addresses as real servers, and a group without a director.
#[must_use]
pub fn node_view<'a>(
    node: &NodeName,
    bindings: impl IntoIterator<Item = &'a Bound>,
    lvs_node: Option<&LvsNode>,
) -> NodeView {
    let mut build = NodeView::default();
    let spec = lvs_node.map(|object| &object.spec);
    let faulty_groups = spec.map_or_else(Vec::new, |spec| build.add_groups(node, spec));
    let mut bindings: Vec<_> = bindings
        .into_iter()
        .filter(|bound| bound.is_for(node))
        .collect();
    bindings.sort_by_key(|bound| age(&bound.object));
    let mut directed = BTreeMap::new();
    for bound in bindings {
        build.add_binding(node, bound, &faulty_groups, &mut directed);
    }
    for served in spec.into_iter().flat_map(|spec| &spec.serves) {
        let name = ObjectName::new(&served.namespace, &served.name);
        if !name.is_ok_and(|name| directed.contains_key(&name)) {
            build.add_served(served);
        }
    }
    build
}

fn age(object: &DirectorBinding) -> (bool, Option<i64>, Option<&str>, Option<&str>) {
    let metadata = &object.metadata;
    let created = metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0.as_second());
    (
        created.is_none(),
        created,
        metadata.namespace.as_deref(),
        metadata.name.as_deref(),
    )
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

    fn add_binding<'a>(
        &mut self,
        node: &NodeName,
        bound: &'a Bound,
        faulty_groups: &[GroupName],
        directed: &mut BTreeMap<ObjectName, Option<&'a str>>,
    ) {
        let Some(name) = bound.name() else {
            let rejections = bound.service.as_ref().err().cloned().unwrap_or_default();
            return self.reject(None, rejections);
        };
        let binding = bound.object.metadata.name.as_deref();
        if let Some(first) = directed.get(&name) {
            let first = first.unwrap_or_default();
            let reason = format!("must not be bound twice: DirectorBinding {first} has it");
            let rejection = match bound.object_ref() {
                Some(object) => Rejection::new(object, "spec.virtualService", reason),
                None => return,
            };
            return self.reject(None, vec![rejection]);
        }
        directed.insert(name.clone(), binding);
        let group = bound
            .object
            .spec
            .service
            .director_group
            .parse::<GroupName>();
        if let Ok(group) = group
            && !faulty_groups.contains(&group)
        {
            let mine = || directors(vec![node.clone()]);
            self.view.groups.entry(group).or_insert_with(mine);
        }
        match &bound.service {
            Ok(service) => drop(self.view.services.insert(name, Arc::clone(service))),
            Err(rejections) => {
                self.reject(Some(&ObjectRef::VirtualService(name)), rejections.clone());
            }
        }
    }

    fn add_served(&mut self, served: &ServedService) {
        match super::virtual_service(&assembled(served)) {
            Ok((name, service)) => {
                let no_director = || directors(Vec::new());
                let group = service.group.clone();
                self.view.groups.entry(group).or_insert_with(no_director);
                self.view.services.insert(name, Arc::new(service));
            }
            Err(rejections) => {
                let name = ObjectName::new(&served.namespace, &served.name).ok();
                self.reject(name.map(ObjectRef::VirtualService).as_ref(), rejections);
            }
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

const fn directors(nodes: Vec<NodeName>) -> DirectorGroup {
    DirectorGroup {
        nodes,
        interface: None,
        timeouts: None,
    }
}

/// Returns the part of the virtual service that a real server needs.
///
/// Its group gets a name of its own: the machine may also be the director of the real group, and the binding may arrive
/// later.
fn assembled(served: &ServedService) -> crate::VirtualService {
    let ServedService {
        namespace,
        name,
        director_group,
        addresses,
        fwmark,
        ports,
        forwarding,
        tunnel,
        nat,
        endpoints,
    } = served;
    crate::VirtualService {
        metadata: ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            ..Default::default()
        },
        spec: VirtualServiceSpec {
            director_group: format!("served.{director_group}"),
            addresses: addresses.clone(),
            address_pool: None,
            ip_families: None,
            fwmark: *fwmark,
            ports: ports.clone(),
            forwarding: *forwarding,
            tunnel: tunnel.clone(),
            nat: nat.clone(),
            scheduler: crate::Scheduler::default(),
            persistence: None,
            one_packet: false,
            backends: Backends {
                service: None,
                endpoints: endpoints.clone(),
            },
        },
        status: None,
    }
}

#[cfg(test)]
mod tests;

//! The version that directors keep while a later one cannot be served.

use std::{collections::BTreeSet, sync::Arc};

use lvs_crd::{BoundServer, DirectorBinding, VirtualService, VirtualServiceSpec};
use lvs_model::{NodeName, ObjectName};

use super::{binding::is_owned, resolve::Resolved};
use crate::cluster::Cluster;

impl Cluster {
    /// Takes the version that the directors have, if they have one, in place of the object's own. The endpoints of its Services
    /// are followed.
    pub(super) fn keep_last(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        resolved: &mut Resolved,
    ) {
        let is_director = |(_, binding): &(_, &Arc<DirectorBinding>)| {
            let mut directors = resolved.directors.iter();
            directors.any(|director| director.as_str() == binding.spec.node)
        };
        let of_director = self.bindings_of(name).find(is_director);
        let Some((_, last)) = of_director.or_else(|| self.bindings_of(name).next()) else {
            return;
        };
        let nodes = self.bindings_of(name);
        let nodes = nodes.map(|(_, binding)| &binding.spec.node);
        let directors: Vec<NodeName> = nodes.filter_map(|node| node.parse().ok()).collect();
        let followed = self.follow(name, object, last, &directors);
        let (version, kube_services, left_out) = match followed {
            Some(followed) => (followed.version, followed.kube_services, followed.left_out),
            None => (
                self.version_of(last, object),
                BTreeSet::new(),
                String::new(),
            ),
        };
        if let Some(version) = version {
            resolved.service = Some(Arc::clone(&version.service));
            resolved.version = Some(version);
            resolved.is_kept = true;
            resolved.directors = directors;
            resolved.kube_services.extend(kube_services);
            resolved.left_out = left_out;
        }
    }

    /// The version of a binding with the endpoints that its Services have; `None` if it names no Service, or if the spec can no
    /// longer be served.
    ///
    /// Nothing claims the addresses of new endpoints for it. One that another virtual service claims as a VIP is left out.
    fn follow(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        binding: &DirectorBinding,
        directors: &[NodeName],
    ) -> Option<Resolved> {
        let accepted_spec = binding.spec.accepted_spec.clone()?;
        let spec = serde_json::from_str(&accepted_spec).ok()?;
        let mut object = VirtualService {
            metadata: object.metadata.clone(),
            spec: VirtualServiceSpec {
                addresses: binding.spec.addresses.clone(),
                address_pool: None,
                ip_families: None,
                ..spec
            },
            status: None,
        };
        object.metadata.generation = Some(binding.spec.generation);
        let mut resolved = Resolved::new(binding.spec.director_group.clone());
        resolved.directors = directors.to_vec();
        self.resolve_backends(name, &object, Some(accepted_spec), &mut resolved);
        resolved.service = None;
        let version = resolved.version.as_mut()?;
        Arc::make_mut(&mut version.service)
            .real_servers
            .retain(|server| {
                let address = server.address;
                self.claims.holds_server(name, address) || !self.claims.is_claimed(address)
            });
        resolved.refusal.is_none().then_some(resolved)
    }

    /// Returns whether directors have the present version of a virtual service.
    pub(super) fn is_given(&self, name: &ObjectName, object: &VirtualService) -> bool {
        let generation = object.metadata.generation.unwrap_or(0);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let mut bindings = self.bindings_of(name);
        bindings.any(|(_, binding)| {
            binding.spec.generation == generation && is_owned(binding.as_ref(), uid)
        })
    }

    /// The real servers that a director of a virtual service has of a Service.
    pub(super) fn bound_servers(&self, name: &ObjectName, service: &str) -> Vec<BoundServer> {
        let all = self.index.bindings_of(name);
        let all = all
            .iter()
            .filter_map(|name| self.objects.bindings.get(name));
        let Some(director) = all.clone().map(|binding| &binding.spec.node).next() else {
            return Vec::new();
        };
        let own = all.filter(|binding| binding.spec.node == *director);
        let servers = own.flat_map(|binding| &binding.spec.real_servers);
        let servers = servers.filter(|server| server.service.as_deref() == Some(service));
        servers.cloned().collect()
    }
}

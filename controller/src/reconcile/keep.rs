//! The version that directors keep while a later one cannot be served.

use std::sync::Arc;

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
        let directors = match self.index.election(&last.spec.director_group) {
            Some(Ok(election)) => election.directors.clone(),
            Some(Err(_)) | None => self.directors_of(name, &last.spec.director_group),
        };
        let followed = self.follow(name, object, last, &directors);
        let followed = followed.unwrap_or_else(|| Resolved {
            version: self.version_of(last, object),
            ..Resolved::new(last.spec.director_group.clone())
        });
        if let Some(version) = followed.version {
            resolved.service = Some(Arc::clone(&version.service));
            resolved.version = Some(version);
            resolved.is_kept = true;
            resolved.directors = directors;
            resolved.kube_services.extend(followed.kube_services);
            resolved.left_out = followed.left_out;
            resolved
                .left_out_addresses
                .extend(followed.left_out_addresses);
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
        let servers = &mut Arc::make_mut(&mut version.service).real_servers;
        servers.retain(|server| {
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

    /// The real servers that a director of a virtual service has of a Service: those of the first binding that is complete.
    pub(super) fn bound_servers(&self, name: &ObjectName, service: &str) -> Vec<BoundServer> {
        let object = self.objects.services.get(name);
        let uid = object.and_then(|object| object.metadata.uid.as_deref());
        let bindings = self.bindings_of(name).map(|(_, binding)| binding);
        let mut own =
            bindings.filter(|binding| is_owned(binding.as_ref(), uid.unwrap_or_default()));
        let complete = own.find_map(|binding| {
            let bound = self.with_slices(binding)?;
            let bound = Some(bound).filter(|bound| bound.waits.is_empty())?;
            let whole = std::iter::once(&bound.object).chain(&bound.slices);
            let servers = whole.flat_map(|part| &part.spec.real_servers);
            let servers = servers.filter(|server| server.service.as_deref() == Some(service));
            Some(servers.cloned().collect())
        });
        complete.unwrap_or_default()
    }
}

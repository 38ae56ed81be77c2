//! Objects of the API become the model's types, or a list of everything that is wrong with them.
//!
//! An object that converts can be programmed. The kernel silently accepts many specs that never carry a packet (a DR
//! real server with another port, a loopback VIP, a threshold of 2^31); they are refused here. Each rejection names
//! the field by its path. Claims between objects are decided in `lvs_model::Claims`.

mod address;
mod backend;
mod backends;
mod binding;
mod bound;
mod endpoint_slices;
mod failover;
mod findings;
mod forwarding;
mod frontend;
mod gap;
mod group;
mod kube_services;
mod node_view;
mod pool;
mod scheduling;
mod served;
mod service_backend;

pub use binding::{director_binding, real_server_binding};
pub use bound::{Bound, BoundService};
pub use failover::{default_router_id, member_failover};
pub use gap::Gap;
pub use group::director_group;
pub use kube_services::{
    BoundServers, KubePort, KubeService, KubeServiceSpec, KubeServices, UnreadableSlice,
};
pub use node_view::{NodeView, node_view};
pub use pool::{NamespaceLabels, address_pool, pool_with_errors};
pub use served::{previous_servers, previous_version};

use lvs_model::{ObjectName, ObjectRef, Rejection};

use crate::VirtualService;
use findings::Findings;

/// A virtual service, and what is missing or left out of its real servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The virtual service.
    pub service: lvs_model::VirtualService,
    /// What is missing or left out.
    pub gaps: Vec<Gap>,
}

/// Converts a VirtualService of a file. Without a namespace it is in `default`.
///
/// An empty list of real servers is legal: the VIP is served and refuses connections.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn virtual_service(
    object: &VirtualService,
) -> Result<(ObjectName, lvs_model::VirtualService), Vec<Rejection>> {
    convert(object, None).map(|(name, resolution)| (name, resolution.service))
}

/// Converts a VirtualService of a cluster.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn resolved_service(
    object: &VirtualService,
    cluster: &KubeServices<'_>,
) -> Result<Resolution, Vec<Rejection>> {
    convert(object, Some(cluster)).map(|(_, resolution)| resolution)
}

fn convert(
    object: &VirtualService,
    cluster: Option<&KubeServices<'_>>,
) -> Result<(ObjectName, Resolution), Vec<Rejection>> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let identity = ObjectName::new(namespace, name);
    let mut findings = match &identity {
        Ok(name) => Findings::of(ObjectRef::VirtualService(name.clone())),
        Err(_) => Findings::of_unnamed(format!("VirtualService {namespace}/{name}")),
    };
    let identity = findings.take("metadata.name", identity);
    let service = service(object, cluster, &mut findings);
    match (findings.finish(), identity, service) {
        (Ok(()), Some(identity), Some(service)) => Ok((identity, service)),
        (rejections, _, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// Converts the spec part by part, so that an error in one part does not hide the errors in another.
fn service(
    object: &VirtualService,
    services: Option<&KubeServices<'_>>,
    findings: &mut Findings,
) -> Option<Resolution> {
    let spec = &object.spec;
    let group = findings.take("spec.directorGroup", spec.director_group.parse());
    let vips = frontend::vips(spec, findings);
    let frontend = frontend::frontend(spec, &vips, findings);
    let methods = forwarding::methods(spec, findings);
    let scheduler = scheduling::scheduler(spec, findings);
    let persistence = scheduling::persistence(spec, findings);
    scheduling::one_packet(spec, findings);
    let context = backend::Context {
        spec,
        vips: &vips,
        methods: methods.as_ref().unwrap_or(&forwarding::Methods::PLAIN),
        services,
    };
    let (real_servers, gaps) = backends::real_servers(&context, findings);
    let nat = forwarding::nat(spec, &vips, &real_servers, findings);
    let created = object.metadata.creation_timestamp.as_ref();
    let service = lvs_model::VirtualService {
        created: created.map(|time| time.0.as_second()),
        group: group?,
        frontend: frontend?,
        forwarding: methods?.of(spec.forwarding),
        nat,
        scheduler,
        persistence,
        one_packet: spec.one_packet,
        alone: false,
        previous: Vec::new(),
        real_servers,
    };
    Some(Resolution { service, gaps })
}

//! Objects of the API become the model's types, or a list of everything that is wrong with them.
//!
//! An object that converts can be programmed. The kernel silently accepts many specs that never carry a packet (a DR
//! real server with another port, a loopback VIP, a threshold of 2^31); they are refused here. Each rejection names
//! the field by its path. Claims between objects are decided in `lvs_model::Claims`.

mod address;
mod backends;
mod binding;
mod bound;
mod endpoint_slices;
mod findings;
mod forwarding;
mod frontend;
mod group;
mod node_view;
mod scheduling;

pub use binding::{director_binding, real_server_binding};
pub use bound::{Bound, BoundService};
pub use endpoint_slices::{ServiceEndpoints, service_endpoints};
pub use group::{director_group, pools_of};
pub use node_view::{NodeView, node_view};

use lvs_model::{ObjectName, ObjectRef, Rejection};

use crate::VirtualService;
use findings::Findings;

/// Converts a VirtualService. Without a namespace it is in `default`.
///
/// An empty list of real servers is legal: the VIP is served and refuses connections.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn virtual_service(
    object: &VirtualService,
) -> Result<(ObjectName, lvs_model::VirtualService), Vec<Rejection>> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let identity = ObjectName::new(namespace, name);
    let mut findings = match &identity {
        Ok(name) => Findings::of(ObjectRef::VirtualService(name.clone())),
        Err(_) => Findings::of_unnamed(format!("VirtualService {namespace}/{name}")),
    };
    let identity = findings.take("metadata.name", identity);
    let service = service(object, &mut findings);
    match (findings.finish(), identity, service) {
        (Ok(()), Some(identity), Some(service)) => Ok((identity, service)),
        (rejections, _, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// Converts the spec part by part, so that an error in one part does not hide the errors in another.
fn service(object: &VirtualService, findings: &mut Findings) -> Option<lvs_model::VirtualService> {
    let spec = &object.spec;
    let group = findings.take("spec.directorGroup", spec.director_group.parse());
    let vips = frontend::vips(spec, findings);
    let frontend = frontend::frontend(spec, &vips, findings);
    let forwarding = forwarding::forwarding(spec, findings);
    let scheduler = scheduling::scheduler(spec, findings);
    let persistence = scheduling::persistence(spec, findings);
    scheduling::one_packet(spec, findings);
    let context = backends::Context {
        spec,
        vips: &vips,
        forwarding: forwarding.unwrap_or_default(),
    };
    let real_servers = backends::real_servers(&context, findings);
    let nat = forwarding::nat(spec, &vips, &real_servers, findings);
    let created = object.metadata.creation_timestamp.as_ref();
    Some(lvs_model::VirtualService {
        created: created.map(|time| time.0.as_second()),
        group: group?,
        frontend: frontend?,
        forwarding: forwarding?,
        nat,
        scheduler,
        persistence,
        one_packet: spec.one_packet,
        real_servers,
    })
}

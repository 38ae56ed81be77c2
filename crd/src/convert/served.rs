//! RealServerBindings: the virtual services that a machine serves, and their versions from before.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use lvs_model::{PreviousVersion, Rejection, VirtualService, server_sets};

use super::binding::{ServerFields, convert, director_binding, plain_port};
use crate::{
    BoundServer, DirectorBindingSpec, PreviousServers, RealServerBinding, RealServerBindingSpec,
    VirtualServiceSpec,
};

/// Returns a previous version as a RealServerBinding has it.
#[must_use]
pub fn previous_servers(version: &PreviousVersion) -> PreviousServers {
    let PreviousVersion { service, since, .. } = version;
    let DirectorBindingSpec {
        addresses,
        ports,
        forwarding,
        tunnel,
        scheduler,
        real_servers,
        ..
    } = director_binding(service);
    let since = i64::try_from(*since).ok();
    let since = since.and_then(|since| Timestamp::from_second(since).ok());
    let servers = real_servers.into_iter();
    PreviousServers {
        since: Time(since.unwrap_or_default()),
        addresses,
        ports,
        forwarding,
        tunnel,
        scheduler,
        real_servers: servers
            .map(|server| BoundServer {
                upper_threshold: 0,
                lower_threshold: 0,
                service: None,
                ..server
            })
            .collect(),
    }
}

/// Returns the previous version that a RealServerBinding has; `None` if it has none, or a faulty one.
#[must_use]
pub fn previous_version(object: &RealServerBinding) -> Option<PreviousVersion> {
    let previous = object.spec.previous.as_ref()?;
    let service = previous_service(object, previous).ok()?;
    let since = previous.since.0.as_second().try_into().ok()?;
    Some(PreviousVersion {
        service: Arc::new(service),
        replaced: since,
        since,
    })
}

/// The group of the virtual services that a machine serves without directing them. It is not their own group, which the
/// machine may direct too.
const SERVED_GROUP: &str = "served.lvs-operator.io";

/// Converts a RealServerBinding. The virtual service is in a group that no machine directs for.
///
/// # Errors
/// Every violation, in the order of the fields.
pub(super) fn served_service(object: &RealServerBinding) -> Result<VirtualService, Vec<Rejection>> {
    let RealServerBindingSpec {
        node: _,
        virtual_service,
        addresses,
        fwmark,
        ports,
        forwarding,
        tunnel,
        nat,
        real_servers,
        previous,
    } = &object.spec;
    let header = VirtualServiceSpec {
        director_group: SERVED_GROUP.to_owned(),
        addresses: addresses.clone(),
        fwmark: *fwmark,
        ports: ports.iter().map(plain_port).collect(),
        forwarding: *forwarding,
        tunnel: tunnel.clone(),
        nat: nat.clone(),
        ..VirtualServiceSpec::default()
    };
    let servers = real_servers.iter().map(|server| ServerFields {
        address: &server.address,
        ports: &server.ports,
        forwarding: server.forwarding,
        numbers: [1, 0, 0],
        service: None,
    });
    let service = convert(&object.metadata, virtual_service, &header, servers)?;
    let previous = previous.as_ref();
    let previous = previous.map(|previous| previous_service(object, previous));
    Ok(VirtualService {
        previous: previous
            .transpose()?
            .as_ref()
            .map_or_else(Vec::new, server_sets),
        ..service
    })
}

/// Converts the previous version.
///
/// # Errors
/// Every violation, in the order of the fields.
fn previous_service(
    object: &RealServerBinding,
    previous: &PreviousServers,
) -> Result<VirtualService, Vec<Rejection>> {
    let PreviousServers {
        since: _,
        addresses,
        ports,
        forwarding,
        tunnel,
        scheduler,
        real_servers,
    } = previous;
    let header = VirtualServiceSpec {
        director_group: SERVED_GROUP.to_owned(),
        addresses: addresses.clone(),
        ports: ports.iter().map(plain_port).collect(),
        forwarding: *forwarding,
        tunnel: tunnel.clone(),
        scheduler: scheduler.clone(),
        ..VirtualServiceSpec::default()
    };
    let servers = real_servers.iter().map(ServerFields::of);
    let name = &object.spec.virtual_service;
    convert(&object.metadata, name, &header, servers).map_err(|rejections| {
        let rejections = rejections.into_iter().map(|rejection| Rejection {
            field: rejection.field.replacen("spec.", "spec.previous.", 1),
            ..rejection
        });
        rejections.collect()
    })
}

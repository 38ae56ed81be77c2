//! What the objects show a virtual service to hold: its bindings, and the grant in its status.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_crd::{DirectorBinding, DirectorBindingSpec, VirtualService};
use lvs_model::{Claim, Frontend, Port, Protocol, Stage};

/// What the director of a binding is given. It is held until the binding is gone, even if its virtual service, `object`, is
/// deleted.
pub(crate) fn held_by_binding<'a>(
    binding: &DirectorBinding,
    slices: impl Iterator<Item = &'a DirectorBinding>,
    object: Option<&VirtualService>,
) -> Option<Claim> {
    let spec = &binding.spec;
    let sliced = slices.flat_map(|slice| &slice.spec.real_servers);
    Some(Claim {
        created: object.and_then(|object| created(&object.metadata)),
        group: spec.director_group.parse().ok()?,
        frontend: frontend(spec)?,
        servers: spec
            .real_servers
            .iter()
            .chain(sliced)
            .filter_map(|server| server.address.parse().ok())
            .collect(),
        stage: Stage::Programmed,
        is_refused: false,
    })
}

/// What the status of a virtual service grants.
pub(crate) fn held_by_status(object: &VirtualService) -> Option<Claim> {
    let vips = granted_vips(object);
    if vips.is_empty() {
        return None;
    }
    Some(Claim {
        created: created(&object.metadata),
        group: object.spec.director_group.parse().ok()?,
        frontend: Frontend::Addresses {
            vips,
            ports: granted_ports(object),
        },
        servers: [].into(),
        stage: Stage::Asked,
        is_refused: false,
    })
}

/// Returns whether the VIPs and ports of a binding are granted in the status of its virtual service. A director is given them
/// only then, so that no restart of the controller can give them to another.
pub(crate) fn is_stored(object: &VirtualService, spec: &DirectorBindingSpec) -> bool {
    let Some(Frontend::Addresses { vips, ports }) = frontend(spec) else {
        return true;
    };
    let (granted_vips, granted_ports) = (granted_vips(object), granted_ports(object));
    vips.iter().all(|vip| granted_vips.contains(vip))
        && ports.iter().all(|port| {
            let mut granted = granted_ports.iter();
            granted.any(|other| other.protocol == port.protocol && other.port == port.port)
        })
}

/// When an object was made, in seconds since 1970.
pub(crate) fn created(metadata: &ObjectMeta) -> Option<i64> {
    let created = metadata.creation_timestamp.as_ref();
    created.map(|time| time.0.as_second())
}

fn frontend(spec: &DirectorBindingSpec) -> Option<Frontend> {
    if let Some(mark) = spec.fwmark {
        let mark = u32::try_from(mark).ok()?.try_into().ok()?;
        return Some(Frontend::Fwmark(mark));
    }
    let vips = spec.addresses.iter();
    let ports = spec.ports.iter();
    Some(Frontend::Addresses {
        vips: vips.filter_map(|vip| vip.parse().ok()).collect(),
        ports: ports
            .filter_map(|port| mk_port(port.protocol.into(), port.port))
            .collect(),
    })
}

fn granted_vips(object: &VirtualService) -> Vec<IpAddr> {
    let status = object.status.iter();
    let addresses = status.flat_map(|status| &status.addresses);
    addresses
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// The ports in a status, which has them as `80/TCP,53/UDP`.
fn granted_ports(object: &VirtualService) -> Vec<Port> {
    let status = object.status.iter();
    let texts = status.flat_map(|status| status.ports.split(','));
    let ports = texts.filter_map(|text| {
        let (port, protocol) = text.split_once('/')?;
        let protocol = lvs_crd::Protocol::ALL
            .iter()
            .find(|known| known.as_str() == protocol)?;
        mk_port((*protocol).into(), port.parse().ok()?)
    });
    ports.collect()
}

fn mk_port(protocol: Protocol, port: i64) -> Option<Port> {
    let port = u16::try_from(port).ok()?;
    Some(Port { protocol, port })
}

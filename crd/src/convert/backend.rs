//! What backends of both kinds, machines and Services, have in common.

use std::net::IpAddr;

use lvs_model::{Family, RealServer, Share};

use super::{findings::Findings, forwarding::Methods, kube_services::KubeServices};
use crate::{Backend, Forwarding, VirtualServiceSpec};

/// The field that lists the backends.
pub(super) const LIST: &str = "spec.backends";

/// What the real servers of a virtual service depend on besides their own fields.
pub(super) struct Context<'a> {
    /// The spec.
    pub(super) spec: &'a VirtualServiceSpec,
    /// The VIPs.
    pub(super) vips: &'a [IpAddr],
    /// The forwarding methods.
    pub(super) methods: &'a Methods,
    /// The Services of the cluster; `None` in files.
    pub(super) services: Option<&'a KubeServices<'a>>,
}

/// The real servers of one backend.
pub(super) struct Group {
    /// The share of each that takes new connections; the others have weight 0.
    pub(super) share: Share,
    /// The real servers, and whether they take new connections.
    pub(super) servers: Vec<(RealServer, bool)>,
}

/// Returns the weight of a backend.
pub(super) fn weight(i: usize, backend: &Backend, findings: &mut Findings) -> Option<u32> {
    let field = format_args!("{LIST}[{i}].weight");
    findings.number(field, backend.weight, 0..=65535)
}

/// Returns whether packets to one of the VIPs can be forwarded to an address of its family.
pub(super) fn is_carried(vips: &[IpAddr], method: Forwarding, address: IpAddr) -> bool {
    let family = Family::of(address);
    vips.is_empty()
        || method == Forwarding::Tun
        || vips.iter().any(|vip| Family::of(*vip) == family)
}

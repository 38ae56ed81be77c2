//! Converts the forwarding method and the return path.

use std::{collections::BTreeSet, net::IpAddr};

use lvs_model::{Family, RealServer, TunnelKind};

use super::{address::one_a_family, findings::Findings};
use crate::{
    Forwarding, Protocol, ReturnPath, Tunnel, TunnelChecksum, TunnelType, VirtualServiceSpec,
};

/// The forwarding methods of a virtual service, with the tunnel of TUN.
pub(super) struct Methods {
    tunnel: lvs_model::Tunnel,
}

impl Methods {
    /// The methods without a tunnel of their own.
    pub(super) const PLAIN: Self = Self {
        tunnel: lvs_model::Tunnel {
            kind: TunnelKind::Ipip,
            checksum: lvs_model::TunnelChecksum::None,
        },
    };

    /// Returns a method with its tunnel.
    pub(super) const fn of(&self, method: Forwarding) -> lvs_model::Forwarding {
        match method {
            Forwarding::Nat => lvs_model::Forwarding::Nat,
            Forwarding::Dr => lvs_model::Forwarding::Dr,
            Forwarding::Tun => lvs_model::Forwarding::Tun(self.tunnel),
        }
    }
}

/// Returns whether a spec, or one of its backends, has a forwarding method.
pub(super) fn uses(spec: &VirtualServiceSpec, method: Forwarding) -> bool {
    let mut backends = spec.backends.iter();
    spec.forwarding == method || backends.any(|backend| backend.forwarding == Some(method))
}

/// Reads the forwarding method of a spec with its tunnel.
pub(super) fn forwarding(
    spec: &VirtualServiceSpec,
    findings: &mut Findings,
) -> Option<lvs_model::Forwarding> {
    methods(spec, findings).map(|methods| methods.of(spec.forwarding))
}

/// Reads the tunnel.
pub(super) fn methods(spec: &VirtualServiceSpec, findings: &mut Findings) -> Option<Methods> {
    if spec.tunnel.is_some() && !uses(spec, Forwarding::Tun) {
        findings.refuse(
            "spec.tunnel",
            "must not be set unless `forwarding` of the spec or of a backend is 'TUN'",
        );
    }
    let tunnel = match &spec.tunnel {
        Some(tunnel) => self::tunnel(spec, tunnel, findings)?,
        None => return Some(Methods::PLAIN),
    };
    Some(Methods { tunnel })
}

fn tunnel(
    spec: &VirtualServiceSpec,
    tunnel: &Tunnel,
    findings: &mut Findings,
) -> Option<lvs_model::Tunnel> {
    match (tunnel.kind, tunnel.checksum) {
        (TunnelType::Ipip, TunnelChecksum::Outer | TunnelChecksum::Remote) => {
            findings.refuse(
                "spec.tunnel.checksum",
                "must be 'None' when `spec.tunnel.type` is 'IPIP'",
            );
        }
        (TunnelType::Gre, TunnelChecksum::Remote) => findings.refuse(
            "spec.tunnel.checksum",
            "must not be 'Remote' unless `spec.tunnel.type` is 'GUE'",
        ),
        (TunnelType::Gue, _)
        | (TunnelType::Gre, TunnelChecksum::None | TunnelChecksum::Outer)
        | (TunnelType::Ipip, TunnelChecksum::None) => {}
    }
    Some(lvs_model::Tunnel {
        kind: tunnel_kind(spec, tunnel, findings)?,
        checksum: tunnel.checksum.into(),
    })
}

fn tunnel_kind(
    spec: &VirtualServiceSpec,
    tunnel: &Tunnel,
    findings: &mut Findings,
) -> Option<TunnelKind> {
    let field = "spec.tunnel.port";
    let port = tunnel.port.map(|port| findings.port(field, port));
    if spec
        .ports
        .iter()
        .any(|port| port.protocol == Protocol::Udp && Some(port.port) == tunnel.port)
    {
        findings.refuse(field, "must not be a UDP port of the service");
    }
    match (tunnel.kind, port) {
        (TunnelType::Gue, Some(port)) => Some(TunnelKind::Gue { port: port? }),
        (TunnelType::Gue, None) => {
            findings.refuse(field, "must be set when `spec.tunnel.type` is 'GUE'");
            None
        }
        (TunnelType::Ipip | TunnelType::Gre, Some(_)) => {
            findings.refuse(field, "must not be set unless `spec.tunnel.type` is 'GUE'");
            None
        }
        (TunnelType::Ipip, None) => Some(TunnelKind::Ipip),
        (TunnelType::Gre, None) => Some(TunnelKind::Gre),
    }
}

/// Reads the return path of NAT replies.
///
/// `PolicyRoute` needs a gateway for each family of the VIPs: a real server knows the director's address from there
/// only.
pub(super) fn nat(
    spec: &VirtualServiceSpec,
    vips: &[IpAddr],
    real_servers: &[RealServer],
    findings: &mut Findings,
) -> lvs_model::Nat {
    let Some(nat) = &spec.nat else {
        return lvs_model::Nat::default();
    };
    if !uses(spec, Forwarding::Nat) {
        findings.refuse(
            "spec.nat",
            "must not be set unless `forwarding` of the spec or of a backend is 'NAT'",
        );
    }
    let list = "spec.nat.gateways";
    let gateways = one_a_family(findings, list, &nat.gateways, "");
    for gateway in &gateways {
        if vips.contains(gateway) {
            findings.refuse(list, format!("must not hold the VIP '{gateway}'"));
        }
        if real_servers.iter().any(|server| server.address == *gateway) {
            findings.refuse(
                list,
                format!("must not hold the backend's address '{gateway}'"),
            );
        }
    }
    if nat.return_path == ReturnPath::PolicyRoute {
        let served = vips
            .iter()
            .copied()
            .chain(real_servers.iter().map(|server| server.address));
        for family in served.map(Family::of).collect::<BTreeSet<_>>() {
            if !gateways
                .iter()
                .any(|gateway| Family::of(*gateway) == family)
            {
                let reason = format!("must hold the director's {family} address for 'PolicyRoute'");
                findings.refuse(list, reason);
            }
        }
    }
    lvs_model::Nat {
        return_path: nat.return_path.into(),
        gateways,
    }
}

impl From<TunnelChecksum> for lvs_model::TunnelChecksum {
    fn from(checksum: TunnelChecksum) -> Self {
        match checksum {
            TunnelChecksum::None => Self::None,
            TunnelChecksum::Outer => Self::Outer,
            TunnelChecksum::Remote => Self::Remote,
        }
    }
}

impl From<ReturnPath> for lvs_model::ReturnPath {
    fn from(path: ReturnPath) -> Self {
        match path {
            ReturnPath::DefaultGateway => Self::DefaultGateway,
            ReturnPath::PolicyRoute => Self::PolicyRoute,
            ReturnPath::Masquerade => Self::Masquerade,
        }
    }
}

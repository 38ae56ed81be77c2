//! The fields of a binding, written from the model's types.

use lvs_model::{PersistenceByFamily, RealServer, TunnelKind, VirtualService};

use crate::{
    Forwarding, Nat, Persistence, PersistenceEngine, Protocol, ReturnPath, Scheduler,
    SchedulerFlag, Tunnel, TunnelChecksum, TunnelType,
};

/// The ports of a real server; none if they are those of the VIPs.
pub(super) fn own_ports(service: &VirtualService, server: &RealServer) -> Vec<i64> {
    let ports = server.own_ports(&service.frontend).iter();
    ports.copied().map(i64::from).collect()
}

/// The forwarding method of a real server; `None` if it is that of the virtual service.
pub(super) fn own_forwarding(service: &VirtualService, server: &RealServer) -> Option<Forwarding> {
    (server.forwarding != service.forwarding).then(|| server.forwarding.into())
}

/// The tunnel of the forwarding methods in use; all that tunnel have the same.
pub(super) fn tunnel(service: &VirtualService) -> Option<Tunnel> {
    let servers = service.real_servers.iter().map(|server| server.forwarding);
    let mut methods = std::iter::once(service.forwarding).chain(servers);
    let tunnel = methods.find_map(|method| match method {
        lvs_model::Forwarding::Tun(tunnel) => Some(tunnel),
        lvs_model::Forwarding::Nat | lvs_model::Forwarding::Dr | lvs_model::Forwarding::Foreign => {
            None
        }
    })?;
    let (kind, port) = match tunnel.kind {
        TunnelKind::Ipip => (TunnelType::Ipip, None),
        TunnelKind::Gue { port } => (TunnelType::Gue, Some(port.into())),
        TunnelKind::Gre => (TunnelType::Gre, None),
    };
    let checksum = match tunnel.checksum {
        lvs_model::TunnelChecksum::None => TunnelChecksum::None,
        lvs_model::TunnelChecksum::Outer => TunnelChecksum::Outer,
        lvs_model::TunnelChecksum::Remote => TunnelChecksum::Remote,
    };
    Some(Tunnel {
        kind,
        port,
        checksum,
    })
}

/// How replies of NAT go back; `None` if nothing is set.
pub(super) fn nat(nat: &lvs_model::Nat) -> Option<Nat> {
    let return_path = match nat.return_path {
        lvs_model::ReturnPath::DefaultGateway => ReturnPath::DefaultGateway,
        lvs_model::ReturnPath::PolicyRoute => ReturnPath::PolicyRoute,
        lvs_model::ReturnPath::Masquerade => ReturnPath::Masquerade,
    };
    let is_set = *nat != lvs_model::Nat::default();
    is_set.then(|| Nat {
        return_path,
        gateways: nat.gateways.iter().map(ToString::to_string).collect(),
    })
}

/// The scheduler with its flags.
pub(super) fn scheduler(scheduler: &lvs_model::Scheduler) -> Scheduler {
    let flags = [SchedulerFlag::Fallback, SchedulerFlag::Port].into_iter();
    let name = scheduler.name.parse().unwrap_or_default();
    let is_set = |flag: &SchedulerFlag| {
        let bit = lvs_model::Scheduler::new(name, &[(*flag).into()]).flags;
        scheduler.flags & bit != 0
    };
    Scheduler {
        name,
        flags: flags.filter(is_set).collect(),
    }
}

/// The persistence.
pub(super) fn persistence(persistence: &PersistenceByFamily) -> Persistence {
    Persistence {
        timeout_seconds: persistence.v4.timeout_seconds.into(),
        ipv4_prefix_length: persistence.v4.prefix_length.into(),
        ipv6_prefix_length: persistence.v6.prefix_length.into(),
        engine: persistence
            .v4
            .engine
            .as_ref()
            .map(|_| PersistenceEngine::Sip),
    }
}

impl From<lvs_model::Forwarding> for Forwarding {
    fn from(forwarding: lvs_model::Forwarding) -> Self {
        match forwarding {
            lvs_model::Forwarding::Nat => Self::Nat,
            lvs_model::Forwarding::Dr | lvs_model::Forwarding::Foreign => Self::Dr,
            lvs_model::Forwarding::Tun(_) => Self::Tun,
        }
    }
}

impl From<lvs_model::Family> for crate::IpFamily {
    fn from(family: lvs_model::Family) -> Self {
        match family {
            lvs_model::Family::V4 => Self::V4,
            lvs_model::Family::V6 => Self::V6,
        }
    }
}

impl From<lvs_model::Protocol> for Protocol {
    fn from(protocol: lvs_model::Protocol) -> Self {
        match protocol {
            lvs_model::Protocol::Tcp => Self::Tcp,
            lvs_model::Protocol::Udp => Self::Udp,
            lvs_model::Protocol::Sctp => Self::Sctp,
        }
    }
}

//! Steps for the IPVS table.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::change::{Action, Change};
use crate::{
    DEFAULT_SYNC_GROUP, DEFAULT_SYNC_PORT, DEFAULT_SYNC_TTL, Destination, DestinationKey, Family,
    Forwarding, Persistence, Protocol, ServiceConfig, ServiceKey, SyncDaemon, SyncRole,
    SyncSettings, Target, Timeouts, TunnelChecksum, TunnelKind, default_sync_length,
};

/// A change of the IPVS table. The target of a step for a destination is its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpvsStep {
    /// Adds a service.
    AddService {
        /// The service.
        key: ServiceKey,
        /// Its settings.
        config: Box<ServiceConfig>,
    },
    /// Changes a service in place: connections and counters are kept.
    EditService {
        /// The service.
        key: ServiceKey,
        /// Its settings.
        config: Box<ServiceConfig>,
    },
    /// Removes a service with its destinations.
    RemoveService(ServiceKey),
    /// Adds a real server to a service.
    AddDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
        /// Its settings.
        destination: Destination,
    },
    /// Changes a real server in place: connections and counters are kept.
    EditDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
        /// Its settings.
        destination: Destination,
    },
    /// Removes a real server from a service.
    RemoveDestination {
        /// The service.
        service: ServiceKey,
        /// The real server.
        key: DestinationKey,
    },
    /// Sets the timeouts of connections.
    SetTimeouts {
        /// The timeouts to set.
        timeouts: Timeouts,
        /// The timeouts found before.
        previous: Option<Timeouts>,
    },
    /// Restores the timeouts found before.
    RestoreTimeouts(Timeouts),
    /// Starts a connection-sync daemon.
    StartDaemon {
        /// Which of the two.
        role: SyncRole,
        /// Its settings.
        daemon: Box<SyncDaemon>,
    },
    /// Stops a connection-sync daemon.
    StopDaemon(SyncRole),
}

impl Change for IpvsStep {
    fn target(&self) -> Target {
        match self {
            Self::AddService { key, .. }
            | Self::EditService { key, .. }
            | Self::RemoveService(key) => Target::Service(*key),
            Self::AddDestination { service, .. }
            | Self::EditDestination { service, .. }
            | Self::RemoveDestination { service, .. } => Target::Service(*service),
            Self::SetTimeouts { .. } | Self::RestoreTimeouts(_) => Target::Timeouts,
            Self::StartDaemon { role, .. } | Self::StopDaemon(role) => Target::SyncDaemon(*role),
        }
    }

    fn action(&self) -> Action {
        match self {
            Self::AddService { .. } | Self::StartDaemon { .. } => Action::Make,
            Self::EditService { .. }
            | Self::AddDestination { .. }
            | Self::EditDestination { .. }
            | Self::RemoveDestination { .. } => Action::Edit,
            Self::SetTimeouts { .. } => Action::Set,
            Self::RemoveService(_) | Self::RestoreTimeouts(_) | Self::StopDaemon(_) => {
                Action::Remove
            }
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::RestoreTimeouts(_) => Some("the value found before"),
            Self::StartDaemon {
                role: SyncRole::Master,
                ..
            } => Some("other directors learn the connections of this one"),
            Self::StartDaemon {
                role: SyncRole::Backup,
                ..
            } => Some("this director learns the connections of the others"),
            Self::AddService { .. }
            | Self::EditService { .. }
            | Self::RemoveService(_)
            | Self::AddDestination { .. }
            | Self::EditDestination { .. }
            | Self::RemoveDestination { .. }
            | Self::SetTimeouts { .. }
            | Self::StopDaemon(_) => None,
        }
    }
}

impl fmt::Display for IpvsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService { key, config } => write_service(f, "-A", key, config),
            Self::EditService { key, config } => write_service(f, "-E", key, config),
            Self::RemoveService(key) => write!(f, "ipvsadm -D {}", ServiceArgs(key)),
            Self::AddDestination {
                service,
                key,
                destination,
            } => {
                write!(f, "ipvsadm -a {} -r {key}", ServiceArgs(service))?;
                write_destination(f, destination)
            }
            Self::EditDestination {
                service,
                key,
                destination,
            } => {
                write!(f, "ipvsadm -e {} -r {key}", ServiceArgs(service))?;
                write_destination(f, destination)
            }
            Self::RemoveDestination { service, key } => {
                write!(f, "ipvsadm -d {} -r {key}", ServiceArgs(service))
            }
            Self::SetTimeouts { timeouts, .. } | Self::RestoreTimeouts(timeouts) => {
                write_timeouts(f, *timeouts)
            }
            Self::StartDaemon { role, daemon } => write_daemon(f, *role, daemon),
            Self::StopDaemon(role) => write!(f, "ipvsadm --stop-daemon {role}"),
        }
    }
}

fn write_timeouts(f: &mut fmt::Formatter<'_>, timeouts: Timeouts) -> fmt::Result {
    let Timeouts {
        tcp_seconds,
        tcp_fin_seconds,
        udp_seconds,
    } = timeouts;
    write!(
        f,
        "ipvsadm --set {tcp_seconds} {tcp_fin_seconds} {udp_seconds}"
    )
}

fn write_daemon(f: &mut fmt::Formatter<'_>, role: SyncRole, daemon: &SyncDaemon) -> fmt::Result {
    let SyncDaemon {
        interface,
        settings:
            SyncSettings {
                sync_id,
                max_length,
                group,
                port,
                ttl,
            },
    } = daemon;
    write!(
        f,
        "ipvsadm --start-daemon {role} --mcast-interface {interface} --syncid {sync_id}"
    )?;
    if *max_length != default_sync_length(*group) {
        write!(f, " --sync-maxlen {max_length}")?;
    }
    if *group != DEFAULT_SYNC_GROUP {
        write!(f, " --mcast-group {group}")?;
    }
    if *port != DEFAULT_SYNC_PORT {
        write!(f, " --mcast-port {port}")?;
    }
    if *ttl != DEFAULT_SYNC_TTL {
        write!(f, " --mcast-ttl {ttl}")?;
    }
    Ok(())
}

struct ServiceArgs<'a>(&'a ServiceKey);

impl fmt::Display for ServiceArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ServiceKey::Address {
                address,
                protocol,
                port,
            } => {
                let flag = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                write!(f, "{flag} {}", SocketAddr::new(*address, *port))
            }
            ServiceKey::Fwmark {
                mark,
                family: Family::V4,
            } => write!(f, "-f {mark}"),
            ServiceKey::Fwmark {
                mark,
                family: Family::V6,
            } => write!(f, "-f {mark} -6"),
        }
    }
}

fn write_service(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    key: &ServiceKey,
    config: &ServiceConfig,
) -> fmt::Result {
    let ServiceConfig {
        scheduler,
        persistence,
        one_packet,
    } = config;
    write!(
        f,
        "ipvsadm {verb} {} -s {}",
        ServiceArgs(key),
        scheduler.name
    )?;
    let flags: Vec<String> = (0..3)
        .filter(|bit| scheduler.flags & (1 << bit) != 0)
        .map(|bit| flag_name(&scheduler.name, bit))
        .collect();
    if !flags.is_empty() {
        write!(f, " -b {}", flags.join(","))?;
    }
    if let Some(persistence) = persistence {
        write_persistence(f, key.family(), persistence)?;
    }
    if *one_packet {
        f.write_str(" -o")?;
    }
    Ok(())
}

/// Returns the name of a scheduler flag in ipvsadm(8). Only the flags of `sh` and `mh` have names; others are numbered.
fn flag_name(scheduler: &str, bit: u8) -> String {
    match (scheduler, bit) {
        ("sh" | "mh", 0) => format!("{scheduler}-fallback"),
        ("sh" | "mh", 1) => format!("{scheduler}-port"),
        _ => format!("flag-{}", bit + 1),
    }
}

fn write_persistence(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    persistence: &Persistence,
) -> fmt::Result {
    let Persistence {
        timeout_seconds,
        prefix_length,
        engine,
    } = persistence;
    write!(f, " -p {timeout_seconds}")?;
    match family {
        _ if *prefix_length == family.host_prefix() => {}
        Family::V4 => match ipnet::Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, *prefix_length) {
            Ok(net) => write!(f, " -M {}", net.netmask())?,
            Err(_) => write!(f, " -M {prefix_length}")?,
        },
        Family::V6 => write!(f, " -M {prefix_length}")?,
    }
    match engine {
        Some(engine) => write!(f, " --pe {engine}"),
        None => Ok(()),
    }
}

fn write_destination(f: &mut fmt::Formatter<'_>, destination: &Destination) -> fmt::Result {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = destination;
    match forwarding {
        Forwarding::Nat => f.write_str(" -m")?,
        Forwarding::Dr => f.write_str(" -g")?,
        Forwarding::Tun(tunnel) => {
            f.write_str(" -i")?;
            match tunnel.kind {
                TunnelKind::Ipip => {}
                TunnelKind::Gue { port } => write!(f, " --tun-type gue --tun-port {port}")?,
                TunnelKind::Gre => f.write_str(" --tun-type gre")?,
            }
            match (tunnel.kind, tunnel.checksum) {
                (TunnelKind::Ipip, _) => {}
                (_, TunnelChecksum::None) => f.write_str(" --tun-nocsum")?,
                (_, TunnelChecksum::Outer) => f.write_str(" --tun-csum")?,
                (_, TunnelChecksum::Remote) => f.write_str(" --tun-remcsum")?,
            }
        }
        Forwarding::Foreign => {}
    }
    write!(f, " -w {weight}")?;
    if *upper_threshold > 0 {
        write!(f, " -x {upper_threshold}")?;
    }
    if *lower_threshold > 0 {
        write!(f, " -y {lower_threshold}")?;
    }
    Ok(())
}

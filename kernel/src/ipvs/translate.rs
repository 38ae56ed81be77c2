//! Converts between the model's types and those of ipvs-netlink.

use std::borrow::Cow;

use ipvs_netlink as wire;
use lvs_model::{
    DEFAULT_SYNC_GROUP, DEFAULT_SYNC_PORT, DEFAULT_SYNC_TTL, Destination, DestinationKey, Family,
    Forwarding, IpvsStep, Persistence, Protocol, Scheduler, SchedulerName, Service, ServiceConfig,
    ServiceKey, SyncDaemon, SyncRole, SyncSettings, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
    default_sync_length,
};

/// Returns the request for an IPVS step.
pub(super) fn request(step: &IpvsStep) -> Result<wire::Request, String> {
    let request = match step {
        IpvsStep::AddService { key, config } => wire::Request::CreateService {
            key: to_service_key(key),
            config: to_config(config)?,
        },
        IpvsStep::EditService { key, config } => wire::Request::UpdateService {
            key: to_service_key(key),
            config: to_config(config)?,
        },
        IpvsStep::RemoveService(key) => wire::Request::DeleteService {
            key: to_service_key(key),
        },
        IpvsStep::AddDestination {
            service,
            key,
            destination,
        } => wire::Request::CreateDestination {
            service: to_service_key(service),
            key: to_destination_key(*key),
            config: to_destination(destination)?,
        },
        IpvsStep::EditDestination {
            service,
            key,
            destination,
        } => wire::Request::UpdateDestination {
            service: to_service_key(service),
            key: to_destination_key(*key),
            config: to_destination(destination)?,
        },
        IpvsStep::RemoveDestination { service, key } => wire::Request::DeleteDestination {
            service: to_service_key(service),
            key: to_destination_key(*key),
        },
        IpvsStep::SetTimeouts { timeouts, .. } | IpvsStep::RestoreTimeouts(timeouts) => {
            wire::Request::SetTimeouts(wire::Timeouts {
                tcp_seconds: timeouts.tcp_seconds,
                tcp_fin_seconds: timeouts.tcp_fin_seconds,
                udp_seconds: timeouts.udp_seconds,
            })
        }
        IpvsStep::StartDaemon { role, daemon } => {
            wire::Request::StartDaemon(to_daemon(*role, daemon)?)
        }
        IpvsStep::StopDaemon(role) => wire::Request::StopDaemon(to_daemon_state(*role)),
    };
    Ok(request)
}

fn to_daemon(role: SyncRole, daemon: &SyncDaemon) -> Result<wire::Daemon, String> {
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
    let interface = name(interface.as_str())?;
    Ok(wire::Daemon {
        max_length: Some(*max_length),
        group: Some(*group),
        port: Some(*port),
        ttl: Some(*ttl),
        ..wire::Daemon::new(to_daemon_state(role), interface, (*sync_id).into())
    })
}

const fn to_daemon_state(role: SyncRole) -> wire::DaemonState {
    match role {
        SyncRole::Master => wire::DaemonState::Master,
        SyncRole::Backup => wire::DaemonState::Backup,
    }
}

/// Returns the model's daemon. `None` if its interface or its number is none that the model has.
pub(super) fn daemon(daemon: &wire::Daemon) -> Option<(SyncRole, SyncDaemon)> {
    let wire::Daemon {
        state,
        interface,
        sync_id,
        max_length,
        group,
        port,
        ttl,
    } = daemon;
    let role = match state {
        wire::DaemonState::Master => SyncRole::Master,
        wire::DaemonState::Backup => SyncRole::Backup,
    };
    let group = group.unwrap_or(DEFAULT_SYNC_GROUP);
    let settings = SyncSettings {
        sync_id: (*sync_id).try_into().ok()?,
        max_length: max_length.unwrap_or(default_sync_length(group)),
        group,
        port: port.unwrap_or(DEFAULT_SYNC_PORT),
        ttl: ttl.unwrap_or(DEFAULT_SYNC_TTL),
    };
    let interface = interface.to_string().parse().ok()?;
    Some((
        role,
        SyncDaemon {
            interface,
            settings,
        },
    ))
}

pub(super) const fn timeouts(timeouts: wire::Timeouts) -> Timeouts {
    let wire::Timeouts {
        tcp_seconds,
        tcp_fin_seconds,
        udp_seconds,
    } = timeouts;
    Timeouts {
        tcp_seconds,
        tcp_fin_seconds,
        udp_seconds,
    }
}

pub(super) const fn to_service_key(key: &ServiceKey) -> wire::ServiceKey {
    match *key {
        ServiceKey::Address {
            address,
            protocol,
            port,
        } => {
            let protocol = match protocol {
                Protocol::Tcp => wire::Protocol::Tcp,
                Protocol::Udp => wire::Protocol::Udp,
                Protocol::Sctp => wire::Protocol::Sctp,
            };
            wire::ServiceKey::Address {
                protocol,
                address,
                port,
            }
        }
        ServiceKey::Fwmark { mark, family } => {
            let family = match family {
                Family::V4 => wire::Family::V4,
                Family::V6 => wire::Family::V6,
            };
            wire::ServiceKey::Fwmark { mark, family }
        }
    }
}

/// Returns the model's key of a service. `None` for a protocol that the model does not have.
pub(super) const fn service_key(key: &wire::ServiceKey) -> Option<ServiceKey> {
    match *key {
        wire::ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let protocol = match protocol {
                wire::Protocol::Tcp => Protocol::Tcp,
                wire::Protocol::Udp => Protocol::Udp,
                wire::Protocol::Sctp => Protocol::Sctp,
                wire::Protocol::Other(_) => return None,
            };
            Some(ServiceKey::Address {
                address,
                protocol,
                port,
            })
        }
        wire::ServiceKey::Fwmark { mark, family } => {
            let family = match family {
                wire::Family::V4 => Family::V4,
                wire::Family::V6 => Family::V6,
            };
            Some(ServiceKey::Fwmark { mark, family })
        }
    }
}

fn to_config(config: &ServiceConfig) -> Result<wire::ServiceConfig, String> {
    let ServiceConfig {
        scheduler,
        persistence,
        one_packet,
    } = config;
    let bits = [
        wire::SchedulerFlags::SCHED_1,
        wire::SchedulerFlags::SCHED_2,
        wire::SchedulerFlags::SCHED_3,
    ];
    let flags = bits
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| scheduler.flags & (1 << bit) != 0)
        .fold(wire::SchedulerFlags::NONE, |flags, (_, flag)| flags | flag);
    let persistence = persistence.as_ref().map(to_persistence).transpose()?;
    Ok(wire::ServiceConfig {
        scheduler: name(&scheduler.name)?,
        flags,
        one_packet: *one_packet,
        persistence,
    })
}

fn to_persistence(persistence: &Persistence) -> Result<wire::Persistence, String> {
    let Persistence {
        timeout_seconds,
        prefix_length,
        engine,
    } = persistence;
    Ok(wire::Persistence {
        timeout_seconds: *timeout_seconds,
        granularity: wire::Granularity::Prefix(*prefix_length),
        engine: engine.as_deref().map(name).transpose()?,
    })
}

fn name(text: &str) -> Result<wire::Name, String> {
    wire::Name::new(text).map_err(|error| format!("'{text}': {error}"))
}

/// Converts a service of the kernel with its destinations.
pub(super) fn service(config: &wire::ServiceConfig, destinations: &[wire::Destination]) -> Service {
    let destinations = destinations
        .iter()
        .map(|found| {
            let key = DestinationKey {
                address: found.key.address,
                port: found.key.port,
            };
            (key, destination(&found.config))
        })
        .collect();
    Service {
        config: from_config(config),
        destinations,
        ..Service::default()
    }
}

/// Returns a scheduler's name, without an allocation for those of the model.
fn scheduler_name(name: &str) -> Cow<'static, str> {
    name.parse::<SchedulerName>().map_or_else(
        |_unknown| Cow::Owned(name.to_owned()),
        |known| Cow::Borrowed(known.as_str()),
    )
}

fn from_config(config: &wire::ServiceConfig) -> ServiceConfig {
    let wire::ServiceConfig {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = config;
    let bits = [
        wire::SchedulerFlags::SCHED_1,
        wire::SchedulerFlags::SCHED_2,
        wire::SchedulerFlags::SCHED_3,
    ];
    let flags = bits
        .into_iter()
        .enumerate()
        .filter(|(_, flag)| flags.contains(*flag))
        .fold(0, |all, (bit, _)| all | 1 << bit);
    let persistence = persistence.as_ref().map(|found| Persistence {
        timeout_seconds: found.timeout_seconds,
        // Only a foreign service has a netmask with gaps. 0 is never a desired prefix length.
        prefix_length: found.granularity.prefix_length().unwrap_or(0),
        engine: found.engine.map(|engine| engine.as_str().to_owned()),
    });
    let scheduler = Scheduler {
        name: scheduler_name(scheduler.as_str()),
        flags,
    };
    ServiceConfig {
        scheduler,
        persistence,
        one_packet: *one_packet,
    }
}

const fn to_destination_key(key: DestinationKey) -> wire::DestinationKey {
    wire::DestinationKey {
        address: key.address,
        port: key.port,
    }
}

fn to_destination(destination: &Destination) -> Result<wire::DestinationConfig, String> {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = *destination;
    let forwarding = match forwarding {
        Forwarding::Nat => wire::Forwarding::Masquerade,
        Forwarding::Dr => wire::Forwarding::Route,
        Forwarding::Tun(tunnel) => wire::Forwarding::Tunnel(to_tunnel(tunnel)),
        Forwarding::Foreign => {
            return Err("lvs-agent never sets its forwarding method".to_owned());
        }
    };
    Ok(wire::DestinationConfig {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    })
}

const fn to_tunnel(tunnel: Tunnel) -> wire::Tunnel {
    let kind = match tunnel.kind {
        TunnelKind::Ipip => wire::TunnelKind::Ipip,
        TunnelKind::Gue { port } => wire::TunnelKind::Gue { port },
        TunnelKind::Gre => wire::TunnelKind::Gre,
    };
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => wire::TunnelChecksum::None,
        TunnelChecksum::Outer => wire::TunnelChecksum::Checksum,
        TunnelChecksum::Remote => wire::TunnelChecksum::Remote,
    };
    wire::Tunnel { kind, checksum }
}

fn destination(config: &wire::DestinationConfig) -> Destination {
    let wire::DestinationConfig {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = *config;
    let forwarding = match forwarding {
        wire::Forwarding::Masquerade => Forwarding::Nat,
        wire::Forwarding::Route => Forwarding::Dr,
        wire::Forwarding::Tunnel(tunnel) => {
            tunnel_of(tunnel).map_or(Forwarding::Foreign, Forwarding::Tun)
        }
        wire::Forwarding::Local | wire::Forwarding::Bypass | wire::Forwarding::Other(_) => {
            Forwarding::Foreign
        }
    };
    Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    }
}

const fn tunnel_of(tunnel: wire::Tunnel) -> Option<Tunnel> {
    let kind = match tunnel.kind {
        wire::TunnelKind::Ipip => TunnelKind::Ipip,
        wire::TunnelKind::Gue { port } => TunnelKind::Gue { port },
        wire::TunnelKind::Gre => TunnelKind::Gre,
        wire::TunnelKind::Other { .. } => return None,
    };
    let checksum = match tunnel.checksum {
        wire::TunnelChecksum::None => TunnelChecksum::None,
        wire::TunnelChecksum::Checksum => TunnelChecksum::Outer,
        wire::TunnelChecksum::Remote => TunnelChecksum::Remote,
        wire::TunnelChecksum::Other(_) => return None,
    };
    Some(Tunnel { kind, checksum })
}

//! Steps as the commands that an administrator would type.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::Step;
use crate::{
    AddressConfig, AddressKey, Destination, Family, Forwarding, FouPort, LinkKind, Masquerade,
    Persistence, PolicyRule, Protocol, Route, RuleSelector, ServiceConfig, ServiceKey, Timeouts,
    TunnelChecksum, TunnelKind,
};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl { sysctl, value, .. } | Self::RestoreSysctl { sysctl, value } => {
                write!(f, "sysctl -w {sysctl}={value}")
            }
            Self::AddFouPort(port) => write!(
                f,
                "ip{} fou add port {} gue",
                dash_six(port.family),
                port.port
            ),
            Self::RemoveFouPort(FouPort { family, port }) => {
                write!(f, "ip{} fou del port {port}", dash_six(*family))
            }
            Self::AddLink { name, kind } => {
                write!(f, "ip link add {name} type {}", kind.as_str())?;
                if let Some(local) = kind.local() {
                    write!(f, " local {local}")?;
                }
                if matches!(kind, LinkKind::Ip6Tnl { .. }) {
                    f.write_str(" mode any")?;
                }
                write!(f, " && ip link set {name} up")
            }
            Self::SetLinkUp(name) => write!(f, "ip link set {name} up"),
            Self::RemoveLink(name) => write!(f, "ip link del {name}"),
            Self::AddAddress { key, config, .. } => write_add_address(f, key, *config),
            Self::EditAddress { key, config } => {
                let lifetime = if config.deprecated { "0" } else { "forever" };
                write!(f, "ip addr change {key} preferred_lft {lifetime}")
            }
            Self::RemoveAddress(key) => write!(f, "ip addr del {key}"),
            Self::AddRoute(route) => write_route(f, "add", route),
            Self::RemoveRoute(route) => write_route(f, "del", route),
            Self::AddRule(rule) => write_rule(f, "add", rule),
            Self::RemoveRule(rule) => write_rule(f, "del", rule),
            Self::SetMasquerade(masquerade) => write_masquerade(f, masquerade),
            Self::RemoveMasquerade => f.write_str("nft delete table inet lvs-operator"),
            Self::SetTimeouts { timeouts, .. } | Self::RestoreTimeouts(timeouts) => {
                write_timeouts(f, *timeouts)
            }
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
        }
    }
}

const fn dash_six(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => " -6",
    }
}

fn write_add_address(
    f: &mut fmt::Formatter<'_>,
    key: &AddressKey,
    config: AddressConfig,
) -> fmt::Result {
    write!(f, "ip addr add {key}")?;
    if config.deprecated {
        f.write_str(" preferred_lft 0")?;
    }
    match key.address {
        IpAddr::V4(_) if key.interface.as_str() == "lo" => f.write_str(" scope host"),
        IpAddr::V4(address) if address.is_link_local() => f.write_str(" scope link"),
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(_) => f.write_str(" nodad"),
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, verb: &str, route: &Route) -> fmt::Result {
    let six = dash_six(route.family());
    match route {
        Route::Default {
            table,
            gateway,
            interface,
        } => {
            write!(
                f,
                "ip{six} route {verb} default via {gateway} dev {interface} table {table}"
            )
        }
        Route::Local { table, .. } => {
            write!(f, "ip{six} route {verb} local default dev lo table {table}")
        }
    }
}

fn write_rule(f: &mut fmt::Formatter<'_>, verb: &str, rule: &PolicyRule) -> fmt::Result {
    write!(
        f,
        "ip{} rule {verb} pref {} ",
        dash_six(rule.family()),
        PolicyRule::PRIORITY
    )?;
    match rule.selector {
        RuleSelector::Replies {
            source,
            protocol,
            port,
        } => {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            write!(f, "from {source} ipproto {protocol} sport {port}")?;
        }
        RuleSelector::Fwmark { mark, .. } => write!(f, "fwmark {mark}")?,
    }
    write!(f, " lookup {}", rule.table)
}

fn write_masquerade(f: &mut fmt::Formatter<'_>, masquerade: &Masquerade) -> fmt::Result {
    f.write_str("nft add table inet lvs-operator # postrouting masquerades")?;
    for (index, service) in masquerade.services.iter().enumerate() {
        write!(f, "{} {service}", if index == 0 { "" } else { "," })?;
    }
    Ok(())
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

/// The names that ipvsadm(8) has for the flags of `sh` and `mh`; others have a number only.
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

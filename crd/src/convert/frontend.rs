//! VIPs and ports, or a firewall mark.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32};

use lvs_model::{Frontend, Protocol, RESERVED_MARKS};

use super::{address::one_a_family, findings::Findings, forwarding::uses};
use crate::{Forwarding, Port, VirtualServiceSpec};

const MAX_PORTS: usize = 64;

/// How to serve more ports than a list can hold.
const BY_MARK: &str = "a range of ports, or all of them, is served by `fwmark`";

/// Reads the VIPs.
pub(super) fn vips(spec: &VirtualServiceSpec, findings: &mut Findings) -> Vec<IpAddr> {
    match (spec.fwmark, spec.addresses.is_empty()) {
        (Some(_), false) => {
            findings.refuse(
                "spec.addresses",
                "must not be set together with `spec.fwmark`",
            );
        }
        (None, true) => {
            findings.refuse(
                "spec.addresses",
                "must hold a VIP, or `spec.fwmark` must be set",
            );
        }
        (Some(_), true) | (None, false) => {}
    }
    refuse_allocation(spec, findings);
    let hint = "; write an object for each";
    one_a_family(findings, "spec.addresses", &spec.addresses, hint)
}

/// Refuses what asks for an allocated VIP if the spec has addresses or a mark.
fn refuse_allocation(spec: &VirtualServiceSpec, findings: &mut Findings) {
    let other = match (spec.fwmark, spec.addresses.is_empty()) {
        (Some(_), _) => "spec.fwmark",
        (None, false) => "spec.addresses",
        (None, true) => return,
    };
    let fields = [
        ("spec.addressPool", spec.address_pool.is_some()),
        ("spec.ipFamilies", spec.ip_families.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, is_set)| *is_set) {
        findings.refuse(field, format!("must not be set together with `{other}`"));
    }
}

/// Reads the mark, or the ports of the VIPs.
pub(super) fn frontend(
    spec: &VirtualServiceSpec,
    vips: &[IpAddr],
    findings: &mut Findings,
) -> Option<Frontend> {
    let mark = spec.fwmark.map(|mark| self::mark(mark, findings));
    let ports = ports(spec, findings);
    match mark {
        Some(mark) => {
            if !spec.ports.is_empty() {
                findings.refuse("spec.ports", "must not be set together with `spec.fwmark`");
            }
            mark.map(Frontend::Fwmark)
        }
        None => Some(Frontend::Addresses {
            vips: vips.to_vec(),
            ports,
        }),
    }
}

fn mark(mark: i64, findings: &mut Findings) -> Option<NonZeroU32> {
    let field = "spec.fwmark";
    let mark: u32 = findings.number(field, mark, 1..=i64::from(u32::MAX))?;
    if RESERVED_MARKS.contains(&mark) {
        let (first, last) = (RESERVED_MARKS.start(), RESERVED_MARKS.end());
        let reason = format!(
            "must not be between {first} and {last}, not '{mark}': lvs-operator sets these marks itself"
        );
        findings.refuse(field, reason);
    }
    NonZeroU32::new(mark)
}

fn ports(spec: &VirtualServiceSpec, findings: &mut Findings) -> Vec<lvs_model::Port> {
    let count = spec.ports.len();
    if count == 0 && spec.fwmark.is_none() {
        findings.refuse(
            "spec.ports",
            "must hold a port, or `spec.fwmark` must be set",
        );
    }
    if count > MAX_PORTS {
        findings.refuse(
            "spec.ports",
            format!("must not hold more than {MAX_PORTS} ports, not '{count}': {BY_MARK}"),
        );
        return Vec::new();
    }
    refuse_repetition(&spec.ports, findings);
    spec.ports
        .iter()
        .enumerate()
        .filter_map(|(i, port)| self::port(spec, i, port, findings))
        .collect()
}

fn port(
    spec: &VirtualServiceSpec,
    i: usize,
    port: &Port,
    findings: &mut Findings,
) -> Option<lvs_model::Port> {
    if let Some(name) = port.name.as_deref().filter(|name| !is_dns_label(name)) {
        let reason = format!("must be a DNS label of at most 63 characters, not '{name}'");
        findings.refuse(format_args!("spec.ports[{i}].name"), reason);
    }
    let number = number(i, port.port, findings);
    if let Some(target) = port.target_port.filter(|target| *target != port.port) {
        check_target(spec, i, port, target, findings);
    }
    Some(lvs_model::Port {
        protocol: port.protocol.into(),
        port: number?,
    })
}

fn number(i: usize, port: i64, findings: &mut Findings) -> Option<u16> {
    let field = format_args!("spec.ports[{i}].port");
    if port == 0 {
        findings.refuse(
            field,
            format!("must be between 1 and 65535, not '0': {BY_MARK}"),
        );
        return None;
    }
    findings.port(field, port)
}

fn check_target(
    spec: &VirtualServiceSpec,
    i: usize,
    port: &Port,
    target: i64,
    findings: &mut Findings,
) {
    findings.port(format_args!("spec.ports[{i}].targetPort"), target);
    if !uses(spec, Forwarding::Nat) {
        let reason = format!(
            "must not differ from the port '{}': only NAT changes the port",
            port.port
        );
        findings.refuse(format_args!("spec.ports[{i}].targetPort"), reason);
    }
}

/// Refuses the protocol and port, or the name, of an earlier port.
fn refuse_repetition(ports: &[Port], findings: &mut Findings) {
    let mut keys = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = Protocol::from(port.protocol);
        if let Some(first) = keys.get(&(protocol, port.port)) {
            let reason = format!(
                "must not repeat {protocol} port '{}' of `spec.ports[{first}]`",
                port.port
            );
            findings.refuse(format_args!("spec.ports[{i}].port"), reason);
        } else {
            keys.insert((protocol, port.port), i);
        }
        let Some(name) = port.name.as_deref() else {
            continue;
        };
        if let Some(first) = names.get(name) {
            let reason = format!("must not repeat the name '{name}' of `spec.ports[{first}]`");
            findings.refuse(format_args!("spec.ports[{i}].name"), reason);
        } else {
            names.insert(name, i);
        }
    }
}

fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl From<crate::IpFamily> for lvs_model::Family {
    fn from(family: crate::IpFamily) -> Self {
        match family {
            crate::IpFamily::V4 => Self::V4,
            crate::IpFamily::V6 => Self::V6,
        }
    }
}

impl From<crate::Protocol> for Protocol {
    fn from(protocol: crate::Protocol) -> Self {
        match protocol {
            crate::Protocol::Tcp => Self::Tcp,
            crate::Protocol::Udp => Self::Udp,
            crate::Protocol::Sctp => Self::Sctp,
        }
    }
}

//! Reads addresses in their canonical spelling.

use std::{fmt, net::IpAddr};

use lvs_model::{Family, is_usable_unicast};

use super::findings::Findings;

/// Reads an address that a VIP, a gateway or a real server can have.
///
/// Only the canonical spelling is accepted, since `010.0.0.1` is 8.0.0.1 to some programs and two spellings of
/// one address would look like two.
pub(super) fn address(
    findings: &mut Findings,
    field: fmt::Arguments<'_>,
    text: &str,
) -> Option<IpAddr> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let (plain, hint) = if is_name(text) {
            ("", ": names are not resolved")
        } else {
            (plain(text), "")
        };
        findings.refuse(
            field,
            format!("must be an IPv4 or IPv6 address{plain}, not '{text}'{hint}"),
        );
        return None;
    };
    if !is_canonical(address, text) {
        findings.refuse(field, format!("must be written '{address}', not '{text}'"));
        return None;
    }
    if !is_usable_unicast(address) {
        let kind = unusable_kind(address);
        findings.refuse(
            field,
            format!("must be the unicast address of a host, not the {kind} '{text}'"),
        );
        return None;
    }
    Some(address)
}

/// Reads a list with at most one address of each family. `hint` says what to write instead of a second one.
pub(super) fn one_a_family(
    findings: &mut Findings,
    list: &str,
    texts: &[String],
    hint: &str,
) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let Some(address) = address(findings, format_args!("{list}[{i}]"), text) else {
            continue;
        };
        let family = Family::of(address);
        match addresses.iter().find(|other| Family::of(**other) == family) {
            Some(other) => findings.refuse(
                format_args!("{list}[{i}]"),
                format!(
                    "must not be a second {family} address: '{address}' beside '{other}'{hint}"
                ),
            ),
            None => addresses.push(address),
        }
    }
    addresses
}

/// Returns whether a text looks like the name of a host.
fn is_name(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains([':', '%', '/'])
}

/// Returns what to leave out of a text that is nearly an address.
fn plain(text: &str) -> &'static str {
    if text.contains(['%', '/']) {
        " without zone or prefix length"
    } else if text.split('.').all(|part| part.parse::<u8>().is_ok()) {
        " without leading zeros"
    } else {
        ""
    }
}

/// Returns whether an address has its canonical spelling. Only IPv6 needs the comparison: an IPv4 address that
/// parses has one spelling.
fn is_canonical(address: IpAddr, text: &str) -> bool {
    address.is_ipv4() || address.to_string() == text
}

fn unusable_kind(address: IpAddr) -> &'static str {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        "unspecified address"
    } else if address.is_loopback() {
        "loopback address"
    } else if address.is_multicast() {
        "multicast address"
    } else if link_local {
        "link-local address"
    } else if address.is_ipv6() {
        "IPv4-mapped address"
    } else {
        "reserved address"
    }
}

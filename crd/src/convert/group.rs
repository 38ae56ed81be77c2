//! Director groups.

use std::{collections::BTreeSet, str::FromStr};

use lvs_model::{GroupName, NodeName, Rejection};

use super::findings::Findings;
use crate::{DirectorGroup, Timeouts};

/// The kernel multiplies by HZ, up to 1000, in 31 bits.
const MAX_TIMEOUT_SECONDS: i64 = 2_147_483;

/// Converts a DirectorGroup.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn director_group(
    object: &DirectorGroup,
) -> Result<(GroupName, lvs_model::DirectorGroup), Vec<Rejection>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut findings = Findings::of(format!("DirectorGroup {name}"));
    let identity = findings.take("metadata.name", GroupName::from_str(name));
    let nodes = nodes(&object.spec.nodes.names, &mut findings);
    let interface = object.spec.interface.as_deref();
    let interface = interface.map(|name| findings.take("spec.interface", name.parse()));
    let timeouts = object
        .spec
        .timeouts
        .as_ref()
        .map(|timeouts| self::timeouts(timeouts, &mut findings));
    match (findings.finish(), identity) {
        (Ok(()), Some(identity)) => {
            let (interface, timeouts) = (interface.flatten(), timeouts.flatten());
            Ok((
                identity,
                lvs_model::DirectorGroup {
                    nodes,
                    interface,
                    timeouts,
                },
            ))
        }
        (rejections, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// Reads the names. More than one is refused: who of several directors holds the VIPs is not decided yet.
fn nodes(names: &[String], findings: &mut Findings) -> Vec<NodeName> {
    let list = "spec.nodes.names";
    if names.is_empty() {
        findings.refuse(list, "must hold the name of a node");
    }
    if names.len() > 1 {
        let reason =
            "must not hold more than one name: failover between several directors is not there yet";
        findings.refuse(list, reason);
    }
    let (mut nodes, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, name) in names.iter().enumerate() {
        let field = format_args!("{list}[{i}]");
        if !seen.insert(name) {
            findings.refuse(field, format!("must not repeat '{name}'"));
        } else {
            nodes.extend(findings.take::<NodeName, _>(field, name.parse()));
        }
    }
    nodes
}

fn timeouts(timeouts: &Timeouts, findings: &mut Findings) -> Option<lvs_model::Timeouts> {
    let mut seconds = |name: &str, value| {
        findings.number(
            format_args!("spec.timeouts.{name}"),
            value,
            1..=MAX_TIMEOUT_SECONDS,
        )
    };
    let tcp = seconds("tcpSeconds", timeouts.tcp_seconds);
    let tcp_fin = seconds("tcpFinSeconds", timeouts.tcp_fin_seconds);
    let udp = seconds("udpSeconds", timeouts.udp_seconds);
    Some(lvs_model::Timeouts {
        tcp_seconds: tcp?,
        tcp_fin_seconds: tcp_fin?,
        udp_seconds: udp?,
    })
}

//! The scheduler, persistence and one-packet scheduling.

use lvs_model::{PersistenceByFamily, SchedulerName};

use super::{findings::Findings, forwarding::uses};
use crate::{Forwarding, PersistenceEngine, Protocol, SchedulerFlag, VirtualServiceSpec};

/// ipvsadm's own limit; the kernel multiplies by HZ in 32 bits.
const MAX_TIMEOUT_SECONDS: i64 = 31 * 24 * 60 * 60;

/// Reads the scheduler.
pub(super) fn scheduler(
    spec: &VirtualServiceSpec,
    findings: &mut Findings,
) -> lvs_model::Scheduler {
    let (name, flags) = (spec.scheduler.name, &spec.scheduler.flags);
    let hashes = matches!(name, SchedulerName::Sh | SchedulerName::Mh);
    if !hashes && !flags.is_empty() {
        let reason = "must be empty unless `spec.scheduler.name` is 'sh' or 'mh'";
        findings.refuse("spec.scheduler.flags", reason);
    }
    for (i, flag) in flags.iter().enumerate() {
        if flags.iter().take(i).any(|earlier| earlier == flag) {
            findings.refuse(
                format_args!("spec.scheduler.flags[{i}]"),
                "must not repeat a flag",
            );
        }
    }
    let flags: Vec<_> = flags.iter().map(|flag| (*flag).into()).collect();
    lvs_model::Scheduler::new(name, &flags)
}

/// Reads persistence.
pub(super) fn persistence(
    spec: &VirtualServiceSpec,
    findings: &mut Findings,
) -> Option<PersistenceByFamily> {
    let persistence = spec.persistence.as_ref()?;
    let at = "spec.persistence";
    let timeout = persistence.timeout_seconds;
    let field = format_args!("{at}.timeoutSeconds");
    let timeout = if timeout == 0 {
        let reason =
            "must not be 0: leave `spec.persistence` out for a service without persistence";
        findings.refuse(field, reason);
        None
    } else {
        findings.number(field, timeout, 1..=MAX_TIMEOUT_SECONDS)
    };
    let v4 = findings.number(
        format_args!("{at}.ipv4PrefixLength"),
        persistence.ipv4_prefix_length,
        1..=32,
    );
    let v6 = findings.number(
        format_args!("{at}.ipv6PrefixLength"),
        persistence.ipv6_prefix_length,
        1..=128,
    );
    if persistence.engine.is_some() && !all_ports_are_udp(spec) {
        let reason =
            "must not be set unless all ports are UDP: it drops packets of other protocols";
        findings.refuse(format_args!("{at}.engine"), reason);
    }
    let engine = persistence.engine.map(|engine| match engine {
        PersistenceEngine::Sip => "sip".to_owned(),
    });
    let (timeout_seconds, v4, v6) = (timeout?, v4?, v6?);
    let of = |prefix_length| lvs_model::Persistence {
        timeout_seconds,
        prefix_length,
        engine: engine.clone(),
    };
    Some(PersistenceByFamily {
        v4: of(v4),
        v6: of(v6),
    })
}

/// Refuses one-packet scheduling if the kernel would ignore it. It is accepted with a firewall mark,
/// since the marked packets may all be UDP.
pub(super) fn one_packet(spec: &VirtualServiceSpec, findings: &mut Findings) {
    if spec.one_packet && !all_ports_are_udp(spec) {
        findings.refuse("spec.onePacket", "must not be set unless all ports are UDP");
    }
    if spec.one_packet && uses(spec, Forwarding::Nat) {
        let reason = "must not be set with NAT: the kernel does not translate the replies of a one-packet service";
        findings.refuse("spec.onePacket", reason);
    }
}

fn all_ports_are_udp(spec: &VirtualServiceSpec) -> bool {
    spec.ports.iter().all(|port| port.protocol == Protocol::Udp)
}

impl From<SchedulerFlag> for lvs_model::SchedulerFlag {
    fn from(flag: SchedulerFlag) -> Self {
        match flag {
            SchedulerFlag::Fallback => Self::Fallback,
            SchedulerFlag::Port => Self::Port,
        }
    }
}

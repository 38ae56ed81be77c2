//! Checks that the steps of a plan follow the order rules of `diff`.

use std::collections::BTreeSet;

use lvs_model::{
    FouStep, InterfaceName, IpvsStep, KernelState, MasqueradeStep, NetworkStep, Plan,
    RESERVED_MARKS, ServiceKey, Step, StrayStep, Sysctl, SysctlStep,
};

/// The phases of a plan, in their required order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Sysctls,
    FouPorts,
    Links,
    HiddenVips,
    Routes,
    Rules,
    Masquerade,
    Timeouts,
    DaemonsGone,
    MarkedServices,
    Strays,
    Services,
    Daemons,
    ServicesGone,
    StraysGone,
    MarkedServicesGone,
    TimeoutsBack,
    MasqueradeGone,
    RulesGone,
    RoutesGone,
    HiddenVipsGone,
    LinksGone,
    FouPortsGone,
    ForwardingBack,
    SysctlsBack,
}

/// Checks a plan. The error names two steps in the wrong order, or a step without what it needs.
pub(crate) fn check(plan: &Plan, desired: &KernelState) -> Result<(), String> {
    let links: BTreeSet<&InterfaceName> = desired.links.keys().collect();
    let mut last = None;
    for (index, step) in plan.steps.iter().enumerate() {
        let phase = phase(step, &links)?;
        if let Some((before, earlier)) = last
            && phase < before
        {
            return Err(format!(
                "{phase:?} after {before:?}: `{step}` after `{earlier}`"
            ));
        }
        last = Some((phase, step));
        check_uses(plan.steps.get(..index).unwrap_or_default(), step)?;
    }
    Ok(())
}

fn phase(step: &Step, links: &BTreeSet<&InterfaceName>) -> Result<Phase, String> {
    Ok(match step {
        Step::Sysctl(step) => sysctl_phase(step, links),
        Step::Fou(FouStep::AddPort(_)) => Phase::FouPorts,
        Step::Fou(FouStep::RemovePort(_)) => Phase::FouPortsGone,
        Step::Network(step) => return network_phase(step, links),
        Step::Masquerade(MasqueradeStep::Set(_)) => Phase::Masquerade,
        Step::Masquerade(MasqueradeStep::Remove) => Phase::MasqueradeGone,
        Step::Strays(StrayStep::Set(_)) => Phase::Strays,
        Step::Strays(StrayStep::Remove) => Phase::StraysGone,
        Step::Ipvs(step) => match step {
            IpvsStep::SetTimeouts { .. } => Phase::Timeouts,
            IpvsStep::AddService { key, .. }
            | IpvsStep::EditService { key, .. }
            | IpvsStep::AddDestination { service: key, .. }
            | IpvsStep::EditDestination { service: key, .. } => {
                if is_marked(key) {
                    Phase::MarkedServices
                } else {
                    Phase::Services
                }
            }
            IpvsStep::RemoveDestination { service: key, .. } | IpvsStep::RemoveService(key) => {
                if is_marked(key) {
                    Phase::MarkedServicesGone
                } else {
                    Phase::ServicesGone
                }
            }
            IpvsStep::RestoreTimeouts(_) => Phase::TimeoutsBack,
            IpvsStep::StopDaemon(_) => Phase::DaemonsGone,
            IpvsStep::StartDaemon { .. } => Phase::Daemons,
        },
    })
}

fn is_marked(key: &ServiceKey) -> bool {
    matches!(key, ServiceKey::Fwmark { mark, .. } if RESERVED_MARKS.contains(&mark.get()))
}

fn sysctl_phase(step: &SysctlStep, links: &BTreeSet<&InterfaceName>) -> Phase {
    match step {
        SysctlStep::Set { sysctl, .. } => match sysctl.interface() {
            Some(interface) if links.contains(interface) => Phase::Links,
            Some(_) | None => Phase::Sysctls,
        },
        SysctlStep::Restore {
            sysctl: Sysctl::Ipv4Forward | Sysctl::Ipv6Forward,
            ..
        } => Phase::ForwardingBack,
        SysctlStep::Restore { .. } => Phase::SysctlsBack,
    }
}

/// Returns the phase of a network step. Fails for a VIP that the network sees: only the holder changes those.
fn network_phase(step: &NetworkStep, links: &BTreeSet<&InterfaceName>) -> Result<Phase, String> {
    let is_new = |name: &InterfaceName| links.contains(name);
    Ok(match step {
        NetworkStep::AddLink { .. } | NetworkStep::SetLinkUp(_) => Phase::Links,
        // A device of the wrong kind is replaced in the phase of the creations.
        NetworkStep::RemoveLink(name) if is_new(name) => Phase::Links,
        NetworkStep::RemoveLink(_) => Phase::LinksGone,
        NetworkStep::AddAddress { key, .. } | NetworkStep::EditAddress { key, .. }
            if is_new(&key.interface) =>
        {
            Phase::Links
        }
        NetworkStep::AddAddress { key, .. } | NetworkStep::EditAddress { key, .. }
            if key.interface.is_loopback() =>
        {
            Phase::HiddenVips
        }
        NetworkStep::RemoveAddress(key) if is_new(&key.interface) => Phase::LinksGone,
        NetworkStep::RemoveAddress(key) if key.interface.is_loopback() => Phase::HiddenVipsGone,
        NetworkStep::AddRoute(_) => Phase::Routes,
        NetworkStep::AddRule(_) => Phase::Rules,
        NetworkStep::RemoveRule(_) => Phase::RulesGone,
        NetworkStep::RemoveRoute(_) => Phase::RoutesGone,
        NetworkStep::AddAddress { .. }
        | NetworkStep::EditAddress { .. }
        | NetworkStep::RemoveAddress(_) => return Err(format!("`{step}` is in a plan")),
    })
}

/// Checks that a new service is followed by its destinations, that destinations are removed before their service, and
/// that no step occurs twice.
fn check_uses(earlier: &[Step], step: &Step) -> Result<(), String> {
    match step {
        Step::Ipvs(IpvsStep::AddDestination { service, .. }) => {
            // A new service is followed by its own destinations.
            let is_new = earlier.iter().any(|step| is_new_service(step, service));
            let follows = earlier.last().is_some_and(|last| {
                is_new_service(last, service)
                    || matches!(last, Step::Ipvs(IpvsStep::AddDestination { service: other, .. }) if other == service)
            });
            if is_new && !follows {
                return Err(format!("`{step}` does not follow its service"));
            }
        }
        Step::Ipvs(IpvsStep::RemoveDestination { service, .. }) => {
            let gone = earlier.iter().any(
                |step| matches!(step, Step::Ipvs(IpvsStep::RemoveService(key)) if key == service),
            );
            if gone {
                return Err(format!("`{step}` after its service is gone"));
            }
        }
        Step::Ipvs(_)
        | Step::Network(_)
        | Step::Sysctl(_)
        | Step::Masquerade(_)
        | Step::Fou(_)
        | Step::Strays(_) => {}
    }
    if earlier.contains(step) {
        return Err(format!("`{step}` occurs twice"));
    }
    Ok(())
}

fn is_new_service(step: &Step, service: &ServiceKey) -> bool {
    matches!(step, Step::Ipvs(IpvsStep::AddService { key, .. }) if key == service)
}

//! The order rules of `diff`, checked on a plan by its steps alone.

use std::collections::BTreeSet;

use lvs_model::{InterfaceName, KernelState, Plan, Step, Sysctl};

/// The groups of a plan, in the order in which they must stand.
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
    Services,
    SeenVips,
    SeenVipsGone,
    ServicesGone,
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

/// Says which two steps stand in the wrong order.
pub(crate) fn check(plan: &Plan, desired: &KernelState) -> Result<(), String> {
    let links: BTreeSet<&InterfaceName> = desired.links.keys().collect();
    let mut last = None;
    for (index, step) in plan.steps.iter().enumerate() {
        let phase = phase(step, &links);
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

fn phase(step: &Step, links: &BTreeSet<&InterfaceName>) -> Phase {
    match step {
        Step::SetSysctl { sysctl, .. } => match sysctl.interface() {
            Some(interface) if links.contains(interface) => Phase::Links,
            Some(_) | None => Phase::Sysctls,
        },
        Step::AddFouPort(_) => Phase::FouPorts,
        Step::AddLink { .. } | Step::SetLinkUp(_) => Phase::Links,
        // A device that has the wrong kind is replaced among the creations.
        Step::RemoveLink(name) if links.contains(name) => Phase::Links,
        Step::AddAddress { key, .. } | Step::EditAddress { key, .. }
            if links.contains(&key.interface) =>
        {
            Phase::Links
        }
        Step::AddAddress { key, .. } | Step::EditAddress { key, .. }
            if key.interface.as_str() == "lo" =>
        {
            Phase::HiddenVips
        }
        Step::AddRoute(_) => Phase::Routes,
        Step::AddRule(_) => Phase::Rules,
        Step::SetMasquerade(_) => Phase::Masquerade,
        Step::SetTimeouts { .. } => Phase::Timeouts,
        Step::AddService { .. }
        | Step::EditService { .. }
        | Step::AddDestination { .. }
        | Step::EditDestination { .. } => Phase::Services,
        Step::AddAddress { .. } | Step::EditAddress { .. } => Phase::SeenVips,
        Step::RemoveAddress(key) if links.contains(&key.interface) => Phase::LinksGone,
        Step::RemoveAddress(key) if key.interface.as_str() == "lo" => Phase::HiddenVipsGone,
        Step::RemoveAddress(_) => Phase::SeenVipsGone,
        Step::RemoveDestination { .. } | Step::RemoveService(_) => Phase::ServicesGone,
        Step::RestoreTimeouts(_) => Phase::TimeoutsBack,
        Step::RemoveMasquerade => Phase::MasqueradeGone,
        Step::RemoveRule(_) => Phase::RulesGone,
        Step::RemoveRoute(_) => Phase::RoutesGone,
        Step::RemoveLink(_) => Phase::LinksGone,
        Step::RemoveFouPort(_) => Phase::FouPortsGone,
        Step::RestoreSysctl {
            sysctl: Sysctl::Ipv4Forward | Sysctl::Ipv6Forward,
            ..
        } => Phase::ForwardingBack,
        Step::RestoreSysctl { .. } => Phase::SysctlsBack,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "two steps have something to check"
)]
/// What a step uses is made before it, or was there; nothing is made and removed in one plan, nor touched twice.
fn check_uses(earlier: &[Step], step: &Step) -> Result<(), String> {
    match step {
        Step::AddDestination { service, .. } => {
            // A new service is followed by its own destinations.
            let is_new = earlier
                .iter()
                .any(|step| matches!(step, Step::AddService { key, .. } if key == service));
            let follows = earlier.last().is_some_and(|last| match last {
                Step::AddService { key, .. } => key == service,
                Step::AddDestination { service: other, .. } => other == service,
                _ => false,
            });
            if is_new && !follows {
                return Err(format!("`{step}` does not follow its service"));
            }
        }
        Step::RemoveDestination { service, .. } => {
            let gone = earlier
                .iter()
                .any(|step| matches!(step, Step::RemoveService(key) if key == service));
            if gone {
                return Err(format!("`{step}` after its service is gone"));
            }
        }
        _ => {}
    }
    if earlier.contains(step) {
        return Err(format!("`{step}` stands there twice"));
    }
    Ok(())
}

//! Checks that foreign objects are not changed, and that the ledger contains all others.

use lvs_model::{InterfaceName, KernelState, Ledger, Target};

/// Compares a kernel with its twin, which got the same events without the agent: the kernel holds everything that the
/// twin holds, unchanged, and the ledger owns everything else in the kernel.
pub(crate) fn check(
    state: &KernelState,
    twin: &KernelState,
    ledger: &Ledger,
) -> Result<(), String> {
    for (key, service) in &twin.services {
        expect(state.services.get(key) == Some(service), || {
            format!("foreign service {key} was touched")
        })?;
    }
    for (key, config) in &twin.addresses {
        expect(state.addresses.get(key) == Some(config), || {
            format!("foreign address {key} was touched")
        })?;
    }
    for (name, link) in &twin.links {
        expect(state.links.get(name) == Some(link), || {
            format!("foreign link {name} was touched")
        })?;
    }
    let unknown = |what: &dyn std::fmt::Display| format!("{what} is not in the ledger");
    for target in targets(state).filter(|target| !twin.has(target)) {
        let is_on_our_link =
            matches!(&target, Target::Address(key) if owns_link(ledger, &key.interface));
        expect(is_on_our_link || ledger.owns(&target), || unknown(&target))?;
    }
    expect(
        state.timeouts == twin.timeouts || ledger.timeouts.is_some(),
        || unknown(&"the timeouts found"),
    )?;
    for (sysctl, value) in &state.sysctls {
        let on_our_link = sysctl
            .interface()
            .is_some_and(|name| owns_link(ledger, name));
        // The kernel changes these with `ip_forward`. The ledger records only those that restoring `ip_forward` does
        // not restore.
        let path = sysctl.path();
        let follows = path.ends_with("/forwarding") || path.ends_with("/accept_redirects");
        let known = twin.sysctls.get(sysctl) == Some(value) || ledger.sysctls.contains_key(sysctl);
        expect(known || on_our_link || follows, || unknown(sysctl))?;
    }
    Ok(())
}

/// Returns the objects in a kernel that can be made.
fn targets(state: &KernelState) -> impl Iterator<Item = Target> {
    let services = state.services.keys().copied().map(Target::Service);
    let addresses = state.addresses.keys().cloned().map(Target::Address);
    let links = state.links.keys().cloned().map(Target::Link);
    let ports = state.fou_ports.iter().copied().map(Target::FouPort);
    let routes = state.routes.iter().cloned().map(Target::Route);
    let rules = state.rules.iter().copied().map(Target::Rule);
    let strays = state.strays.iter().map(|_| Target::Strays);
    let masquerade = state.masquerade.iter().map(|_| Target::Masquerade);
    services
        .chain(addresses)
        .chain(links)
        .chain(ports)
        .chain(routes)
        .chain(rules)
        .chain(masquerade)
        .chain(strays)
}

fn owns_link(ledger: &Ledger, name: &InterfaceName) -> bool {
    ledger.owns(&Target::Link(name.clone()))
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

//! What is foreign stays as it is, and what is ours is known to be.

use lvs_model::{KernelState, Ledger};

/// Compares a kernel with its twin, to which the same happened without us: whatever the twin holds is there unchanged,
/// and whatever is there beyond it stands in the ledger.
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
    for key in state
        .services
        .keys()
        .filter(|key| !twin.services.contains_key(key))
    {
        expect(ledger.services.contains(key), || unknown(key))?;
    }
    for key in state
        .addresses
        .keys()
        .filter(|key| !twin.addresses.contains_key(key))
    {
        let goes_with_link = ledger.links.contains(&key.interface);
        expect(goes_with_link || ledger.addresses.contains(key), || {
            unknown(key)
        })?;
    }
    for name in state
        .links
        .keys()
        .filter(|name| !twin.links.contains_key(name))
    {
        expect(ledger.links.contains(name), || unknown(name))?;
    }
    expect(state.fou_ports.is_subset(&ledger.fou_ports), || {
        unknown(&"a GUE port")
    })?;
    expect(state.routes.is_subset(&ledger.routes), || {
        unknown(&"a route")
    })?;
    expect(state.rules.is_subset(&ledger.rules), || unknown(&"a rule"))?;
    expect(state.masquerade.is_none() || ledger.masquerade, || {
        unknown(&"the nft table")
    })?;
    expect(
        state.timeouts == twin.timeouts || ledger.timeouts.is_some(),
        || unknown(&"the timeouts found"),
    )?;
    for (sysctl, value) in &state.sysctls {
        let on_our_link = sysctl
            .interface()
            .is_some_and(|name| ledger.links.contains(name));
        // The kernel writes these with `ip_forward`; only what restoring it does not bring back is recorded.
        let path = sysctl.path();
        let follows = path.ends_with("/forwarding") || path.ends_with("/accept_redirects");
        let known = twin.sysctls.get(sysctl) == Some(value) || ledger.sysctls.contains_key(sysctl);
        expect(known || on_our_link || follows, || unknown(sysctl))?;
    }
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

//! The facts about the machine in its LvsNode's status.

use std::{collections::BTreeSet, net::IpAddr};

use lvs_crd::{Facts, InterfaceAddress};
use lvs_kernel::About;
use lvs_model::{InterfaceName, MacAddr, NodeFacts, SchedulerName, is_usable_unicast};

/// The most addresses that are published.
const MOST_ADDRESSES: usize = 1000;
/// The most gateways that are published, those of the routes that services use first. A machine with a routing daemon may have
/// many.
const MOST_GATEWAYS: usize = 64;
/// The most MAC addresses that are published, those of interfaces with VIPs first.
const MOST_MACS: usize = 64;

/// Collects the published facts. Link-local addresses are left out: they change with every pod, and other machines
/// cannot use them. MAC addresses are those of interfaces with another address or a VIP: a node has one for each pod.
pub(in super::super) fn facts(facts: &NodeFacts, about: About) -> Facts {
    let is_loopback = |own: &lvs_model::InterfaceAddress| {
        let interface = facts.interfaces.get(&own.interface);
        interface.is_some_and(|interface| interface.loopback)
    };
    let own = facts.addresses.iter();
    let own = own.filter(|own| !is_loopback(own) && is_usable_unicast(own.network.addr()));
    let mac = |name: &InterfaceName| facts.interfaces.get(name)?.mac;
    let vips = facts.standing.addresses.iter();
    let with_vips: BTreeSet<MacAddr> = vips.filter_map(|key| mac(&key.interface)).collect();
    let others: BTreeSet<MacAddr> = own.clone().filter_map(|own| mac(&own.interface)).collect();
    let others = others.difference(&with_vips);
    let macs: BTreeSet<&MacAddr> = with_vips.iter().chain(others).take(MOST_MACS).collect();
    let addresses: BTreeSet<InterfaceAddress> = own
        .map(|own| InterfaceAddress {
            interface: own.interface.to_string(),
            address: own.network.to_string(),
        })
        .collect();
    let omitted = addresses.len().saturating_sub(MOST_ADDRESSES);
    let About {
        release,
        ipvs_version,
        schedulers,
    } = about;
    let used: BTreeSet<IpAddr> = facts
        .routes
        .iter()
        .filter_map(|route| route.gateway)
        .collect();
    let gateways = used.iter().chain(facts.gateways.difference(&used));
    let gateways = gateways.filter(|own| is_usable_unicast(**own));
    let gateways: BTreeSet<&IpAddr> = gateways.take(MOST_GATEWAYS).collect();
    let schedulers = schedulers.into_iter().map(SchedulerName::as_str);
    Facts {
        kernel: release,
        ipvs_version,
        schedulers: schedulers.map(str::to_owned).collect(),
        addresses: addresses.into_iter().take(MOST_ADDRESSES).collect(),
        omitted_addresses: i64::try_from(omitted).unwrap_or(i64::MAX),
        mac_addresses: macs.iter().map(ToString::to_string).collect(),
        serves_what_it_directs: true,
        gateways: gateways.iter().map(ToString::to_string).collect(),
    }
}

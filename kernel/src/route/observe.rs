//! Reads links and addresses, and our routes and rules.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lvs_model::{
    AddressConfig, AddressKey, Family, InterfaceAddress, InterfaceName, Network, Owner, Tables,
};
use netlink_packet_core::DecodeError;
use tracing::debug;

use super::{
    address,
    exchange::{Exchange, RouteError},
    fib::{self, FoundRoute},
    frame::Frame,
    link,
    rule::{self, OurRule},
};

const LINKS: &str = "links";
const ADDRESSES: &str = "addresses";
const ROUTES: &str = "routes";
const RULES: &str = "rules";

/// Reads everything, one dump after the other: the kernel runs one dump per socket and refuses another with `EBUSY`
/// (`__netlink_dump_start`, net/netlink/af_netlink.c).
///
/// Our routes are looked for in `tables` and in those that our rules name. Also returns whether all foreign rules are those that
/// every machine has.
pub(super) async fn observe(
    exchange: &Exchange,
    tables: &Tables,
) -> Result<(Network, bool), RouteError> {
    let links = exchange.dump(LINKS, &link::read_all()).await?;
    let addresses = exchange.dump(ADDRESSES, &address::read_all()).await?;
    let rules = exchange.dump(RULES, &rule::read_all()).await?;
    let mut read = Reader::default();
    read.links(&links).map_err(malformed(LINKS))?;
    read.addresses(&addresses).map_err(malformed(ADDRESSES))?;
    read.rules(&rules).map_err(malformed(RULES))?;
    for table in read.tables(tables) {
        for family in [Family::V4, Family::V6] {
            let ours = exchange.dump(ROUTES, &fib::read_ours(family, table)).await;
            let ours = or_nothing(ours)?;
            read.our_routes(&ours).map_err(malformed(ROUTES))?;
        }
    }
    Ok((read.network, !read.has_foreign_rules))
}

/// A table that does not exist is empty: nothing was ever written to it.
fn or_nothing(dump: Result<Vec<Frame>, RouteError>) -> Result<Vec<Frame>, RouteError> {
    match dump {
        Err(RouteError::Refused { refusal, .. }) if refusal.is_not_found() => Ok(Vec::new()),
        read => read,
    }
}

/// Reads the addresses, and the links for the names of their interfaces.
pub(super) async fn addresses(
    exchange: &Exchange,
) -> Result<BTreeMap<AddressKey, AddressConfig>, RouteError> {
    let links = exchange.dump(LINKS, &link::read_all()).await?;
    let addresses = exchange.dump(ADDRESSES, &address::read_all()).await?;
    let mut read = Reader::default();
    read.links(&links).map_err(malformed(LINKS))?;
    read.addresses(&addresses).map_err(malformed(ADDRESSES))?;
    Ok(read.network.addresses)
}

fn malformed(table: &'static str) -> impl FnOnce(DecodeError) -> RouteError {
    move |error| RouteError::Malformed { table, error }
}

/// Converts messages.
///
/// An object on an unknown interface is left out: the interface was added or removed between two dumps, and the
/// notification of that causes another pass.
#[derive(Default)]
struct Reader {
    network: Network,
    names: BTreeMap<u32, InterfaceName>,
    has_foreign_rules: bool,
}

impl Reader {
    fn links(&mut self, frames: &[Frame]) -> Result<(), DecodeError> {
        for frame in frames {
            let found = link::decode(&frame.payload)?;
            let Ok(name) = found.name.parse::<InterfaceName>() else {
                debug!(
                    name = found.name,
                    "interface skipped: its name is not valid"
                );
                continue;
            };
            if name.is_of_tunnel() || found.link.owner == Owner::Ours {
                self.network.links.insert(name.clone(), found.link);
            }
            self.names.insert(found.interface.index, name.clone());
            self.network.interfaces.insert(name, found.interface);
        }
        Ok(())
    }

    /// Reads addresses. If none carries a mark, the kernel stores none: from 5.18 on it marks its own, such as those of lo.
    fn addresses(&mut self, frames: &[Frame]) -> Result<(), DecodeError> {
        let mut has_marks = false;
        for frame in frames {
            let Some(found) = address::decode(&frame.payload)? else {
                continue;
            };
            has_marks |= found.is_marked;
            let Some(interface) = self.names.get(&found.index) else {
                continue;
            };
            if let Ok(network) = IpNet::new(found.address, found.prefix) {
                let interface = interface.clone();
                self.network
                    .interface_addresses
                    .push(InterfaceAddress { interface, network });
            }
            let key = AddressKey {
                interface: interface.clone(),
                address: found.address,
                prefix: found.prefix,
            };
            self.network.addresses.insert(key, found.config);
        }
        if !has_marks {
            for config in self.network.addresses.values_mut() {
                config.owner = Owner::Unknown;
            }
        }
        Ok(())
    }

    fn rules(&mut self, frames: &[Frame]) -> Result<(), DecodeError> {
        for frame in frames {
            match rule::decode(&frame.payload)? {
                Some(OurRule::Known(rule)) => drop(self.network.rules.insert(rule)),
                Some(OurRule::Unknown) => debug!("unknown rule with our protocol number ignored"),
                None => self.has_foreign_rules |= !rule::is_standard(&frame.payload)?,
            }
        }
        Ok(())
    }

    /// The tables to read our routes from. `None`: all at once.
    fn tables(&self, tables: &Tables) -> Vec<Option<u32>> {
        match tables {
            Tables::All => vec![None],
            Tables::Only(known) => {
                let ruled = self.network.rules.iter().map(|rule| rule.table);
                let tables: BTreeSet<u32> = known.iter().copied().chain(ruled).collect();
                tables.into_iter().map(Some).collect()
            }
        }
    }

    fn our_routes(&mut self, frames: &[Frame]) -> Result<(), DecodeError> {
        for frame in frames {
            let Some(found) = fib::decode(&frame.payload)?.filter(|found| found.is_ours) else {
                continue;
            };
            match fib::ours(&found, self.interface_of(&found)) {
                Some(route) => drop(self.network.routes.insert(route)),
                None => debug!(?found, "unknown route with our protocol number ignored"),
            }
        }
        Ok(())
    }

    fn interface_of(&self, route: &FoundRoute) -> Option<&InterfaceName> {
        self.names.get(&route.index?)
    }
}

//! Reads and changes links, addresses, routes and policy routing rules, by route netlink.
//!
//! Our objects carry a mark: addresses have our number as `IFA_PROTO` (kernel 5.18), routes and rules have it as their
//! protocol, links have our alias.

mod address;
mod attributes;
mod exchange;
mod execute;
mod family;
mod fib;
mod frame;
mod link;
mod lookup;
mod main_table;
mod mark;
mod notified;
mod observe;
mod outcome;
mod refusal;
mod rule;
mod settle;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lvs_model::{AddressConfig, AddressKey, Network, NetworkStep, RouteAnswers, Tables};
use netlink_sys::protocols::NETLINK_ROUTE;
use tracing::warn;

use self::main_table::{Gateways, MainTable};
#[cfg(test)]
pub(super) use self::mark::OUR_PROTOCOL;
pub(super) use self::{
    address::address_of, attributes::Attributes, exchange::Exchange, frame::Frame,
    notified::Notified,
};
pub(crate) use self::{exchange::RouteError, outcome::RouteFailure};

/// A route netlink socket of the network namespace in which it was opened.
///
/// Dropping the future of a method discards the answers, but requests that were sent are applied.
pub(crate) struct RouteSocket {
    exchange: Exchange,
    /// What was read last.
    known: lookup::Known,
    /// The main table, for the questions of the pass that has read it.
    table: Option<MainTable>,
    gateways: Gateways,
}

impl RouteSocket {
    /// Opens the socket and spawns the task that reads it. Must be called in a tokio runtime.
    pub(crate) fn connect() -> Result<Self, RouteError> {
        let exchange = Exchange::connect(NETLINK_ROUTE)?;
        Ok(Self {
            exchange,
            known: lookup::Known::default(),
            table: None,
            gateways: Gateways::new(),
        })
    }

    /// Reads everything, except that our routes are looked for in some tables. Never returns a part, but for the gateways: those
    /// of a large main table are left out.
    pub(crate) async fn observe(&mut self, tables: &Tables) -> Result<Network, RouteError> {
        let (mut network, has_plain_rules) = observe::observe(self.opened()?, tables).await?;
        self.known = lookup::Known::of(&network, has_plain_rules);
        let table = MainTable::read(self.known.names(), &mut self.gateways).await;
        self.table = Some(table);
        network.gateways = self.gateways.values().flatten().copied().collect();
        Ok(network)
    }

    /// Finds the routes to addresses, on the interfaces that were read last. Never returns a part.
    pub(crate) async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, RouteError> {
        self.opened()?;
        let table = self.table.take();
        lookup::look_up(&self.exchange, &self.known, table, addresses).await
    }

    /// Returns those of the addresses to which the kernel does not receive packets as its own.
    pub(crate) async fn not_local(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<BTreeSet<IpAddr>, RouteError> {
        lookup::not_local(self.opened()?, addresses).await
    }

    /// Reads all addresses and nothing else. Never returns a part.
    pub(crate) async fn addresses(
        &mut self,
    ) -> Result<BTreeMap<AddressKey, AddressConfig>, RouteError> {
        observe::addresses(self.opened()?).await
    }

    /// Executes steps in their order, and returns the result of each.
    ///
    /// A step that fails does not stop the next. Executing a step twice has the same effect as executing it once.
    pub(crate) async fn execute(
        &mut self,
        steps: &[&NetworkStep],
    ) -> Vec<Result<(), RouteFailure>> {
        match self.opened() {
            Ok(exchange) => execute::execute(exchange, steps).await,
            Err(error) => execute::unknown(steps, error),
        }
    }

    /// Returns the socket, and opens it again if it has failed.
    fn opened(&mut self) -> Result<&Exchange, RouteError> {
        if self.exchange.is_closed() {
            warn!("the route netlink socket has failed and is opened again");
            self.exchange = Exchange::connect(NETLINK_ROUTE)?;
        }
        Ok(&self.exchange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_failed_is_opened_again() {
        let mut socket = RouteSocket::connect().unwrap();
        let before = socket.addresses().await.unwrap();
        socket.exchange.fail().await;

        let after = socket.addresses().await.unwrap();

        assert_eq!(before, after);
    }
}

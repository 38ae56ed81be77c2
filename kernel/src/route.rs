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
mod mark;
mod observe;
mod outcome;
mod refusal;
mod rule;
mod settle;
mod step;

use std::collections::BTreeMap;

use lvs_model::{AddressConfig, AddressKey, Network, NetworkStep};

pub(super) use self::{attributes::Attributes, frame::Frame, mark::OUR_PROTOCOL};
pub(crate) use self::{exchange::RouteError, outcome::RouteFailure};

/// A route netlink socket of the network namespace in which it was opened.
///
/// Dropping the future of a method discards the answers, but requests that were sent are applied.
pub(crate) struct RouteSocket {
    exchange: exchange::Exchange,
}

impl RouteSocket {
    /// Opens the socket and spawns the task that reads it. Must be called in a tokio runtime.
    pub(crate) fn connect() -> Result<Self, RouteError> {
        let exchange = exchange::Exchange::connect()?;
        Ok(Self { exchange })
    }

    /// Reads everything. Never returns a part.
    pub(crate) async fn observe(&self) -> Result<Network, RouteError> {
        observe::observe(&self.exchange).await
    }

    /// Reads all addresses and nothing else. Never returns a part.
    pub(crate) async fn addresses(
        &self,
    ) -> Result<BTreeMap<AddressKey, AddressConfig>, RouteError> {
        observe::addresses(&self.exchange).await
    }

    /// Executes steps in their order, and returns the result of each.
    ///
    /// A step that fails does not stop the next. Executing a step twice has the same effect as executing it once.
    pub(crate) async fn execute(&self, steps: &[&NetworkStep]) -> Vec<Result<(), RouteFailure>> {
        execute::execute(&self.exchange, steps).await
    }
}

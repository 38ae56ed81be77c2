//! Links, addresses, routes and policy routing rules, by route netlink.
//!
//! What is ours carries a mark: addresses our number as `IFA_PROTO` (kernel 5.18), routes and rules as their protocol,
//! links our alias.

mod address;
mod attributes;
mod change;
mod exchange;
mod execute;
mod fib;
mod frame;
mod link;
mod observe;
mod refusal;
mod rule;
mod settle;

use lvs_model::{Family, Step};
use netlink_packet_route::AddressFamily;

pub use self::observe::Network;
pub(super) use self::{attributes::Attributes, frame::Frame};
pub(crate) use self::{exchange::RouteError, execute::RouteFailure};

/// The number in `IFA_PROTO`, and the protocol of routes and rules, of what this program makes.
pub(crate) const OUR_PROTOCOL: u8 = 76;

/// The alias of links that this program makes.
pub(crate) const OUR_ALIAS: &str = "lvs-operator";

/// A route netlink socket of the network namespace in which it was opened.
///
/// Dropping the future of a method gives up the answers, not the requests: what was sent is applied.
pub(crate) struct RouteSocket {
    exchange: exchange::Exchange,
}

impl RouteSocket {
    /// Opens the socket and spawns the task that reads it. To be called in a tokio runtime.
    pub(crate) fn connect() -> Result<Self, RouteError> {
        let exchange = exchange::Exchange::connect()?;
        Ok(Self { exchange })
    }

    /// Reads everything; never a part of it.
    pub(crate) async fn observe(&self) -> Result<Network, RouteError> {
        observe::observe(&self.exchange).await
    }

    /// Executes steps that concern links, addresses, routes and rules, in their order, and returns what became of each. A
    /// step that fails does not stop the next. Executing twice equals executing once.
    pub(crate) async fn execute(&self, steps: &[&Step]) -> Vec<Result<(), RouteFailure>> {
        execute::execute(&self.exchange, steps).await
    }
}

const fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn known_family(family: AddressFamily) -> Option<Family> {
    if family == AddressFamily::Inet {
        Some(Family::V4)
    } else if family == AddressFamily::Inet6 {
        Some(Family::V6)
    } else {
        None
    }
}

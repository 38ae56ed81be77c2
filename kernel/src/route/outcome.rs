//! The result of a network step, and why a step failed.

use std::sync::Arc;

use lvs_model::InterfaceName;
use thiserror::Error;

use super::{
    exchange::{Request, RouteError},
    refusal::Refusal,
};

/// Why a step failed. The text begins with what was being done: "adding 192.0.2.1/32 to eth1".
#[derive(Clone, Debug, Error)]
pub(crate) enum RouteFailure {
    /// The kernel refused the step.
    #[error("{doing}")]
    Refused {
        doing: String,
        #[source]
        refusal: Refusal,
    },
    /// A foreign object has the name or the place of what was to be made.
    #[error("{doing}: something that lvs-agent did not make already has its place")]
    Occupied { doing: String },
    /// The step's interface does not exist.
    #[error("{doing}: there is no interface {interface}")]
    NoInterface {
        doing: String,
        interface: InterfaceName,
    },
    /// The kernel does not support this kind of tunnel.
    #[error("{doing}: the kernel has no {kind} tunnels: load module {module}")]
    NoTunnels {
        doing: String,
        kind: &'static str,
        module: &'static str,
    },
    /// The step would make a device of a kind that this program never makes.
    #[error("{doing}: not a kind of tunnel that lvs-agent makes")]
    NotATunnel { doing: String },
    /// The result is unknown, because the answer was lost.
    #[error("{doing}")]
    Unknown {
        doing: String,
        #[source]
        error: Arc<RouteError>,
    },
}

pub(super) type Outcome = Result<(), RouteFailure>;

/// What to do for a step: a request to send, or a result that needs no request.
pub(super) enum Planned {
    Send(Request),
    Settled(Outcome),
}

//! Why neighbours could not be asked or informed.

use std::io;

use lvs_model::InterfaceName;
use thiserror::Error;

/// An announcement or a question that failed.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// The interfaces cannot be read.
    #[error("reading the interfaces")]
    Interfaces(#[source] io::Error),
    /// It is not there.
    #[error("there is no interface {interface}")]
    NoInterface {
        /// Its name.
        interface: InterfaceName,
    },
    /// The kernel gives no socket.
    #[error("opening a packet socket on {interface} (it takes CAP_NET_RAW)")]
    Open {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The interface does not take what is sent.
    #[error("sending on {interface}")]
    Send {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The interface is gone, or down.
    #[error("receiving on {interface}")]
    Receive {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        #[source]
        error: io::Error,
    },
}

//! Errors of announcing and probing.

use std::io;

use lvs_model::InterfaceName;
use thiserror::Error;

/// Why an announcement or a probe failed.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// The list of interfaces cannot be read.
    #[error("reading the interfaces")]
    Interfaces(#[source] io::Error),
    /// The interface does not exist.
    #[error("there is no interface {interface}")]
    NoInterface {
        /// Its name.
        interface: InterfaceName,
    },
    /// The kernel refuses to open a packet socket.
    #[error("opening a packet socket on {interface} (it needs CAP_NET_RAW)")]
    Open {
        /// The interface.
        interface: InterfaceName,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// The frames cannot be sent.
    #[error("sending on {interface}")]
    Send {
        /// The interface.
        interface: InterfaceName,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// Frames cannot be received: the interface was removed or went down.
    #[error("receiving on {interface}")]
    Receive {
        /// The interface.
        interface: InterfaceName,
        /// The cause.
        #[source]
        error: io::Error,
    },
}

//! The errors of an exchange with the kernel.

use std::{fmt, io};

use netlink_packet_core::DecodeError;
use nix::errno::Errno;
use thiserror::Error;

/// Why an exchange with the kernel failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The socket could not be opened or set up.
    #[error("open a generic netlink socket")]
    Open(#[source] io::Error),
    /// The kernel did not take what was sent.
    #[error("send to the kernel")]
    Send(#[source] io::Error),
    /// The kernel took only a part of what was sent, which netlink never does.
    #[error("the kernel took {sent} of {length} bytes")]
    ShortSend {
        /// The bytes taken.
        sent: usize,
        /// The bytes given.
        length: usize,
    },
    /// Reading from the socket failed.
    #[error("receive from the kernel")]
    Receive(#[source] io::Error),
    /// Answers were lost: the receive buffer overflowed (`ENOBUFS`), or the kernel was out of
    /// memory.
    #[error("answers of the kernel were lost")]
    Overrun,
    /// An answer cannot be read.
    #[error("read an answer of the kernel")]
    Unreadable(#[source] DecodeError),
    /// The kernel refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such generic netlink family, and no module provides it.
    #[error("generic netlink family {name} not found")]
    FamilyNotFound {
        /// The name of the family.
        name: String,
    },
    /// Each attempt at a dump was cut short, or the table changed during it.
    #[error("dump was interrupted {attempts} times")]
    DumpInterrupted {
        /// The number of attempts.
        attempts: u32,
    },
}

/// The kernel's refusal of one request: an `NLMSG_ERROR` that is not an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    errno: Errno,
    message: Option<Box<str>>,
}

impl Refusal {
    pub(super) fn new(errno: Errno, message: Option<Box<str>>) -> Self {
        Self { errno, message }
    }

    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the kernel's own message (`NLMSGERR_ATTR_MSG`), if there is one.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns whether the requested object does not exist (`ENOENT`, `ESRCH`, `ENODEV`).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV)
    }

    /// Returns whether the object to create exists, or its address is in use (`EEXIST`,
    /// `EADDRINUSE`, `EALREADY`).
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(
            self.errno,
            Errno::EEXIST | Errno::EADDRINUSE | Errno::EALREADY
        )
    }

    /// Returns whether the process lacks a capability (`EPERM`, `EACCES`).
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.errno, Errno::EPERM | Errno::EACCES)
    }

    /// Returns whether a value is invalid (`EINVAL`, `ERANGE`).
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.errno, Errno::EINVAL | Errno::ERANGE)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.errno == Errno::EBUSY
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused: {}", self.errno.desc())?;
        self.message()
            .map_or(Ok(()), |message| write!(f, " ({message})"))
    }
}

impl std::error::Error for Refusal {}

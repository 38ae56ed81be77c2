//! The errors of the handle, and what a refusal by the kernel means for a request.

use std::fmt;

use nix::errno::Errno;
use thiserror::Error;

use crate::{
    pipeline::{self, Refusal},
    wire::IpvsCommand,
};

/// Why a call of [`Handle`](crate::Handle) failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no IPVS: it is neither built in nor loadable as `ip_vs`.
    #[error("this kernel has no IPVS (generic netlink family IPVS not found)")]
    FamilyNotFound,
    /// The kernel refused the request.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The exchange with the kernel failed. Requests sent before may have been applied; read the
    /// table again.
    #[error("exchange with the kernel failed")]
    Connection(#[source] pipeline::ConnectionError),
}

impl Error {
    /// Returns whether the process lacks `CAP_NET_ADMIN` in the initial user namespace.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.kernel().is_some_and(KernelError::is_permission_denied)
    }

    /// Returns whether the object in question does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kernel().is_some_and(KernelError::is_not_found)
    }

    fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::Kernel(error) => Some(error),
            Self::FamilyNotFound | Self::Connection(_) => None,
        }
    }

    pub(crate) fn from_pipeline(error: pipeline::ConnectionError, command: IpvsCommand) -> Self {
        if let pipeline::ConnectionError::Refused(refusal) = error {
            KernelError::new(command, refusal).into()
        } else {
            Self::Connection(error)
        }
    }
}

/// A request of [`Handle::execute`](crate::Handle::execute) that failed, or may have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The position of the request in the given slice.
    pub index: usize,
    /// Why it failed.
    pub error: RequestError,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The kernel refused it and changed nothing.
    #[error(transparent)]
    Refused(#[from] KernelError),
    /// The kernel's answer was lost. The request was probably applied; only another read of the
    /// table shows it.
    #[error("the answer of the kernel was lost")]
    Unknown,
}

/// The kernel's refusal of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    command: IpvsCommand,
    refusal: Refusal,
}

/// What a [`KernelError`] means for the command that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelErrorKind {
    /// `CAP_NET_ADMIN` in the initial user namespace is missing.
    PermissionDenied,
    /// There is no service with this key.
    ServiceNotFound,
    /// A service with this key exists already.
    ServiceExists,
    /// The service has no destination with this key.
    DestinationNotFound,
    /// A destination with this key exists already in the service.
    DestinationExists,
    /// The scheduler or the persistence engine is unknown, and no module provides it.
    UnknownScheduler,
    /// The sync daemon does not run.
    DaemonNotFound,
    /// The sync daemon runs already.
    DaemonExists,
    /// The interface of the sync daemon does not exist.
    InterfaceNotFound,
    /// A value or a combination of them is invalid: an address that cannot be a destination, an
    /// IPv6 prefix length of 0, a GUE tunnel without port, mixed families without a tunnel, ...
    Invalid,
    /// A weight above 2^31 - 1, or a lower threshold above the upper one.
    OutOfRange,
    /// This kernel does not have the command or the address family.
    Unsupported,
    /// The kernel was out of memory.
    OutOfMemory,
    /// Something else; the text contains the kernel's name for it.
    Other,
}

impl KernelError {
    pub(crate) fn new(command: IpvsCommand, refusal: Refusal) -> Self {
        Self { command, refusal }
    }

    /// Returns the command that was refused.
    #[must_use]
    pub fn command(&self) -> IpvsCommand {
        self.command
    }

    /// Returns the kernel's own message (`NLMSGERR_ATTR_MSG`), if there is one.
    #[must_use]
    pub fn extended_message(&self) -> Option<&str> {
        self.refusal.message()
    }

    /// Returns what the refusal means.
    #[must_use]
    pub fn kind(&self) -> KernelErrorKind {
        use KernelErrorKind as Kind;
        let subject = Subject::of(self.command);
        match (self.refusal.errno(), subject) {
            (Errno::EPERM | Errno::EACCES, _) => Kind::PermissionDenied,
            (Errno::ENOENT, Subject::Service) => Kind::UnknownScheduler,
            (Errno::ENOENT, Subject::Destination) => Kind::DestinationNotFound,
            (Errno::ESRCH, Subject::Service | Subject::Destination) => Kind::ServiceNotFound,
            (Errno::ESRCH, Subject::Daemon) => Kind::DaemonNotFound,
            (Errno::EEXIST, Subject::Service) => Kind::ServiceExists,
            (Errno::EEXIST, Subject::Destination) => Kind::DestinationExists,
            (Errno::EEXIST, Subject::Daemon) => Kind::DaemonExists,
            (Errno::ENODEV, Subject::Daemon) => Kind::InterfaceNotFound,
            (Errno::EINVAL, _) => Kind::Invalid,
            (Errno::ERANGE, _) => Kind::OutOfRange,
            (Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, _) => Kind::Unsupported,
            (Errno::ENOMEM, _) => Kind::OutOfMemory,
            _ => Kind::Other,
        }
    }

    /// Returns whether the service, destination or daemon in question does not exist. An unknown
    /// scheduler does not count; see [`is_unknown_scheduler`](Self::is_unknown_scheduler).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.kind(),
            KernelErrorKind::ServiceNotFound
                | KernelErrorKind::DestinationNotFound
                | KernelErrorKind::DaemonNotFound
        )
    }

    /// Returns whether the service itself does not exist.
    #[must_use]
    pub fn is_service_not_found(&self) -> bool {
        self.kind() == KernelErrorKind::ServiceNotFound
    }

    /// Returns whether the service, destination or daemon to create exists.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(
            self.kind(),
            KernelErrorKind::ServiceExists
                | KernelErrorKind::DestinationExists
                | KernelErrorKind::DaemonExists
        )
    }

    /// Returns whether the process lacks `CAP_NET_ADMIN` in the initial user namespace.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.kind() == KernelErrorKind::PermissionDenied
    }

    /// Returns whether a value is invalid or out of range, so that the same request will not
    /// succeed later either.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(
            self.kind(),
            KernelErrorKind::Invalid | KernelErrorKind::OutOfRange
        )
    }

    /// Returns whether the scheduler or persistence engine is unknown to this kernel.
    #[must_use]
    pub fn is_unknown_scheduler(&self) -> bool {
        self.kind() == KernelErrorKind::UnknownScheduler
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.command)?;
        let kind = self.kind();
        if kind == KernelErrorKind::Other {
            f.write_str(self.refusal.errno().desc())?;
        } else {
            kind.fmt(f)?;
        }
        self.extended_message()
            .map_or(Ok(()), |message| write!(f, " ({message})"))
    }
}

impl std::error::Error for KernelError {}

impl fmt::Display for KernelErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PermissionDenied => "permission denied",
            Self::ServiceNotFound => "no such service",
            Self::ServiceExists => "service already exists",
            Self::DestinationNotFound => "no such destination",
            Self::DestinationExists => "destination already exists",
            Self::UnknownScheduler => "scheduler or persistence engine unknown",
            Self::DaemonNotFound => "daemon does not run",
            Self::DaemonExists => "daemon already runs",
            Self::InterfaceNotFound => "no such interface",
            Self::Invalid => "invalid value",
            Self::OutOfRange => "value out of range",
            Self::Unsupported => "not supported by this kernel",
            Self::OutOfMemory => "kernel out of memory",
            Self::Other => "other error",
        })
    }
}

/// The kind of object that a command concerns; an errno has different meanings for each.
#[derive(Clone, Copy)]
enum Subject {
    Service,
    Destination,
    Daemon,
    Namespace,
}

impl Subject {
    fn of(command: IpvsCommand) -> Self {
        match command {
            IpvsCommand::NewService
            | IpvsCommand::SetService
            | IpvsCommand::DelService
            | IpvsCommand::GetService
            | IpvsCommand::Zero => Self::Service,
            IpvsCommand::NewDest
            | IpvsCommand::SetDest
            | IpvsCommand::DelDest
            | IpvsCommand::GetDest => Self::Destination,
            IpvsCommand::NewDaemon | IpvsCommand::DelDaemon | IpvsCommand::GetDaemon => {
                Self::Daemon
            }
            IpvsCommand::SetConfig
            | IpvsCommand::GetConfig
            | IpvsCommand::SetInfo
            | IpvsCommand::GetInfo
            | IpvsCommand::Flush => Self::Namespace,
        }
    }
}

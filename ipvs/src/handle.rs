//! The handle that reads and changes the IPVS tables of a network namespace.

use std::fmt;

use netlink_packet_core::{
    DecodeError, NLA_HEADER_SIZE, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::{GenlHeader, constants::GENL_HDRLEN};

use crate::{
    Daemon, Destination, Error, Failure, Info, KernelError, Request, RequestError, Service,
    ServiceKey, Timeouts,
    pipeline::{self, Collect, Connection, Lost},
    request::Query,
    wire::{
        FAMILY_NAME, IPVS_CMD_ATTR_DAEMON, IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE, IpvsCommand,
        IpvsMessage,
    },
};

/// The IPVS tables of one network namespace: that of the thread that connected.
///
/// Every call needs `CAP_NET_ADMIN` in the initial user namespace, reads included. The kernel
/// executes a call's requests on the calling thread. Calls yield to other tasks after each batch of
/// a few hundred requests, and after every few dozen reads.
///
/// # Cancel safety
/// A future may be dropped at any time. Requests sent by then are applied, the others are not; only
/// another read of the table shows which. The handle stays usable: the next call discards late
/// answers first.
pub struct Handle {
    connection: Connection,
    family: u16,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Opens a socket in the present network namespace and finds the family, which loads the module
    /// `ip_vs` if necessary.
    ///
    /// # Errors
    /// Fails with [`Error::FamilyNotFound`] when the kernel has no IPVS.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O enabled, like every tokio socket.
    pub async fn connect() -> Result<Self, Error> {
        let mut connection = Connection::open().map_err(Error::Connection)?;
        match connection.resolve_family(FAMILY_NAME).await {
            Ok(family) => Ok(Self { connection, family }),
            Err(pipeline::ConnectionError::FamilyNotFound { .. }) => Err(Error::FamilyNotFound),
            Err(error) => Err(Error::Connection(error)),
        }
    }

    /// Applies the requests in order and returns those that failed, in order. An empty list means
    /// that all were applied.
    ///
    /// A failed request does not stop the ones after it. Hundreds of requests go into each send,
    /// with one acknowledgement for all of them.
    ///
    /// # Errors
    /// Fails when the socket itself fails. Requests may have been applied by then.
    pub async fn execute(&mut self, requests: &[Request]) -> Result<Vec<Failure>, Error> {
        let lost = self.connection.submit(self.family, requests).await;
        let lost = lost.map_err(Error::Connection)?;
        Ok(lost
            .into_iter()
            .filter_map(|lost| failure(requests, lost))
            .collect())
    }

    /// Reads all services.
    ///
    /// The dump is not atomic: while other programs change the table, a service may be missing from
    /// it or occur twice. [`service`](Self::service) reads one service reliably.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails; a part of a dump is never returned.
    pub async fn services(&mut self) -> Result<Vec<Service>, Error> {
        self.dump(IpvsCommand::GetService, None, |payload| {
            Service::parse(nested(payload, IPVS_CMD_ATTR_SERVICE)?)
        })
        .await
    }

    /// Reads one service; `None` when it does not exist.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails.
    pub async fn service(&mut self, key: &ServiceKey) -> Result<Option<Service>, Error> {
        let query = Query {
            command: IpvsCommand::GetService,
            service: Some(*key),
        };
        let found = self
            .read(query, |payload| {
                Service::parse(nested(payload, IPVS_CMD_ATTR_SERVICE)?)
            })
            .await;
        match found {
            Err(Error::Kernel(error)) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// Reads the destinations of a service; there are none when the service does not exist.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails; a part of a dump is never returned.
    pub async fn destinations(&mut self, service: &ServiceKey) -> Result<Vec<Destination>, Error> {
        let family = service.family();
        self.dump(IpvsCommand::GetDest, Some(*service), move |payload| {
            Destination::parse_with_param(nested(payload, IPVS_CMD_ATTR_DEST)?, family)
        })
        .await
    }

    /// Reads version and connection table size.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails.
    pub async fn info(&mut self) -> Result<Info, Error> {
        let query = Query {
            command: IpvsCommand::GetInfo,
            service: None,
        };
        self.read(query, |payload| Info::try_from(&message(payload)?))
            .await
    }

    /// Reads the timeouts of connections.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails.
    pub async fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let query = Query {
            command: IpvsCommand::GetConfig,
            service: None,
        };
        self.read(query, |payload| Timeouts::try_from(&message(payload)?))
            .await
    }

    /// Reads the sync daemons that run, two at most.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails.
    pub async fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        self.dump(IpvsCommand::GetDaemon, None, |payload| {
            Daemon::parse(nested(payload, IPVS_CMD_ATTR_DAEMON)?)
        })
        .await
    }

    async fn dump<T>(
        &mut self,
        command: IpvsCommand,
        service: Option<ServiceKey>,
        decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, Error> {
        let query = Query { command, service };
        let objects = self.connection.dump_as(self.family, &query, decode).await;
        objects.map_err(|error| Error::from_pipeline(error, command))
    }

    async fn read<T>(
        &mut self,
        query: Query,
        decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Error> {
        let objects = self
            .connection
            .request_as(self.family, &query, decode)
            .await;
        let objects = objects.map_err(|error| Error::from_pipeline(error, query.command))?;
        objects.into_iter().next().ok_or_else(unanswered)
    }

    /// Sends queries and a dump in one exchange; all answers go into `answers`.
    pub(crate) async fn dump_into(
        &mut self,
        questions: &[Query],
        dump: &Query,
        answers: &mut impl Collect,
    ) -> Result<(), Error> {
        let result = self
            .connection
            .dump_into(self.family, questions, dump, answers)
            .await;
        result.map_err(|error| Error::from_pipeline(error, dump.command))
    }
}

/// Returns the error for a query that was acknowledged but not answered.
pub(crate) fn unanswered() -> Error {
    let error = DecodeError::from("acknowledged without an answer");
    Error::Connection(pipeline::ConnectionError::Unreadable(error))
}

fn failure(requests: &[Request], lost: Lost) -> Option<Failure> {
    let Lost { index, refusal } = lost;
    let command = requests.get(index)?.command();
    let error = refusal.map_or(RequestError::Unknown, |refusal| {
        RequestError::Refused(KernelError::new(command, refusal))
    });
    Some(Failure { index, error })
}

/// Returns the value of the attribute that holds the object of an answer.
fn nested(payload: &[u8], kind: u16) -> Result<&[u8], DecodeError> {
    let attributes = payload.get(GENL_HDRLEN..).unwrap_or_default();
    for nla in NlasIterator::new(attributes) {
        let nla = nla?;
        if nla.kind() == kind {
            let end = usize::from(nla.length());
            return Ok(nla
                .into_inner()
                .get(NLA_HEADER_SIZE..end)
                .unwrap_or_default());
        }
    }
    Err(format!("answer without attribute {kind}").into())
}

fn message(payload: &[u8]) -> Result<IpvsMessage, DecodeError> {
    let header = GenlHeader::parse(payload)?;
    IpvsMessage::parse_with_param(payload.get(GENL_HDRLEN..).unwrap_or_default(), header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn require_send(_: impl Send) {}

    /// Compiles only if a task may move between threads during a call.
    #[expect(dead_code, reason = "its being compiled is the test")]
    fn every_future_is_send(mut handle: Handle, key: ServiceKey) {
        require_send(Handle::connect());
        require_send(handle.execute(&[]));
        require_send(handle.services());
        require_send(handle.service(&key));
        require_send(handle.destinations(&key));
        require_send(handle.tables());
        require_send(async {
            handle
                .tables_of([key])
                .next()
                .await
                .map(|table| table.cloned())
        });
        require_send(handle.snapshot());
        require_send(handle.info());
        require_send(handle.timeouts());
        require_send(handle.daemons());
    }
}

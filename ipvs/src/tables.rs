//! Reads services with their destinations, one service after the other.

use std::{mem, vec};

use netlink_packet_core::{DecodeError, Parseable, ParseableParametrized};
use netlink_packet_generic::constants::GENL_HDRLEN;

use crate::{
    Destination, Error, Family, Handle, Service, ServiceKey,
    handle::unanswered,
    pipeline::Collect,
    request::Query,
    wire::{IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE, IpvsCommand, attributes},
};

/// A service and all of its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTable {
    /// The service.
    pub service: Service,
    /// Its destinations in the order of the dump, which is not that of their creation.
    pub destinations: Vec<Destination>,
}

/// Reads services with their destinations, one service after the other, into the same memory.
///
/// The kernel has no dump of everything. Each service takes a dump of its own, which is two system
/// calls, so the services are read at different moments: a service that is deleted before its turn
/// is left out. A dump of more than some eighty destinations takes several datagrams. When the
/// service is deleted between two of them, the kernel ends the dump as if there were no more
/// destinations, and the service is returned with those that were read.
///
/// # Cancel safety
/// When the future of [`next`](Self::next) is dropped, the next call reads the same service again.
///
/// # Example
/// ```no_run
/// # async fn example(handle: &mut ipvs_netlink::Handle) -> Result<(), ipvs_netlink::Error> {
/// let mut tables = handle.tables().await?;
/// while let Some(table) = tables.next().await? {
///     println!("{} with {} destinations", table.service.key, table.destinations.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read until `next` is called"]
pub struct Tables<'a> {
    handle: &'a mut Handle,
    remaining: Remaining,
    table: Option<ServiceTable>,
}

/// The services that remain to be read.
#[derive(Debug)]
enum Remaining {
    /// Only their destinations are missing.
    Services(vec::IntoIter<Service>),
    /// Only their keys are known.
    Keys(vec::IntoIter<ServiceKey>),
}

impl Handle {
    /// Reads all services, and returns a reader for the destinations of each: one service at a
    /// time, for a caller that does not keep them all.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails; a part of a dump is never returned.
    pub async fn tables(&mut self) -> Result<Tables<'_>, Error> {
        let services = self.services().await?;
        let remaining = Remaining::Services(services.into_iter());
        Ok(Tables::new(self, remaining))
    }

    /// Returns a reader for the services with these keys and their destinations, one service at a
    /// time. Services that do not exist are left out.
    pub fn tables_of(&mut self, keys: impl IntoIterator<Item = ServiceKey>) -> Tables<'_> {
        let keys: Vec<ServiceKey> = keys.into_iter().collect();
        Tables::new(self, Remaining::Keys(keys.into_iter()))
    }

    /// Reads all services and the destinations of each, as [`tables`](Self::tables) does.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails; a part of the table is never returned.
    pub async fn snapshot(&mut self) -> Result<Vec<ServiceTable>, Error> {
        self.tables().await?.collect().await
    }

    /// Reads a service's destinations, and the service itself unless it is given; `None` when it does
    /// not exist.
    ///
    /// For a service that does not exist, the kernel returns an empty dump and no error. So a
    /// service without destinations is read again.
    async fn read_table(
        &mut self,
        key: &ServiceKey,
        given: Option<Service>,
        answers: &mut Answers,
    ) -> Result<Option<Service>, Error> {
        if let Some(service) = given {
            self.dump_table(key, &[], answers).await?;
            if answers.has_destinations() {
                return Ok(Some(service));
            }
        }
        let question = Query {
            command: IpvsCommand::GetService,
            service: Some(*key),
        };
        match self.dump_table(key, &[question], answers).await {
            Err(error) if error.is_not_found() => Ok(None),
            answered => answered.and_then(|()| answers.service().map(Some)),
        }
    }

    async fn dump_table(
        &mut self,
        key: &ServiceKey,
        questions: &[Query],
        answers: &mut Answers,
    ) -> Result<(), Error> {
        let dump = Query {
            command: IpvsCommand::GetDest,
            service: Some(*key),
        };
        self.dump_into(questions, &dump, answers).await
    }
}

impl<'a> Tables<'a> {
    fn new(handle: &'a mut Handle, remaining: Remaining) -> Self {
        Self {
            handle,
            remaining,
            table: None,
        }
    }

    /// Reads the next service and its destinations; `None` after the last.
    ///
    /// # Errors
    /// Fails when the kernel refuses or the socket fails; a part of a dump is never returned. The
    /// next call reads the same service again.
    pub async fn next(&mut self) -> Result<Option<&ServiceTable>, Error> {
        let last = self.table.take();
        let mut destinations = last.map(|table| table.destinations).unwrap_or_default();
        while let Some((key, service)) = self.remaining.first() {
            let mut answers = Answers::new(&key, mem::take(&mut destinations));
            let found = self.handle.read_table(&key, service, &mut answers).await?;
            self.remaining.advance();
            destinations = answers.destinations;
            if let Some(service) = found {
                self.table = Some(ServiceTable {
                    service,
                    destinations,
                });
                break;
            }
        }
        Ok(self.table.as_ref())
    }

    /// Reads the remaining services.
    async fn collect(mut self) -> Result<Vec<ServiceTable>, Error> {
        let mut tables = Vec::with_capacity(self.remaining.len());
        while let Some(table) = self.next().await? {
            tables.push(table.clone());
        }
        Ok(tables)
    }
}

impl Remaining {
    /// Returns the key of the next service, and the service if it has been read.
    fn first(&self) -> Option<(ServiceKey, Option<Service>)> {
        match self {
            Self::Services(services) => {
                let service = services.as_slice().first()?;
                Some((service.key, Some(*service)))
            }
            Self::Keys(keys) => Some((*keys.as_slice().first()?, None)),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Services(services) => drop(services.next()),
            Self::Keys(keys) => drop(keys.next()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Services(services) => services.len(),
            Self::Keys(keys) => keys.len(),
        }
    }
}

/// The kernel's answers for one service.
struct Answers {
    family: Family,
    service: Option<Service>,
    destinations: Vec<Destination>,
}

impl Answers {
    /// Creates empty answers. `destinations` is the list to reuse for the destinations.
    fn new(key: &ServiceKey, destinations: Vec<Destination>) -> Self {
        Self {
            family: key.family(),
            service: None,
            destinations,
        }
    }

    fn has_destinations(&self) -> bool {
        !self.destinations.is_empty()
    }

    fn service(&self) -> Result<Service, Error> {
        self.service.ok_or_else(unanswered)
    }
}

impl Collect for Answers {
    fn clear(&mut self) {
        self.service = None;
        self.destinations.clear();
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        for nla in attributes(payload.get(GENL_HDRLEN..).unwrap_or_default()) {
            match nla? {
                (IPVS_CMD_ATTR_SERVICE, value) => self.service = Some(Service::parse(value)?),
                (IPVS_CMD_ATTR_DEST, value) => {
                    let destination = Destination::parse_with_param(value, self.family)?;
                    self.destinations.push(destination);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

//! The requests that change the IPVS tables, and their encoding.

use std::fmt;

use netlink_packet_core::Emitable;
use netlink_packet_generic::{GenlFamily, GenlHeader};

use crate::{
    Daemon, DaemonState, DestinationConfig, DestinationKey, ServiceConfig, ServiceKey, Timeouts,
    pipeline::Encode,
    wire::{
        AttributeWriter, DaemonAttribute, DestinationAttribute, IPVS_CMD_ATTR_DAEMON,
        IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE, IpvsAttribute, IpvsCommand, IpvsMessage,
        ServiceAttribute,
    },
};

/// A change to the IPVS tables of a network namespace.
///
/// This is plain data; [`Handle::execute`](crate::Handle::execute) applies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Request {
    /// Adds a service (`IPVS_CMD_NEW_SERVICE`). Refused if the key is in use.
    CreateService {
        /// The key of the new service.
        key: ServiceKey,
        /// Its settings.
        config: ServiceConfig,
    },
    /// Changes a service in place; connections and counters stay (`IPVS_CMD_SET_SERVICE`).
    UpdateService {
        /// The key of the service.
        key: ServiceKey,
        /// All of its settings, changed or not.
        config: ServiceConfig,
    },
    /// Removes a service and its destinations (`IPVS_CMD_DEL_SERVICE`).
    DeleteService {
        /// The key of the service.
        key: ServiceKey,
    },
    /// Adds a destination to a service (`IPVS_CMD_NEW_DEST`).
    CreateDestination {
        /// The key of the service.
        service: ServiceKey,
        /// The key of the new destination.
        key: DestinationKey,
        /// Its settings.
        config: DestinationConfig,
    },
    /// Changes a destination in place; its connections stay (`IPVS_CMD_SET_DEST`).
    UpdateDestination {
        /// The key of the service.
        service: ServiceKey,
        /// The key of the destination.
        key: DestinationKey,
        /// All of its settings, changed or not.
        config: DestinationConfig,
    },
    /// Removes a destination from a service (`IPVS_CMD_DEL_DEST`).
    DeleteDestination {
        /// The key of the service.
        service: ServiceKey,
        /// The key of the destination.
        key: DestinationKey,
    },
    /// Sets the timeouts of connections; zeros keep the present values (`IPVS_CMD_SET_CONFIG`).
    SetTimeouts(Timeouts),
    /// Starts a connection-sync daemon (`IPVS_CMD_NEW_DAEMON`).
    StartDaemon(Daemon),
    /// Stops a connection-sync daemon (`IPVS_CMD_DEL_DAEMON`).
    StopDaemon(DaemonState),
    /// Zeroes the counters of one service and its destinations, or of everything
    /// (`IPVS_CMD_ZERO`).
    Zero(Option<ServiceKey>),
    /// Removes every service of the network namespace, including those of other programs
    /// (`IPVS_CMD_FLUSH`).
    Flush,
}

impl Request {
    /// Returns the command that carries the request.
    #[must_use]
    pub fn command(&self) -> IpvsCommand {
        match self {
            Self::CreateService { .. } => IpvsCommand::NewService,
            Self::UpdateService { .. } => IpvsCommand::SetService,
            Self::DeleteService { .. } => IpvsCommand::DelService,
            Self::CreateDestination { .. } => IpvsCommand::NewDest,
            Self::UpdateDestination { .. } => IpvsCommand::SetDest,
            Self::DeleteDestination { .. } => IpvsCommand::DelDest,
            Self::SetTimeouts(_) => IpvsCommand::SetConfig,
            Self::StartDaemon(_) => IpvsCommand::NewDaemon,
            Self::StopDaemon(_) => IpvsCommand::DelDaemon,
            Self::Zero(_) => IpvsCommand::Zero,
            Self::Flush => IpvsCommand::Flush,
        }
    }

    /// Builds the message of the request, attribute by attribute.
    #[must_use]
    pub fn to_message(&self) -> IpvsMessage {
        let mut attributes = Vec::new();
        self.visit(&mut attributes);
        IpvsMessage {
            command: self.command(),
            attributes,
        }
    }

    /// Passes the attributes of the first level to a sink, in the order of the message.
    fn visit(&self, sink: &mut impl AttributeSink) {
        match *self {
            Self::CreateService { key, config } | Self::UpdateService { key, config } => {
                sink.service(key.attributes().chain(config.attributes(key.family())));
            }
            Self::DeleteService { key } => sink.service(key.attributes()),
            Self::CreateDestination {
                service,
                key,
                config,
            }
            | Self::UpdateDestination {
                service,
                key,
                config,
            } => {
                sink.service(service.attributes());
                sink.destination(key.attributes().chain(config.attributes()));
            }
            Self::DeleteDestination { service, key } => {
                sink.service(service.attributes());
                sink.destination(key.attributes());
            }
            Self::SetTimeouts(timeouts) => timeouts.attributes().for_each(|nla| sink.plain(nla)),
            Self::StartDaemon(daemon) => sink.daemon(daemon.attributes()),
            Self::StopDaemon(state) => sink.daemon(state.attributes()),
            Self::Zero(Some(key)) => sink.service(key.attributes()),
            Self::Zero(None) | Self::Flush => {}
        }
    }
}

/// The destination of a request's attributes: a list, or the send buffer itself.
///
/// Writing into the send buffer allocates nothing, so that a hundred thousand requests are cheap.
/// Both use [`Request::visit`], so they encode a request alike.
trait AttributeSink {
    fn service(&mut self, attributes: impl Iterator<Item = ServiceAttribute>);
    fn destination(&mut self, attributes: impl Iterator<Item = DestinationAttribute>);
    fn daemon(&mut self, attributes: impl Iterator<Item = DaemonAttribute>);
    fn plain(&mut self, attribute: IpvsAttribute);
}

impl AttributeSink for Vec<IpvsAttribute> {
    fn service(&mut self, attributes: impl Iterator<Item = ServiceAttribute>) {
        self.push(IpvsAttribute::Service(attributes.collect()));
    }

    fn destination(&mut self, attributes: impl Iterator<Item = DestinationAttribute>) {
        self.push(IpvsAttribute::Destination(attributes.collect()));
    }

    fn daemon(&mut self, attributes: impl Iterator<Item = DaemonAttribute>) {
        self.push(IpvsAttribute::Daemon(attributes.collect()));
    }

    fn plain(&mut self, attribute: IpvsAttribute) {
        self.push(attribute);
    }
}

impl AttributeSink for AttributeWriter<'_> {
    fn service(&mut self, attributes: impl Iterator<Item = ServiceAttribute>) {
        self.nested(IPVS_CMD_ATTR_SERVICE, attributes);
    }

    fn destination(&mut self, attributes: impl Iterator<Item = DestinationAttribute>) {
        self.nested(IPVS_CMD_ATTR_DEST, attributes);
    }

    fn daemon(&mut self, attributes: impl Iterator<Item = DaemonAttribute>) {
        self.nested(IPVS_CMD_ATTR_DAEMON, attributes);
    }

    fn plain(&mut self, attribute: IpvsAttribute) {
        self.attribute(&attribute);
    }
}

impl Encode for Request {
    fn encode(&self, buffer: &mut Vec<u8>) {
        encode_header(self.command(), buffer);
        self.visit(&mut AttributeWriter::new(buffer));
    }
}

/// A query: a command and, if it reads one service, its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) command: IpvsCommand,
    pub(crate) service: Option<ServiceKey>,
}

impl Encode for Query {
    fn encode(&self, buffer: &mut Vec<u8>) {
        encode_header(self.command, buffer);
        if let Some(key) = self.service {
            AttributeWriter::new(buffer).service(key.attributes());
        }
    }
}

fn encode_header(command: IpvsCommand, buffer: &mut Vec<u8>) {
    let empty = IpvsMessage {
        command,
        attributes: Vec::new(),
    };
    let header = GenlHeader {
        cmd: empty.command(),
        version: empty.version(),
    };
    let start = buffer.len();
    buffer.resize(start + header.buffer_len(), 0);
    if let Some(room) = buffer.get_mut(start..) {
        header.emit(room);
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command().fmt(f)?;
        match self {
            Self::CreateService { key, config: _ }
            | Self::UpdateService { key, config: _ }
            | Self::DeleteService { key } => write!(f, " {key}"),
            Self::CreateDestination {
                service,
                key,
                config: _,
            }
            | Self::UpdateDestination {
                service,
                key,
                config: _,
            }
            | Self::DeleteDestination { service, key } => write!(f, " {key} of {service}"),
            Self::Zero(Some(key)) => write!(f, " of {key}"),
            Self::StartDaemon(Daemon { state, .. }) | Self::StopDaemon(state) => {
                write!(f, " ({state})")
            }
            Self::SetTimeouts(_) | Self::Zero(None) | Self::Flush => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

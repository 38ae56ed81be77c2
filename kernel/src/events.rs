//! Watches links, addresses, routes, rules and our nft table for changes, by netlink notifications: their drift is noticed at
//! once.

use std::{fs, io, net::IpAddr, time::Duration};

use futures::{Stream, StreamExt, stream};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_sys::{
    AsyncSocket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use rtnetlink::{MulticastGroup, proto::new_connection};
use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use crate::{
    nft,
    route::{Frame, Notified, address_of},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const NFNLGRP_NFTABLES: u32 = 7;

/// The receive buffer in bytes, for bursts of notifications.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// The delay before a socket that has failed is opened again.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// What has changed. Equal changes can be merged, since the state has to be read again anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkChange {
    /// A link was added, removed or changed.
    Links,
    /// An address was added, removed or changed.
    Addresses,
    /// Only if addresses alone are watched: one was removed by the program whose netlink socket has this port; 0 if the kernel did it, or
    /// does not say.
    AddressRemoved {
        /// The address.
        address: IpAddr,
        /// The port, which is usually the process id; see [`program_of`].
        port: u32,
    },
    /// A route of ours was added or removed.
    OurRoutes,
    /// A foreign route to these destinations was added or removed.
    Route(IpNet),
    /// A policy routing rule was added or removed.
    Rules,
    /// One of our nft tables was changed.
    Masquerade,
    /// Notifications were lost: anything can have changed.
    Lost,
}

impl NetworkChange {
    /// Returns whether a link may have changed.
    #[must_use]
    pub const fn is_of_links(self) -> bool {
        matches!(self, Self::Links | Self::Lost)
    }
}

/// Why notifications cannot be received.
#[derive(Debug, Error)]
pub enum EventError {
    /// The kernel refuses to open a socket.
    #[error("opening a socket for network notifications")]
    Open(#[source] io::Error),
    /// The kernel refuses the subscription.
    #[error("subscribing to network notifications")]
    Subscribe(#[source] io::Error),
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// Links, addresses, routes and rules.
    Network,
    /// Links and addresses.
    Addresses,
    /// Our nft tables.
    Masquerade,
}

impl Watched {
    const fn protocol(self) -> isize {
        match self {
            Self::Network | Self::Addresses => NETLINK_ROUTE,
            Self::Masquerade => NETLINK_NETFILTER,
        }
    }

    /// The multicast groups, one bit for each.
    fn groups(self) -> u32 {
        let bits = |groups: &[MulticastGroup]| {
            let bits = groups.iter().map(|group| 1 << (*group as u32 - 1));
            bits.fold(0, |groups, group| groups | group)
        };
        let addresses = bits(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ]);
        match self {
            Self::Addresses => addresses,
            Self::Network => {
                addresses
                    | bits(&[
                        MulticastGroup::Ipv4Route,
                        MulticastGroup::Ipv6Route,
                        MulticastGroup::Ipv4Rule,
                        MulticastGroup::Ipv6Rule,
                    ])
            }
            Self::Masquerade => 1 << (NFNLGRP_NFTABLES - 1),
        }
    }

    /// Returns what a notification is about. `None` if it is not relevant.
    fn change(self, message: &NetlinkMessage<Frame>) -> Option<NetworkChange> {
        if let NetlinkPayload::Overrun(_) = message.payload {
            return Some(NetworkChange::Lost);
        }
        let NetlinkPayload::InnerMessage(frame) = &message.payload else {
            return None;
        };
        match self {
            Self::Network => change_of_network(frame),
            Self::Addresses => {
                removal(frame, message.header.port_number).or_else(|| change_of_network(frame))
            }
            Self::Masquerade => nft::is_of_ours(frame).then_some(NetworkChange::Masquerade),
        }
    }
}

/// Notifications of changes. A change is either among them or in what is read after this was created.
pub struct Notifications {
    watched: Watched,
    /// `None` while the socket cannot be opened again.
    socket: Option<ChangeStream>,
    reopen_at: Instant,
    /// Whether the last attempt to open the socket failed.
    has_failed: bool,
}

type ChangeStream = Box<dyn Stream<Item = NetworkChange> + Unpin + Send>;

impl Notifications {
    /// Watches links, addresses, routes and rules. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the socket or the subscription.
    pub fn of_network() -> Result<Self, EventError> {
        Self::watch(Watched::Network)
    }

    /// Watches links and addresses. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the socket or the subscription.
    pub fn of_addresses() -> Result<Self, EventError> {
        Self::watch(Watched::Addresses)
    }

    /// Watches our nft tables, which makes the kernel load nftables. The first change is `Lost`, since they were read before.
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses the socket or the subscription, as one without nftables does.
    pub fn of_masquerade() -> Result<Self, EventError> {
        let mut changes = Self::watch(Watched::Masquerade)?;
        let lost = stream::iter([NetworkChange::Lost]);
        changes.socket = changes
            .socket
            .map(|socket| Box::new(lost.chain(socket)) as ChangeStream);
        Ok(changes)
    }

    fn watch(watched: Watched) -> Result<Self, EventError> {
        Ok(Self {
            watched,
            socket: Some(subscribe(watched)?),
            reopen_at: Instant::now(),
            has_failed: false,
        })
    }

    /// Waits for the next change. A socket that has failed is opened again. While it cannot be opened, returns `Lost` each second,
    /// and once more when it is open: anything can have changed.
    ///
    /// No change is lost if the future is dropped.
    pub async fn next(&mut self) -> NetworkChange {
        if let Some(socket) = &mut self.socket {
            if let Some(change) = socket.next().await {
                return change;
            }
            self.socket = None;
            self.reopen_at = Instant::now() + REOPEN_DELAY;
        }
        sleep_until(self.reopen_at).await;
        self.reopen();
        NetworkChange::Lost
    }

    fn reopen(&mut self) {
        let watched = self.watched;
        match subscribe(watched) {
            Ok(socket) => {
                warn!(
                    ?watched,
                    "the socket for notifications has failed and is opened again"
                );
                self.socket = Some(socket);
                self.has_failed = false;
            }
            Err(error) => {
                if !self.has_failed {
                    let error = lvs_runtime::error::chain(&error);
                    error!(
                        error,
                        ?watched,
                        "cannot receive notifications; the kernel is read each second"
                    );
                }
                self.has_failed = true;
                self.reopen_at = Instant::now() + REOPEN_DELAY;
            }
        }
    }
}

/// The process to which a netlink port belongs, such as `process 812 (NetworkManager)`, as far as that can be known: a process's first
/// netlink socket gets its id as the port (netlink_autobind in net/netlink/af_netlink.c), as its own namespace of process ids has it.
#[must_use]
pub fn program_of(port: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{port}/comm")).ok()?;
    Some(format!("process {port} ({})", name.trim_end()))
}

fn subscribe(watched: Watched) -> Result<ChangeStream, EventError> {
    let (mut connection, handle, notifications) =
        new_connection::<Frame>(watched.protocol()).map_err(EventError::Open)?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER) {
        debug!(%error, "cannot enlarge the receive buffer for notifications");
    }
    socket
        .bind(&SocketAddr::new(0, watched.groups()))
        .map_err(EventError::Subscribe)?;
    tokio::spawn(connection);
    // The connection's task ends once both its handle and its receiver are dropped, so the stream owns both.
    let changes = notifications.filter_map(move |(message, _)| {
        let _alive = &handle;
        std::future::ready(watched.change(&message))
    });
    Ok(Box::new(changes))
}

/// The removal of an address, by the program with a netlink port.
fn removal(frame: &Frame, port: u32) -> Option<NetworkChange> {
    if frame.kind != RTM_DELADDR {
        return None;
    }
    let address = address_of(frame)?;
    Some(NetworkChange::AddressRemoved { address, port })
}

fn change_of_network(frame: &Frame) -> Option<NetworkChange> {
    match frame.kind {
        RTM_NEWLINK | RTM_DELLINK => Some(NetworkChange::Links),
        RTM_NEWADDR | RTM_DELADDR => Some(NetworkChange::Addresses),
        RTM_NEWRULE | RTM_DELRULE => Some(NetworkChange::Rules),
        RTM_NEWROUTE | RTM_DELROUTE => match Notified::of(frame)? {
            Notified::Ours => Some(NetworkChange::OurRoutes),
            Notified::Foreign(destination) => Some(NetworkChange::Route(destination)),
            Notified::Unreadable => Some(NetworkChange::Lost),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    };

    use super::*;
    use crate::route::OUR_PROTOCOL;

    fn route(table: u8, protocol: u8) -> NetlinkMessage<Frame> {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 24;
        route.header.table = table;
        route.header.protocol = RouteProtocol::from(protocol);
        let destination = RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 0));
        route
            .attributes
            .push(RouteAttribute::Destination(destination));
        NetlinkMessage::from(Frame::from(&RouteNetlinkMessage::NewRoute(route)))
    }

    #[test]
    fn a_foreign_route_is_reported_with_its_destination_unless_it_is_in_the_local_table() {
        let change = |table, protocol| Watched::Network.change(&route(table, protocol));
        let foreign = NetworkChange::Route("192.0.2.0/24".parse().unwrap());
        assert_eq!(change(254, 4), Some(foreign));
        assert_eq!(change(100, 186), Some(foreign));
        assert_eq!(change(0, OUR_PROTOCOL), Some(NetworkChange::OurRoutes));
        assert_eq!(change(255, 2), None);
    }

    #[test]
    fn only_changes_of_our_nft_table_are_relevant() {
        let change = |kind, payload: &[u8]| {
            let frame = Frame {
                kind,
                payload: payload.to_vec(),
            };
            Watched::Masquerade.change(&NetlinkMessage::from(frame))
        };
        // `nft delete table inet lvs-operator`, and a chain of another table of the same family.
        let ours = [
            &[1, 0, 0, 7],
            [17, 0, 1, 0].as_slice(),
            b"lvs-operator\0\0\0\0",
        ]
        .concat();
        let other = [&[1, 0, 0, 7], [11, 0, 1, 0].as_slice(), b"filter\0\0"].concat();
        assert_eq!(change(0x0a02, &ours), Some(NetworkChange::Masquerade));
        assert_eq!(change(0x0a03, &other), None);
        // The end of a transaction: the number of the generation.
        assert_eq!(change(0x0a0f, &[0, 0, 0, 7, 8, 0, 1, 0, 0, 0, 0, 9]), None);
    }

    #[test]
    fn an_overrun_means_that_everything_must_be_read() {
        let lost = NetlinkPayload::Overrun(Vec::new());
        let message = NetlinkMessage::new(Default::default(), lost);
        for watched in [Watched::Network, Watched::Addresses, Watched::Masquerade] {
            assert_eq!(watched.change(&message), Some(NetworkChange::Lost));
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_socket_that_failed_is_opened_again_and_anything_can_have_changed() {
        let mut changes = Notifications::of_addresses().unwrap();
        changes.socket = Some(Box::new(stream::iter([NetworkChange::Addresses])));
        assert_eq!(changes.next().await, NetworkChange::Addresses);

        assert_eq!(changes.next().await, NetworkChange::Lost);

        assert!(changes.socket.is_some());
    }
}

//! Watches links, addresses, routes and rules for changes, by netlink notifications: their drift is noticed at once.

use std::io;

use futures::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::RouteHeader;
use netlink_sys::{AsyncSocket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{MulticastGroup, proto::new_connection};
use thiserror::Error;
use tracing::debug;

use crate::route::{Frame, OUR_PROTOCOL};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

const ADDRESS_GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

const ALL_GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// The receive buffer in bytes, for bursts of notifications.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// What has changed. Equal changes can be merged, since the state has to be read again anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkChange {
    /// A link was added, removed or changed.
    Links,
    /// An address was added, removed or changed.
    Addresses,
    /// A route of the main table, or one of ours, was added or removed.
    Routes,
    /// A policy routing rule was added or removed.
    Rules,
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

/// Streams changes of links, addresses, routes and rules. A change is either in the stream or in what is read after
/// this call.
///
/// Must be called in a tokio runtime. The stream ends when the socket fails.
///
/// # Errors
/// When the kernel refuses the socket or the subscription.
pub fn watch() -> Result<impl Stream<Item = NetworkChange> + Unpin + Send, EventError> {
    subscribe(&ALL_GROUPS)
}

/// Streams changes of links and addresses, as [`watch`] does.
///
/// # Errors
/// When the kernel refuses the socket or the subscription.
pub fn watch_addresses() -> Result<impl Stream<Item = NetworkChange> + Unpin + Send, EventError> {
    subscribe(&ADDRESS_GROUPS)
}

fn subscribe(
    groups: &[MulticastGroup],
) -> Result<impl Stream<Item = NetworkChange> + Unpin + Send + use<>, EventError> {
    let (mut connection, handle, notifications) =
        new_connection::<Frame>(NETLINK_ROUTE).map_err(EventError::Open)?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER) {
        debug!(%error, "cannot enlarge the receive buffer for notifications");
    }
    let groups = groups
        .iter()
        .fold(0, |groups, group| groups | (1 << (*group as u32 - 1)));
    socket
        .bind(&SocketAddr::new(0, groups))
        .map_err(EventError::Subscribe)?;
    tokio::spawn(connection);
    // The connection's task ends once both its handle and its receiver are dropped, so the stream owns both.
    let changes = notifications.filter_map(move |(message, _)| {
        let _alive = &handle;
        std::future::ready(change(&message))
    });
    Ok(changes)
}

/// Returns what a notification is about. `None` if it is not relevant.
fn change(message: &NetlinkMessage<Frame>) -> Option<NetworkChange> {
    if let NetlinkPayload::Overrun(_) = message.payload {
        return Some(NetworkChange::Lost);
    }
    let NetlinkPayload::InnerMessage(frame) = &message.payload else {
        return None;
    };
    match frame.kind {
        RTM_NEWLINK | RTM_DELLINK => Some(NetworkChange::Links),
        RTM_NEWADDR | RTM_DELADDR => Some(NetworkChange::Addresses),
        RTM_NEWRULE | RTM_DELRULE => Some(NetworkChange::Rules),
        RTM_NEWROUTE | RTM_DELROUTE => is_main_or_ours(frame).then_some(NetworkChange::Routes),
        _ => None,
    }
}

/// Returns whether a route is in the main table or is one of ours.
///
/// The header holds the number of the main table. The number of another table can be too large for it.
fn is_main_or_ours(frame: &Frame) -> bool {
    RouteHeader::parse(&frame.payload).is_ok_and(|header| {
        header.table == RouteHeader::RT_TABLE_MAIN || u8::from(header.protocol) == OUR_PROTOCOL
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        RouteNetlinkMessage,
        route::{RouteMessage, RouteProtocol},
    };

    use super::*;

    fn route(table: u8, protocol: u8) -> NetlinkMessage<Frame> {
        let mut route = RouteMessage::default();
        route.header.table = table;
        route.header.protocol = RouteProtocol::from(protocol);
        NetlinkMessage::from(Frame::from(&RouteNetlinkMessage::NewRoute(route)))
    }

    #[test]
    fn only_routes_of_the_main_table_and_ours_are_relevant() {
        assert_eq!(change(&route(254, 4)), Some(NetworkChange::Routes));
        assert_eq!(change(&route(0, OUR_PROTOCOL)), Some(NetworkChange::Routes));
        assert_eq!(change(&route(255, 2)), None);
        assert_eq!(change(&route(100, 186)), None);
    }

    #[test]
    fn an_overrun_means_that_everything_must_be_read() {
        let lost = NetlinkPayload::Overrun(Vec::new());
        let message = NetlinkMessage::new(Default::default(), lost);
        assert_eq!(change(&message), Some(NetworkChange::Lost));
    }
}

//! Changes of the network that others make, as they happen.

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

/// Room for a burst of notifications while nothing is read.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// What has changed. Equal changes may be taken as one: what there is must be read anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkChange {
    /// A link came, went, or changed.
    Links,
    /// An address came, went, or changed.
    Addresses,
    /// A route of the main table or of ours came or went.
    Routes,
    /// A policy routing rule came or went.
    Rules,
    /// Notifications were lost: anything may have changed.
    Lost,
}

/// Notifications cannot be had.
#[derive(Debug, Error)]
pub enum EventError {
    /// The kernel gives no socket.
    #[error("open a socket for network notifications")]
    Open(#[source] io::Error),
    /// The kernel refuses the subscription.
    #[error("subscribe to network notifications")]
    Subscribe(#[source] io::Error),
}

/// Yields changes of links, addresses, routes and rules from here on: what is read after the call misses none.
///
/// To be called in a tokio runtime; the stream ends when the socket fails.
///
/// # Errors
/// When the kernel gives no socket, or refuses the subscription.
pub fn watch() -> Result<impl Stream<Item = NetworkChange> + Unpin + Send, EventError> {
    subscribe(&ALL_GROUPS)
}

/// Yields changes of links and addresses from here on, as [`watch`] does.
///
/// # Errors
/// When the kernel gives no socket, or refuses the subscription.
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
        debug!(%error, "receive buffer not enlarged");
    }
    let groups = groups
        .iter()
        .fold(0, |groups, group| groups | (1 << (*group as u32 - 1)));
    socket
        .bind(&SocketAddr::new(0, groups))
        .map_err(EventError::Subscribe)?;
    tokio::spawn(connection);
    // The task ends with the last of the handle and the receiver, hence the handle lives as long as the stream.
    let changes = notifications.filter_map(move |(message, _)| {
        let _alive = &handle;
        std::future::ready(change(&message))
    });
    Ok(changes)
}

/// Returns what a notification is about; `None` when it does not concern us.
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
        RTM_NEWROUTE | RTM_DELROUTE => concerns_us(frame).then_some(NetworkChange::Routes),
        _ => None,
    }
}

/// Returns whether a route is one of the main table or of ours. The main table's number is in the header always; another
/// table may be too large for it.
fn concerns_us(frame: &Frame) -> bool {
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
    fn routes_of_the_main_table_and_ours_matter_and_no_others() {
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

//! Reads the main routing table where it is small, which answers the questions for the routes to many addresses at once.
//!
//! A machine may have a million routes. The dump ends early then, and the kernel is asked for each address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use lvs_model::{Family, InterfaceName, NodeRoute};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::timeout;
use tracing::debug;

use super::{family, fib, frame::Frame};

/// The most routes of a family in a small table.
const MOST: usize = 200;
/// How long to wait for a part of a dump.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const RT_TABLE_MAIN: u32 = 254;
/// Length, type, flags, sequence number and port.
const NLMSG_HDRLEN: usize = 16;

/// The names of interfaces by their index.
pub(super) type Names = BTreeMap<u32, InterfaceName>;

/// The unicast routes of a small main table.
#[derive(Debug, Default)]
pub(super) struct MainTable {
    /// The best route to each destination; `None` if several are equally good.
    routes: BTreeMap<IpNet, Option<Arc<NodeRoute>>>,
    /// The lengths of the prefixes, of both families.
    lengths: BTreeSet<u8>,
}

impl MainTable {
    /// Reads the table. It lacks the routes of a family that has too many, or that cannot be read in one go: for those, the
    /// kernel must be asked.
    pub(super) async fn read(names: &Names) -> Self {
        let mut table = Self::default();
        for of in [Family::V4, Family::V6] {
            match read_family(of, names).await {
                Ok(Some(routes)) => table.add(routes),
                Ok(None) => debug!(?of, "the main table is not used"),
                Err(error) => debug!(?of, %error, "the main table is not read"),
            }
        }
        table
    }

    /// The route to an address: the longest prefix, then the smallest metric. `None` if the table does not tell.
    pub(super) fn route_to(&self, address: IpAddr) -> Option<&Arc<NodeRoute>> {
        let mut lengths = self.lengths.iter().rev();
        let longest = lengths.find_map(|length| {
            let destination = IpNet::new(address, *length).ok()?.trunc();
            self.routes.get(&destination)
        });
        longest?.as_ref()
    }

    fn add(&mut self, routes: Vec<NodeRoute>) {
        let mut metrics: BTreeMap<IpNet, u32> = BTreeMap::new();
        for route in routes {
            let (destination, metric) = (route.destination, route.metric);
            let best = metrics.get(&destination).copied();
            if best.is_none_or(|best| metric <= best) {
                let is_only = best != Some(metric);
                self.lengths.insert(destination.prefix_len());
                self.routes
                    .insert(destination, is_only.then(|| Arc::new(route)));
                metrics.insert(destination, metric);
            }
        }
    }
}

/// Reads the routes of a family. `None` if there are too many, if they changed meanwhile, or if one of them is not a plain
/// unicast route that works: then the kernel's choice is not that of the longest prefix.
async fn read_family(of: Family, names: &Names) -> io::Result<Option<Vec<NodeRoute>>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    // Without it, an old kernel would send the routes of all tables.
    socket.socket_mut().set_netlink_get_strict_chk(true)?;
    socket.send_to(&request(of), &SocketAddr::new(0, 0)).await?;
    let mut routes = Vec::new();
    loop {
        let received = timeout(ANSWER_TIMEOUT, socket.recv_from_full()).await;
        let (bytes, _) = received.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
        match part(&bytes, names) {
            Part::Routes(part) => routes.extend(part),
            Part::Last(part) => {
                routes.extend(part);
                return Ok((routes.len() <= MOST).then_some(routes));
            }
            Part::Unusable => return Ok(None),
        }
        if routes.len() > MOST {
            return Ok(None);
        }
    }
}

fn request(of: Family) -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header.address_family = family::to_wire(of);
    message
        .attributes
        .push(RouteAttribute::Table(RT_TABLE_MAIN));
    let frame = Frame::from(&RouteNetlinkMessage::GetRoute(message));
    let mut message = NetlinkMessage::from(frame);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A part of a dump.
#[derive(Debug, PartialEq)]
enum Part {
    Routes(Vec<NodeRoute>),
    Last(Vec<NodeRoute>),
    Unusable,
}

fn part(mut bytes: &[u8], names: &Names) -> Part {
    let mut routes = Vec::new();
    while bytes.len() >= NLMSG_HDRLEN {
        let Ok(message) = NetlinkMessage::<Frame>::deserialize(bytes) else {
            return Part::Unusable;
        };
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.flags & NLM_F_DUMP_INTR != 0 {
            return Part::Unusable;
        }
        if let NetlinkPayload::InnerMessage(frame) = message.payload {
            match plain(&frame, names) {
                Some(route) => routes.push(route),
                None => return Part::Unusable,
            }
        } else if let NetlinkPayload::Done(end) = message.payload
            && end.code == 0
        {
            return Part::Last(routes);
        } else {
            return Part::Unusable;
        }
    }
    Part::Routes(routes)
}

/// A unicast route for all packets, with one next hop that works.
fn plain(frame: &Frame, names: &Names) -> Option<NodeRoute> {
    let found = fib::decode(&frame.payload).ok()??;
    if !found.is_unicast() || found.table != RT_TABLE_MAIN || !found.is_plain {
        return None;
    }
    Some(NodeRoute {
        interface: names.get(&found.index?)?.clone(),
        destination: found.destination,
        gateway: found.gateway,
        metric: found.metric,
        origin: found.origin,
    })
}

#[cfg(test)]
mod tests {
    use lvs_model::RouteOrigin;

    use super::*;

    fn route(destination: &str, interface: &str, metric: u32) -> NodeRoute {
        NodeRoute {
            destination: destination.parse().unwrap(),
            gateway: None,
            interface: interface.parse().unwrap(),
            metric,
            origin: RouteOrigin::Other,
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_smallest_metric_and_equal_routes_tell_nothing() {
        let mut table = MainTable::default();
        table.add(vec![
            route("0.0.0.0/0", "slow", 200),
            route("0.0.0.0/0", "fast", 100),
            route("10.0.0.0/8", "inner", 300),
            route("10.9.0.0/16", "one", 5),
            route("10.9.0.0/16", "other", 5),
            route("10.9.1.0/24", "best", 4),
            route("10.9.1.0/24", "worse", 5),
            route("10.9.1.0/24", "worst", 5),
        ]);
        table.add(vec![route("::/0", "six", 1)]);
        let interface = |address: &str| {
            let found = table.route_to(address.parse().unwrap());
            found.map(|route| route.interface.as_str())
        };
        assert_eq!(interface("192.0.2.1"), Some("fast"));
        assert_eq!(interface("10.1.2.3"), Some("inner"));
        assert_eq!(interface("10.9.2.1"), None);
        assert_eq!(interface("10.9.1.1"), Some("best"));
        assert_eq!(interface("2001:db8::1"), Some("six"));
        assert!(
            MainTable::default()
                .route_to("10.0.0.1".parse().unwrap())
                .is_none()
        );
    }

    #[test]
    fn a_part_that_is_interrupted_cut_or_of_another_table_is_unusable() {
        let names = Names::from([(1, "eth0".parse().unwrap())]);
        let mut bytes = request(Family::V4);
        // The request itself reads like a route without an interface.
        assert_eq!(part(&bytes, &names), Part::Unusable);
        let cut = bytes.len() - 1;
        assert_eq!(part(&bytes[..cut], &names), Part::Unusable);
        assert_eq!(part(&[], &names), Part::Routes(Vec::new()));
        // struct nlmsghdr of NLMSG_DONE with the code 0.
        bytes = [
            &[20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0; 4][..],
        ]
        .concat();
        assert_eq!(part(&bytes, &names), Part::Last(Vec::new()));
        let interrupted = u8::try_from(NLM_F_DUMP_INTR).unwrap();
        bytes[6] |= interrupted;
        assert_eq!(part(&bytes, &names), Part::Unusable);
    }
}

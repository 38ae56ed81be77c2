//! Reads the main routing table where it is small, which names the machine's gateways and answers the questions for the routes
//! to many addresses at once.
//!
//! A machine may have a million routes. The dump ends early then: the gateways remain unknown, and the kernel is asked for each
//! address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use lvs_model::{Family, NodeRoute};
use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::timeout;
use tracing::debug;

use super::{
    family,
    fib::{self, FoundRoute, Names},
    frame::Frame,
};

/// The most routes of a family in a small table.
const MOST: usize = 200;
/// How long to wait for a part of a dump.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const RT_TABLE_MAIN: u32 = 254;
/// Length, type, flags, sequence number and port.
const NLMSG_HDRLEN: usize = 16;

/// The gateways of the routes of each family in a small main table, as they were read last.
pub(super) type Gateways = BTreeMap<Family, BTreeSet<IpAddr>>;

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
    /// kernel must be asked. The gateways of a family that cannot be read stay as they are.
    pub(super) async fn read(names: &Names, gateways: &mut Gateways) -> Self {
        let mut table = Self::default();
        for of in [Family::V4, Family::V6] {
            match read_family(of, names).await {
                Ok(read) => {
                    gateways.insert(of, read.gateways);
                    match read.routes {
                        Some(routes) => table.add(routes),
                        None => debug!(?of, "the main table is not used"),
                    }
                }
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

/// Reads the routes of a family.
async fn read_family(of: Family, names: &Names) -> io::Result<FamilyRoutes> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    // Without it, an old kernel would send the routes of all tables.
    socket.socket_mut().set_netlink_get_strict_chk(true)?;
    socket.send_to(&request(of), &SocketAddr::new(0, 0)).await?;
    let mut read = FamilyRoutes::default();
    loop {
        let received = timeout(ANSWER_TIMEOUT, socket.recv_from_full()).await;
        let (bytes, _) = received.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
        let progress = read.add(&bytes, names)?;
        if read.count > MOST {
            return Ok(FamilyRoutes::unknown());
        }
        if progress == Progress::Done {
            return Ok(read);
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

/// The routes of a family that were read.
#[derive(Debug, PartialEq)]
struct FamilyRoutes {
    count: usize,
    /// `None` if one of them is not a plain unicast route that works: the kernel's choice is not that of the longest prefix then.
    routes: Option<Vec<NodeRoute>>,
    gateways: BTreeSet<IpAddr>,
}

/// Whether a dump has more parts.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

impl Default for FamilyRoutes {
    fn default() -> Self {
        Self {
            count: 0,
            routes: Some(Vec::new()),
            gateways: BTreeSet::new(),
        }
    }
}

impl FamilyRoutes {
    /// Those of a table that is too large.
    const fn unknown() -> Self {
        Self {
            count: 0,
            routes: None,
            gateways: BTreeSet::new(),
        }
    }

    /// Adds the routes of a part of a dump. Fails if the routes changed meanwhile.
    fn add(&mut self, mut bytes: &[u8], names: &Names) -> io::Result<Progress> {
        while bytes.len() >= NLMSG_HDRLEN {
            let message = NetlinkMessage::<Frame>::deserialize(bytes);
            let message = message.map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if let NetlinkPayload::Done(end) = &message.payload
                && end.code == 0
            {
                return Ok(Progress::Done);
            }
            if let NetlinkPayload::Error(refusal) = &message.payload {
                return Err(refusal.to_io());
            }
            let NetlinkPayload::InnerMessage(frame) = message.payload else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            self.add_route(&frame, names).map_err(io::Error::other)?;
        }
        Ok(Progress::More)
    }

    fn add_route(&mut self, frame: &Frame, names: &Names) -> Result<(), DecodeError> {
        self.count += 1;
        self.gateways.extend(fib::gateways(&frame.payload)?);
        match (plain(frame, names)?, &mut self.routes) {
            (Some(route), Some(routes)) => routes.push(route),
            (None, routes) => *routes = None,
            (Some(_), None) => {}
        }
        Ok(())
    }
}

/// A unicast route for all packets, with one next hop that works.
fn plain(frame: &Frame, names: &Names) -> Result<Option<NodeRoute>, DecodeError> {
    let found = fib::decode(&frame.payload)?;
    let is_plain =
        |found: &FoundRoute| found.is_unicast() && found.table == RT_TABLE_MAIN && found.is_plain;
    Ok(found.filter(is_plain).and_then(|found| found.on(names)))
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

    /// A message of a dump: a unicast route of the main table to 10.20.0.0/16 with these attributes.
    fn message(attributes: &[&[u8]]) -> Vec<u8> {
        let route = [2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let payload = [
            &route[..],
            &[8, 0, 1, 0, 10, 20, 0, 0],
            &attributes.concat(),
        ]
        .concat();
        let mut message = NetlinkMessage::from(Frame { kind: 24, payload });
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn the_gateways_of_all_next_hops_are_known_even_if_the_routes_cannot_be_used() {
        let names = Names::from([(3, "eth0".parse().unwrap())]);
        let mut read = FamilyRoutes::default();
        let plain = message(&[&[8, 0, 5, 0, 192, 0, 2, 1], &[8, 0, 4, 0, 3, 0, 0, 0]]);
        assert_eq!(read.add(&plain, &names).unwrap(), Progress::More);
        assert_eq!(read.routes.as_ref().map(Vec::len), Some(1));
        let hop = |end| [16, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, end];
        let multipath = message(&[&[36, 0, 9, 0], &hop(2), &hop(3)]);

        read.add(&[multipath, plain].concat(), &names).unwrap();

        assert_eq!((read.count, &read.routes), (3, &None));
        let gateways = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(
            read.gateways,
            gateways.map(|own| own.parse().unwrap()).into()
        );
    }

    #[test]
    fn a_part_that_is_interrupted_or_cut_is_an_error() {
        let names = Names::new();
        let add = |bytes: &[u8]| FamilyRoutes::default().add(bytes, &names);
        let route = message(&[]);
        assert_eq!(add(&route).unwrap(), Progress::More);
        assert!(add(&route[..route.len() - 1]).is_err());
        assert_eq!(add(&[]).unwrap(), Progress::More);
        // struct nlmsghdr of NLMSG_DONE with the code 0.
        let mut bytes = [
            &[20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0; 4][..],
        ]
        .concat();
        assert_eq!(add(&bytes).unwrap(), Progress::Done);
        let interrupted = u8::try_from(NLM_F_DUMP_INTR).unwrap();
        bytes[6] |= interrupted;
        assert!(add(&bytes).is_err());
    }
}

//! Finds the routes to addresses.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lvs_model::{Network, NodeRoute, RouteAnswers};
use netlink_packet_core::DecodeError;
use netlink_packet_route::route::RouteType;

use super::{
    exchange::{Answer, Exchange, Request, RouteError},
    fib::{self, Names},
    frame::Frame,
    main_table::{Gateways, MainTable},
};

const ROUTES: &str = "routes to addresses";

/// More addresses than this are looked up in the main table first, if it is small.
const MANY: usize = 64;

/// What was read of the network last.
#[derive(Default)]
pub(super) struct Known {
    /// The names of interfaces by their index.
    names: Names,
    /// The addresses to which the kernel does not forward: those of this machine, and the ends of its networks.
    own: BTreeSet<IpAddr>,
    /// Whether there are no policy rules but those that every machine has, and ours, which match no packet of this machine.
    has_plain_rules: bool,
}

impl Known {
    pub(super) fn of(network: &Network, has_plain_rules: bool) -> Self {
        let interfaces = network.interfaces.iter();
        let own = network.interface_addresses.iter().map(|own| own.network);
        Self {
            names: interfaces
                .map(|(name, found)| (found.index, name.clone()))
                .collect(),
            own: own
                .flat_map(|own| [own.addr(), own.network(), own.broadcast()])
                .collect(),
            has_plain_rules,
        }
    }

    pub(super) const fn names(&self) -> &Names {
        &self.names
    }
}

/// Finds the route to each address. That there is none is an answer; any other refusal is an error.
///
/// The kernel chooses as for a packet of this machine, by its policy rules. `table` is the main table, if it was just read.
pub(super) async fn look_up(
    exchange: &Exchange,
    known: &Known,
    table: Option<MainTable>,
    addresses: &BTreeSet<IpAddr>,
) -> Result<RouteAnswers, RouteError> {
    let mut routes = RouteAnswers::new();
    if known.has_plain_rules && addresses.len() > MANY {
        let table = match table {
            Some(table) => table,
            None => MainTable::read(&known.names, &mut Gateways::new()).await,
        };
        let foreign = addresses.difference(&known.own);
        let foreign = foreign.filter(|address| !address.is_multicast());
        let found = foreign.filter_map(|address| {
            let route = table.route_to(*address)?;
            Some((*address, Some(Arc::clone(route))))
        });
        routes = found.collect();
    }
    let rest = addresses.iter().copied();
    let rest = rest
        .filter(|address| !routes.contains_key(address))
        .collect();
    routes.extend(ask(exchange, &known.names, &rest).await?);
    Ok(routes)
}

/// Asks the kernel for the route to each address.
async fn ask(
    exchange: &Exchange,
    names: &Names,
    addresses: &BTreeSet<IpAddr>,
) -> Result<RouteAnswers, RouteError> {
    let answers = answers(exchange, addresses).await?;
    // Most addresses share a few routes.
    let mut known = BTreeSet::new();
    let mut routes = RouteAnswers::new();
    for (address, answer) in addresses.iter().zip(answers) {
        let found = match answer {
            Ok(frames) => chosen(&frames, names).map_err(|error| RouteError::Malformed {
                table: ROUTES,
                error,
            })?,
            Err(refusal) if refusal.is_unreachable() => None,
            Err(refusal) => {
                return Err(RouteError::Refused {
                    table: ROUTES,
                    refusal,
                });
            }
        };
        routes.insert(*address, found.map(|route| shared(&mut known, route)));
    }
    Ok(routes)
}

/// Returns the kernel's answer for each address.
async fn answers(
    exchange: &Exchange,
    addresses: &BTreeSet<IpAddr>,
) -> Result<Vec<Answer>, RouteError> {
    let requests = addresses.iter().map(|address| fib::read_to(*address));
    let requests: Vec<Request> = requests.map(|message| Request::new(message, 0)).collect();
    exchange.submit(&requests).await
}

/// Returns those of the addresses to which the kernel does not receive packets as its own.
pub(super) async fn not_local(
    exchange: &Exchange,
    addresses: &BTreeSet<IpAddr>,
) -> Result<BTreeSet<IpAddr>, RouteError> {
    let answers = answers(exchange, addresses).await?;
    let is_local = |frame: &Frame| {
        let found = fib::decode(&frame.payload).ok().flatten();
        found.is_some_and(|found| found.kind == RouteType::Local)
    };
    let rest = addresses.iter().zip(answers);
    let rest = rest.filter(|(_, answer)| {
        let frames = answer.as_ref().map_or(&[][..], Vec::as_slice);
        !frames.iter().any(is_local)
    });
    Ok(rest.map(|(address, _)| *address).collect())
}

/// The route of an answer. `None` if the kernel does not forward to the address, as to one of its own, or if the interface is
/// new: its notification causes another pass.
fn chosen(frames: &[Frame], names: &Names) -> Result<Option<NodeRoute>, DecodeError> {
    let Some(frame) = frames.first() else {
        return Ok(None);
    };
    let found = fib::decode(&frame.payload)?;
    let found = found.filter(fib::FoundRoute::is_unicast);
    Ok(found.and_then(|found| found.on(names)))
}

fn shared(known: &mut BTreeSet<Arc<NodeRoute>>, route: NodeRoute) -> Arc<NodeRoute> {
    if let Some(same) = known.get(&route) {
        return Arc::clone(same);
    }
    let route = Arc::new(route);
    known.insert(Arc::clone(&route));
    route
}

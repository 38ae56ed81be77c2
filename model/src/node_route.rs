//! Routes of a machine.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::InterfaceName;

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRoute {
    /// The destination.
    pub destination: IpNet,
    /// The gateway. `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: InterfaceName,
    /// The metric. Among equal prefixes the route with the smallest wins.
    pub metric: u32,
    /// Where it comes from.
    pub origin: RouteOrigin,
}

/// Where a route comes from, as far as the model distinguishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteOrigin {
    /// An IPv6 router advertisement. The kernel drops such a route when IPv6 forwarding is enabled.
    RouterAdvertisement,
    /// Anything else.
    Other,
}

/// The routes that the kernel has chosen for some addresses. `None`: there is no unicast route.
pub type RouteAnswers = BTreeMap<IpAddr, Option<Arc<NodeRoute>>>;

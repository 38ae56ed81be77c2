//! Virtual services for a cluster: one for each forwarding mode, with the machines outside the cluster as real servers.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::Cluster;
use super::machines::MACHINES;

/// A virtual service and its director. Its ports are for TCP and UDP.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name, in the namespace `default`.
    pub name: &'static str,
    /// The node that directs it.
    pub director: &'static str,
    /// The last octet of its VIP.
    vip: u8,
    /// The port of the VIP.
    pub port: u16,
    /// The port of the real servers.
    pub target: u16,
    /// The other fields of its spec; `DIRECTOR` is a placeholder for the director's own address.
    spec: &'static str,
    /// Whether real servers see the client's own address.
    pub shows_client: bool,
}

/// The services that work on every cluster.
pub const SERVICES: [Service; 4] = [
    Service {
        name: "nat",
        director: "node1",
        vip: 201,
        port: 80,
        target: 8080,
        spec: "forwarding: NAT\n  nat: {returnPath: PolicyRoute, gateways: [DIRECTOR]}\n  scheduler: {name: rr}",
        shows_client: true,
    },
    Service {
        name: "dr",
        director: "node2",
        vip: 202,
        port: 81,
        target: 81,
        // Its open connections survive another director.
        spec: "forwarding: DR\n  scheduler: {name: mh, flags: [Port, Fallback]}",
        shows_client: true,
    },
    Service {
        name: "tun",
        director: "node3",
        vip: 203,
        port: 82,
        target: 82,
        spec: "forwarding: TUN\n  tunnel: {type: IPIP}\n  scheduler: {name: rr}",
        shows_client: true,
    },
    Service {
        name: "masquerade",
        director: "node3",
        vip: 204,
        port: 84,
        target: 8084,
        spec: "forwarding: NAT\n  nat: {returnPath: Masquerade}\n  scheduler: {name: rr}",
        shows_client: false,
    },
];

impl Cluster {
    /// The first real server's own address, with a port whose replies take the normal route, so that requests bypass the
    /// directors.
    pub fn real_server(&self) -> (Ipv4Addr, u16) {
        let [(_, number), _] = MACHINES;
        let [_nat, dr, ..] = SERVICES;
        (self.bridge.address(number), dr.target)
    }
}

impl Service {
    /// Its VIP and port in a cluster.
    pub fn vip(&self, cluster: &Cluster) -> (Ipv4Addr, u16) {
        (cluster.bridge.address(self.vip), self.port)
    }

    /// The service and the group of its director, for `kubectl apply`.
    pub fn manifest(&self, cluster: &Cluster) -> Result<String> {
        let Self {
            name,
            director,
            vip: _,
            port,
            target,
            spec,
            shows_client: _,
        } = self;
        let mut nodes = cluster.nodes.iter();
        let node = nodes.find(|node| node.name() == *director);
        let node = node.with_context(|| format!("there is no node {director}"))?;
        let spec = spec.replace("DIRECTOR", &node.address().to_string());
        let (vip, _) = self.vip(cluster);
        let mut text = format!(
            "apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {{name: {director}}}
spec:
  nodes: {{names: [{director}]}}
  realServers: {{cidrs: [0.0.0.0/0]}}
---
apiVersion: lvs-operator.io/v1alpha1
kind: AddressPool
metadata: {{name: {name}}}
spec:
  addresses: [{vip}]
  autoAssign: false
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  directorGroup: {director}
  addresses: [{vip}]
  ports:
  - {{name: tcp, port: {port}, targetPort: {target}}}
  - {{name: udp, protocol: UDP, port: {port}, targetPort: {target}}}
  {spec}
  backends:
"
        );
        for (_, number) in MACHINES {
            let address = cluster.bridge.address(number);
            writeln!(text, "    - {{address: {address}}}")?;
        }
        text += "---\n";
        Ok(text)
    }
}

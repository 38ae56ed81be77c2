//! The topologies of most kernel tests. All have IPv4 and IPv6.

/// LVS-NAT with two arms: the director is between the clients' network and the real servers' network.
pub const NAT: &str = r#"
networks: [outer, inner]
hosts:
  client: {links: {eth0: {network: outer, addresses: [192.168.220.50/24, "fd00:220::50/64"]}}}
  director:
    links:
      eth0: {network: inner, addresses: [192.168.100.10/24, "fd00:100::10/64"]}
      eth1: {network: outer, addresses: [192.168.220.137/24, "fd00:220::137/64"]}
  rs1:
    links: {eth0: {network: inner, addresses: [192.168.100.11/24, "fd00:100::11/64"]}}
    routes: {default: [192.168.100.10, "fd00:100::10"]}
  rs2:
    links: {eth0: {network: inner, addresses: [192.168.100.12/24, "fd00:100::12/64"]}}
    routes: {default: [192.168.100.10, "fd00:100::10"]}
"#;

/// [`NAT`], but the default route of the real servers leads to a router that is a dead end.
pub fn nat_with_another_gateway() -> String {
    let elsewhere = r#"hosts:
  elsewhere: {links: {eth0: {network: inner, addresses: [192.168.100.1/24, "fd00:100::1/64"]}}}
"#;
    NAT.replace("hosts:\n", elsewhere).replace(
        r#"default: [192.168.100.10, "fd00:100::10"]"#,
        r#"default: [192.168.100.1, "fd00:100::1"]"#,
    )
}

/// LVS-DR: the director and the real servers share a network. One client is behind a router, the other on the same network.
pub const DR: &str = r#"
networks: [clients, servers]
hosts:
  client:
    links: {eth0: {network: clients, addresses: [192.168.10.50/24, "fd00:10::50/64"]}}
    routes: {default: [192.168.10.1, "fd00:10::1"]}
  router:
    forwarding: true
    links:
      eth0: {network: clients, addresses: [192.168.10.1/24, "fd00:10::1/64"]}
      eth1: {network: servers, addresses: [192.168.220.1/24, "fd00:220::1/64"]}
  near: {links: {eth0: {network: servers, addresses: [192.168.220.60/24, "fd00:220::60/64"]}}}
  director:
    links: {eth1: {network: servers, addresses: [192.168.220.137/24, "fd00:220::137/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
  rs1:
    links: {eth0: {network: servers, addresses: [192.168.220.132/24, "fd00:220::132/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
  rs2:
    links: {eth0: {network: servers, addresses: [192.168.220.133/24, "fd00:220::133/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
"#;

/// LVS-TUN: a router is between the director and the real servers.
pub const TUN: &str = r#"
networks: [front, back]
hosts:
  client:
    links: {eth0: {network: front, addresses: [192.168.220.50/24, "fd00:220::50/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
  director:
    links: {eth1: {network: front, addresses: [192.168.220.137/24, "fd00:220::137/64"]}}
    routes: {default: [192.168.220.1, "fd00:220::1"]}
  router:
    forwarding: true
    links:
      eth0: {network: front, addresses: [192.168.220.1/24, "fd00:220::1/64"]}
      eth1: {network: back, addresses: [192.168.230.1/24, "fd00:230::1/64"]}
  rs1:
    links: {eth0: {network: back, addresses: [192.168.230.132/24, "fd00:230::132/64"]}}
    routes: {default: [192.168.230.1, "fd00:230::1"]}
  rs2:
    links: {eth0: {network: back, addresses: [192.168.230.133/24, "fd00:230::133/64"]}}
    routes: {default: [192.168.230.1, "fd00:230::1"]}
"#;

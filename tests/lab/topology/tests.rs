//! Tests of topology descriptions: what is parsed, and what is refused.

use super::*;

const VALID: &str = r#"
networks: [outer, inner]
hosts:
  client:
    links: {eth0: {network: outer, addresses: [192.168.220.50/24, "fd00:220::50/64"], mtu: 1400}}
    routes: {default: [192.168.220.1, "fd00:220::1"], 10.0.0.0/8: eth0}
    sysctls: {net.ipv4.conf.all.rp_filter: 1, net.ipv4.ping_group_range: "0 1"}
  router:
    forwarding: true
    links: {eth0: {network: inner}, lo: {addresses: [10.1.2.3/32]}}
"#;

/// Checks that the topology above with one change is refused, and that the error contains all of `words`.
fn assert_refused(from: &str, to: &str, words: &[&str]) {
    assert!(VALID.contains(from), "{from}");
    let error = format!(
        "{:#}",
        VALID.replacen(from, to, 1).parse::<Topology>().unwrap_err()
    );
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn a_topology_is_parsed_from_yaml() {
    let topology: Topology = VALID.parse().unwrap();
    let client = &topology.hosts["client"];
    assert_eq!(
        client.links["eth0"].addresses[0].to_string(),
        "192.168.220.50/24"
    );
    assert_eq!(client.links["eth0"].mtu, Some(1400));
    assert_eq!(
        client.sysctls["net.ipv4.conf.all.rp_filter"].to_string(),
        "1"
    );
    let hops: Vec<&Hop> = client.routes[&Destination::Default].iter().collect();
    assert_eq!(hops.len(), 2);
    assert!(topology.hosts["router"].forwarding);
}

#[test]
fn a_parse_error_names_the_host_and_the_field() {
    assert_refused(
        "192.168.220.50/24",
        "192.168.220.500/24",
        &["hosts.client.links.eth0.addresses"],
    );
    assert_refused("mtu: 1400", "mtu: big", &["hosts.client.links.eth0.mtu"]);
    assert_refused(
        "mtu: 1400",
        "mut: 1400",
        &["hosts.client.links.eth0", "mut"],
    );
    assert_refused(
        "forwarding: true",
        "forwarding: perhaps",
        &["hosts.router.forwarding"],
    );
    assert_refused(
        "10.0.0.0/8: eth0",
        "10.0.0.0/80: eth0",
        &["hosts.client.routes", "10.0.0.0/80"],
    );
}

#[test]
fn a_semantic_error_names_the_host_and_the_field() {
    assert_refused(
        "network: outer",
        "network: outre",
        &[
            "host `client`",
            "link `eth0`",
            "`network`",
            "outre",
            "outer, inner",
        ],
    );
    assert_refused(
        "network: inner",
        "mtu: 9000",
        &["host `router`", "link `eth0`", "`network` is missing"],
    );
    assert_refused(
        "lo: {",
        "lo: {network: inner, ",
        &["host `router`", "link `lo`", "`network`"],
    );
    assert_refused(
        "10.0.0.0/8: eth0",
        "10.0.0.0/8: eth1",
        &["host `client`", "route to 10.0.0.0/8", "eth1"],
    );
    assert_refused(
        "10.0.0.0/8: eth0",
        "10.0.0.0/8: \"fd00::1\"",
        &["host `client`", "route to 10.0.0.0/8", "family"],
    );
    assert_refused(
        "\"fd00:220::1\"]",
        "192.168.220.2]",
        &["host `client`", "route to default", "two next hops"],
    );
    assert_refused(
        "net.ipv4.conf",
        "kernel.panic",
        &["host `client`", "sysctl `kernel.panic", "below `net.`"],
    );
    assert_refused("  router:", "  rou/ter:", &["host `rou/ter`", "a name has"]);
    assert_refused(
        "[outer, inner]",
        "[outer, inner, a-network-of-a-long-name]",
        &["network `a-network-of-a-long-name`"],
    );
}

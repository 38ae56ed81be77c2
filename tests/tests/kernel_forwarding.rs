//! NAT, DR and TUN carry TCP and UDP, IPv4 and IPv6, from the same file on every machine.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lab::{Client, Dump, Protocol, Responder, Site, ask_both, scenery, virtual_service};

/// The real servers on the director's own network.
const IN_FRONT: [&str; 4] = [
    "192.168.220.132",
    "192.168.220.133",
    "fd00:220::132",
    "fd00:220::133",
];

/// The VIPs of every test, one of each family.
const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// NAT to port 8080 of the real servers behind the director, over TCP and UDP.
fn nat(vips: &[&str], nat: &str) -> String {
    let endpoints = [
        "192.168.100.11",
        "192.168.100.12",
        "fd00:100::11",
        "fd00:100::12",
    ];
    nat_to(vips, nat, &endpoints)
}

fn nat_to(vips: &[&str], nat: &str, endpoints: &[&str]) -> String {
    let spec = format!(
        "addresses: [{}], forwarding: NAT, nat: {{{nat}}}, scheduler: {{name: rr}},
         ports: [{{name: t, port: 80, targetPort: 8080}}, {{name: u, protocol: UDP, port: 80, targetPort: 8080}}],
         backends: [{}]",
        quoted(vips),
        listed(endpoints)
    );
    virtual_service("web", &spec)
}

fn listed(endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{address: '{address}'}}"))
        .collect();
    endpoints.join(", ")
}

/// DR or TUN to port 80, over TCP and UDP.
fn direct(forwarding: &str, endpoints: &[&str]) -> String {
    let spec = format!(
        "addresses: [{}], forwarding: {forwarding}, scheduler: {{name: rr}},
         ports: [{{name: t, port: 80}}, {{name: u, protocol: UDP, port: 80}}],
         backends: [{}]",
        quoted(&VIPS),
        listed(endpoints)
    );
    virtual_service("web", &spec)
}

fn quoted(addresses: &[&str]) -> String {
    let quoted: Vec<String> = addresses
        .iter()
        .map(|address| format!("'{address}'"))
        .collect();
    quoted.join(", ")
}

/// Checks that the real servers receive the requests of NAT at their own addresses and port 8080.
fn expect_nat(site: &Site, vips: &[&str]) -> Result<()> {
    for vip in vips {
        let vip = at(vip, 80);
        site.expect_both(vip, |server| {
            SocketAddr::new(site.address(server, vip.ip()).unwrap(), 8080)
        })?;
    }
    Ok(())
}

/// Checks that the real servers receive the requests at the VIP.
fn expect_vip(site: &Site) -> Result<()> {
    for vip in VIPS {
        site.expect_both(at(vip, 80), |_| at(vip, 80))?;
    }
    Ok(())
}

/// Runs TUN with a tunnel; both real servers must answer at the VIP, and a cleanup must restore every kernel.
fn expect_tunnel(tunnel: &str, endpoints: &[&str]) -> Result<()> {
    let site = Site::lay_out(scenery::TUN, 80)?;
    let before = site.dumps()?;
    let forwarding = format!("TUN, tunnel: {{{tunnel}}}");
    site.converge(&direct(&forwarding, endpoints))?;
    expect_vip(&site)?;
    site.clean_up(&before)
}

const BEHIND_V4: [&str; 2] = ["192.168.230.132", "192.168.230.133"];
const BEHIND_V6: [&str; 2] = ["fd00:230::132", "fd00:230::133"];

#[test]
fn nat_with_two_arms_translates_ports_and_keeps_the_source() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let before = site.dumps()?;
    site.converge(&nat(&VIPS, "gateways: [192.168.100.10, 'fd00:100::10']"))?;
    expect_nat(&site, &VIPS)?;
    site.clean_up(&before)
}

/// Makes a director drop packets that connection tracking considers invalid, as firewalld does, and kube-proxy in FORWARD.
fn drop_invalid(site: &Site) -> Result<()> {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        for chain in ["INPUT", "FORWARD"] {
            let rule = ["-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"];
            let command = [&[program, "-A", chain], rule.as_slice()].concat();
            site.host("director")?.run(&command)?;
        }
    }
    Ok(())
}

#[test]
fn nat_passes_a_firewall_that_drops_invalid_packets() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    drop_invalid(&site)?;
    let before = site.dumps()?;
    site.converge(&nat(&VIPS, "gateways: [192.168.100.10, 'fd00:100::10']"))?;
    expect_nat(&site, &VIPS)?;
    site.clean_up(&before)
}

#[test]
fn dr_passes_a_firewall_that_drops_invalid_packets() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    drop_invalid(&site)?;
    site.converge(&direct("DR", &IN_FRONT))?;
    expect_vip(&site)
}

#[test]
fn tun_passes_a_firewall_that_drops_invalid_packets() -> Result<()> {
    let site = Site::lay_out(scenery::TUN, 80)?;
    drop_invalid(&site)?;
    site.converge(&direct("TUN, tunnel: {type: IPIP}", &BEHIND_V4))?;
    expect_vip(&site)
}

#[test]
fn nat_may_use_the_director_s_own_address_as_vip_and_keeps_it() -> Result<()> {
    let own = ["192.168.220.137", "fd00:220::137"];
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let before = site.dumps()?;
    site.converge(&nat(&own, ""))?;
    expect_nat(&site, &own)?;
    let director = Dump::of(site.host("director")?)?;
    let addresses = |dump: &Dump| {
        dump.lines_with(" inet")
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&director), addresses(&before[2]));
    site.clean_up(&before)
}

#[test]
fn nat_by_default_gateway_changes_no_real_server_and_warns_about_a_wrong_gateway() -> Result<()> {
    let site = Site::lay_out(&scenery::nat_with_another_gateway(), 8080)?;
    let before = site.dumps()?;
    site.write(&nat(&VIPS, "gateways: [192.168.100.10, 'fd00:100::10']"))?;
    let log = site.agent("rs1")?.converge()?.log;
    for (family, found, wanted) in [
        ("IPv4", "192.168.100.1", "192.168.100.10"),
        ("IPv6", "fd00:100::1", "fd00:100::10"),
    ] {
        let sentence = format!(
            "VirtualService default/web: this real server's {family} default route leads to {found}, not to the director {wanted}: \
             replies would bypass it; change it, or use `returnPath: PolicyRoute`"
        );
        assert!(log.contains(&sentence), "{log}");
    }
    assert_eq!(before[0].difference(&Dump::of(site.host("rs1")?)?), [""; 0]);
    site.agent("director")?.converge()?;
    for vip in VIPS {
        site.expect_no_answer(at(vip, 80))?;
    }
    Ok(())
}

#[test]
fn nat_by_policy_route_returns_replies_despite_another_default_gateway() -> Result<()> {
    let site = Site::lay_out(&scenery::nat_with_another_gateway(), 8080)?;
    let before = site.dumps()?;
    site.converge(&nat(
        &VIPS,
        "returnPath: PolicyRoute, gateways: [192.168.100.10, 'fd00:100::10']",
    ))?;
    expect_nat(&site, &VIPS)?;
    site.clean_up(&before)
}

#[test]
fn nat_with_one_arm_masquerades_and_both_real_servers_see_the_director() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 8080)?;
    let before = site.dumps()?;
    let yaml = nat_to(&VIPS, "returnPath: Masquerade", &IN_FRONT);
    site.converge(&yaml)?;
    // One client is on the real servers' own network, the other behind a router.
    for client in ["near", "client"] {
        for (vip, director) in [(VIPS[0], "192.168.220.137"), (VIPS[1], "fd00:220::137")] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let client = Client::on(site.host(client)?).over(protocol);
                for answer in ask_both(&client, at(vip, 80))? {
                    assert_eq!(answer.peer.ip(), director.parse::<IpAddr>()?, "{answer}");
                    assert_eq!(
                        answer.local,
                        at(
                            &site.address(&answer.server, vip.parse()?)?.to_string(),
                            8080
                        )
                    );
                }
            }
        }
    }
    site.clean_up(&before)?;
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let rules = site.host("director")?.run(&[program, "-t", "nat"])?;
        assert!(!rules.contains("-A ") && !rules.contains("lvs"), "{rules}");
    }
    Ok(())
}

#[test]
fn nat_with_one_arm_gets_no_answer_without_masquerading() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let spec = "addresses: [192.168.220.100], forwarding: NAT, ports: [{port: 80}],
                backends: [{address: 192.168.220.132}, {address: 192.168.220.133}]";
    let agent = site.agent("director")?;
    agent.write("site.yaml", virtual_service("web", spec))?;
    agent.converge()?;
    let near = Client::on(site.host("near")?).timeout(std::time::Duration::from_millis(400));
    assert!(near.fetch(at(VIPS[0], 80)).is_err());
    Ok(())
}

#[test]
fn dr_keeps_source_and_destination_behind_a_router_and_on_the_same_network() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let before = site.dumps()?;
    site.converge(&direct("DR", &IN_FRONT))?;
    expect_vip(&site)?;
    for vip in VIPS {
        let vip = at(vip, 80);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for answer in ask_both(&Client::on(site.host("near")?).over(protocol), vip)? {
                assert_eq!(answer.peer.ip(), site.address("near", vip.ip())?);
                assert_eq!(answer.local, vip);
            }
        }
    }
    site.clean_up(&before)
}

#[test]
fn dr_carries_through_a_director_with_a_strict_filter_and_its_default_route_elsewhere() -> Result<()>
{
    let site = Site::lay_out(scenery::DR, 80)?;
    let director = site.host("director")?;
    let management = "ip link add mgmt0 type dummy
         ip addr add 10.9.0.2/24 dev mgmt0
         ip link set mgmt0 up
         ip route replace default via 10.9.0.1 dev mgmt0";
    director.run(&["sh", "-ec", management])?;
    director.set_sysctl("net.ipv4.conf.eth1.rp_filter", "1")?;
    let before = site.dumps()?;
    site.converge(&direct("DR", &IN_FRONT))?;
    assert_eq!(director.sysctl("net.ipv4.conf.eth1.rp_filter")?, "2");
    expect_vip(&site)?;
    site.clean_up(&before)
}

#[test]
fn dr_needs_no_forwarding_and_leaves_it_off() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&direct("DR", &IN_FRONT))?;
    for agent in site.agents() {
        assert_eq!(agent.host().sysctl("net.ipv4.ip_forward")?, "0");
        assert_eq!(agent.host().sysctl("net.ipv6.conf.all.forwarding")?, "0");
    }
    expect_vip(&site)
}

#[test]
fn tun_carries_both_families_in_ipv4_through_a_router() -> Result<()> {
    expect_tunnel("type: IPIP", &BEHIND_V4)
}

#[test]
fn tun_carries_both_families_in_ipv6_through_a_router() -> Result<()> {
    expect_tunnel("type: IPIP", &BEHIND_V6)
}

#[test]
fn tun_by_gue_carries_both_families_in_ipv4_through_a_router() -> Result<()> {
    expect_tunnel("type: GUE, port: 6080", &BEHIND_V4)
}

#[test]
fn tun_by_gue_carries_both_families_in_ipv6_through_a_router() -> Result<()> {
    expect_tunnel("type: GUE, port: 6080, checksum: Outer", &BEHIND_V6)
}

#[test]
fn tun_by_gre_carries_both_families_in_ipv4_through_a_router() -> Result<()> {
    expect_tunnel("type: GRE", &BEHIND_V4)
}

#[test]
fn tun_by_gre_carries_both_families_in_ipv6_through_a_router() -> Result<()> {
    expect_tunnel("type: GRE", &BEHIND_V6)
}

#[test]
fn tun_carries_through_a_real_server_with_a_strict_reverse_path_filter() -> Result<()> {
    let site = Site::lay_out(scenery::TUN, 80)?;
    for server in ["rs1", "rs2"] {
        let host = site.host(server)?;
        host.set_sysctl("net.ipv4.conf.default.rp_filter", "1")?;
        host.set_sysctl("net.ipv4.conf.eth0.rp_filter", "1")?;
    }
    let before = site.dumps()?;
    site.converge(&direct("TUN", &BEHIND_V4))?;
    expect_vip(&site)?;
    site.clean_up(&before)
}

/// Checks SCTP from both VIPs to servers that are bound to one address and port. SCTP servers behind a VIP must do that: a
/// server that is bound to every address offers all of them to the client.
fn expect_sctp(scenery: &str, forwarding: &str, port: u16, endpoints: &[&str]) -> Result<()> {
    let site = Site::lay_out(scenery, 80)?;
    let before = site.dumps()?;
    let spec = format!(
        "addresses: [{}], forwarding: {forwarding}, scheduler: {{name: rr}},
         ports: [{{protocol: SCTP, port: 90, targetPort: {port}}}], backends: [{}]",
        quoted(&VIPS),
        listed(endpoints)
    );
    site.converge(&virtual_service("signalling", &spec))?;
    let is_nat = forwarding == "NAT";
    let asked = |server: &str, vip: &str| -> Result<SocketAddr> {
        let own = site.address(server, vip.parse()?)?;
        Ok(if is_nat {
            SocketAddr::new(own, port)
        } else {
            at(vip, port)
        })
    };
    let mut responders = Vec::new();
    for name in ["rs1", "rs2"] {
        let sockets = VIPS.map(|vip| Ok((Protocol::Sctp, asked(name, vip)?)));
        let sockets = sockets.into_iter().collect::<Result<Vec<_>>>()?;
        let host = site.host(name)?;
        responders.push(host.in_namespace(|| Responder::start(name, sockets))??);
    }
    for vip in VIPS {
        for answer in site.ask_both(Protocol::Sctp, at(vip, 90))? {
            assert_eq!(
                answer.peer.ip(),
                site.address("client", vip.parse()?)?,
                "{answer}"
            );
            assert_eq!(answer.local, asked(&answer.server, vip)?, "{answer}");
        }
    }
    drop(responders);
    site.clean_up(&before)
}

#[test]
fn nat_carries_sctp_to_another_port() -> Result<()> {
    let behind = [
        "192.168.100.11",
        "192.168.100.12",
        "fd00:100::11",
        "fd00:100::12",
    ];
    expect_sctp(scenery::NAT, "NAT", 9090, &behind)
}

#[test]
fn dr_carries_sctp() -> Result<()> {
    expect_sctp(scenery::DR, "DR", 90, &IN_FRONT)
}

#[test]
fn tun_carries_sctp() -> Result<()> {
    expect_sctp(scenery::TUN, "TUN", 90, &BEHIND_V4)
}

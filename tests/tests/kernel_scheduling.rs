//! Which real server gets a connection: schedulers, weights, thresholds, persistence, marks and one-packet scheduling.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use ipvs_netlink::{SchedulerFlags, Service, ServiceTable};
use lab::{Client, Host, Protocol, Site, scenery, virtual_service};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

/// How long a client waits if no answer is expected.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// NAT with both VIPs to both real servers, each with more fields; `more` are fields of the service.
fn nat(rs1: &str, rs2: &str, more: &str) -> String {
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: NAT, {more},
         ports: [{{name: t, port: 80}}, {{name: u, protocol: UDP, port: 80}}],
         backends: [{{address: 192.168.100.11{rs1}}}, {{address: 192.168.100.12{rs2}}},
                                 {{address: 'fd00:100::11'{rs1}}}, {{address: 'fd00:100::12'{rs2}}}]"
    );
    virtual_service("web", &spec)
}

/// DR with both VIPs to both real servers; `more` are fields of the service.
fn dr(more: &str) -> String {
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], {more},
         backends: [{{address: 192.168.220.132}}, {{address: 192.168.220.133}},
                                 {{address: 'fd00:220::132'}}, {{address: 'fd00:220::133'}}]"
    );
    virtual_service("web", &spec)
}

/// Lays out a director that has made one pass with a file. The real servers need no agent.
fn direct(yaml: &str) -> Result<Site> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    site.agent("director")?.write("site.yaml", yaml)?;
    site.agent("director")?.converge()?;
    Ok(site)
}

fn services(site: &Site) -> Result<Vec<Service>> {
    let tables = site.host("director")?.ipvs()?;
    Ok(tables
        .into_iter()
        .map(|table: ServiceTable| table.service)
        .collect())
}

#[test]
fn every_scheduler_is_programmed_and_forwards() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("", "", "scheduler: {name: rr}"))?;
    let running = agent.start()?;
    for scheduler in [
        "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "rr",
    ] {
        agent.write(
            "site.yaml",
            nat("", "", &format!("scheduler: {{name: {scheduler}}}")),
        )?;
        running.await_that(&format!("scheduler {scheduler}"), || {
            let found = services(&site)?;
            Ok(found.len() == 4
                && found
                    .iter()
                    .all(|service| service.config.scheduler.to_string() == scheduler))
        })?;
        for vip in VIPS {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let answer = site.client()?.over(protocol).fetch(at(vip, 80));
                answer.with_context(|| format!("{scheduler}, {vip} over {protocol}"))?;
            }
        }
    }
    running.stop().map(drop)
}

#[test]
fn the_flags_of_hashing_schedulers_are_programmed_and_fallback_avoids_refusals() -> Result<()> {
    for scheduler in ["sh", "mh"] {
        let with = |rs1: &str, flags: &str| {
            nat(
                rs1,
                "",
                &format!("scheduler: {{name: {scheduler}, flags: [{flags}]}}"),
            )
        };
        // A real server that never had weight is not in the table of mh.
        let site = direct(&with("", "Port"))?;
        let agent = site.agent("director")?;
        agent.write("site.yaml", with(", weight: 0", "Port"))?;
        agent.converge()?;
        let answered = |vip: &str| -> Result<usize> {
            let client = site.client()?.timeout(NO_ANSWER_TIMEOUT);
            Ok((0..24)
                .filter(|_| client.fetch(at(vip, 80)).is_ok())
                .count())
        };
        for service in services(&site)? {
            assert!(
                service.config.flags.contains(SchedulerFlags::PORT)
                    && !service.config.flags.contains(SchedulerFlags::FALLBACK)
            );
        }
        for vip in VIPS {
            let count = answered(vip)?;
            assert!(
                (1..24).contains(&count),
                "{scheduler}, {vip}: {count} of 24"
            );
        }
        agent.write("site.yaml", with(", weight: 0", "Port, Fallback"))?;
        agent.converge()?;
        for vip in VIPS {
            assert_eq!(answered(vip)?, 24, "{scheduler}, {vip}");
        }
    }
    Ok(())
}

#[test]
fn weights_divide_the_connections() -> Result<()> {
    let site = direct(&nat(", weight: 3", ", weight: 1", "scheduler: {name: wrr}"))?;
    for vip in VIPS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let counts = site.client()?.over(protocol).fetch_many(at(vip, 80), 8)?;
            assert_eq!(
                counts,
                BTreeMap::from([("rs1".into(), 6), ("rs2".into(), 2)]),
                "{vip} over {protocol}"
            );
        }
    }
    Ok(())
}

#[test]
fn weight_zero_gets_no_new_connections_and_keeps_existing_ones() -> Result<()> {
    let site = direct(&nat("", "", "scheduler: {name: rr}"))?;
    let agent = site.agent("director")?;
    let mut kept = Vec::new();
    for vip in VIPS {
        for _ in 0..2 {
            let mut connection = site.client()?.connect(at(vip, 80))?;
            let server = connection.ask()?.server;
            kept.push((connection, server));
        }
    }
    agent.write("site.yaml", nat(", weight: 0", "", "scheduler: {name: rr}"))?;
    agent.converge()?;
    for vip in VIPS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let counts = site.client()?.over(protocol).fetch_many(at(vip, 80), 6)?;
            assert_eq!(
                counts,
                BTreeMap::from([("rs2".into(), 6)]),
                "{vip} over {protocol}"
            );
        }
    }
    assert!(kept.iter().any(|(_, server)| server == "rs1"));
    for (connection, server) in &mut kept {
        assert_eq!(connection.ask()?.server, *server);
    }
    Ok(())
}

#[test]
fn a_real_server_at_its_upper_threshold_gets_no_more_connections() -> Result<()> {
    let limited = ", upperThreshold: 2, lowerThreshold: 1";
    let site = direct(&nat(limited, limited, "scheduler: {name: rr}"))?;
    for vip in VIPS {
        let client = site.client()?.timeout(NO_ANSWER_TIMEOUT);
        let mut held = (0..4)
            .map(|_| client.connect(at(vip, 80)))
            .collect::<Result<Vec<_>>>()?;
        for connection in &mut held {
            connection.ask()?;
        }
        assert!(client.fetch(at(vip, 80)).is_err(), "{vip}");
        for table in site.host("director")?.ipvs()? {
            for destination in table.destinations {
                assert_eq!(
                    (
                        destination.config.upper_threshold,
                        destination.config.lower_threshold
                    ),
                    (2, 1)
                );
                assert!(destination.connections.active <= 2);
            }
        }
    }
    Ok(())
}

#[test]
fn clients_of_one_network_stay_with_one_real_server() -> Result<()> {
    let yaml = nat(
        "",
        "",
        "scheduler: {name: rr}, persistence: {timeoutSeconds: 300, ipv4PrefixLength: 24, ipv6PrefixLength: 64}",
    );
    let site = direct(&yaml)?;
    let (client, director) = (site.host("client")?, site.host("director")?);
    for (address, network, gateway) in [
        ("192.168.221.50/24", "192.168.221.0/24", "192.168.220.50"),
        ("fd00:221::50/64", "fd00:221::/64", "fd00:220::50"),
    ] {
        client.run(
            &["ip", "addr", "add", address, "dev", "eth0", "nodad"]
                [..if address.contains(':') { 7 } else { 6 }],
        )?;
        director.run(&["ip", "route", "add", network, "via", gateway])?;
    }
    client.run(&["ip", "addr", "add", "192.168.220.51/24", "dev", "eth0"])?;
    client.run(&[
        "ip",
        "addr",
        "add",
        "fd00:220::51/64",
        "dev",
        "eth0",
        "nodad",
    ])?;
    for service in services(&site)? {
        let persistence = service.config.persistence.context("not persistent")?;
        assert_eq!(persistence.timeout_seconds, 300);
        let expected = match service.key.family() {
            ipvs_netlink::Family::V4 => Some(24),
            ipvs_netlink::Family::V6 => Some(64),
        };
        assert_eq!(persistence.granularity.prefix_length(), expected);
    }
    for (vip, neighbours, stranger) in [
        (
            VIPS[0],
            ["192.168.220.50", "192.168.220.51"],
            "192.168.221.50",
        ),
        (VIPS[1], ["fd00:220::50", "fd00:220::51"], "fd00:221::50"),
    ] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let servers = |source: &str| -> Result<Vec<String>> {
                let client = Client::on(client).over(protocol).source(source.parse()?);
                Ok(client.fetch_many(at(vip, 80), 4)?.into_keys().collect())
            };
            let first = servers(neighbours[0])?;
            assert_eq!(first.len(), 1, "{vip} over {protocol}");
            assert_eq!(servers(neighbours[1])?, first, "{vip} over {protocol}");
            let other = servers(stranger)?;
            assert_eq!(other.len(), 1, "{vip} over {protocol}");
            assert_ne!(other, first, "{vip} over {protocol}");
        }
    }
    Ok(())
}

#[test]
fn each_datagram_is_scheduled_by_itself_with_one_packet() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 53)?;
    let ports = "ports: [{protocol: UDP, port: 53}], scheduler: {name: rr}";
    for (one_packet, expected) in [(false, 1), (true, 2)] {
        site.converge(&dr(&format!("{ports}, onePacket: {one_packet}")))?;
        for vip in VIPS {
            let mut socket = site.client()?.udp().connect(at(vip, 53))?;
            let mut servers = (0..4)
                .map(|_| Ok(socket.ask()?.server))
                .collect::<Result<Vec<_>>>()?;
            servers.sort();
            servers.dedup();
            assert_eq!(servers.len(), expected, "{vip}, onePacket: {one_packet}");
        }
    }
    Ok(())
}

#[test]
fn two_virtual_services_share_a_vip_on_different_ports() -> Result<()> {
    let mut site = Site::lay_out(scenery::DR, 80)?;
    site.respond(81)?;
    let before = site.dumps()?;
    let first = dr(
        "ports: [{name: t, port: 80}, {name: u, protocol: UDP, port: 80}], scheduler: {name: rr}",
    );
    let second = dr(
        "ports: [{name: t, port: 81}, {name: u, protocol: UDP, port: 81}], scheduler: {name: rr}",
    )
    .replace("name: web}", "name: web2}");
    site.converge(&format!("{first}{second}"))?;
    for vip in VIPS {
        for port in [80, 81] {
            site.expect_both(at(vip, port), |_| at(vip, port))?;
        }
    }
    site.converge(&first)?;
    for vip in VIPS {
        site.expect_both(at(vip, 80), |_| at(vip, 80))?;
        site.expect_no_answer(at(vip, 81))?;
    }
    site.clean_up(&before)
}

/// The VIPs of marked packets, one of each family. No object names them.
const MARKED: [&str; 2] = ["198.51.100.7", "2001:db8::7"];

/// Routes packets for the marked VIPs to the director, via its address of each family.
fn lead_to_director(host: &Host, director: [&str; 2]) -> Result<()> {
    for (vip, gateway) in MARKED.into_iter().zip(director) {
        host.run(&["ip", "route", "add", vip, "via", gateway])?;
    }
    Ok(())
}

/// Marks packets for the marked VIPs on a director, as its administrator would.
fn mark_on(director: &Host) -> Result<()> {
    director.run(&["tc", "qdisc", "add", "dev", "eth1", "clsact"])?;
    for (protocol, vip) in ["ip", "ipv6"].into_iter().zip(MARKED) {
        director.run(&[
            "tc", "filter", "add", "dev", "eth1", "ingress", "protocol", protocol, "flower",
            "dst_ip", vip, "action", "skbedit", "mark", "7",
        ])?;
    }
    Ok(())
}

#[test]
fn marked_packets_reach_one_service_on_every_port() -> Result<()> {
    let mut site = Site::lay_out(scenery::NAT, 80)?;
    site.respond(81)?;
    let (client, director) = (site.host("client")?, site.host("director")?);
    let before = site.dumps()?;
    // No machine has the VIPs: the director accepts the packets by their mark alone.
    lead_to_director(client, ["192.168.220.137", "fd00:220::137"])?;
    mark_on(director)?;
    let spec = "fwmark: 7, forwarding: NAT, scheduler: {name: rr}, backends: [
        {address: 192.168.100.11}, {address: 192.168.100.12}, {address: 'fd00:100::11'}, {address: 'fd00:100::12'}]";
    let agent = site.agent("director")?;
    agent.write("site.yaml", virtual_service("marked", spec))?;
    agent.converge()?;
    assert_eq!(agent.plan()?, "");
    for vip in MARKED {
        for port in [80, 81] {
            let vip = at(vip, port);
            site.expect_both(vip, |server| {
                SocketAddr::new(site.address(server, vip.ip()).unwrap(), port)
            })?;
        }
    }
    director.run(&["tc", "qdisc", "del", "dev", "eth1", "clsact"])?;
    for vip in MARKED {
        site.expect_no_answer(at(vip, 80))?;
    }
    site.clean_up(&before)
}

/// The warnings for a real server of marked packets while lo has no VIP.
const NO_VIP: [&str; 2] = [
    "VirtualService default/marked: a fwmark names no VIP, so VIPs on lo are left to you, and there is no IPv4 one: \
     `ip addr add VIP/32 dev lo`, after `sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`",
    "VirtualService default/marked: a fwmark names no VIP, so VIPs on lo are left to you, and there is no IPv6 one: \
     `ip addr add VIP/128 dev lo`",
];

/// Adds the marked VIPs to lo of both real servers, as their administrator would, or removes them.
fn hide_by_hand(site: &Site, verb: &str, [arp_ignore, arp_announce]: [&str; 2]) -> Result<()> {
    for name in ["rs1", "rs2"] {
        let host = site.host(name)?;
        host.set_sysctl("net.ipv4.conf.all.arp_ignore", arp_ignore)?;
        host.set_sysctl("net.ipv4.conf.all.arp_announce", arp_announce)?;
        for (vip, prefix) in MARKED.into_iter().zip([32, 128]) {
            host.run(&["ip", "addr", verb, &format!("{vip}/{prefix}"), "dev", "lo"])?;
        }
    }
    Ok(())
}

/// Sends marked packets to real servers that need the VIPs on lo. Until the VIPs are there, no real server answers, and each
/// reports why. Then both answer on every port, and a cleanup keeps what the administrator has set up.
fn expect_marks(scenery: &str, forwarding: &str, endpoints: [&str; 4]) -> Result<()> {
    let mut site = Site::lay_out(scenery, 80)?;
    site.respond(81)?;
    lead_to_director(site.host("router")?, ["192.168.220.137", "fd00:220::137"])?;
    mark_on(site.host("director")?)?;
    let before = site.dumps()?;
    let endpoints = endpoints.map(|address| format!("{{address: '{address}'}}"));
    let spec = format!(
        "fwmark: 7, forwarding: {forwarding}, scheduler: {{name: rr}}, backends: [{}]",
        endpoints.join(", ")
    );
    site.converge(&virtual_service("marked", &spec))?;
    let log = site.agent("rs1")?.converge()?.log;
    assert!(NO_VIP.iter().all(|warning| log.contains(warning)), "{log}");
    for vip in MARKED {
        site.expect_no_answer(at(vip, 80))?;
    }
    hide_by_hand(&site, "add", ["1", "2"])?;
    let log = site.agent("rs1")?.converge()?.log;
    assert!(!log.contains("a fwmark names no VIP"), "{log}");
    for vip in MARKED {
        for port in [80, 81] {
            site.expect_both(at(vip, port), |_| at(vip, port))?;
        }
    }
    let with_vips = site
        .host("rs1")?
        .run(&["ip", "addr", "show", "dev", "lo"])?;
    for agent in site.agents() {
        agent.cleanup()?;
    }
    let lo = site
        .host("rs1")?
        .run(&["ip", "addr", "show", "dev", "lo"])?;
    assert_eq!(lo, with_vips);
    hide_by_hand(&site, "del", ["0", "0"])?;
    site.clean_up(&before)
}

#[test]
fn marked_packets_reach_real_servers_directly_once_their_vips_are_on_lo() -> Result<()> {
    let endpoints = [
        "192.168.220.132",
        "192.168.220.133",
        "fd00:220::132",
        "fd00:220::133",
    ];
    expect_marks(scenery::DR, "DR", endpoints)
}

#[test]
fn marked_packets_reach_real_servers_by_tunnel_once_their_vips_are_on_lo() -> Result<()> {
    let endpoints = [
        "192.168.230.132",
        "192.168.230.133",
        "fd00:230::132",
        "fd00:230::133",
    ];
    expect_marks(
        scenery::TUN,
        "TUN, tunnel: {type: GUE, port: 6080}",
        endpoints,
    )
}

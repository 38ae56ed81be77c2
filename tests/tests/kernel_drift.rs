//! Objects that other programs remove are restored; sysctls that other programs set are reported and left alone.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lab::{Dump, Host, Protocol, Responder, Running, Site, scenery, virtual_service};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 80)
}

fn service(fields: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{address: '{address}'}}"))
        .collect();
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], {fields}, scheduler: {{name: rr}},
         ports: [{{name: t, port: 80}}, {{name: u, protocol: UDP, port: 80}}],
         backends: [{}]",
        endpoints.join(", ")
    );
    virtual_service("web", &spec)
}

fn dr() -> String {
    service(
        "forwarding: DR",
        &[
            "192.168.220.132",
            "192.168.220.133",
            "fd00:220::132",
            "fd00:220::133",
        ],
    )
}

fn expect_service(site: &Site) -> Result<()> {
    VIPS.iter()
        .try_for_each(|vip| site.expect_both(at(vip), |_| at(vip)))
}

/// Starts all agents of a site.
fn run(scenery: &str, yaml: &str) -> Result<(Site, Vec<Running>)> {
    let site = Site::lay_out(scenery, 80)?;
    site.write(yaml)?;
    let running = site
        .agents()
        .iter()
        .map(lab::Agent::start)
        .collect::<Result<_>>()?;
    Ok((site, running))
}

/// Waits until a kernel is as before, apart from values that differ for each new link. An error shows the difference.
fn await_as_before(running: &Running, host: &Host, before: &Dump, what: &str) -> Result<()> {
    let difference = || -> Result<Vec<String>> {
        let now = Dump::of(host)?.portable();
        Ok(before.portable().difference(&now))
    };
    running
        .await_that(what, || Ok(difference()?.is_empty()))
        .with_context(|| difference().unwrap_or_default().join("\n"))
}

/// Runs commands on a host, and waits after each until the agent has restored the kernel.
fn expect_repair(site: &Site, running: &Running, host: &str, commands: &[&[&str]]) -> Result<()> {
    let host = site.host(host)?;
    let before = Dump::of(host)?;
    for command in commands {
        host.run(command)?;
        await_as_before(
            running,
            host,
            &before,
            &format!("the repair of {command:?}"),
        )?;
    }
    expect_service(site)
}

#[test]
fn an_ipvs_table_that_another_program_changes_or_deletes_is_restored() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_service(&site)?;
    let director = site.host("director")?;
    let before = Dump::of(director)?;
    director.run(&[
        "ipvsadm",
        "-d",
        "-t",
        "192.168.220.100:80",
        "-r",
        "192.168.220.132:80",
    ])?;
    director.run(&["ipvsadm", "-E", "-u", "192.168.220.100:80", "-s", "wlc"])?;
    director.run(&[
        "ipvsadm",
        "-e",
        "-t",
        "[fd00:220::100]:80",
        "-r",
        "[fd00:220::132]:80",
        "-g",
        "-w",
        "9",
    ])?;
    assert!(!before.difference(&Dump::of(director)?).is_empty());
    await_as_before(&running[2], director, &before, "the table")?;
    director.run(&["ipvsadm", "-C"])?;
    assert_eq!(director.ipvs()?, []);
    await_as_before(&running[2], director, &before, "the table")?;
    expect_service(&site)
}

#[test]
fn a_deleted_vip_of_the_director_is_restored() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_repair(
        &site,
        &running[2],
        "director",
        &[
            &["ip", "addr", "del", "192.168.220.100/32", "dev", "eth1"],
            &["ip", "addr", "del", "fd00:220::100/128", "dev", "eth1"],
        ],
    )
}

#[test]
fn a_deleted_vip_of_a_real_server_is_restored() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    expect_repair(
        &site,
        &running[0],
        "rs1",
        &[
            &["ip", "addr", "del", "192.168.220.100/32", "dev", "lo"],
            &["ip", "addr", "del", "fd00:220::100/128", "dev", "lo"],
        ],
    )
}

#[test]
fn an_interface_that_went_down_gets_its_ipv6_vip_back() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let director = site.host("director")?;
    let vips = |dump: &Dump| {
        dump.lines_with("::100/128")
            .iter()
            .filter(|line| line.contains("inet6"))
            .count()
    };
    assert_eq!(vips(&Dump::of(director)?), 1);
    director.run(&["ip", "link", "set", "eth1", "down"])?;
    director.run(&["ip", "link", "set", "eth1", "up"])?;
    director.run(&[
        "ip",
        "addr",
        "replace",
        "fd00:220::137/64",
        "dev",
        "eth1",
        "nodad",
    ])?;
    running[2].await_that("the VIP", || Ok(vips(&Dump::of(director)?) == 1))?;
    director.run(&["ip", "route", "replace", "default", "via", "192.168.220.1"])?;
    expect_service(&site)
}

#[test]
fn a_deleted_tunnel_and_one_that_is_down_are_restored() -> Result<()> {
    let yaml = service(
        "forwarding: TUN",
        &[
            "192.168.230.132",
            "192.168.230.133",
            "fd00:230::132",
            "fd00:230::133",
        ],
    );
    let (site, running) = run(scenery::TUN, &yaml)?;
    expect_service(&site)?;
    let host = site.host("rs1")?;
    let links = host.run(&["ip", "-o", "link", "show"])?;
    let tunnels: Vec<&str> = links
        .lines()
        .filter_map(|line| {
            line.split([' ', '@', ':'])
                .find(|word| word.starts_with("lvs-"))
        })
        .collect();
    assert_eq!(tunnels.len(), 3, "{links}");
    let before = Dump::of(host)?.portable();
    for tunnel in tunnels {
        host.run(&["ip", "link", "del", tunnel])?;
        await_as_before(&running[0], host, &before, tunnel)?;
        host.run(&["ip", "link", "set", tunnel, "down"])?;
        await_as_before(&running[0], host, &before, &format!("{tunnel} to be up"))?;
    }
    expect_service(&site)
}

#[test]
fn a_deleted_rule_and_a_deleted_route_are_restored() -> Result<()> {
    let yaml = service(
        "forwarding: NAT, nat: {returnPath: PolicyRoute, gateways: [192.168.100.10, 'fd00:100::10']}",
        &[
            "192.168.100.11",
            "192.168.100.12",
            "fd00:100::11",
            "fd00:100::12",
        ],
    );
    let (site, running) = run(&scenery::nat_with_another_gateway(), &yaml)?;
    let host = site.host("rs1")?;
    let before = Dump::of(host)?;
    for family in ["-4", "-6"] {
        let rules = host.run(&["ip", family, "rule", "show"])?;
        let ours: Vec<&str> = rules
            .lines()
            .find(|line| line.contains("proto 76"))
            .expect("no rule of ours")
            .split_whitespace()
            .skip(1)
            .collect();
        let lookup = ours
            .iter()
            .position(|word| *word == "lookup")
            .expect("a rule looks up a table");
        let delete: Vec<&str> = ["ip", family, "rule", "del"]
            .into_iter()
            .chain(ours[..lookup + 2].iter().copied())
            .collect();
        host.run(&delete)?;
        await_as_before(&running[0], host, &before, "the rule")?;
        host.run(&["ip", family, "route", "flush", "table", ours[lookup + 1]])?;
        await_as_before(&running[0], host, &before, "the route")?;
    }
    VIPS.iter().try_for_each(|vip| {
        site.expect_both(at(vip), |server| {
            SocketAddr::new(site.address(server, at(vip).ip()).unwrap(), 80)
        })
    })
}

#[test]
fn a_sysctl_that_another_program_sets_is_reported_and_left_alone() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let (host, key) = (site.host("rs1")?, "net.ipv4.conf.all.arp_announce");
    assert_eq!(host.sysctl(key)?, "2");
    let mark = running[0].mark();
    host.set_sysctl(key, "1")?;
    running[0].reload()?;
    running[0].await_log(
        mark,
        "lvs-agent had set net.ipv4.conf.all.arp_announce to 2 and another program has set it to 1, which is left as it is",
    )?;
    // A later pass does not set it either, and does not add the VIP to lo, where ARP requests for it would be answered.
    let mark = running[0].mark();
    host.run(&["ip", "addr", "del", "192.168.220.100/32", "dev", "lo"])?;
    running[0].await_log(
        mark,
        "skipped: ip addr add 192.168.220.100/32 dev lo scope host: another program has changed a sysctl that it needs",
    )?;
    assert_eq!(host.sysctl(key)?, "1");
    // Once the other program restores the value, the VIP is added.
    let mark = running[0].mark();
    host.set_sysctl(key, "2")?;
    running[0].reload()?;
    running[0].await_log(mark, "all is well")?;
    expect_service(&site)?;
    // Cleanup leaves the other program's value.
    host.set_sysctl(key, "1")?;
    drop(running);
    site.agent("rs1")?.cleanup()?;
    assert_eq!(host.sysctl(key)?, "1");
    assert_eq!(host.sysctl("net.ipv4.conf.all.arp_ignore")?, "0");
    Ok(())
}

#[test]
fn an_ipv6_vip_that_others_make_preferred_is_deprecated_again() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let preferred = |lifetime| {
        [
            "ip",
            "addr",
            "change",
            "fd00:220::100/128",
            "dev",
            "eth1",
            "preferred_lft",
            lifetime,
        ]
    };
    let source = || {
        site.host("director")?
            .run(&["ip", "route", "get", "fd00:220::50"])
    };
    assert!(!source()?.contains("src fd00:220::100"), "{}", source()?);
    let change = preferred("forever");
    expect_repair(&site, &running[2], "director", &[&change])?;
    assert!(
        running[2]
            .log()
            .contains("ip addr change fd00:220::100/128 dev eth1 preferred_lft 0")
    );
    assert!(!source()?.contains("src fd00:220::100"), "{}", source()?);
    Ok(())
}

#[test]
fn an_ipv6_vip_on_lo_is_never_the_source_of_a_real_server_s_own_connections() -> Result<()> {
    let (site, running) = run(scenery::DR, &dr())?;
    let host = site.host("rs1")?;
    // A preferred address is chosen before one of the outgoing interface (RFC 6724, rules 3 and 5).
    let deprecate = "ip addr change fd00:220::132/64 dev eth0 preferred_lft 0";
    host.run(&deprecate.split(' ').collect::<Vec<_>>())?;
    let on_lo = host.run(&["ip", "-6", "addr", "show", "dev", "lo"])?;
    assert!(on_lo.contains("fd00:220::100/128"), "{on_lo}");
    let source = host.run(&["ip", "route", "get", "fd00:220::50"])?;
    assert!(source.contains("src fd00:220::132"), "{source}");
    drop(running);
    Ok(())
}

#[test]
fn masquerading_is_restored_and_the_rules_of_other_programs_stay() -> Result<()> {
    let yaml = service(
        "forwarding: NAT, nat: {returnPath: Masquerade}",
        &[
            "192.168.220.132",
            "192.168.220.133",
            "fd00:220::132",
            "fd00:220::133",
        ],
    );
    let site = Site::lay_out(scenery::DR, 80)?;
    let director = site.host("director")?;
    // Rules of other programs, around ours and in chains of their own.
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        for arguments in [
            "-N FOREIGN",
            "-A FOREIGN -j RETURN",
            "-A POSTROUTING -p udp --dport 5999 -j FOREIGN",
        ] {
            let command = ["-t", "nat"].into_iter().chain(arguments.split(' '));
            director.run(&[program].into_iter().chain(command).collect::<Vec<_>>())?;
        }
    }
    let before = site.dumps()?;
    site.write(&yaml)?;
    let agent = site.agent("director")?.clone().with("LVS_LOG", "debug");
    let running = agent.start()?;
    let programmed = Dump::of(director)?;
    let lost = before[2].difference(&programmed);
    assert!(
        !lost.iter().any(|line| line.contains("FOREIGN")),
        "{lost:?}"
    );
    let by_nft = director
        .run(&["nft", "list", "table", "inet", "lvs-operator"])
        .is_ok();
    for tampering in tamperings(by_nft) {
        let mark = running.mark();
        director.run(&["sh", "-e", "-c", tampering])?;
        if by_nft {
            running.await_log(mark, "the network changed change=Masquerade")?;
        } else {
            assert_ne!(Dump::of(director)?, programmed, "{tampering}");
            // A check of the kernel. The periodic one is delayed by slow passes, and iptables is slow here.
            running.reload()?;
        }
        await_as_before(&running, director, &programmed, tampering)?;
    }
    let near = lab::Client::on(site.host("near")?);
    for vip in VIPS {
        lab::ask_both(&near, at(vip))?;
    }
    running.stop()?;
    site.clean_up(&before)
}

/// Commands that damage our rules, for the program that this kernel uses for them.
const fn tamperings(by_nft: bool) -> &'static [&'static str] {
    if by_nft {
        return &[
            "nft delete table inet lvs-operator",
            "nft flush table inet lvs-operator",
        ];
    }
    &[
        "iptables-legacy -t nat -F LVS-OPERATOR",
        "ip6tables-legacy -t nat -D LVS-OPERATOR 1",
        "iptables-legacy -t nat -D POSTROUTING -j LVS-OPERATOR",
        "ip6tables-legacy -t nat -I LVS-OPERATOR -j RETURN",
        "iptables-legacy -t nat -D POSTROUTING -j LVS-OPERATOR; iptables-legacy -t nat -F LVS-OPERATOR; iptables-legacy -t nat -X LVS-OPERATOR",
    ]
}

#[test]
fn a_real_server_warns_until_something_listens_on_the_vip() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 8080)?;
    site.write(&dr())?;
    let (agent, host) = (site.agent("rs1")?, site.host("rs1")?);
    let running = agent.start()?;
    let all = VIPS
        .map(|vip| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, at(vip))))
        .concat();
    let listen = |sockets: &[(Protocol, SocketAddr)]| {
        host.in_namespace(|| Responder::start("rs1", sockets.to_vec()))?
    };
    let expect_warnings = |served: &[(Protocol, SocketAddr)]| -> Result<()> {
        let log = agent.call(&["plan"])?.log;
        for socket in &all {
            let (protocol, address) = socket;
            let warning = format!(
                "nothing listens on {protocol} {address} here: bind the service to that address or to all"
            );
            assert_eq!(log.contains(&warning), !served.contains(socket), "{log}");
        }
        Ok(())
    };
    expect_warnings(&[])?;
    // A server on the machine's own address does not receive requests to the VIP.
    let elsewhere = listen(&[(Protocol::Tcp, at("192.168.220.132"))])?;
    expect_warnings(&[])?;
    drop(elsewhere);
    let some = listen(&all[..2])?;
    expect_warnings(&all[..2])?;
    drop(some);
    let mark = running.mark();
    let _everywhere = host.respond(80)?;
    expect_warnings(&all)?;
    running.reload()?;
    running.await_log(mark, "all is well")
}

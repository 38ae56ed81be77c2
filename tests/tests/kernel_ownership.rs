//! Ownership: foreign objects are not changed, our own are recognized after a restart, and removal leaves nothing.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Dump, Protocol, Site, scenery, virtual_service, wait_until};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

fn service(name: &str, port: u16, forwarding: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{address: '{address}'}}"))
        .collect();
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: {forwarding}, scheduler: {{name: rr}},
         ports: [{{name: t, port: {port}}}, {{name: u, protocol: UDP, port: {port}}}],
         backends: [{}]",
        endpoints.join(", ")
    );
    virtual_service(name, &spec)
}

fn nat(name: &str, port: u16) -> String {
    let endpoints = [
        "192.168.100.11",
        "192.168.100.12",
        "fd00:100::11",
        "fd00:100::12",
    ];
    service(name, port, "NAT", &endpoints)
}

fn dr(name: &str, port: u16) -> String {
    let endpoints = [
        "192.168.220.132",
        "192.168.220.133",
        "fd00:220::132",
        "fd00:220::133",
    ];
    service(name, port, "DR", &endpoints)
}

fn tun(name: &str, port: u16) -> String {
    let endpoints = [
        "192.168.230.132",
        "192.168.230.133",
        "fd00:230::132",
        "fd00:230::133",
    ];
    service(name, port, "TUN", &endpoints)
}

/// Adds foreign objects to a machine: an IPVS service, addresses, links, routes, rules and settings.
fn furnish(site: &Site, host: &str, link: &str) -> Result<()> {
    let host = site.host(host)?;
    host.run(&[
        "sh",
        "-e",
        "-c",
        &format!(
            "ipvsadm -A -t 192.0.2.1:80 -s wlc -p 44
             ipvsadm -a -t 192.0.2.1:80 -r 192.0.2.9:80 -m -w 3
             ipvsadm -A -f 9 -s sh
             ip link add foreign0 type dummy
             ip link set foreign0 up
             ip addr add 192.0.2.1/32 dev foreign0
             ip addr add 192.0.2.2/32 dev lo
             ip addr add 192.168.220.99/32 dev {link}
             ip addr add 2001:db8::2/128 dev {link} nodad
             ip link add foreign1 type ipip local 192.0.2.1 remote 192.0.2.77
             ip link set foreign1 up
             ip route add 198.51.100.0/24 dev foreign0
             ip route add 198.51.100.0/24 dev foreign0 table 7600001
             ip rule add pref 5000 fwmark 9 lookup 7600001
             ip -6 rule add pref 5000 fwmark 9 lookup 76
             sysctl -qw net.ipv4.conf.foreign0.rp_filter=1 net.ipv4.conf.{link}.arp_filter=1 net.ipv4.vs.sloppy_tcp=1"
        ),
    ])?;
    Ok(())
}

/// Returns the foreign objects of a machine, recognized by values that only `furnish` uses.
fn foreign(dump: &Dump) -> Vec<String> {
    [
        "192.0.2.",
        "foreign",
        "198.51.100.",
        "192.168.220.99",
        "2001:db8::2",
        "fwmark 0x9",
        "Fwmark",
        "arp_filter",
        "sloppy_tcp",
    ]
    .iter()
    .flat_map(|text| dump.lines_with(text))
    // Forwarding changes settings of every link and, for IPv6, adds an anycast address for each network.
    .filter(|line| {
        !["conf/foreign", "conf/lvs-", "anycast"]
            .iter()
            .any(|text| line.contains(text))
    })
    .map(str::to_owned)
    .collect()
}

/// The lines that are in only one of two lists.
fn unequal(one: &[String], other: &[String]) -> Vec<String> {
    let gone = one.iter().filter(|line| !other.contains(line));
    let new = other.iter().filter(|line| !one.contains(line));
    gone.map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect()
}

/// Runs, changes and cleans up a site with foreign objects on every machine, and checks at every stage that they are
/// unchanged.
fn expect_foreign_objects_unchanged(
    scenery: &str,
    link: &str,
    first: &str,
    second: &str,
) -> Result<()> {
    let site = Site::lay_out(scenery, 80)?;
    for (host, link) in [("director", link), ("rs1", "eth0"), ("rs2", "eth0")] {
        furnish(&site, host, link)?;
    }
    let before = site.dumps()?;
    for yaml in [first, second] {
        site.converge(yaml)?;
        for (dump, before) in site.dumps()?.iter().zip(&before) {
            assert_eq!(unequal(&foreign(before), &foreign(dump)), [""; 0]);
            assert!(
                !before
                    .difference(dump)
                    .iter()
                    .any(|line| line.starts_with("- ip -4 ") && line.contains("192.0.2."))
            );
        }
    }
    site.clean_up(&before)
}

#[test]
fn foreign_objects_are_unchanged_beside_nat() -> Result<()> {
    expect_foreign_objects_unchanged(
        scenery::NAT,
        "eth1",
        &format!("{}{}", nat("web", 80), nat("api", 81)),
        &nat("web", 80),
    )
}

#[test]
fn foreign_objects_are_unchanged_beside_dr() -> Result<()> {
    expect_foreign_objects_unchanged(
        scenery::DR,
        "eth1",
        &format!("{}{}", dr("web", 80), dr("api", 81)),
        &dr("web", 80),
    )
}

#[test]
fn foreign_objects_are_unchanged_beside_tun() -> Result<()> {
    expect_foreign_objects_unchanged(
        scenery::TUN,
        "eth1",
        &format!("{}{}", tun("web", 80), tun("api", 81)),
        &tun("web", 80),
    )
}

#[test]
fn a_foreign_service_on_one_of_our_keys_is_reported_and_left_alone() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let (agent, director) = (site.agent("director")?, site.host("director")?);
    director.run(&["ipvsadm", "-A", "-t", "192.168.220.100:80", "-s", "sh"])?;
    let before = Dump::of(director)?;
    agent.write("site.yaml", nat("web", 80))?;
    let ran = agent.run_once()?;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
    let sentence = "IPVS service TCP 192.168.220.100:80 exists and was not made by lvs-agent; it is left alone: remove it, or its VirtualService";
    assert!(ran.log.contains(sentence), "{}", ran.log);
    let now = Dump::of(director)?;
    let ours = |dump: &Dump| {
        dump.lines_with("protocol: Tcp, address: 192.168.220.100")
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(ours(&now), ours(&before));
    // The other services of the same file work.
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        site.ask_both(protocol, at(VIPS[1], 80))?;
    }
    site.ask_both(Protocol::Udp, at(VIPS[0], 80))?;
    agent.cleanup()?;
    assert_eq!(before.difference(&Dump::of(director)?), [""; 0]);
    Ok(())
}

#[test]
fn a_vip_of_another_program_is_used_and_stays() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let director = site.host("director")?;
    director.run(&["ip", "addr", "add", "192.168.220.100/32", "dev", "eth1"])?;
    director.run(&[
        "ip",
        "addr",
        "add",
        "fd00:220::100/128",
        "dev",
        "eth1",
        "preferred_lft",
        "0",
        "nodad",
    ])?;
    let before = site.dumps()?;
    site.converge(&dr("web", 80))?;
    for vip in VIPS {
        site.expect_both(at(vip, 80), |_| at(vip, 80))?;
    }
    site.clean_up(&before)
}

#[test]
fn cleanup_restores_the_sysctls_that_ip_forward_changes() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let director = site.host("director")?;
    // The kernel's defaults, and one interface with a different value.
    director.set_sysctl("net.ipv4.conf.all.accept_redirects", "1")?;
    director.set_sysctl("net.ipv4.conf.eth0.forwarding", "1")?;
    director.set_sysctl("net.ipv4.conf.eth1.accept_redirects", "0")?;
    let before = site.dumps()?;
    site.converge(&nat("web", 80))?;
    assert_eq!(director.sysctl("net.ipv4.ip_forward")?, "1");
    assert_eq!(director.sysctl("net.ipv6.conf.all.forwarding")?, "1");
    site.clean_up(&before)
}

#[test]
fn a_sysctl_that_already_had_the_value_keeps_it_after_cleanup() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    for host in ["rs1", "rs2", "director"] {
        site.host(host)?
            .set_sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        site.host(host)?
            .set_sysctl("net.ipv4.conf.all.arp_ignore", "2")?;
    }
    let before = site.dumps()?;
    site.converge(&dr("web", 80))?;
    assert_eq!(
        site.host("rs1")?.sysctl("net.ipv4.conf.all.arp_ignore")?,
        "2"
    );
    site.clean_up(&before)
}

#[test]
fn a_restart_adopts_our_objects_and_removes_those_that_are_not_desired() -> Result<()> {
    let mut site = Site::lay_out(scenery::TUN, 80)?;
    site.respond(81)?;
    let before = site.dumps()?;
    let both = format!("{}{}", tun("web", 80), tun("api", 81));
    site.converge(&both)?;
    let programmed = site.dumps()?;
    // A restart without a change does nothing.
    let mut running = Vec::new();
    for agent in site.agents() {
        let started = agent.start()?;
        assert!(!started.log().contains("programmed"), "{}", started.log());
        running.push(started);
    }
    for (dump, before) in site.dumps()?.iter().zip(&programmed) {
        assert_eq!(before.difference(dump), [""; 0]);
    }
    for agent in running {
        agent.stop()?;
    }
    // A restart with less in the file removes the rest.
    site.converge(&tun("web", 80))?;
    for vip in VIPS {
        site.expect_both(at(vip, 80), |_| at(vip, 80))?;
        site.expect_no_answer(at(vip, 81))?;
    }
    site.clean_up(&before)
}

#[test]
fn a_second_pass_does_nothing() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&dr("web", 80))?;
    let before = site.dumps()?;
    for (agent, before) in site.agents().iter().zip(&before) {
        let log = agent.converge()?.log;
        assert!(!log.contains("programmed"), "{log}");
        assert_eq!(before.difference(&Dump::of(agent.host())?), [""; 0]);
    }
    Ok(())
}

#[test]
fn sigterm_leaves_the_kernel_forwarding_under_traffic() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.write(&dr("web", 80))?;
    let running = site
        .agents()
        .iter()
        .map(lab::Agent::start)
        .collect::<Result<Vec<_>>>()?;
    let dumps = site.dumps()?;
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let traffic: Vec<_> = VIPS
            .iter()
            .flat_map(|vip| [Protocol::Tcp, Protocol::Udp].map(|protocol| (*vip, protocol)))
            .map(|(vip, protocol)| {
                let (site, stopped) = (&site, &stopped);
                scope.spawn(move || -> Result<usize> {
                    let client = site.client()?.over(protocol);
                    let (mut asked, mut after) = (0, 0);
                    while after < 5 {
                        after += usize::from(stopped.load(Ordering::Relaxed));
                        client
                            .fetch(at(vip, 80))
                            .with_context(|| format!("{vip} over {protocol}"))?;
                        asked += 1;
                    }
                    Ok(asked)
                })
            })
            .collect();
        let stops: Vec<_> = running.into_iter().map(lab::Running::stop).collect();
        stopped.store(true, Ordering::Relaxed);
        for stop in stops {
            let log = stop?;
            assert!(
                log.contains("stopped; the kernel goes on forwarding"),
                "{log}"
            );
        }
        for thread in traffic {
            let asked = thread.join().expect("a client panicked")?;
            assert!(asked >= 5);
        }
        Ok(())
    })?;
    for (dump, before) in site.dumps()?.iter().zip(&dumps) {
        assert_eq!(before.difference(dump), [""; 0]);
    }
    Ok(())
}

#[test]
fn plan_changes_nothing_and_its_exit_status_shows_whether_there_are_steps() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let before = site.dumps()?;
    site.write(&dr("web", 80))?;
    for (agent, before) in site.agents().iter().zip(&before) {
        let ran = agent.call(&["plan"])?;
        assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
        assert!(ran.stdout.contains("192.168.220.100"), "{}", ran.stdout);
        assert_eq!(before.difference(&Dump::of(agent.host())?), [""; 0]);
        assert!(!agent.state().exists(), "plan made a state directory");
        agent.converge()?;
        let ran = agent.call(&["plan"])?;
        assert_eq!(
            (ran.status.code(), ran.stdout.as_str()),
            (Some(0), ""),
            "{}",
            ran.log
        );
        agent.write("wrong.yaml", "kind: {")?;
        let ran = agent.call(&["plan"])?;
        assert_eq!(ran.status.code(), Some(2), "{}", ran.log);
        agent.remove("wrong.yaml")?;
    }
    // An administrator could type the lines of the plan, with the same result.
    site.clean_up(&before)
}

#[test]
fn the_commands_of_a_plan_give_the_same_kernel_state_when_typed() -> Result<()> {
    let (typed, run) = (
        Site::lay_out(scenery::TUN, 80)?,
        Site::lay_out(scenery::TUN, 80)?,
    );
    typed.write(&tun("web", 80))?;
    run.converge(&tun("web", 80))?;
    for (by_hand, by_agent) in typed.agents().iter().zip(run.agents()) {
        let ran = by_hand.call(&["plan"])?;
        by_hand
            .host()
            .run(&["sh", "-e", "-c", &ran.stdout])
            .with_context(|| ran.stdout.clone())?;
        let [by_hand, by_agent] = [by_hand, by_agent].map(|agent| settings(agent.host()));
        assert_eq!(unequal(&by_hand?, &by_agent?), [""; 0]);
    }
    for vip in VIPS {
        typed.expect_both(at(vip, 80), |_| at(vip, 80))?;
    }
    Ok(())
}

/// Returns the IPVS services, addresses and settings of a host, without values that differ between two labs and
/// without our marks.
fn settings(host: &lab::Host) -> Result<Vec<String>> {
    let dump = Dump::of(host)?.portable();
    let lines = dump.lines_with("").into_iter().filter(|line| {
        line.starts_with("ipvs")
            || line.contains(" inet")
            || (line.contains("/conf/") && !line.contains("stable_secret"))
    });
    Ok(lines
        .map(|line| {
            let words = line
                .split_whitespace()
                .filter(|word| !word.ends_with(':') && !word.starts_with("0x"));
            words.collect::<Vec<_>>().join(" ").replace("proto 76 ", "")
        })
        .collect())
}

#[test]
fn two_agents_do_not_share_a_state_directory() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 80)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("web", 80))?;
    let running = agent.start()?;
    let ran = agent.run_once()?;
    assert_eq!(ran.status.code(), Some(2), "{}", ran.log);
    assert!(
        ran.log
            .contains("another lvs-agent is running with the state directory"),
        "{}",
        ran.log
    );
    // Reading needs no lock.
    assert_eq!(agent.plan()?, "");
    running.kill()?;
    wait_until("the lock", Duration::from_secs(5), || {
        Ok(agent.run_once()?.status.success().then_some(()))
    })
}

//! Only the director answers for a VIP on the network, and it announces the VIP.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{
    Agent, Client, Dump, Host, Protocol, Site, director_group, scenery, virtual_service, wait_until,
};
use lvs_kernel::VipSocket;
use lvs_model::{AddressConfig, AddressKey, NetworkStep, Owner};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 80)
}

fn dr() -> String {
    let spec =
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: DR, scheduler: {name: rr},
         ports: [{name: t, port: 80}, {name: u, protocol: UDP, port: 80}],
         backends: [{address: 192.168.220.132}, {address: 192.168.220.133},
                                {address: 'fd00:220::132'}, {address: 'fd00:220::133'}]";
    virtual_service("web", spec)
}

/// The link address that a host has for a neighbour, if it has one.
fn neighbour(host: &Host, address: &str) -> Result<Option<String>> {
    let table = host.run(&["ip", "neigh", "show", "to", address])?;
    let mut words = table
        .split_whitespace()
        .skip_while(|word| *word != "lladdr");
    Ok(words.nth(1).map(str::to_owned))
}

fn link_address(host: &Host, link: &str) -> Result<String> {
    let shown = host.run(&["ip", "-o", "link", "show", link])?;
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    words
        .nth(1)
        .map(str::to_owned)
        .context("the link has no address")
}

/// Makes a host believe that another machine holds the VIPs.
fn teach_another_holder(host: &Host) -> Result<()> {
    for vip in VIPS {
        let entry = format!("{vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable");
        let words: Vec<&str> = ["ip", "neigh", "replace"]
            .into_iter()
            .chain(entry.split(' '))
            .collect();
        host.run(&words)?;
    }
    Ok(())
}

/// Waits until `near` knows the director as the holder of the VIPs.
fn await_director(site: &Site) -> Result<()> {
    await_director_of(site, &VIPS)
}

fn await_director_of(site: &Site, vips: &[&str]) -> Result<()> {
    let near = site.host("near")?;
    let director = link_address(site.host("director")?, "eth1")?;
    for vip in vips {
        wait_until(&format!("{vip} to move"), Duration::from_secs(5), || {
            Ok((neighbour(near, vip)?.as_ref() == Some(&director)).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_real_server_of_dr_never_answers_for_the_vip() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.write(&dr())?;
    for server in ["rs1", "rs2"] {
        site.agent(server)?.converge()?;
    }
    let near = site.host("near")?;
    // There is no director yet, so an answer would come from a real server.
    for vip in VIPS {
        let client = Client::on(near).timeout(Duration::from_millis(500));
        assert!(client.fetch(at(vip)).is_err(), "{vip}");
        assert_eq!(neighbour(near, vip)?, None, "{vip}");
    }
    site.agent("director")?.converge()?;
    let director = link_address(site.host("director")?, "eth1")?;
    for vip in VIPS {
        for _ in 0..5 {
            near.run(&["ip", "neigh", "flush", "to", vip])?;
            Client::on(near).fetch(at(vip))?;
            assert_eq!(neighbour(near, vip)?.as_ref(), Some(&director), "{vip}");
        }
    }
    Ok(())
}

#[test]
fn a_real_server_of_dr_keeps_its_neighbours_from_learning_the_vip_as_its_own() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&dr())?;
    let (near, director) = (
        site.host("near")?,
        link_address(site.host("director")?, "eth1")?,
    );
    Client::on(near).fetch(at(VIPS[0]))?;
    // A real server without a neighbour entry resolves its neighbour while it answers from the VIP.
    for _ in 0..4 {
        for server in ["rs1", "rs2"] {
            site.host(server)?
                .run(&["ip", "neigh", "flush", "dev", "eth0"])?;
        }
        Client::on(near).fetch(at(VIPS[0]))?;
        assert_eq!(neighbour(near, VIPS[0])?.as_ref(), Some(&director));
    }
    Ok(())
}

#[test]
fn the_arp_sysctls_are_set_before_the_vip_is_added_and_reset_after_it_is_removed() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let agent = site.agent("rs1")?;
    agent.write("site.yaml", dr())?;
    let plan = agent.plan()?;
    let place = |plan: &str, text: &str| {
        plan.lines()
            .position(|line| line.starts_with(text))
            .with_context(|| format!("no `{text}` in:\n{plan}"))
    };
    let vip = place(&plan, "ip addr add 192.168.220.100/32 dev lo")?;
    assert!(
        place(&plan, "sysctl -w net.ipv4.conf.all.arp_ignore=1")? < vip,
        "{plan}"
    );
    assert!(
        place(&plan, "sysctl -w net.ipv4.conf.all.arp_announce=2")? < vip,
        "{plan}"
    );
    agent.converge()?;
    let plan = agent.call(&["cleanup", "--dry-run"])?.stdout;
    let vip = place(&plan, "ip addr del 192.168.220.100/32 dev lo")?;
    assert!(
        vip < place(&plan, "sysctl -w net.ipv4.conf.all.arp_ignore=0")?,
        "{plan}"
    );
    assert!(
        vip < place(&plan, "sysctl -w net.ipv4.conf.all.arp_announce=0")?,
        "{plan}"
    );
    Ok(())
}

#[test]
fn the_vip_is_announced_to_neighbours_that_know_another_holder() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    teach_another_holder(site.host("near")?)?;
    site.converge(&dr())?;
    await_director(&site)
}

#[test]
fn the_vip_is_announced_with_a_new_mac_address_and_when_a_link_comes_up() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.write(&dr())?;
    teach_another_holder(site.host("near")?)?;
    let _running = site.agent("director")?.start()?;
    await_director(&site)?;
    let director = site.host("director")?;
    let set = |words: &[&str]| director.run(&[&["ip", "link", "set", "eth1"], words].concat());
    teach_another_holder(site.host("near")?)?;
    set(&["address", "02:00:00:00:00:77"])?;
    await_director(&site)?;

    set(&["down"])?;
    teach_another_holder(site.host("near")?)?;
    set(&["up"])?;
    // The IPv6 addresses of the link are gone, and with them the network of the other VIP.
    await_director_of(&site, &VIPS[..1])
}

/// The kernel makes an IPv6 address local after it has acknowledged the addition. An announcement before that would have the first
/// packets dropped.
#[test]
fn an_added_ipv6_address_receives_packets_after_the_wait() -> Result<()> {
    const ROUNDS: u16 = 200;
    let site = Site::lay_out(scenery::DR, 80)?;
    site.host("director")?.in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let receiver = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let port = receiver.local_addr()?.port();
        for number in 1..=ROUNDS {
            let address = Ipv6Addr::new(0xfd00, 0x220, 0, 0, 0, 0, 1, number);
            runtime.block_on(add_and_wait(address))?;
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.send_to(b"x", (address, port))?;
            let received = receiver.recv_from(&mut [0; 8]);
            received.with_context(|| format!("a packet to {address}, number {number}"))?;
        }
        Ok(())
    })?
}

async fn add_and_wait(address: Ipv6Addr) -> Result<()> {
    let key = AddressKey::host(&"eth1".parse()?, address.into());
    let config = AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Ours,
    };
    let mut socket = VipSocket::connect()?;
    let step = NetworkStep::AddAddress { key, config };
    for result in socket.execute(&[&step]).await {
        result?;
    }
    socket.wait_until_local(&[address.into()].into()).await;
    Ok(())
}

#[test]
fn a_restarted_agent_announces_the_vip_again() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&dr())?;
    teach_another_holder(site.host("near")?)?;
    let _running = site.agent("director")?.start()?;
    await_director(&site)
}

#[test]
fn a_machine_that_has_been_a_real_server_directs_only_after_a_cleanup() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let former = site.agent("rs2")?;
    let before = Dump::of(former.host())?;
    site.converge(&dr())?;
    let without_it = dr()
        .replace(" {address: 192.168.220.133},", "")
        .replace(", {address: 'fd00:220::133'}", "");
    former.write("site.yaml", &without_it)?;
    let sentence = "this machine has been a real server, so it does not direct without being named";
    // The pass that removes its real server reports this, and the next agent remembers it.
    for _ in 0..2 {
        let planned = former.call(&["plan"])?;
        assert!(planned.log.contains(sentence), "{}", planned.log);
        let ran = former.converge()?;
        assert!(ran.log.contains(sentence), "{}", ran.log);
        assert_eq!(before.difference(&Dump::of(former.host())?), [""; 0]);
    }
    former.cleanup()?;
    let plan = former.call(&["plan"])?;
    assert!(!plan.log.contains(sentence), "{}", plan.log);
    for vip in VIPS {
        let step = format!("ip addr add {vip}/");
        assert!(plan.stdout.contains(&step), "{}", plan.stdout);
    }
    Ok(())
}

#[test]
fn of_two_machines_with_the_same_file_the_second_refuses_the_vip_until_a_group_names_a_director()
-> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    site.converge(&dr())?;
    let (near, mac) = (
        site.host("near")?,
        link_address(site.host("director")?, "eth1")?,
    );
    let before = Dump::of(near)?;
    let second = Agent::on(near)?;
    second.write("site.yaml", dr())?;
    let ran = second.run_once()?;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
    for vip in VIPS {
        let sentence = format!(
            "VIP {vip}: address in use on eth0 (answered by {mac}), perhaps by a real server whose agent does not run"
        );
        assert!(ran.log.contains(&sentence), "{}", ran.log);
        assert!(
            !near
                .run(&["ip", "-o", "addr"])?
                .contains(&format!(" {vip}/"))
        );
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            site.ask_both(protocol, at(vip))?;
        }
    }
    let named = format!(
        "{}{}",
        dr(),
        director_group("default", "nodes: {names: [director]}")
    );
    site.converge(&named)?;
    second.write("site.yaml", &named)?;
    second.converge()?;
    assert_eq!(before.difference(&Dump::of(near)?), [""; 0]);
    VIPS.iter()
        .try_for_each(|vip| site.expect_both(at(vip), |_| at(vip)))
}

/// The second of two machines with the same file, whose VIP is in use on the first; and the VIP, which an administrator adds there.
fn second_machine(site: &Site) -> Result<(Agent, [&'static str; 6])> {
    site.converge(&dr())?;
    let second = Agent::on(site.host("near")?)?;
    second.write("site.yaml", dr())?;
    let add = ["ip", "addr", "add", "192.168.220.100/32", "dev", "eth0"];
    Ok((second, add))
}

fn has_vip(host: &Host) -> Result<bool> {
    Ok(host
        .run(&["ip", "-o", "addr"])?
        .contains(" 192.168.220.100/"))
}

#[test]
fn an_address_that_the_administrator_adds_where_the_vip_is_refused_is_never_ours() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let (second, add) = second_machine(&site)?;
    let running = second.start()?;
    running.await_log(0, "VIP 192.168.220.100: address in use on eth0")?;
    let is_owned = || -> Result<bool> {
        let ledger = std::fs::read_to_string(second.ledger())?;
        Ok(ledger.contains(r#""address":"192.168.220.100","prefix""#))
    };
    assert!(is_owned()?);

    second.host().run(&add)?;
    running.await_that("the ledger without the VIP", || Ok(!is_owned()?))?;
    running.stop()?;
    second.cleanup()?;

    assert!(has_vip(second.host())?);
    Ok(())
}

#[test]
fn an_address_that_is_added_after_a_refused_pass_is_never_ours() -> Result<()> {
    let site = Site::lay_out(scenery::DR, 80)?;
    let (second, add) = second_machine(&site)?;
    for _ in 0..3 {
        let ran = second.run_once()?;
        assert_eq!(ran.status.code(), Some(1), "{}", ran.log);
        let sentence = "VIP 192.168.220.100: address in use on eth0";
        assert!(ran.log.contains(sentence), "{}", ran.log);
    }

    second.host().run(&add)?;
    second.cleanup()?;

    assert!(has_vip(second.host())?);
    Ok(())
}

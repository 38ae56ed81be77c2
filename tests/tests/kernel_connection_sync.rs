//! Directors tell each other their connections where the scheduler alone does not find them again: NAT, and schedulers that do not hash.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{
    Agent, Client, Connection, Host, Lab, Responder, Running, Topology, director_group,
    virtual_service, wait_until,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

/// Two directors between the clients' network and the real servers' network. The real servers' gateway is an address that moves with the
/// VIPs.
const NAT: &str = "
networks: [outer, inner]
hosts:
  client: {links: {eth0: {network: outer, addresses: [192.168.220.50/24, 'fd00:220::50/64']}}}
  lvs1:
    links:
      eth0: {network: outer, addresses: [192.168.220.11/24, 'fd00:220::11/64']}
      eth1: {network: inner, addresses: [192.168.100.11/24, 'fd00:100::11/64']}
  lvs2:
    links:
      eth0: {network: outer, addresses: [192.168.220.12/24, 'fd00:220::12/64']}
      eth1: {network: inner, addresses: [192.168.100.12/24, 'fd00:100::12/64']}
  rs1:
    links: {eth0: {network: inner, addresses: [192.168.100.21/24, 'fd00:100::21/64']}}
    routes: {default: [192.168.100.1, 'fd00:100::1']}
  rs2:
    links: {eth0: {network: inner, addresses: [192.168.100.22/24, 'fd00:100::22/64']}}
    routes: {default: [192.168.100.1, 'fd00:100::1']}
";

fn group(fields: &str) -> String {
    let spec = format!(
        "nodes: {{names: [lvs1, lvs2]}}, gateways: [192.168.100.1, 'fd00:100::1'],
         failover: {{advertisementMilliseconds: 300, priorities: [{{node: lvs1, priority: 200}}]}}{fields}"
    );
    director_group("edge", &spec)
}

fn nat(fields: &str) -> String {
    let service = virtual_service(
        "web",
        "directorGroup: edge, addresses: [192.168.220.100, 'fd00:220::100'], forwarding: NAT, scheduler: {name: rr},
         ports: [{port: 80}],
         backends: [{address: 192.168.100.21}, {address: 192.168.100.22}, {address: 'fd00:100::21'}, {address: 'fd00:100::22'}]",
    );
    group(fields) + &service
}

struct Site {
    agents: Vec<Agent>,
    _responders: Vec<Responder>,
    lab: Lab,
}

impl Site {
    fn lay_out() -> Result<Self> {
        let lab = Lab::lay_out(&NAT.parse::<Topology>()?)?;
        let servers = ["rs1", "rs2"].iter();
        let responders = servers.map(|name| lab.host(name)?.respond(80));
        let responders = responders.collect::<Result<Vec<_>>>()?;
        let directors = ["lvs1", "lvs2"].iter();
        let agents = directors.map(|name| Agent::on(lab.host(name)?));
        Ok(Self {
            agents: agents.collect::<Result<Vec<_>>>()?,
            _responders: responders,
            lab,
        })
    }

    fn write(&self, documents: &str) -> Result<()> {
        let mut agents = self.agents.iter();
        agents.try_for_each(|agent| agent.write("edge.yaml", documents))
    }

    fn host(&self, name: &str) -> Result<&Host> {
        self.lab.host(name)
    }

    /// Starts the agents, the preferred one first.
    fn start(&self) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for agent in &self.agents {
            running.push(agent.start()?);
            if running.len() == 1 {
                wait_until("lvs1 to be active", TIMEOUT, || {
                    Ok(has_vips(self.host("lvs1")?)?.then_some(()))
                })?;
            }
        }
        Ok(running)
    }

    /// Opens connections over each VIP, and sends so much that the kernel tells other directors of them.
    fn connect(&self, count: usize) -> Result<Vec<Connection>> {
        let client = Client::on(self.host("client")?);
        let mut connections = Vec::new();
        for vip in VIPS {
            let vip: IpAddr = vip.parse().unwrap();
            for _ in 0..count {
                let mut connection = client.connect(SocketAddr::new(vip, 80))?;
                connection.ask()?;
                connection.ask()?;
                connections.push(connection);
            }
        }
        Ok(connections)
    }
}

fn has_vips(director: &Host) -> Result<bool> {
    let addresses = director.run(&["ip", "-o", "addr", "show"])?;
    Ok(VIPS
        .iter()
        .all(|vip| addresses.contains(&format!("{vip}/"))))
}

/// The daemons that run, as ipvsadm prints them.
fn daemons(director: &Host) -> Result<BTreeSet<String>> {
    let shown = director.run(&["ipvsadm", "-l", "--daemon"])?;
    Ok(shown.lines().map(|line| line.trim().to_owned()).collect())
}

/// The number of TCP connections that a director has learnt from another one.
fn learnt(director: &Host) -> Result<usize> {
    let shown = director.run(&["cat", "/proc/net/ip_vs_conn_sync"])?;
    let lines = shown.lines();
    let learnt = lines.filter(|line| line.starts_with("TCP") && line.contains(" SYNC"));
    Ok(learnt.count())
}

#[test]
fn nat_connections_go_on_when_the_director_is_cut_off() -> Result<()> {
    const EACH: usize = 20;
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let _running = site.start()?;
    let mut connections = site.connect(EACH)?;
    wait_until("the connections on lvs2", TIMEOUT, || {
        Ok((learnt(site.host("lvs2")?)? >= 2 * EACH).then_some(()))
    })?;
    let lost = site.host("lvs1")?;
    for link in ["eth0", "eth1"] {
        lost.run(&["ip", "link", "set", link, "down"])?;
    }
    wait_until("lvs2 to be active", TIMEOUT, || {
        Ok(has_vips(site.host("lvs2")?)?.then_some(()))
    })?;
    for connection in &mut connections {
        let local = connection.local();
        let answer = connection.ask();
        answer.with_context(|| format!("the connection from {local} is cut"))?;
    }
    Ok(())
}

#[test]
fn the_gateway_moves_with_the_vips_also_when_only_its_own_link_is_lost() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let _running = site.start()?;
    let client = Client::on(site.host("client")?);
    let ask = || -> Result<()> {
        for vip in VIPS {
            let vip: IpAddr = vip.parse().unwrap();
            client.fetch(SocketAddr::new(vip, 80))?;
        }
        Ok(())
    };
    wait_until("answers", TIMEOUT, || Ok(ask().ok()))?;
    site.host("lvs1")?
        .run(&["ip", "link", "set", "eth1", "down"])?;
    wait_until("lvs2 to be active alone", TIMEOUT, || {
        let (lost, other) = (has_vips(site.host("lvs1")?)?, has_vips(site.host("lvs2")?)?);
        Ok((!lost && other).then_some(()))
    })?;
    ask()
}

#[test]
fn both_daemons_run_on_each_director_with_the_settings_of_the_group() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let running = site.start()?;
    let of = |interface: &str, id: u8, rest: &str| -> BTreeSet<String> {
        let roles = ["master", "backup"].iter();
        let lines = roles.map(|role| {
            format!("{role} sync daemon (mcast={interface}, syncid={id}, maxlen=1472, {rest})")
        });
        lines.collect()
    };
    let standard = "group=224.0.0.81, port=8848, ttl=1";
    let await_daemons = |expected: &BTreeSet<String>| {
        for (agent, running) in site.agents.iter().zip(&running) {
            let host = agent.host();
            running
                .await_that("the daemons", || Ok(daemons(host)? == *expected))
                .with_context(|| format!("{:?}, not {expected:?}", daemons(host)))?;
        }
        anyhow::Ok(())
    };
    await_daemons(&of("eth0", 0, standard))?;

    let sync = ", connectionSync: {interface: eth1, syncId: 7, multicastGroup: 224.0.0.82, port: 8849, ttl: 2}";
    site.write(&nat(sync))?;
    await_daemons(&of("eth1", 7, "group=224.0.0.82, port=8849, ttl=2"))?;

    // Without a virtual service that needs them, they are stopped.
    site.write(&group(sync))?;
    await_daemons(&BTreeSet::new())
}

#[test]
fn a_daemon_of_another_program_is_left_alone() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let director = site.host("lvs1")?;
    let foreign = "ipvsadm --start-daemon master --mcast-interface eth1 --syncid 9";
    director.run(&["sh", "-c", foreign])?;
    let before = daemons(director)?;
    let running = site.agents.first().unwrap().start()?;
    running.await_log(
        0,
        "a connection-sync master runs on eth1 and was not started by lvs-agent; it is left alone: stop it with `ipvsadm \
         --stop-daemon master`",
    )?;
    let after = daemons(director)?;
    ensure!(after.is_superset(&before), "{before:?} became {after:?}");
    ensure!(after.len() == 2, "there is no backup: {after:?}");
    running.stop()?;
    ensure!(
        daemons(director)? == after,
        "an agent that stops changes them"
    );
    Ok(())
}

#[test]
fn a_director_without_a_route_to_its_real_servers_gives_way() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let running = site.start()?;
    let [first, second] = running.as_slice() else {
        unreachable!("two directors")
    };
    let holds = |name: &str, vip: &str| -> Result<bool> {
        let shown = site.host(name)?.run(&["ip", "-o", "addr", "show"])?;
        Ok(shown.contains(&format!("{vip}/")))
    };
    second.await_that("its first pass", || {
        Ok(!site.host("lvs2")?.run(&["ipvsadm", "-Sn"])?.is_empty())
    })?;
    let mark = first.mark();
    let cut_off = "ip route del 192.168.100.0/24 dev eth1";
    site.host("lvs1")?.run(&["sh", "-c", cut_off])?;
    second.await_that("the IPv4 VIP on lvs2 alone", || {
        Ok(holds("lvs2", VIPS[0])? && !holds("lvs1", VIPS[0])?)
    })?;
    first.await_log(
        mark,
        "this machine has lost the routes to all real servers behind some VIPs, so another director that has them takes over: 192.168.220.100",
    )?;
    ensure!(
        holds("lvs1", VIPS[1])?,
        "the IPv6 VIP has moved, although its real servers have routes"
    );
    let client = Client::on(site.host("client")?);
    for vip in VIPS {
        client.fetch(SocketAddr::new(vip.parse::<IpAddr>().unwrap(), 80))?;
    }
    Ok(())
}

/// Waits until one director has the VIPs and the gateways, and the other has none of them.
fn await_only_holder(site: &Site, holder: &str, other: &str) -> Result<()> {
    let addresses = |name: &str| site.host(name)?.run(&["ip", "-o", "addr", "show"]);
    let mobile = [
        "192.168.220.100/",
        "fd00:220::100/",
        "192.168.100.1/",
        "fd00:100::1/",
    ];
    wait_until(
        &format!("{holder} to hold everything alone"),
        TIMEOUT,
        || {
            let (held, left) = (addresses(holder)?, addresses(other)?);
            let is_moved = |address: &&str| held.contains(*address) && !left.contains(*address);
            Ok(mobile.iter().all(is_moved).then_some(()))
        },
    )
}

#[test]
fn the_gateways_do_not_stay_on_a_director_that_loses_the_interface_of_the_vips() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let running = site.start()?;
    await_only_holder(&site, "lvs1", "lvs2")?;
    let mark = running.first().unwrap().mark();
    site.host("lvs1")?.run(&["ip", "link", "del", "eth0"])?;
    await_only_holder(&site, "lvs2", "lvs1")?;
    running.first().unwrap().await_log(
        mark,
        "gateway 192.168.100.1 of DirectorGroup edge: the agent holds no IPv4 VIP with which it could move",
    )?;
    let client = Client::on(site.host("client")?);
    for vip in VIPS {
        client.fetch(SocketAddr::new(vip.parse::<IpAddr>().unwrap(), 80))?;
    }
    await_only_holder(&site, "lvs2", "lvs1")
}

#[test]
fn a_director_that_loses_its_own_address_gives_way() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let _running = site.start()?;
    await_only_holder(&site, "lvs1", "lvs2")?;
    site.host("lvs1")?
        .run(&["ip", "addr", "flush", "dev", "eth0"])?;
    await_only_holder(&site, "lvs2", "lvs1")
}

#[test]
fn a_vip_that_another_machine_answers_for_is_not_added_by_its_renewal() -> Result<()> {
    let site = Site::lay_out()?;
    site.write(&nat(""))?;
    let foreign = "ip addr add 192.168.220.100/32 dev eth0";
    site.host("client")?.run(&["sh", "-c", foreign])?;
    let director = site.agents.first().unwrap();
    let running = director.start()?;
    let mark = running.mark();
    running.await_log(0, "VIP 192.168.220.100: address in use")?;
    // The other VIP is renewed several times meanwhile.
    running.await_log(mark, "VIP added vip=fd00:220::100")?;
    for _ in 0..3 {
        let mark = running.mark();
        running.await_log(mark, "ip addr change fd00:220::100/128")?;
    }
    let shown = director.host().run(&["ip", "-o", "addr", "show"])?;
    ensure!(!shown.contains("192.168.220.100/"), "it was added: {shown}");
    Ok(())
}

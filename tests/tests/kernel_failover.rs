//! Two directors of a group: one holds the VIPs, and the other takes them when it falls silent.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lab::{
    Agent, Client, Host, Lab, Responder, Running, Topology, director_group, virtual_service,
};

const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
const DIRECTORS: [&str; 2] = ["lvs1", "lvs2"];
const TOPOLOGY: &str = "
networks: [lan]
hosts:
  client: {links: {eth0: {network: lan, addresses: [10.0.0.1/24, 'fd00::1/64']}}}
  lvs1: {links: {eth0: {network: lan, addresses: [10.0.0.11/24, 'fd00::11/64']}}}
  lvs2: {links: {eth0: {network: lan, addresses: [10.0.0.12/24, 'fd00::12/64']}}}
  rs1: {links: {eth0: {network: lan, addresses: [10.0.0.21/24, 'fd00::21/64']}}}
  rs2: {links: {eth0: {network: lan, addresses: [10.0.0.22/24, 'fd00::22/64']}}}
";

fn documents(failover: &str) -> String {
    let group = director_group(
        "edge",
        &format!("nodes: {{names: [lvs1, lvs2]}}, failover: {{{failover}}}"),
    );
    let service = virtual_service(
        "web",
        "directorGroup: edge, addresses: [10.0.0.100, 'fd00::100'], forwarding: DR, scheduler: {name: mh}, ports: [{port: 80}],
         backends: [{address: 10.0.0.21}, {address: 10.0.0.22}, {address: 'fd00::21'}, {address: 'fd00::22'}]",
    );
    group + &service
}

/// The machines, with agents on all except the client.
struct Pair {
    _servers: Vec<Running>,
    _responders: Vec<Responder>,
    lab: Lab,
}

impl Pair {
    fn lay_out(documents: &str) -> Result<Self> {
        let lab = Lab::lay_out(&TOPOLOGY.parse::<Topology>()?)?;
        let mut servers = Vec::new();
        let mut responders = Vec::new();
        for name in ["rs1", "rs2"] {
            responders.push(lab.host(name)?.respond(80)?);
            servers.push(agent(lab.host(name)?, documents)?.start()?);
        }
        Ok(Self {
            _servers: servers,
            _responders: responders,
            lab,
        })
    }

    fn agent(&self, name: &str, documents: &str) -> Result<Agent> {
        agent(self.lab.host(name)?, documents)
    }

    /// The directors that have a VIP.
    fn holders(&self, vip: &str) -> Result<Vec<&'static str>> {
        let mut holders = Vec::new();
        for name in DIRECTORS {
            let shown = self
                .lab
                .host(name)?
                .run(&["ip", "addr", "show", "to", vip])?;
            if !shown.trim().is_empty() {
                holders.push(name);
            }
        }
        Ok(holders)
    }

    /// Waits until one director, whose agent runs, has both VIPs, and the other has none.
    fn await_holder(&self, name: &str, agent: &Running) -> Result<()> {
        agent.await_that(&format!("{name} to hold the VIPs alone"), || {
            let holders = VIPS.iter().map(|vip| self.holders(vip));
            let holders = holders.collect::<Result<Vec<_>>>()?;
            Ok(holders.iter().all(|holders| *holders == [name]))
        })
    }

    fn expect_answers(&self) -> Result<()> {
        for vip in VIPS {
            let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), 80);
            Client::on(self.lab.host("client")?).fetch(address)?;
        }
        Ok(())
    }
}

fn agent(host: &Host, documents: &str) -> Result<Agent> {
    let agent = Agent::on(host)?;
    agent.write("all.yaml", documents)?;
    Ok(agent)
}

#[test]
fn a_director_that_is_killed_is_replaced_and_does_not_come_back_unasked() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 51, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let second = pair.agent("lvs2", &documents)?;
    let standby = second.start()?;
    pair.await_holder("lvs1", &running)?;
    let table = pair.lab.host("lvs2")?.run(&["ipvsadm", "-Ln"])?;
    ensure!(
        table.contains("10.0.0.100:80"),
        "the standby has the table:\n{table}"
    );
    pair.expect_answers()?;

    running.kill()?;
    standby.await_that("the standby to hold the VIPs", || {
        Ok(pair.holders("10.0.0.100")?.contains(&"lvs2"))
    })?;
    pair.expect_answers()?;
    // They are no longer renewed, so the kernel removes them.
    pair.await_holder("lvs2", &standby)?;

    let again = first.start()?;
    again.await_log(0, "standby")?;
    pair.await_holder("lvs2", &standby)?;
    pair.expect_answers()?;
    Ok(())
}

#[test]
fn an_agent_that_is_restarted_moves_nothing() -> Result<()> {
    let documents = documents("virtualRouterId: 52, advertisementMilliseconds: 1000");
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let standby = pair.agent("lvs2", &documents)?.start()?;
    running.stop()?;
    let again = first.start()?;
    again.await_log(0, "was active before a restart")?;
    pair.expect_answers()?;
    ensure!(
        !standby.log().contains("VIP added"),
        "the standby took over:\n{}",
        standby.log()
    );
    Ok(())
}

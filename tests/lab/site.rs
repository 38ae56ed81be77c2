//! A network with agents on its machines and servers that answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Agent;
use crate::dump::Dump;
use crate::host::Host;
use crate::layout::Lab;
use crate::topology::Topology;
use crate::traffic::{Answer, Client, Protocol, Responder};

/// The machines of a [`scenery`](crate::scenery) with agents, in the order in which they converge.
const MACHINES: [&str; 3] = ["rs1", "rs2", "director"];

/// How long a client waits if no answer is expected.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

/// How many requests a client sends at least, and at most, until both real servers have answered.
const FEWEST_REQUESTS: usize = 4;
const MOST_REQUESTS: usize = 40;

/// A laid-out [`scenery`](crate::scenery). `rs1` and `rs2` answer requests; `rs1`, `rs2` and `director` have agents.
#[derive(Debug)]
pub struct Site {
    agents: Vec<Agent>,
    responders: Vec<Responder>,
    lab: Lab,
}

impl Site {
    /// Lays out a scenery, with servers that answer on `port`.
    pub fn lay_out(scenery: &str, port: u16) -> Result<Self> {
        crate::require_ipvs()?;
        let lab = Lab::lay_out(&scenery.parse::<Topology>()?)?;
        let agents = MACHINES
            .iter()
            .map(|name| Agent::on(lab.host(name)?))
            .collect::<Result<_>>()?;
        let mut site = Self {
            agents,
            responders: Vec::new(),
            lab,
        };
        site.respond(port)?;
        Ok(site)
    }

    /// Makes the real servers answer on another port too.
    pub fn respond(&mut self, port: u16) -> Result<()> {
        for name in ["rs1", "rs2"] {
            self.responders.push(self.lab.host(name)?.respond(port)?);
        }
        Ok(())
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A host.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.lab.host(name)
    }

    /// The agent of a machine.
    pub fn agent(&self, name: &str) -> Result<&Agent> {
        let mut agents = self.agents.iter();
        agents
            .find(|agent| agent.host().name() == name)
            .with_context(|| format!("{name} has no agent"))
    }

    /// The agents: those of the real servers, then the director's.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Writes the same configuration file for every agent.
    pub fn write(&self, yaml: &str) -> Result<()> {
        self.agents
            .iter()
            .try_for_each(|agent| agent.write("site.yaml", yaml))
    }

    /// Writes the same configuration file for every agent and makes one pass on each. Afterwards no agent's plan has a step.
    pub fn converge(&self, yaml: &str) -> Result<()> {
        self.write(yaml)?;
        for agent in &self.agents {
            agent.converge()?;
            let plan = agent.plan()?;
            ensure!(
                plan.is_empty(),
                "there is more to do on {} after a pass:\n{plan}",
                agent.host().name()
            );
        }
        Ok(())
    }

    /// The states of the machines' kernels, in the order of [`Site::agents`].
    pub fn dumps(&self) -> Result<Vec<Dump>> {
        let dump = |agent: &Agent| Dump::of(agent.host());
        self.agents.iter().map(dump).collect()
    }

    /// Cleans up on every machine, and fails unless every kernel is as `before`.
    pub fn clean_up(&self, before: &[Dump]) -> Result<()> {
        for (agent, before) in self.agents.iter().zip(before) {
            agent.cleanup()?;
            let left = before.difference(&Dump::of(agent.host())?);
            ensure!(
                left.is_empty(),
                "{} is not as it was:\n{}",
                agent.host().name(),
                left.join("\n")
            );
        }
        Ok(())
    }

    /// A client on the host `client`.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::on(self.lab.host("client")?))
    }

    /// Sends requests from the host `client`; both real servers must answer.
    pub fn ask_both(&self, protocol: Protocol, server: SocketAddr) -> Result<Vec<Answer>> {
        ask_both(&self.client()?.over(protocol), server)
            .with_context(|| format!("{server} over {protocol}"))
    }

    /// Checks over TCP and UDP that both real servers answer, that they see the client's own address as the source, and that they
    /// see the destination that `destination` returns for their name.
    pub fn expect_both(
        &self,
        server: SocketAddr,
        destination: impl Fn(&str) -> SocketAddr,
    ) -> Result<()> {
        let client = self.address("client", server.ip())?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for answer in self.ask_both(protocol, server)? {
                ensure!(
                    answer.peer.ip() == client && answer.local == destination(&answer.server),
                    "{server} over {protocol}: {answer}"
                );
            }
        }
        Ok(())
    }

    /// Checks over TCP and UDP that there is no answer.
    pub fn expect_no_answer(&self, server: SocketAddr) -> Result<()> {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let client = self.client()?.over(protocol).timeout(NO_ANSWER_TIMEOUT);
            if let Ok(answer) = client.fetch(server) {
                bail!("{server} over {protocol}: {answer}");
            }
        }
        Ok(())
    }

    /// The first address of a host's `eth0` with the same family as another address.
    pub fn address(&self, host: &str, like: IpAddr) -> Result<IpAddr> {
        let addresses = self.lab.host(host)?.addresses("eth0").iter();
        let mut alike = addresses.filter(|address| address.addr().is_ipv4() == like.is_ipv4());
        let found = alike.next().map(|address| address.addr());
        found.with_context(|| format!("{host} has no address like {like}"))
    }
}

/// Sends requests until both real servers have answered. A scheduler that hashes may choose one of them several times in a row.
pub fn ask_both(client: &Client, server: SocketAddr) -> Result<Vec<Answer>> {
    let both = BTreeSet::from(["rs1", "rs2"]);
    let mut answers: Vec<Answer> = Vec::new();
    loop {
        let servers = answers.iter().map(|answer| answer.server.as_str());
        let servers: BTreeSet<&str> = servers.collect();
        if answers.len() >= FEWEST_REQUESTS && servers == both {
            return Ok(answers);
        }
        ensure!(
            answers.len() < MOST_REQUESTS && servers.is_subset(&both),
            "only {servers:?} answered"
        );
        answers.push(client.fetch(server)?);
    }
}

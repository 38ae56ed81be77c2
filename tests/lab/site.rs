//! A network with an agent on each of its machines and servers that answer.

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

/// The machines of a [`scenery`](crate::scenery), in the order in which they are to converge.
const MACHINES: [&str; 3] = ["rs1", "rs2", "director"];

/// How long a client waits that is not to get an answer.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// How often a client asks to hear both real servers.
const REQUESTS: usize = 4;

/// A laid-out [`scenery`](crate::scenery): `rs1` and `rs2` answer, and they and `director` have an agent each.
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

    /// The lab it stands in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// One of its hosts.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.lab.host(name)
    }

    /// The agent of one of its machines.
    pub fn agent(&self, name: &str) -> Result<&Agent> {
        let mut agents = self.agents.iter();
        agents
            .find(|agent| agent.host().name() == name)
            .with_context(|| format!("{name} has no agent"))
    }

    /// Its agents: those of the real servers before the director's.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Gives every agent the same file.
    pub fn write(&self, yaml: &str) -> Result<()> {
        self.agents
            .iter()
            .try_for_each(|agent| agent.write("site.yaml", yaml))
    }

    /// Gives every agent the same file and lets each make one pass; none finds anything to do afterwards.
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

    /// What the kernels of its machines hold, in the order of [`Site::agents`].
    pub fn dumps(&self) -> Result<Vec<Dump>> {
        let dump = |agent: &Agent| Dump::of(agent.host());
        self.agents.iter().map(dump).collect()
    }

    /// Cleans up on every machine, and fails unless every kernel is as it was.
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

    /// Asks until both real servers must have answered, from the host `client`.
    pub fn ask_both(&self, protocol: Protocol, server: SocketAddr) -> Result<Vec<Answer>> {
        ask_both(&self.client()?.over(protocol), server)
            .with_context(|| format!("{server} over {protocol}"))
    }

    /// Checks over TCP and UDP that both real servers answer, that they see the client's own address, and that they see the request
    /// come to the address that `seen_as` gives for their name.
    pub fn expect_both(
        &self,
        server: SocketAddr,
        seen_as: impl Fn(&str) -> SocketAddr,
    ) -> Result<()> {
        let client = self.address("client", server.ip())?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for answer in self.ask_both(protocol, server)? {
                ensure!(
                    answer.peer.ip() == client && answer.local == seen_as(&answer.server),
                    "{server} over {protocol}: {answer}"
                );
            }
        }
        Ok(())
    }

    /// Checks over TCP and UDP that nobody answers.
    pub fn expect_nobody(&self, server: SocketAddr) -> Result<()> {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let client = self.client()?.over(protocol).timeout(IMPATIENCE);
            if let Ok(answer) = client.fetch(server) {
                bail!("{server} over {protocol}: {answer}");
            }
        }
        Ok(())
    }

    /// The first address of a host that is of the same family as another address.
    pub fn address(&self, host: &str, like: IpAddr) -> Result<IpAddr> {
        let addresses = self.lab.host(host)?.addresses("eth0").iter();
        let mut alike = addresses.filter(|address| address.addr().is_ipv4() == like.is_ipv4());
        let found = alike.next().map(|address| address.addr());
        found.with_context(|| format!("{host} has no address like {like}"))
    }
}

/// Asks until both real servers must have answered.
pub fn ask_both(client: &Client, server: SocketAddr) -> Result<Vec<Answer>> {
    let answers = (0..REQUESTS)
        .map(|_| client.fetch(server))
        .collect::<Result<Vec<Answer>>>()?;
    let servers: BTreeSet<&str> = answers
        .iter()
        .map(|answer| answer.server.as_str())
        .collect();
    ensure!(
        servers == BTreeSet::from(["rs1", "rs2"]),
        "only {servers:?} answered"
    );
    Ok(answers)
}

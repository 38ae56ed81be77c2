//! Two directors and five real servers on one network, with agents that read files: what it takes to lose a director and to change the
//! set of real servers at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, Running, director_group, virtual_service};
use crate::host::Host;
use crate::layout::Lab;
use crate::topology::Topology;
use crate::traffic::{Client, Responder};

/// The hosts of a [`Fleet`] that direct.
pub const DIRECTORS: [&str; 2] = ["lvs1", "lvs2"];

/// The hosts of a [`Fleet`] that are real servers. Four of them serve at a time.
pub const SERVERS: [&str; 5] = ["rs1", "rs2", "rs3", "rs4", "rs5"];

/// One network with all machines.
const TOPOLOGY: &str = "
networks: [lan]
hosts:
  client: {links: {eth0: {network: lan, addresses: [10.0.0.1/24, 'fd00::1/64']}}}
  lvs1: {links: {eth0: {network: lan, addresses: [10.0.0.11/24, 'fd00::11/64']}}}
  lvs2: {links: {eth0: {network: lan, addresses: [10.0.0.12/24, 'fd00::12/64']}}}
  rs1: {links: {eth0: {network: lan, addresses: [10.0.0.21/24, 'fd00::21/64']}}}
  rs2: {links: {eth0: {network: lan, addresses: [10.0.0.22/24, 'fd00::22/64']}}}
  rs3: {links: {eth0: {network: lan, addresses: [10.0.0.23/24, 'fd00::23/64']}}}
  rs4: {links: {eth0: {network: lan, addresses: [10.0.0.24/24, 'fd00::24/64']}}}
  rs5: {links: {eth0: {network: lan, addresses: [10.0.0.25/24, 'fd00::25/64']}}}
";

/// The port of the service.
const PORT: u16 = 80;

/// How long a new connection of [`Fleet::client`] and each answer may take. A lost connection is refused at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A set of real servers in the order of the file, each by its index in [`SERVERS`].
pub type FleetSet = [usize; 4];

/// What the machines of a [`Fleet`] read, apart from the set of real servers.
#[derive(Clone, Copy, Debug)]
pub struct FleetSetting {
    /// The VIP, of either family.
    pub vip: &'static str,
    /// The forwarding method.
    pub forwarding: &'static str,
    /// Fields of `failover`, apart from the id and the interval.
    pub failover: &'static str,
}

impl FleetSetting {
    /// The objects of a set of real servers.
    #[must_use]
    pub fn documents(self, set: FleetSet) -> String {
        let Self {
            vip,
            forwarding,
            failover,
        } = self;
        let group = director_group(
            "edge",
            &format!(
                "nodes: {{names: [lvs1, lvs2]}},
                 failover: {{virtualRouterId: 51, advertisementMilliseconds: 100, {failover}}}"
            ),
        );
        let backends = set.map(|server| format!("{{address: '{}'}}", self.server(server)));
        let service = virtual_service(
            "web",
            &format!(
                "directorGroup: edge, addresses: ['{vip}'], forwarding: {forwarding}, ports: [{{port: 80}}],
                 scheduler: {{name: mh, flags: [Port, Fallback]}}, backends: [{}]",
                backends.join(", ")
            ),
        );
        group + &service
    }

    /// The address of a real server in the family of the VIP.
    #[must_use]
    pub fn server(self, index: usize) -> String {
        let network = if self.vip.contains(':') {
            "fd00::"
        } else {
            "10.0.0."
        };
        format!("{network}{}", 21 + index)
    }
}

/// The machines with their files. The agents of the real servers run; those of the directors can be started and killed.
#[derive(Debug)]
pub struct Fleet {
    /// What the directors read.
    pub setting: FleetSetting,
    /// The running agents of real servers.
    pub servers: BTreeMap<&'static str, Running>,
    /// The running agents of directors.
    pub directors: BTreeMap<&'static str, Running>,
    /// The files of all machines.
    pub agents: BTreeMap<&'static str, Agent>,
    /// What the real servers read.
    server_setting: FleetSetting,
    _responders: Vec<Responder>,
    /// The machines.
    pub lab: Lab,
}

impl Fleet {
    /// Starts the agents of the real servers. Directors and real servers may read different settings.
    pub fn lay_out(
        setting: FleetSetting,
        server_setting: FleetSetting,
        set: FleetSet,
    ) -> Result<Self> {
        let read_by = |name: &str| {
            if DIRECTORS.contains(&name) {
                setting
            } else {
                server_setting
            }
        };
        let mut fleet = Self::with_agents(setting, |host| {
            let agent = Agent::on(host)?;
            agent.write("all.yaml", read_by(host.name()).documents(set))?;
            Ok(agent)
        })?;
        fleet.server_setting = server_setting;
        Ok(fleet)
    }

    /// Starts the agents of the real servers, each agent as `agent` makes it.
    pub fn with_agents(
        setting: FleetSetting,
        agent: impl Fn(&Host) -> Result<Agent>,
    ) -> Result<Self> {
        let lab = Lab::lay_out(&TOPOLOGY.parse::<Topology>()?)?;
        let mut agents = BTreeMap::new();
        for name in SERVERS.into_iter().chain(DIRECTORS) {
            agents.insert(name, agent(lab.host(name)?)?);
        }
        let mut fleet = Self {
            setting,
            servers: BTreeMap::new(),
            directors: BTreeMap::new(),
            agents,
            server_setting: setting,
            _responders: Vec::new(),
            lab,
        };
        for name in SERVERS {
            fleet._responders.push(fleet.lab.host(name)?.respond(PORT)?);
            let running = fleet.agent(name)?.start()?;
            fleet.servers.insert(name, running);
        }
        Ok(fleet)
    }

    /// Starts the agents of the directors; `lvs1` gets the VIP.
    pub fn start_directors(&mut self) -> Result<()> {
        for name in DIRECTORS {
            self.start_director(name)?;
            self.await_holder("lvs1")?;
        }
        Ok(())
    }

    /// Starts the agent of one director.
    pub fn start_director(&mut self, name: &'static str) -> Result<()> {
        let running = self.agent(name)?.start()?;
        self.directors.insert(name, running);
        Ok(())
    }

    /// The files of a machine.
    pub fn agent(&self, name: &str) -> Result<&Agent> {
        let agent = self.agents.get(name);
        agent.with_context(|| format!("there is no machine {name}"))
    }

    /// Replaces the files of all machines.
    pub fn write(&self, set: FleetSet) -> Result<()> {
        self.write_to_directors(set)?;
        self.write_to_servers(set)
    }

    /// Replaces the files of the directors.
    pub fn write_to_directors(&self, set: FleetSet) -> Result<()> {
        self.write_to(&DIRECTORS, &self.setting.documents(set))
    }

    /// Replaces the files of the real servers.
    pub fn write_to_servers(&self, set: FleetSet) -> Result<()> {
        self.write_to(&SERVERS, &self.server_setting.documents(set))
    }

    fn write_to(&self, machines: &[&str], documents: &str) -> Result<()> {
        let mut machines = machines.iter();
        machines.try_for_each(|name| self.agent(name)?.write("all.yaml", documents))
    }

    /// Runs a command on a machine.
    pub fn show(&self, host: &str, command: &[&str]) -> Result<String> {
        self.lab.host(host)?.run(command)
    }

    /// Returns whether a machine has the VIP.
    pub fn has_vip(&self, name: &str) -> Result<bool> {
        let command = ["ip", "addr", "show", "to", self.setting.vip];
        Ok(!self.show(name, &command)?.trim().is_empty())
    }

    /// Waits until one director, whose agent runs, has the VIP, and the other does not.
    pub fn await_holder(&self, name: &str) -> Result<()> {
        self.director(name)?
            .await_that(&format!("{name} to hold the VIP alone"), || {
                let [first, second] = DIRECTORS;
                let holders = (self.has_vip(first)?, self.has_vip(second)?);
                Ok(holders == (name == first, name == second))
            })
    }

    /// The running agent of a director.
    pub fn director(&self, name: &str) -> Result<&Running> {
        let running = self.directors.get(name);
        running.with_context(|| format!("no agent runs on {name}"))
    }

    /// Kills the agent of a director.
    pub fn kill_director(&mut self, name: &str) -> Result<()> {
        let running = self.directors.remove(name);
        running
            .with_context(|| format!("no agent runs on {name}"))?
            .kill()
    }

    /// Returns whether a director has exactly this set in its table.
    pub fn has_table(&self, name: &str, set: FleetSet) -> Result<bool> {
        let table = self.show(name, &["ipvsadm", "-Ln"])?;
        let has = |index: usize| {
            let address = self.setting.server(index);
            [format!("{address}:{PORT}"), format!("[{address}]:{PORT}")]
                .iter()
                .any(|server| table.contains(server))
        };
        Ok((0..SERVERS.len()).all(|index| has(index) == set.contains(&index)))
    }

    /// Waits until the real servers of a set give second chances, or do not any more.
    pub fn await_second_chances(&self, set: FleetSet, are_given: bool) -> Result<()> {
        for index in set {
            let name = SERVERS.get(index).context("no such real server")?;
            let running = self.servers.get(name);
            let what = format!("second chances on {name}: {are_given}");
            running
                .with_context(|| format!("no agent runs on {name}"))?
                .await_that(&what, || {
                    let is_marked = self.marks_strays(name)?;
                    let is_served = self.show(name, &["ipvsadm", "-Ln"])?.contains("FWM");
                    Ok((is_marked, is_served) == (are_given, are_given))
                })?;
        }
        Ok(())
    }

    /// Returns whether a machine has rules of ours, in nftables or in iptables.
    pub fn marks_strays(&self, name: &str) -> Result<bool> {
        let all =
            "nft list tables; iptables-legacy-save -t mangle; ip6tables-legacy-save -t mangle";
        let rules = self.show(name, &["sh", "-c", all])?;
        Ok(["lvs-operator-strays", "LVS-OPERATOR"]
            .iter()
            .any(|ours| rules.contains(ours)))
    }

    /// A client whose timeout is longer than any failover takes.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::on(self.lab.host("client")?).timeout(TIMEOUT))
    }

    /// The VIP with the port of the service.
    pub fn address(&self) -> Result<SocketAddr> {
        let vip: IpAddr = self.setting.vip.parse()?;
        Ok(SocketAddr::new(vip, PORT))
    }

    /// Sends so many requests over new connections; all real servers of a set must answer, and no other.
    pub fn expect_new_connections(&self, count: usize, set: FleetSet) -> Result<()> {
        let counts = self.client()?.fetch_many(self.address()?, count)?;
        let servers: BTreeSet<&str> = counts.keys().map(String::as_str).collect();
        let present = set.iter().filter_map(|index| SERVERS.get(*index).copied());
        ensure!(servers == present.collect(), "new connections: {counts:?}");
        Ok(())
    }
}

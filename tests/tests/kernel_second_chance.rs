//! Second chance: established connections survive the death of the active director and a changed set of real servers at the same
//! moment.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test may fail it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{
    Agent, Client, Connection, Dump, Lab, Responder, Running, Topology, director_group,
    virtual_service,
};

const CONNECTIONS: usize = 200;
/// How many requests over new connections are made while there are second chances.
const NEW_CONNECTIONS: usize = 40;
const DIRECTORS: [&str; 2] = ["lvs1", "lvs2"];
const SERVERS: [&str; 5] = ["rs1", "rs2", "rs3", "rs4", "rs5"];
const BEFORE: [usize; 4] = [1, 2, 3, 4];
/// rs5 replaces rs4.
const AFTER: [usize; 4] = [1, 2, 3, 5];
/// How long the clients wait for an answer. A lost connection is refused at once.
const TIMEOUT: Duration = Duration::from_secs(10);

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

/// What is tested: a VIP, how packets reach the real servers, and the settings of the group.
#[derive(Clone, Copy)]
struct Setting {
    vip: &'static str,
    forwarding: &'static str,
    failover: &'static str,
}

const DR_V4: Setting = Setting {
    vip: "10.0.0.100",
    forwarding: "DR",
    failover: "connections: Keep",
};

impl Setting {
    fn documents(self, servers: [usize; 4]) -> String {
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
        let network = if vip.contains(':') {
            "fd00::2"
        } else {
            "10.0.0.2"
        };
        let backends = servers.map(|server| format!("{{address: '{network}{server}'}}"));
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

    fn address(self) -> SocketAddr {
        SocketAddr::new(self.vip.parse::<IpAddr>().unwrap(), 80)
    }
}

/// The machines with their agents. Agents of real servers can be stopped.
struct Site {
    setting: Setting,
    servers: BTreeMap<&'static str, Running>,
    directors: BTreeMap<&'static str, Running>,
    agents: BTreeMap<&'static str, Agent>,
    _responders: Vec<Responder>,
    lab: Lab,
}

/// What became of the connections.
#[derive(Debug, Default)]
struct Survivors {
    /// Those that were at each server before.
    before: BTreeMap<String, usize>,
    /// Those that are at the same server after the change.
    after: BTreeMap<String, usize>,
}

impl Survivors {
    fn total(&self) -> usize {
        self.after.values().sum()
    }
}

impl Site {
    /// Starts all agents; lvs1 holds the VIP.
    fn lay_out(setting: Setting) -> Result<Self> {
        let lab = Lab::lay_out(&TOPOLOGY.parse::<Topology>()?)?;
        let mut agents = BTreeMap::new();
        for name in SERVERS.into_iter().chain(DIRECTORS) {
            let agent = Agent::on(lab.host(name)?)?;
            agent.write("all.yaml", setting.documents(BEFORE))?;
            agents.insert(name, agent);
        }
        let mut site = Self {
            setting,
            servers: BTreeMap::new(),
            directors: BTreeMap::new(),
            agents,
            _responders: Vec::new(),
            lab,
        };
        for name in SERVERS {
            site._responders.push(site.lab.host(name)?.respond(80)?);
            site.servers.insert(name, site.agents[name].start()?);
        }
        for name in DIRECTORS {
            let running = site.agents[name].start()?;
            site.directors.insert(name, running);
            site.await_holder("lvs1")?;
        }
        Ok(site)
    }

    fn write(&self, servers: [usize; 4]) -> Result<()> {
        for agent in self.agents.values() {
            agent.write("all.yaml", self.setting.documents(servers))?;
        }
        Ok(())
    }

    fn show(&self, host: &str, command: &[&str]) -> Result<String> {
        self.lab.host(host)?.run(command)
    }

    /// Waits until one director has the VIP, and the other does not.
    fn await_holder(&self, name: &str) -> Result<()> {
        let running = self.directors.get(name).context("no such director")?;
        running.await_that(&format!("{name} to hold the VIP alone"), || {
            let mut holders = Vec::new();
            for name in DIRECTORS {
                let command = ["ip", "addr", "show", "to", self.setting.vip];
                if !self.show(name, &command)?.trim().is_empty() {
                    holders.push(name);
                }
            }
            Ok(holders == [name])
        })
    }

    /// Waits until the real servers of the new set give second chances, or do not any more.
    fn await_second_chances(&self, are_given: bool) -> Result<()> {
        for name in AFTER.map(|server| SERVERS[server - 1]) {
            let what = format!("second chances on {name}: {are_given}");
            self.servers[name].await_that(&what, || {
                let is_marked = self.marks_strays(name)?;
                let is_served = self.show(name, &["ipvsadm", "-Ln"])?.contains("FWM");
                Ok((is_marked, is_served) == (are_given, are_given))
            })?;
        }
        Ok(())
    }

    /// Returns whether a machine has rules of ours, in nftables or in iptables.
    fn marks_strays(&self, name: &str) -> Result<bool> {
        let all =
            "nft list tables; iptables-legacy-save -t mangle; ip6tables-legacy-save -t mangle";
        let rules = self.show(name, &["sh", "-c", all])?;
        Ok(["lvs-operator-strays", "LVS-OPERATOR"]
            .iter()
            .any(|ours| rules.contains(ours)))
    }

    fn connect(&self) -> Result<Vec<(Connection, String)>> {
        let client = Client::on(self.lab.host("client")?).timeout(TIMEOUT);
        let connections = (0..CONNECTIONS).map(|_| {
            let mut connection = client.connect(self.setting.address())?;
            let server = connection.ask()?.server;
            Ok((connection, server))
        });
        connections.collect()
    }

    /// Kills the active director, and waits until lvs2 has taken over.
    fn fail_over(&mut self) -> Result<()> {
        self.kill_active()?;
        self.await_holder("lvs2")
    }

    /// Kills the active director and replaces rs4 by rs5 at once, then waits until lvs2 has taken over.
    fn fail_over_and_replace(&mut self) -> Result<()> {
        self.kill_active()?;
        self.write(AFTER)?;
        self.await_holder("lvs2")?;
        self.await_table("lvs2")
    }

    fn kill_active(&mut self) -> Result<()> {
        let active = self.directors.remove("lvs1");
        active.context("no active director")?.kill()
    }

    /// Waits until a director has the new set.
    fn await_table(&self, name: &str) -> Result<()> {
        self.directors[name].await_that("the new set in the table", || {
            let table = self.show(name, &["ipvsadm", "-Ln"])?;
            let has = |address: &str| {
                [":80", "]:80"]
                    .iter()
                    .any(|port| table.contains(&format!("{address}{port}")))
            };
            Ok(has("25") && !has("24"))
        })
    }

    fn expect_new_connections(&self) -> Result<()> {
        let client = Client::on(self.lab.host("client")?).timeout(TIMEOUT);
        let counts = client.fetch_many(self.setting.address(), NEW_CONNECTIONS)?;
        let servers: BTreeSet<&str> = counts.keys().map(String::as_str).collect();
        let present = AFTER.map(|server| SERVERS[server - 1]);
        ensure!(servers == present.into(), "new connections: {counts:?}");
        Ok(())
    }
}

/// Asks over each connection once more.
fn survivors(connections: Vec<(Connection, String)>) -> Survivors {
    let mut survivors = Survivors::default();
    for (mut connection, server) in connections {
        *survivors.before.entry(server.clone()).or_default() += 1;
        let answer = connection.ask();
        if answer.is_ok_and(|answer| answer.server == server) {
            *survivors.after.entry(server).or_default() += 1;
        }
    }
    println!("{survivors:?}: {} of {CONNECTIONS}", survivors.total());
    survivors
}

/// All connections survive, also those of the replaced server, whose machine lives.
fn expect_all_survive(setting: Setting) -> Result<()> {
    let mut site = Site::lay_out(setting)?;
    let connections = site.connect()?;
    site.fail_over_and_replace()?;
    site.await_second_chances(true)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    site.expect_new_connections()
}

#[test]
fn all_connections_by_dr_survive_over_ipv4() -> Result<()> {
    expect_all_survive(DR_V4)
}

#[test]
fn all_connections_by_dr_survive_over_ipv6() -> Result<()> {
    expect_all_survive(Setting {
        vip: "fd00::100",
        ..DR_V4
    })
}

#[test]
fn all_connections_by_tun_survive_over_ipv4() -> Result<()> {
    expect_all_survive(Setting {
        forwarding: "TUN",
        ..DR_V4
    })
}

#[test]
fn all_connections_by_tun_survive_over_ipv6() -> Result<()> {
    expect_all_survive(Setting {
        vip: "fd00::100",
        forwarding: "TUN",
        ..DR_V4
    })
}

#[test]
fn while_the_set_stays_no_second_chance_is_needed() -> Result<()> {
    let mut site = Site::lay_out(DR_V4)?;
    let connections = site.connect()?;
    site.fail_over()?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    ensure!(!site.marks_strays("rs1")?, "rs1 marks stray packets");
    Ok(())
}

#[test]
fn without_a_failover_a_removed_real_server_goes_on_serving_its_connections() -> Result<()> {
    let site = Site::lay_out(DR_V4)?;
    let connections = site.connect()?;
    site.write(AFTER)?;
    site.await_table("lvs1")?;
    site.await_second_chances(true)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    site.expect_new_connections()
}

#[test]
fn connections_are_dropped_where_that_is_asked_for() -> Result<()> {
    let mut site = Site::lay_out(Setting {
        failover: "connections: Drop",
        ..DR_V4
    })?;
    let connections = site.connect()?;
    site.fail_over_and_replace()?;
    assert_eq!(survivors(connections).total(), 0);
    site.expect_new_connections()
}

/// The agents that were there do not run, and that of the new real server does not know the set from before: that is `mh` alone.
#[test]
fn without_second_chances_some_connections_are_lost() -> Result<()> {
    let mut site = Site::lay_out(DR_V4)?;
    let connections = site.connect()?;
    for name in SERVERS {
        let agent = site.servers.remove(name).context("no such server")?;
        agent.kill()?;
    }
    site.fail_over_and_replace()?;
    let newcomer = &site.agents["rs5"];
    std::fs::remove_dir_all(newcomer.state())?;
    let _running = newcomer.start()?;
    let survivors = survivors(connections);
    let living = CONNECTIONS - survivors.before["rs4"];
    ensure!(
        (1..living).contains(&survivors.total()),
        "{survivors:?} of {living}"
    );
    Ok(())
}

#[test]
fn second_chances_survive_a_restart_and_end_with_their_time() -> Result<()> {
    let mut site = Site::lay_out(Setting {
        failover: "connections: Keep, keepSeconds: 30",
        ..DR_V4
    })?;
    let mut before = BTreeMap::new();
    for name in SERVERS {
        before.insert(name, Dump::of(site.lab.host(name)?)?);
    }
    let connections = site.connect()?;
    site.write(AFTER)?;
    site.await_second_chances(true)?;
    for name in SERVERS {
        let agent = site.servers.remove(name).context("no such server")?;
        agent.stop()?;
        let again = site.agents[name].start()?;
        site.servers.insert(name, again);
    }
    site.await_second_chances(true)?;
    site.fail_over()?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    site.await_second_chances(false)?;
    site.servers["rs4"].await_that("the VIP to leave rs4", || {
        let command = ["ip", "addr", "show", "to", site.setting.vip];
        Ok(site.show("rs4", &command)?.trim().is_empty())
    })?;
    for name in ["rs1", "rs2", "rs3"] {
        let difference = before[name].difference(&Dump::of(site.lab.host(name)?)?);
        ensure!(difference.is_empty(), "{name}: {difference:#?}");
    }
    Ok(())
}

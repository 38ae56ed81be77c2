//! Second chance: established connections survive the death of the active director and a changed set of real servers at the same
//! moment.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Agent, Connection, DIRECTORS, Dump, Fleet, FleetSet, FleetSetting, SERVERS, wait_until};
use serde_json::{Value, json};

const CONNECTIONS: usize = 200;
/// How many requests over new connections are made while there are second chances.
const NEW_CONNECTIONS: usize = 40;
const BEFORE: FleetSet = [0, 1, 2, 3];
/// rs5 replaces rs4.
const AFTER: FleetSet = [0, 1, 2, 4];

const DR_V4: FleetSetting = FleetSetting {
    vip: "10.0.0.100",
    forwarding: "DR",
    failover: "connections: Keep",
};

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

/// Starts all agents; lvs1 holds the VIP.
fn lay_out(setting: FleetSetting) -> Result<Fleet> {
    let mut fleet = Fleet::lay_out(setting, setting, BEFORE)?;
    fleet.start_directors()?;
    Ok(fleet)
}

/// The same with the agents of a cluster, which have bindings in their caches. The API server does not answer.
fn lay_out_cluster(setting: FleetSetting) -> Result<Fleet> {
    let mut fleet = Fleet::with_agents(setting, |host| {
        let agent = Agent::on(host)?.without_api_server()?;
        agent.cache(&objects(setting, host.name(), BEFORE, None))?;
        Ok(agent)
    })?;
    fleet.start_directors()?;
    Ok(fleet)
}

/// Gives machines of a cluster other objects. The agents read them when they start.
fn bind(
    fleet: &mut Fleet,
    machines: &[&'static str],
    set: FleetSet,
    before: Option<FleetSet>,
) -> Result<()> {
    for name in machines.iter().copied() {
        let running = if DIRECTORS.contains(&name) {
            &mut fleet.directors
        } else {
            &mut fleet.servers
        };
        running.remove(name).context("no such agent")?.stop()?;
        let agent = &fleet.agents[name];
        agent.cache(&objects(fleet.setting, name, set, before))?;
        running.insert(name, agent.start()?);
    }
    Ok(())
}

/// The objects of a machine in a cluster. `before` are the real servers before a change.
fn objects(setting: FleetSetting, machine: &str, set: FleetSet, before: Option<FleetSet>) -> Value {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": kind,
            "metadata": {"namespace": "default", "name": name}, "spec": spec,
        })
    };
    let list = |set: FleetSet| set.map(|server| json!({"address": setting.server(server)}));
    let version = |servers: Value| {
        json!({
            "node": machine, "virtualService": "web", "addresses": [setting.vip],
            "ports": [{"port": 80}], "forwarding": setting.forwarding, "realServers": servers,
        })
    };
    let scheduler = json!({"name": "mh", "flags": ["Port", "Fallback"]});
    let name = format!("web.{machine}");
    let (mut bindings, mut served, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    if DIRECTORS.contains(&machine) {
        let mut spec = version(json!(list(set)));
        spec["directorGroup"] = json!("edge");
        spec["scheduler"] = scheduler;
        bindings.push(object("DirectorBinding", &name, spec));
        let failover = json!({
            "virtualRouterId": 51, "advertisementMilliseconds": 100, "priorities": [100],
            "keepSeconds": 300,
        });
        groups.push(json!({"name": "edge", "failover": failover}));
    } else {
        let is_own = |server: &usize| SERVERS[*server] == machine;
        let own = set.iter().filter(|server| is_own(server));
        let own: Value = own
            .map(|own| json!({"address": setting.server(*own)}))
            .collect();
        let is_known = before.iter().flatten().chain(&set).any(is_own);
        let mut spec = version(own);
        if let Some(before) = before {
            spec["previous"] = json!({
                "since": "2026-01-01T00:00:00Z", "addresses": [setting.vip], "ports": [{"port": 80}],
                "forwarding": setting.forwarding, "scheduler": scheduler, "realServers": list(before),
            });
        }
        served.extend(is_known.then(|| object("RealServerBinding", &name, spec)));
    }
    let lvs_node = object("LvsNode", machine, json!({"groups": groups}));
    json!({"bindings": bindings, "served": served, "lvsNode": lvs_node})
}

fn connect(fleet: &Fleet) -> Result<Vec<(Connection, String)>> {
    let (client, address) = (fleet.client()?, fleet.address()?);
    let connections = (0..CONNECTIONS).map(|_| {
        let mut connection = client.connect(address)?;
        let server = connection.ask()?.server;
        Ok((connection, server))
    });
    connections.collect()
}

/// Kills the active director, and waits until lvs2 has taken over.
fn fail_over(fleet: &mut Fleet) -> Result<()> {
    fleet.kill_director("lvs1")?;
    fleet.await_holder("lvs2")
}

/// Kills the active director and replaces rs4 by rs5 at once, then waits until lvs2 has taken over with the new set.
fn fail_over_and_replace(fleet: &mut Fleet) -> Result<()> {
    fleet.kill_director("lvs1")?;
    fleet.write(AFTER)?;
    await_table(fleet, "lvs2")?;
    fleet.await_holder("lvs2")
}

/// The real servers in the order that a machine's kernel has: those of the virtual service, or of a real server's second services, one after
/// the other.
fn kernel_order(fleet: &Fleet, name: &str) -> Result<Vec<String>> {
    let table = fleet.show(name, &["ipvsadm", "-Ln", "--nosort"])?;
    let lines = table.lines().map(str::split_whitespace);
    let servers = lines.filter_map(|mut words| words.find(|word| *word == "->").and(words.next()));
    let servers = servers.filter(|server| !server.starts_with("RemoteAddress"));
    Ok(servers.map(str::to_owned).collect())
}

/// Waits until a director has the new set.
fn await_table(fleet: &Fleet, name: &str) -> Result<()> {
    let director = fleet.director(name)?;
    director.await_that("the new set in the table", || fleet.has_table(name, AFTER))
}

fn await_former_without_vip(fleet: &Fleet) -> Result<()> {
    fleet.servers["rs4"].await_that("the VIP to leave rs4", || Ok(!fleet.has_vip("rs4")?))
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
fn expect_all_survive(setting: FleetSetting) -> Result<()> {
    let mut fleet = lay_out(setting)?;
    let connections = connect(&fleet)?;
    fail_over_and_replace(&mut fleet)?;
    // On machines of their own, real servers know the set from before in time. Here, all agents share one processor.
    fleet.await_second_chances(AFTER, true)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    fleet.expect_new_connections(NEW_CONNECTIONS, AFTER)
}

#[test]
fn all_connections_by_dr_survive_over_ipv4() -> Result<()> {
    expect_all_survive(DR_V4)
}

#[test]
fn all_connections_by_dr_survive_over_ipv6() -> Result<()> {
    expect_all_survive(FleetSetting {
        vip: "fd00::100",
        ..DR_V4
    })
}

#[test]
fn all_connections_by_tun_survive_over_ipv4() -> Result<()> {
    expect_all_survive(FleetSetting {
        forwarding: "TUN",
        ..DR_V4
    })
}

#[test]
fn all_connections_by_tun_survive_over_ipv6() -> Result<()> {
    expect_all_survive(FleetSetting {
        vip: "fd00::100",
        forwarding: "TUN",
        ..DR_V4
    })
}

#[test]
fn while_the_set_stays_no_second_chance_is_needed() -> Result<()> {
    let mut fleet = lay_out(DR_V4)?;
    let connections = connect(&fleet)?;
    fail_over(&mut fleet)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    ensure!(!fleet.marks_strays("rs1")?, "rs1 marks stray packets");
    Ok(())
}

#[test]
fn without_a_failover_a_removed_real_server_goes_on_serving_its_connections() -> Result<()> {
    let fleet = lay_out(DR_V4)?;
    let connections = connect(&fleet)?;
    fleet.write(AFTER)?;
    await_table(&fleet, "lvs1")?;
    fleet.await_second_chances(AFTER, true)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    fleet.expect_new_connections(NEW_CONNECTIONS, AFTER)
}

/// rs1 replaces rs5, and rs5 replaces rs2: each real server that is added stands last in the file.
#[test]
fn machines_that_start_later_have_the_order_of_those_that_have_followed_the_changes() -> Result<()>
{
    const SETS: [FleetSet; 3] = [[1, 2, 3, 4], [1, 2, 3, 0], [2, 3, 0, 4]];
    let mut fleet = Fleet::lay_out(DR_V4, DR_V4, SETS[0])?;
    fleet.start_director("lvs1")?;
    fleet.await_holder("lvs1")?;
    let mut orders = Vec::new();
    for (set, newest_first) in SETS.into_iter().zip([
        ["25", "24", "23", "22"],
        ["21", "24", "23", "22"],
        ["25", "21", "24", "23"],
    ]) {
        fleet.write(set)?;
        let director = fleet.director("lvs1")?;
        director.await_that("the set in the table", || fleet.has_table("lvs1", set))?;
        let expected = newest_first.map(|last| format!("10.0.0.{last}:80"));
        assert_eq!(kernel_order(&fleet, "lvs1")?, expected);
        orders.push(expected);
    }
    fleet.start_director("lvs2")?;
    let later = fleet.director("lvs2")?;
    later.await_that("the set in the table", || fleet.has_table("lvs2", SETS[2]))?;
    assert_eq!(kernel_order(&fleet, "lvs2")?, orders[2]);
    // Both have second services for the sets before.
    let before = &orders[..2];
    for name in ["rs3", "rs1"] {
        let has_all = || {
            let found = kernel_order(&fleet, name)?;
            let has = |set: &[String; 4]| found.chunks(set.len()).any(|servers| servers == set);
            Ok(found.len() == 4 * before.len() && before.iter().all(has))
        };
        let what = "the sets before in the order of the directors";
        fleet.servers[name].await_that(what, has_all)?;
    }
    Ok(())
}

#[test]
fn connections_are_dropped_where_that_is_asked_for() -> Result<()> {
    let mut fleet = lay_out(FleetSetting {
        failover: "connections: Drop",
        ..DR_V4
    })?;
    let connections = connect(&fleet)?;
    fail_over_and_replace(&mut fleet)?;
    assert_eq!(survivors(connections).total(), 0);
    fleet.expect_new_connections(NEW_CONNECTIONS, AFTER)
}

/// The agents that were there do not run, and that of the new real server does not know the set from before: that is `mh` alone.
#[test]
fn without_second_chances_some_connections_are_lost() -> Result<()> {
    let mut fleet = lay_out(DR_V4)?;
    let connections = connect(&fleet)?;
    for name in SERVERS {
        let agent = fleet.servers.remove(name).context("no such server")?;
        agent.kill()?;
    }
    fail_over_and_replace(&mut fleet)?;
    let newcomer = &fleet.agents["rs5"];
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
    let mut fleet = lay_out(FleetSetting {
        failover: "connections: Keep, keepSeconds: 30",
        ..DR_V4
    })?;
    let mut before = BTreeMap::new();
    for name in SERVERS {
        before.insert(name, Dump::of(fleet.lab.host(name)?)?);
    }
    let connections = connect(&fleet)?;
    fleet.write(AFTER)?;
    fleet.await_second_chances(AFTER, true)?;
    for name in SERVERS {
        let agent = fleet.servers.remove(name).context("no such server")?;
        agent.stop()?;
        let again = fleet.agents[name].start()?;
        fleet.servers.insert(name, again);
    }
    fleet.await_second_chances(AFTER, true)?;
    fail_over(&mut fleet)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    fleet.await_second_chances(AFTER, false)?;
    await_former_without_vip(&fleet)?;
    for name in ["rs1", "rs2", "rs3"] {
        let difference = before[name].difference(&Dump::of(fleet.lab.host(name)?)?);
        ensure!(difference.is_empty(), "{name}: {difference:#?}");
    }
    Ok(())
}

/// Connections go to another real server first by then, which must go on forwarding them.
#[test]
fn connections_that_a_second_chance_leads_outlive_its_time() -> Result<()> {
    const KEEP: Duration = Duration::from_secs(20);
    let mut fleet = lay_out(FleetSetting {
        failover: "connections: Keep, keepSeconds: 20",
        ..DR_V4
    })?;
    let mut connections = connect(&fleet)?;
    connections.retain(|(_, server)| server != "rs4");
    fleet.write(AFTER)?;
    fleet.await_second_chances(AFTER, true)?;
    let since = Instant::now();
    fail_over(&mut fleet)?;
    for (connection, server) in &mut connections {
        ensure!(connection.ask()?.server == *server, "{server}");
    }
    // Another look at the connections follows after 15 seconds.
    wait_until("the end of the time", KEEP * 3, || {
        Ok((since.elapsed() > KEEP * 2).then_some(()))
    })?;
    await_former_without_vip(&fleet)?;

    for (connection, server) in &mut connections {
        ensure!(connection.ask()?.server == *server, "{server}");
    }
    drop(connections);
    fleet.await_second_chances(AFTER, false)
}

/// The agents of a cluster have the real servers before the change from their bindings, as long as these have them.
#[test]
fn all_connections_survive_where_bindings_have_the_real_servers_before_the_change() -> Result<()> {
    let mut fleet = lay_out_cluster(DR_V4)?;
    let connections = connect(&fleet)?;
    bind(&mut fleet, &SERVERS, AFTER, Some(BEFORE))?;
    fleet.await_second_chances(AFTER, true)?;
    bind(&mut fleet, &["lvs2"], AFTER, None)?;
    await_table(&fleet, "lvs2")?;
    fail_over(&mut fleet)?;
    let survivors = survivors(connections);
    ensure!(survivors.before == survivors.after, "{survivors:?}");
    fleet.expect_new_connections(NEW_CONNECTIONS, AFTER)?;

    bind(&mut fleet, &SERVERS, AFTER, None)?;
    fleet.await_second_chances(AFTER, false)?;
    await_former_without_vip(&fleet)
}

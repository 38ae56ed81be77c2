//! Second chance: established connections survive the death of the active director and a changed set of real servers at the same
//! moment.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab::{Connection, Dump, Fleet, FleetSet, FleetSetting, SERVERS};

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

/// Waits until a director has the new set.
fn await_table(fleet: &Fleet, name: &str) -> Result<()> {
    let director = fleet.director(name)?;
    director.await_that("the new set in the table", || fleet.has_table(name, AFTER))
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
    // The real servers know the set from before in time.
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
    fleet.servers["rs4"].await_that("the VIP to leave rs4", || Ok(!fleet.has_vip("rs4")?))?;
    for name in ["rs1", "rs2", "rs3"] {
        let difference = before[name].difference(&Dump::of(fleet.lab.host(name)?)?);
        ensure!(difference.is_empty(), "{name}: {difference:#?}");
    }
    Ok(())
}

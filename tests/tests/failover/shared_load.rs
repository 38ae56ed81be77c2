//! Two directors of a group with two virtual routers: each has some of the VIPs, and one has all of them while the other is away.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, process};

use anyhow::{Context, Result, ensure};
use lab::{Agent, Client, Process, Running, virtual_service};

use crate::load::Load;
use crate::pair::{DIRECTORS, Pair, documents};

/// The VIPs of the first and of the second of two routers.
const FIRST: [&str; 2] = ["10.0.0.102", "fd00::100"];
const SECOND: [&str; 2] = ["10.0.0.100", "fd00::101"];
/// For how long two directors may have a VIP that moves: until the one has heard the announcement of the other, in this slow kernel.
const LONGEST_OVERLAP: Duration = Duration::from_secs(1);
/// How much later one of two programs may be with its output.
const INACCURACY: Duration = Duration::from_millis(150);

/// A group with some virtual routers and four VIPs.
fn shared(routers: usize) -> String {
    let more = virtual_service(
        "api",
        "directorGroup: edge, addresses: [10.0.0.102, 'fd00::101'], forwarding: DR, scheduler: {name: mh}, ports: [{port: 80}],
         backends: [{address: 10.0.0.21}, {address: 10.0.0.22}, {address: 'fd00::21'}, {address: 'fd00::22'}]",
    );
    let failover = format!(
        "virtualRouterId: 71, routers: {routers}, advertisementMilliseconds: 100, preemptAfterSeconds: 1"
    );
    documents(&failover) + &more
}

fn vips() -> Vec<&'static str> {
    [FIRST, SECOND].concat()
}

/// Two directors of the group, and the machines round them.
struct Shared {
    pair: Pair,
    agents: [Agent; 2],
}

impl Shared {
    fn lay_out(routers: usize) -> Result<Self> {
        let documents = shared(routers);
        let pair = Pair::lay_out(&documents)?;
        let agents = [
            pair.agent("lvs1", &documents)?,
            pair.agent("lvs2", &documents)?,
        ];
        Ok(Self { pair, agents })
    }

    /// Whether these directors have the VIPs of the two routers, and no other has.
    fn have(&self, first: &str, second: &str) -> Result<bool> {
        for (vips, director) in [(FIRST, first), (SECOND, second)] {
            for vip in vips {
                if self.pair.holders(vip)? != [director] {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn await_holders(&self, [first, second]: [&str; 2], agent: &Running) -> Result<()> {
        let what = format!("{first} and {second} to hold the VIPs");
        agent.await_that(&what, || self.have(first, second))
    }

    fn expect_answers(&self) -> Result<()> {
        for vip in vips() {
            let address = SocketAddr::new(vip.parse().unwrap(), 80);
            Client::on(self.pair.lab.host("client")?).fetch(address)?;
        }
        Ok(())
    }
}

/// Which directors have had which VIPs, as their kernels report it.
struct Record {
    monitors: Vec<(Process, PathBuf)>,
}

impl Record {
    fn begin(pair: &Pair) -> Result<Self> {
        let mut monitors = Vec::new();
        for name in DIRECTORS {
            let path = env::temp_dir().join(format!("vips-{}-{name}", process::id()));
            let host = pair.lab.host(name)?;
            let mut command = host.command("ip");
            command.args(["-ts", "-o", "monitor", "address"]);
            command.stdout(File::create(&path)?);
            monitors.push((host.spawn(&mut command)?, path));
        }
        Ok(Self { monitors })
    }

    /// For how long a VIP had no director since it had its first one, and for how long it had two, at most.
    fn longest(&self, vip: &str) -> Result<[Duration; 2]> {
        let mut changes = Vec::new();
        for (director, (_, path)) in self.monitors.iter().enumerate() {
            let text = fs::read_to_string(path)?;
            let lines = text
                .lines()
                .filter(|line| line.contains(&format!(" {vip}/")));
            for line in lines {
                changes.push((moment(line)?, director, !line.contains("Deleted")));
            }
        }
        changes.sort_unstable();
        let (mut holders, mut known) = (BTreeSet::new(), None);
        let mut longest = [Duration::ZERO; 2];
        for (moment, director, is_there) in changes {
            let lasting = known.map_or(Duration::ZERO, |known| moment - known);
            match holders.len() {
                0 => longest[0] = longest[0].max(lasting),
                1 => {}
                _ => longest[1] = longest[1].max(lasting),
            }
            let is_change = if is_there {
                holders.insert(director)
            } else {
                holders.remove(&director)
            };
            if is_change {
                known = Some(moment);
            }
        }
        Ok(longest)
    }
}

/// The time of day in a line of `ip -ts monitor`: `[2026-11-30T18:08:15.808798] 3: eth0 ...`.
fn moment(line: &str) -> Result<Duration> {
    let (_, rest) = line.split_once('T').context("no time in the line")?;
    let (time, _) = rest.split_once(']').context("no time in the line")?;
    let mut seconds = 0.0;
    for part in time.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>()?;
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[test]
fn each_director_has_some_vips_and_one_has_all_while_the_other_is_away() -> Result<()> {
    let shared = Shared::lay_out(2)?;
    let [first, second] = &shared.agents;
    let running = first.start()?;
    let other = second.start()?;
    shared.await_holders(["lvs1", "lvs2"], &running)?;
    shared.expect_answers()?;

    running.kill()?;
    shared.await_holders(["lvs2", "lvs2"], &other)?;
    shared.expect_answers()?;
    let running = first.start()?;
    shared.await_holders(["lvs1", "lvs2"], &running)?;
    shared.expect_answers()?;

    // On its way to maintenance, one hands over what it has, and gets it back.
    ensure!(first.call(&["hand-over"])?.status.success());
    shared.await_holders(["lvs2", "lvs2"], &running)?;
    shared.expect_answers()?;
    ensure!(first.call(&["hand-over", "--end"])?.status.success());
    shared.await_holders(["lvs1", "lvs2"], &running)?;
    Ok(())
}

/// It dies before the other one has taken any VIP over by the new routers.
#[test]
fn a_director_that_dies_while_vips_move_is_replaced_without_a_gap() -> Result<()> {
    let shared = Shared::lay_out(1)?;
    let record = Record::begin(&shared.pair)?;
    let [first, second] = &shared.agents;
    let running = first.start()?;
    shared.await_holders(["lvs1", "lvs1"], &running)?;
    let other = second.start()?;
    other.await_log(0, "standby: started")?;
    let documents = self::shared(2);
    for (agent, running) in [(second, &other), (first, &running)] {
        agent.write("all.yaml", &documents)?;
        running.await_log(0, "moves to another virtual router")?;
    }
    running.kill()?;
    let mark = other.mark();
    other.await_log(mark, "VIP added")?;
    shared.await_holders(["lvs2", "lvs2"], &other)?;
    shared.expect_answers()?;
    ensure!(
        !other.log().contains("announced by the director"),
        "{}",
        other.log()
    );
    for vip in vips() {
        let [without, _] = record.longest(vip)?;
        ensure!(
            without < INACCURACY,
            "{vip} was away for {without:?}:\n{}",
            other.log()
        );
    }
    Ok(())
}

/// Directors learn of it one after the other.
#[test]
fn vips_move_to_other_routers_without_a_gap() -> Result<()> {
    let shared = Shared::lay_out(1)?;
    let record = Record::begin(&shared.pair)?;
    let running = [shared.agents[0].start()?, shared.agents[1].start()?];
    shared.await_holders(["lvs1", "lvs1"], &running[0])?;
    running[1].await_log(0, "standby: started")?;
    let load = Load::on(&shared.pair, &vips())?;
    for (routers, holders, order) in [
        (2, ["lvs1", "lvs2"], [0, 1]),
        (1, ["lvs1", "lvs1"], [1, 0]),
        (2, ["lvs1", "lvs2"], [1, 0]),
        (1, ["lvs1", "lvs1"], [0, 1]),
    ] {
        let documents = self::shared(routers);
        let marks = [running[0].mark(), running[1].mark()];
        for director in order {
            shared.agents[director].write("all.yaml", &documents)?;
            running[director].await_log(marks[director], "moves to another virtual router")?;
        }
        shared.await_holders(holders, &running[0])?;
    }
    let logs = || [running[0].log(), running[1].log()].join("\n\n");
    for vip in vips() {
        let [without, with_two] = record.longest(vip)?;
        println!("{vip}: without a director for {without:?}, on two for {with_two:?}");
        let is_good = without < INACCURACY && with_two < LONGEST_OVERLAP;
        ensure!(is_good, "{vip}\n{}", logs());
    }
    load.expect_no_failure().with_context(logs)
}

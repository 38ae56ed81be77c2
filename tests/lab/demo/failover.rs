//! The demonstration of a failover: the power of the director that holds the VIP is cut while clients use it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Client, Connection, wait_until};

use super::heading;
use crate::pair::{Pair, Program, Pulse, agent_configuration};

/// How many connections are open when the power is cut.
const CONNECTIONS: usize = 200;

/// The pace of the client that shows the gap.
const PACE: Duration = Duration::from_millis(2);

/// How long the first director may take to hold the VIP, and the other to take over.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Shows one failover.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    heading("two directors, each with a kernel of its own; two real servers; a client");
    let mut pair = Pair::boot()?;
    println!("booted after {:.1} s", started.elapsed().as_secs_f64());
    heading("the file, the same on both directors");
    println!("{}", agent_configuration(&pair));

    let vip = pair.vip();
    let pulse = Pulse::start(pair.client()?, vip, PACE)?;
    for director in pair.directors() {
        Program::Agent.start(&pair, director)?;
        await_service(&pulse, Instant::now())?;
    }
    show_addresses(&pair)?;

    heading(&format!(
        "client: {CONNECTIONS} connections to {vip}, and a datagram every 2 ms"
    ));
    let client = Client::on(pair.client()?);
    let mut connections = (0..CONNECTIONS)
        .map(|_| client.connect(vip))
        .collect::<Result<Vec<_>>>()?;
    let servers = ask(&mut connections);
    println!("answered: {}", tally(&servers));

    let [first, _] = pair.directors_mut();
    heading(&format!("the power of {} is cut", first.name()));
    let cut = Instant::now();
    first.cut_power();
    await_service(&pulse, cut)?;
    println!(
        "the longest time without an answer: {:.3} s",
        pulse.longest_gap_since(cut).as_secs_f64()
    );
    let after = ask(&mut connections);
    println!("the same connections are answered: {}", tally(&after));
    println!("a new connection is answered: {}", client.fetch(vip)?);
    show_addresses(&pair)?;
    ensure!(after == servers, "connections were lost");
    println!("\nEvery connection was kept.");
    Ok(())
}

/// Waits until the client has had answers for half a second, all of it after `since`.
fn await_service(pulse: &Pulse, since: Instant) -> Result<()> {
    const STEADY: Duration = Duration::from_millis(500);
    const LONGEST_GAP: Duration = Duration::from_millis(100);
    wait_until("answers", TIMEOUT, || {
        let begin = Instant::now().checked_sub(STEADY);
        let begin = begin.filter(|begin| *begin >= since);
        Ok(begin
            .filter(|begin| pulse.is_steady_since(*begin, LONGEST_GAP))
            .map(drop))
    })
}

/// Sends a request over every connection. Returns the names of the servers; `None` for a connection that is lost.
fn ask(connections: &mut [Connection]) -> Vec<Option<String>> {
    let answers = connections
        .iter_mut()
        .map(|connection| Some(connection.ask().ok()?.server));
    answers.collect()
}

/// The number of connections of each server.
fn tally(servers: &[Option<String>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for server in servers {
        *counts
            .entry(server.as_deref().unwrap_or("lost"))
            .or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(server, count)| format!("{server} {count}"))
        .collect();
    counts.join(", ")
}

fn show_addresses(pair: &Pair) -> Result<()> {
    for director in pair.directors() {
        let addresses = match director.is_on() {
            true => director.run("ip -brief address show dev vec0")?,
            false => "no power\n".to_owned(),
        };
        print!("{}: {addresses}", director.name());
    }
    Ok(())
}

//! What serves goes on serving while addresses, routes and links of a machine are away for a moment.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Connection, Dump, Host, Process, Running, Site, scenery, virtual_service, wait_until};

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

/// How long addresses are away: shorter and longer than the agent needs for several passes.
const ABSENCES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// How long it takes at most until VIPs that a command has removed are back.
const RETURN: Duration = Duration::from_secs(20);

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 80)
}

fn service(fields: &str, network: &str, hosts: [u8; 2]) -> String {
    let endpoint = |host: &u8| {
        format!("{{address: 192.168.{network}.{host}}}, {{address: 'fd00:{network}::{host}'}}")
    };
    let endpoints: Vec<String> = hosts.iter().map(endpoint).collect();
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], {fields}, scheduler: {{name: rr}}, ports: [{{port: 80}}],
         backends: [{}]",
        endpoints.join(", ")
    );
    virtual_service("web", &spec)
}

fn dr() -> String {
    service("forwarding: DR", "220", [132, 133])
}

fn tun() -> String {
    service("forwarding: TUN", "230", [132, 133])
}

fn nat() -> String {
    service("forwarding: NAT", "100", [11, 12])
}

fn nat_by_policy() -> String {
    let fields = "forwarding: NAT, nat: {returnPath: PolicyRoute, gateways: [192.168.100.10, 'fd00:100::10']}";
    service(fields, "100", [11, 12])
}

/// A site whose agents run, with connections to both real servers over each VIP.
struct Serving {
    connections: Vec<Connection>,
    agents: Vec<Running>,
    site: Site,
}

impl Serving {
    fn start(scenery: &str, yaml: &str) -> Result<Self> {
        let site = Site::lay_out(scenery, 80)?;
        site.write(yaml)?;
        let agents = site.agents().iter().map(lab::Agent::start);
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let client = site.client()?;
        let mut connections = Vec::new();
        for vip in VIPS {
            for _ in 0..2 {
                let mut connection = client.connect(at(vip))?;
                connection.ask()?;
                connections.push(connection);
            }
        }
        Ok(Self {
            connections,
            agents,
            site,
        })
    }

    fn host(&self, name: &str) -> Result<&Host> {
        self.site.host(name)
    }

    fn agent(&self, name: &str) -> &Running {
        let hosts = self.site.agents().iter().map(|agent| agent.host().name());
        let mut named = hosts.zip(&self.agents);
        named.find(|(host, _)| *host == name).unwrap().1
    }

    /// Waits until a machine has everything again that it had before.
    fn await_return(&self, name: &str, before: &Dump) -> Result<()> {
        let host = self.host(name)?;
        let difference = || -> Result<Vec<String>> {
            let now = Dump::of(host)?.portable();
            let mut lines = before.portable().difference(&now);
            lines.retain(|line| is_ours(line));
            Ok(lines)
        };
        self.agent(name)
            .await_that("the return of everything", || Ok(difference()?.is_empty()))
            .with_context(|| difference().unwrap_or_default().join("\n"))
    }

    /// Asks over each of the connections, which were opened before.
    fn expect_connections(&mut self, after: &str) -> Result<()> {
        for connection in &mut self.connections {
            let local = connection.local();
            connection
                .ask()
                .with_context(|| format!("the connection from {local} is cut after {after}"))?;
        }
        Ok(())
    }
}

/// The commands that restore the addresses of a link and the default routes of its host, as at its start.
fn restore(host: &Host, link: &str, routers: &[&str]) -> Result<()> {
    for address in host.addresses(link) {
        host.run(&["ip", "addr", "replace", &address.to_string(), "dev", link])?;
    }
    for router in routers {
        host.run(&["ip", "route", "replace", "default", "via", router])?;
    }
    Ok(())
}

/// Returns whether a line of a dump is about something that the agent makes or sets.
fn is_ours(line: &str) -> bool {
    let marks = [
        "ipvs ",
        "192.168.220.100",
        "::100/128",
        "proto 76",
        "lvs-",
        "arp_",
        "rp_filter",
        "forward",
        "redirects",
    ];
    marks.iter().any(|mark| line.contains(mark))
}

/// The part of a dump that must not change for a moment.
fn ipvs(host: &Host) -> Result<Vec<String>> {
    let dump = Dump::of(host)?;
    let lines = dump.lines_with("ipvs ");
    Ok(lines.into_iter().map(str::to_owned).collect())
}

/// Removes what is on a link for a while, by a command; the IPVS table stays, and so do the connections.
fn expect_absence_survived(
    serving: &mut Serving,
    name: &str,
    (link, routers): (&str, &[&str]),
    command: &[&str],
) -> Result<()> {
    for absence in ABSENCES {
        let before = Dump::of(serving.host(name)?)?;
        let table = ipvs(serving.host(name)?)?;
        let had = vips(serving.host(name)?)?;
        serving.host(name)?.run(command)?;
        sleep(absence);
        let now = ipvs(serving.host(name)?)?;
        ensure!(
            now == table,
            "{command:?} on {name} changed the IPVS table:\n{}\nto\n{}\n{}",
            table.join("\n"),
            now.join("\n"),
            serving.agent(name).log()
        );
        // Those that the command itself has removed are added again meanwhile.
        wait_until("the VIPs to be there without the addresses", RETURN, || {
            Ok((vips(serving.host(name)?)? == had).then_some(()))
        })
        .with_context(|| serving.agent(name).log())?;
        restore(serving.host(name)?, link, routers)?;
        serving.await_return(name, &before)?;
        serving.expect_connections(&format!("{command:?} on {name} for {absence:?}"))?;
    }
    Ok(())
}

/// The VIPs that a host has, with their interfaces.
fn vips(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for vip in VIPS {
        let shown = host.run(&["ip", "-o", "addr", "show", "to", vip])?;
        let words = shown.split_whitespace().nth(1).map(str::to_owned);
        found.extend(words.map(|interface| format!("{vip} on {interface}")));
    }
    Ok(found)
}

const DR_ROUTERS: [&str; 2] = ["192.168.220.1", "fd00:220::1"];
const TUN_ROUTERS: [&str; 2] = ["192.168.230.1", "fd00:230::1"];

#[test]
fn connections_of_dr_survive_the_absence_of_the_directors_addresses() -> Result<()> {
    let mut serving = Serving::start(scenery::DR, &dr())?;
    for command in [
        vec!["ip", "addr", "del", "192.168.220.137/24", "dev", "eth1"],
        vec!["ip", "addr", "flush", "dev", "eth1"],
    ] {
        expect_absence_survived(&mut serving, "director", ("eth1", &DR_ROUTERS), &command)?;
    }
    Ok(())
}

#[test]
fn connections_of_dr_survive_the_absence_of_a_real_servers_addresses() -> Result<()> {
    let mut serving = Serving::start(scenery::DR, &dr())?;
    let command = ["ip", "addr", "flush", "dev", "eth0", "scope", "global"];
    expect_absence_survived(&mut serving, "rs1", ("eth0", &DR_ROUTERS), &command)
}

#[test]
fn connections_of_tun_survive_the_absence_of_addresses() -> Result<()> {
    let mut serving = Serving::start(scenery::TUN, &tun())?;
    let flush = ["ip", "addr", "flush", "dev", "eth1"];
    expect_absence_survived(&mut serving, "director", ("eth1", &DR_ROUTERS), &flush)?;
    let flush = ["ip", "addr", "flush", "dev", "eth0"];
    expect_absence_survived(&mut serving, "rs1", ("eth0", &TUN_ROUTERS), &flush)
}

#[test]
fn connections_of_nat_survive_the_absence_of_addresses() -> Result<()> {
    let mut serving = Serving::start(&scenery::nat_with_another_gateway(), &nat_by_policy())?;
    for link in ["eth0", "eth1"] {
        let flush = ["ip", "addr", "flush", "dev", link];
        expect_absence_survived(&mut serving, "director", (link, &[]), &flush)?;
    }
    let routers = ["192.168.100.1", "fd00:100::1"];
    let flush = ["ip", "addr", "flush", "dev", "eth0"];
    expect_absence_survived(&mut serving, "rs1", ("eth0", &routers), &flush)
}

/// Takes a link of the director down and up again, as a cable that is pulled and put back or `networkctl reconfigure` does.
fn expect_link_survived(serving: &mut Serving, link: &str, routers: &[&str]) -> Result<()> {
    let before = Dump::of(serving.host("director")?)?;
    for absence in ABSENCES {
        let table = ipvs(serving.host("director")?)?;
        let director = serving.host("director")?;
        director.run(&["ip", "link", "set", link, "down"])?;
        sleep(absence);
        ensure!(
            ipvs(director)? == table,
            "{}",
            serving.agent("director").log()
        );
        director.run(&["ip", "link", "set", link, "up"])?;
        restore(director, link, routers)?;
        serving.await_return("director", &before)?;
        serving.expect_connections(&format!("{link} was down for {absence:?}"))?;
    }
    Ok(())
}

#[test]
fn connections_survive_a_link_that_goes_down_and_up() -> Result<()> {
    let mut serving = Serving::start(scenery::DR, &dr())?;
    expect_link_survived(&mut serving, "eth1", &DR_ROUTERS)?;
    drop(serving);
    let mut serving = Serving::start(scenery::TUN, &tun())?;
    expect_link_survived(&mut serving, "eth1", &DR_ROUTERS)?;
    drop(serving);
    let mut serving = Serving::start(scenery::NAT, &nat())?;
    expect_link_survived(&mut serving, "eth0", &[])?;
    expect_link_survived(&mut serving, "eth1", &[])
}

#[test]
fn connections_survive_ten_sweeps_of_rules_and_routes() -> Result<()> {
    let mut serving = Serving::start(&scenery::nat_with_another_gateway(), &nat_by_policy())?;
    let before = Dump::of(serving.host("rs1")?)?;
    // As networkd removes rules and routes of other programs at each restart, unless it is configured not to.
    let sweep = "for family in -4 -6; do
        for table in $(ip $family rule | sed -n 's/.*lookup \\(76[0-9]*\\) proto 76/\\1/p' | sort -u); do
            ip $family route flush table $table
        done
        for rule in $(ip $family rule | grep -o 'proto 76'); do
            ip $family rule del priority 7600 2> /dev/null || true
        done
    done";
    for round in 1..=10 {
        serving.host("rs1")?.run(&["sh", "-c", sweep])?;
        serving.await_return("rs1", &before)?;
        serving.expect_connections(&format!("sweep {round}"))?;
    }
    Ok(())
}

/// A program that changes fifty routes a second, as a routing daemon does. Half of them lead to real servers.
struct RouteDaemon {
    changes: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    feeder: JoinHandle<()>,
    program: Process,
}

impl RouteDaemon {
    const PAUSE: Duration = Duration::from_millis(20);

    fn start(host: &Host) -> Result<Self> {
        let mut command = host.command("ip");
        let mut program = host.spawn(command.args(["-batch", "-"]).stdin(Stdio::piped()))?;
        let mut input = program.child().stdin.take().context("ip has no input")?;
        let (changes, is_over) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, stop) = (Arc::clone(&changes), Arc::clone(&is_over));
        let feeder = spawn(move || {
            let mut next = Instant::now();
            for number in 0.. {
                if stop.load(Ordering::Relaxed)
                    || input.write_all(change(number).as_bytes()).is_err()
                {
                    return;
                }
                count.store(number, Ordering::Relaxed);
                next += Self::PAUSE;
                sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Ok(Self {
            changes,
            is_over,
            feeder,
            program,
        })
    }

    fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(!self.feeder.is_finished() && self.program.try_wait()?.is_none())
    }

    /// Ends it. It fails if a change was refused, or if many were still to be made.
    fn stop(mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.feeder.join().unwrap();
        let status = self.program.wait(Duration::from_secs(2))?;
        ensure!(status.success(), "ip ended with {status}");
        Ok(())
    }
}

/// Adds a route, or removes the one that was added two changes before.
fn change(number: u32) -> String {
    let verb = if number % 4 < 2 { "add" } else { "del" };
    let (round, host) = (number / 4 % 250, 132 + number / 4 % 2);
    let destination = if number.is_multiple_of(2) {
        format!("198.51.100.{round}/32 dev lo")
    } else {
        format!("192.168.220.{host}/32 dev eth1")
    };
    format!("route {verb} {destination}\n")
}

#[test]
fn drift_is_repaired_and_a_signal_heard_while_a_daemon_changes_routes() -> Result<()> {
    const WHOLE: Duration = Duration::from_secs(60);
    const LONGEST_STOP: Duration = Duration::from_secs(5);
    let mut serving = Serving::start(scenery::DR, &dr())?;
    let before = Dump::of(serving.host("director")?)?;
    let mut daemon = RouteDaemon::start(serving.host("director")?)?;
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < WHOLE {
        let drift = "ip addr del 192.168.220.100/32 dev eth1
             ipvsadm -E -t 192.168.220.100:80 -s wlc
             ipvsadm -e -t 192.168.220.100:80 -r 192.168.220.132 -g -w 7";
        serving.host("director")?.run(&["sh", "-ec", drift])?;
        serving.await_return("director", &before)?;
        rounds += 1;
        serving.expect_connections(&format!("drift {rounds} while routes change"))?;
    }
    let (elapsed, changes) = (start.elapsed().as_secs_f64(), daemon.changes());
    println!("{changes} changes and {rounds} repairs in {elapsed:.1} s");
    ensure!(
        f64::from(changes) > 45.0 * elapsed && rounds >= 3,
        "{changes} changes and {rounds} repairs in {elapsed:.1} s"
    );
    let mut agents = serving.site.agents().iter();
    let index = agents.position(|agent| agent.host().name() == "director");
    let agent = serving.agents.remove(index.unwrap());
    let signalled = Instant::now();
    agent.stop()?;
    ensure!(
        signalled.elapsed() < LONGEST_STOP,
        "the agent ended after {:?}",
        signalled.elapsed()
    );
    ensure!(daemon.is_running()?, "the daemon has ended too early");
    daemon.stop()?;
    serving.expect_connections("the end of the agent")
}

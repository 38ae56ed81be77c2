//! `kill -9` between any two steps of a plan: the next start converges, and cleanup leaves the kernel exactly as it was.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};
use lab::{Agent, Dump, Site, director_group, scenery, virtual_service};
use nix::sys::signal::Signal;

/// More crash points than any plan of these tests has. A run that still crashes there is an error.
const MOST_POINTS: usize = 200;

/// The network of TUN, with a second interface of the director, for real servers of NAT and DR, which need not exist.
fn network() -> String {
    scenery::TUN.replace(
        r#"    links: {eth1: {network: front, addresses: [192.168.220.137/24, "fd00:220::137/64"]}}"#,
        r#"    links:
      eth0: {network: back, addresses: [192.168.230.137/24, "fd00:230::137/64"]}
      eth1: {network: front, addresses: [192.168.220.137/24, "fd00:220::137/64"]}"#,
    )
}

fn service(name: &str, port: &str, vips: &str, forwarding: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{address: '{address}'}}"))
        .collect();
    let spec = format!(
        "addresses: [{vips}], forwarding: {forwarding}, ports: [{{{port}}}], backends: [{}]",
        endpoints.join(", ")
    );
    virtual_service(name, &spec)
}

/// NAT, DR and TUN over TCP and UDP in both families: everything that a director programs.
fn everything() -> String {
    let one = ["192.168.230.132", "fd00:230::132"];
    let both = [
        "192.168.230.132",
        "192.168.230.133",
        "fd00:230::132",
        "fd00:230::133",
    ];
    [
        service(
            "nat",
            "port: 80",
            "192.168.220.100, 'fd00:220::100'",
            "NAT",
            &one,
        ),
        service(
            "dr",
            "port: 81, protocol: UDP",
            "192.168.220.100, 'fd00:220::100'",
            "DR",
            &both,
        ),
        service(
            "gue",
            "port: 82",
            "192.168.220.101",
            "TUN, tunnel: {type: GUE, port: 6080}",
            &one,
        ),
        service(
            "tun",
            "port: 83, protocol: UDP",
            "192.168.220.102, 'fd00:220::102'",
            "TUN",
            &one,
        ),
    ]
    .concat()
}

/// The service that stays when the others are removed. It has a VIP of its own.
fn another() -> String {
    service(
        "another",
        "port: 84",
        "192.168.220.103",
        "NAT",
        &["192.168.230.140"],
    )
}

/// What happens after a crash.
#[derive(Clone, Copy)]
enum Next {
    /// The agent starts again and converges; a cleanup follows.
    StartsAgain,
    /// The administrator runs a cleanup immediately.
    CleansUp,
}

/// One machine whose agent goes through some files to a last one, and is killed at each point of the last plan in turn.
struct Crash<'a> {
    agent: &'a Agent,
    from: &'a [&'a str],
    to: &'a str,
}

impl Crash<'_> {
    /// Kills the agent at point 0, 1, 2, … until a run completes; returns how many runs were killed.
    fn drive(&self, next: Next) -> Result<usize> {
        let before = Dump::of(self.agent.host())?;
        let goal = self.goal()?;
        for point in 0..MOST_POINTS {
            self.begin()?;
            self.agent.write("site.yaml", self.to)?;
            let dying = self
                .agent
                .clone()
                .with("LVS_AGENT_KILL_AT", point.to_string());
            let ran = dying.run_once()?;
            let died = ran.status.signal() == Some(Signal::SIGKILL as i32);
            ensure!(
                died || ran.status.success(),
                "point {point}, {}:\n{}",
                ran.status,
                ran.log
            );
            let shown = || format!("killed at point {point}");
            match next {
                Next::StartsAgain => self.go_on(&goal).with_context(shown)?,
                Next::CleansUp => {}
            }
            self.end(&before).with_context(shown)?;
            if !died {
                return Ok(point);
            }
        }
        anyhow::bail!("a run was still killed at point {MOST_POINTS}")
    }

    /// Returns the state of the kernel after a run that was not killed.
    fn goal(&self) -> Result<Dump> {
        let before = Dump::of(self.agent.host())?;
        self.begin()?;
        self.agent.write("site.yaml", self.to)?;
        self.agent.converge()?;
        let goal = Dump::of(self.agent.host())?;
        ensure!(
            !before.difference(&goal).is_empty(),
            "the run had nothing to do"
        );
        self.end(&before)?;
        Ok(goal)
    }

    fn begin(&self) -> Result<()> {
        for from in self.from {
            self.agent.write("site.yaml", from)?;
            self.agent.converge()?;
        }
        Ok(())
    }

    /// Starts the agent again, and checks that the kernel is as after a run without a crash.
    fn go_on(&self, goal: &Dump) -> Result<()> {
        self.agent.converge()?;
        let difference = goal
            .portable()
            .difference(&Dump::of(self.agent.host())?.portable());
        ensure!(
            difference.is_empty(),
            "not converged:\n{}",
            difference.join("\n")
        );
        Ok(())
    }

    /// Cleans up, and checks that the kernel is as it was at first.
    fn end(&self, before: &Dump) -> Result<()> {
        self.agent.cleanup()?;
        let left = before.difference(&Dump::of(self.agent.host())?);
        ensure!(left.is_empty(), "not as it was:\n{}", left.join("\n"));
        let ledger = std::fs::read_to_string(self.agent.ledger())?;
        let empty = r#""made":[],"sysctls":{},"timeouts":null"#;
        ensure!(ledger.contains(empty), "the ledger still has {ledger}");
        Ok(())
    }
}

fn drive(host: &str, from: &[&str], to: &str, next: Next) -> Result<()> {
    let site = Site::lay_out(&network(), 80)?;
    let agent = site.agent(host)?;
    let points = Crash { agent, from, to }.drive(next)?;
    println!("{host}: killed at each of {points} points");
    assert!(
        points > 4,
        "only {points} points: is the agent built with fault-injection?"
    );
    Ok(())
}

/// The service of a real server that stays when the others are removed.
fn kept() -> String {
    service(
        "kept",
        "port: 85",
        "192.168.220.104",
        "DR",
        &["192.168.230.132"],
    )
}

#[test]
fn a_director_killed_anywhere_while_building_up_converges_and_leaks_nothing() -> Result<()> {
    drive("director", &[], &everything(), Next::StartsAgain)
}

#[test]
fn a_director_killed_anywhere_while_building_up_can_be_cleaned_up_at_once() -> Result<()> {
    drive("director", &[], &everything(), Next::CleansUp)
}

#[test]
fn a_director_killed_anywhere_while_removing_converges_and_leaks_nothing() -> Result<()> {
    let all = format!("{}{}", everything(), another());
    drive("director", &[&all], &another(), Next::StartsAgain)
}

#[test]
fn a_director_killed_anywhere_while_editing_converges_and_leaks_nothing() -> Result<()> {
    let edited = everything()
        .replace("port: 81", "port: 91")
        .replace("fd00:230::133'}", "fd00:230::133', weight: 5}")
        .replace("forwarding: NAT", "forwarding: NAT, scheduler: {name: sh}");
    drive("director", &[&everything()], &edited, Next::StartsAgain)
}

#[test]
fn a_real_server_killed_anywhere_while_building_up_converges_and_leaks_nothing() -> Result<()> {
    drive("rs1", &[], &everything(), Next::StartsAgain)
}

#[test]
fn a_real_server_killed_anywhere_while_building_up_can_be_cleaned_up_at_once() -> Result<()> {
    drive("rs1", &[], &everything(), Next::CleansUp)
}

#[test]
fn a_real_server_killed_anywhere_while_removing_converges_and_leaks_nothing() -> Result<()> {
    let all = format!("{}{}", everything(), kept());
    drive("rs1", &[&all], &kept(), Next::StartsAgain)
}

#[test]
fn a_real_server_with_a_policy_route_killed_anywhere_converges_and_leaks_nothing() -> Result<()> {
    let forwarding =
        "NAT, nat: {returnPath: PolicyRoute, gateways: [192.168.230.137, 'fd00:230::137']}";
    let own = ["192.168.230.132", "fd00:230::132"];
    let nat = service(
        "nat",
        "port: 80",
        "192.168.220.100, 'fd00:220::100'",
        forwarding,
        &own,
    );
    drive("rs1", &[], &nat, Next::StartsAgain)?;
    drive(
        "rs1",
        &[&format!("{nat}{}", kept())],
        &kept(),
        Next::StartsAgain,
    )
}

/// The tasks of a director besides forwarding: it masquerades, delivers marked packets to IPVS, and sets timeouts. Each uses
/// one family only, since every point takes a while.
fn masquerading() -> String {
    let nat = service(
        "nat",
        "port: 80",
        "192.168.220.100",
        "NAT, nat: {returnPath: Masquerade}",
        &["192.168.230.132"],
    );
    let marked = "fwmark: 7, forwarding: TUN, tunnel: {type: GUE, port: 6080},
                  backends: [{address: 'fd00:230::132'}]";
    let group = "nodes: {names: [director]}, timeouts: {tcpSeconds: 701, tcpFinSeconds: 71, udpSeconds: 201}";
    [
        nat,
        virtual_service("marked", marked),
        director_group("default", group),
    ]
    .concat()
}

/// The part of it that stays when the rest is removed.
fn not_masquerading() -> String {
    let group = director_group("default", "nodes: {names: [director]}");
    format!("{}{group}", another())
}

#[test]
fn a_director_that_masquerades_killed_anywhere_converges_and_leaks_nothing() -> Result<()> {
    drive("director", &[], &masquerading(), Next::StartsAgain)
}

#[test]
fn a_director_that_masquerades_killed_anywhere_while_removing_converges_and_leaks_nothing()
-> Result<()> {
    let all = format!("{}{}", masquerading(), another());
    drive("director", &[&all], &not_masquerading(), Next::StartsAgain)
}

#[test]
fn a_real_server_with_marks_and_gue_ports_killed_anywhere_converges_and_leaks_nothing() -> Result<()>
{
    drive("rs1", &[], &masquerading(), Next::StartsAgain)?;
    let all = format!("{}{}", masquerading(), kept());
    let group = director_group("default", "nodes: {names: [director]}");
    let rest = format!("{}{group}", kept());
    drive("rs1", &[&all], &rest, Next::StartsAgain)
}

/// A group of two directors that keeps connections or drops them, and one of its services, with these real servers.
fn kept_by_hash(connections: &str, servers: &[&str]) -> String {
    let forwarding = "DR, directorGroup: edge, scheduler: {name: mh}";
    let web = service(
        "web",
        "port: 86",
        "192.168.220.105, 'fd00:220::105'",
        forwarding,
        servers,
    );
    let group =
        format!("nodes: {{names: [director, standby]}}, failover: {{connections: {connections}}}");
    web + &director_group("edge", &group)
}

#[test]
fn a_real_server_with_second_chances_killed_anywhere_converges_and_leaks_nothing() -> Result<()> {
    let both = ["192.168.230.132", "fd00:230::132"];
    let before = kept_by_hash(
        "Keep",
        &[&both[..], &["192.168.230.133", "fd00:230::133"]].concat(),
    );
    let after = kept_by_hash("Keep", &[&both[..], &["192.168.230.134"]].concat());
    drive("rs1", &[&before], &after, Next::StartsAgain)?;
    drive("rs1", &[&before], &after, Next::CleansUp)?;
    let dropped = kept_by_hash("Drop", &both);
    drive("rs1", &[&before, &after], &dropped, Next::StartsAgain)
}

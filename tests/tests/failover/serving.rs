//! Two machines that are both directors and both real servers, by DR and by TUN.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Agent, Client, Connection, Dump, Host, Running, director_group, virtual_service, wait_until,
};

use super::{
    load::Load,
    pair::{DIRECTORS, Pair, VIPS, counter},
};

/// How many requests are made to a VIP. Round robin leads half of them to each machine.
const REQUESTS: usize = 20;
const CONNECTIONS: usize = 40;
/// Longer than the kernel takes to send a connection to other directors.
const SYNC: Duration = Duration::from_secs(5);
const ROUND_ROBIN: &str = "{name: rr}";
const HASH: &str = "{name: mh, flags: [Port, Fallback]}";

fn documents(failover: &str, forwarding: &str, scheduler: &str) -> String {
    documents_with(failover, forwarding, scheduler, "")
}

/// With more real servers.
fn documents_with(failover: &str, forwarding: &str, scheduler: &str, more: &str) -> String {
    let group = director_group(
        "edge",
        &format!("nodes: {{names: [lvs1, lvs2]}}, failover: {{{failover}}}"),
    );
    let service = virtual_service(
        "web",
        &format!(
            "directorGroup: edge, addresses: [10.0.0.100, 'fd00::100'], forwarding: {forwarding}, scheduler: {scheduler},
             ports: [{{port: 80}}],
             backends: [{{address: 10.0.0.11}}, {{address: 10.0.0.12}}, {{address: 'fd00::11'}}, {{address: 'fd00::12'}}{more}]"
        ),
    );
    group + &service
}

/// Starts both agents; lvs1 gets the VIPs.
fn start(pair: &Pair, documents: &str) -> Result<[(Agent, Running); 2]> {
    let first = pair.agent("lvs1", documents)?;
    let second = pair.agent("lvs2", documents)?;
    let [active, standby] = pair.start([&first, &second])?;
    let serves = || has_rules(pair.lab.host("lvs2")?);
    standby.await_that("lvs2 to be a real server", serves)?;
    Ok([(first, active), (second, standby)])
}

/// Returns whether packets that another director sends stay on a host.
fn has_rules(host: &Host) -> Result<bool> {
    let mut all = String::new();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        all += &host.run(&[program, "-t", "mangle", "-S"])?;
    }
    let rules = all.matches("! --dst-type LOCAL --limit-iface-in -j MARK");
    Ok(rules.count() == VIPS.len())
}

/// Makes requests to both VIPs: half of them are answered by each machine, and the standby sends none on.
fn expect_halves(pair: &Pair, standby: &str) -> Result<()> {
    let host = pair.lab.host(standby)?;
    for vip in VIPS {
        let address = SocketAddr::new(vip.parse::<IpAddr>()?, 80);
        let client = Client::on(pair.lab.host("client")?);
        let before = connections(host)?;
        let expired = expired_in_transit(pair)?;
        let mut servers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..REQUESTS {
            *servers.entry(client.fetch(address)?.server).or_default() += 1;
        }
        let halves = DIRECTORS.map(|name| (name.to_owned(), REQUESTS / 2));
        ensure!(servers == halves.into(), "{vip}: {servers:?}");
        let after = connections(host)?;
        let new = after.iter().filter(|line| !before.contains(line));
        let new: Vec<_> = new.collect();
        let is_local = |line: &&String| line.contains(" 127.0.0.1:") || line.contains(" [::1]:");
        ensure!(
            new.len() == REQUESTS / 2 && new.iter().all(is_local),
            "{vip}: {standby} has sent packets on: {new:#?}"
        );
        ensure!(
            expired_in_transit(pair)? == expired,
            "{vip}: packets went round"
        );
    }
    Ok(())
}

/// The client, the VIP and the real server of each connection that the IPVS of a host knows.
fn connections(host: &Host) -> Result<Vec<String>> {
    let listing = host.run(&["ipvsadm", "-Lcn"])?;
    let lines = listing
        .lines()
        .filter(|line| line.starts_with("TCP ") || line.starts_with("FWM "));
    let connections = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Without the time that is left, and the state.
        let [client, vip, server] = words.get(3..6)? else {
            return None;
        };
        Some(format!("{client} {vip} {server}:"))
    });
    connections
        .collect::<Option<_>>()
        .with_context(|| listing.clone())
}

/// How many packets the directors have dropped because they had passed too many machines.
fn expired_in_transit(pair: &Pair) -> Result<u64> {
    let mut all = 0;
    for name in DIRECTORS {
        all += pair.lab.host(name)?.in_namespace(|| -> Result<u64> {
            let ipv6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let ipv6 = ipv6
                .lines()
                .find_map(|line| line.strip_prefix("Icmp6OutTimeExcds"));
            let ipv6: u64 = ipv6
                .context("no count of ICMPv6 messages")?
                .trim()
                .parse()?;
            Ok(ipv6 + counter("snmp", "Icmp:", "OutTimeExcds")?)
        })??;
    }
    Ok(all)
}

/// Opens connections to both VIPs. Returns them by the machine that has them.
fn connect(pair: &Pair) -> Result<BTreeMap<String, Vec<Connection>>> {
    let client = Client::on(pair.lab.host("client")?);
    let mut connections: BTreeMap<String, Vec<Connection>> = BTreeMap::new();
    for vip in VIPS {
        let address = SocketAddr::new(vip.parse::<IpAddr>()?, 80);
        for _ in 0..CONNECTIONS / 2 {
            let mut connection = client.connect(address)?;
            let server = connection.ask()?.server;
            connections.entry(server).or_default().push(connection);
        }
    }
    ensure!(connections.len() == 2, "one machine has all connections");
    Ok(connections)
}

fn expect_alive(connections: &mut [Connection], server: &str) -> Result<()> {
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer = connection.ask();
        let answer = answer.with_context(|| format!("connection {number} of {server}"))?;
        ensure!(answer.server == server, "{answer:?}");
    }
    Ok(())
}

/// Nothing loops, whichever of them is active, and also while a director without an agent is a real server only, from the expiry of its
/// VIPs on. At the end nothing is left of it.
#[test]
fn directors_that_are_real_servers_share_the_load_and_send_nothing_round() -> Result<()> {
    for (id, forwarding) in [(71, "DR"), (72, "TUN")] {
        let documents = documents(
            &format!("virtualRouterId: {id}, advertisementMilliseconds: 100, connections: Drop"),
            forwarding,
            ROUND_ROBIN,
        );
        let pair = Pair::with_responders(&DIRECTORS)?;
        let host = pair.lab.host("lvs2")?;
        host.run(&["ipvsadm", "-Ln"])?;
        let before = Dump::of(host)?;
        let [(_, first), (second, running)] = start(&pair, &documents)?;
        expect_halves(&pair, "lvs2").with_context(|| running.log())?;

        first.kill()?;
        pair.await_holder("lvs2", &running)?;
        expect_halves(&pair, "lvs1").with_context(|| running.log())?;

        running.stop()?;
        second.cleanup()?;
        let mut left = before.difference(&Dump::of(host)?);
        left.retain(|line| !(line.contains("proto kernel") && line.contains(" expires ")));
        ensure!(left.is_empty(), "{forwarding}:\n{}", left.join("\n"));
    }
    Ok(())
}

/// A standby with connection sync would send the active director the entries that lead to the standby itself.
#[test]
fn connections_of_both_directors_go_on_where_others_would_have_connection_sync() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 78, advertisementMilliseconds: 100",
        "DR",
        ROUND_ROBIN,
    );
    let pair = Pair::with_responders(&DIRECTORS)?;
    let _running = start(&pair, &documents)?;
    let mut connections = connect(&pair)?;
    // The kernel sends a connection with its third packet, within two seconds.
    let since = Instant::now();
    wait_until("connections to be in use", SYNC * 3, || {
        for (server, connections) in &mut connections {
            expect_alive(connections, server)?;
        }
        Ok((since.elapsed() > SYNC).then_some(()))
    })?;
    for name in DIRECTORS {
        let daemons = pair.lab.host(name)?.run(&["ipvsadm", "-L", "--daemon"])?;
        ensure!(daemons.trim().is_empty(), "{name}: {daemons}");
    }
    Ok(())
}

/// A machine takes the VIPs and gives them up while clients send requests, and is a real server all the time.
#[test]
fn a_hand_over_between_directors_that_are_real_servers_loses_no_request() -> Result<()> {
    for (id, forwarding) in [(73, "DR"), (74, "TUN")] {
        let on_standby = |name: &str| {
            documents(
                &format!(
                    "virtualRouterId: {id}, advertisementMilliseconds: 1000, standby: [{name}]"
                ),
                forwarding,
                HASH,
            )
        };
        let pair = Pair::with_responders(&DIRECTORS)?;
        let [(first, running), (second, _other)] = start(&pair, &on_standby("lvs2"))?;
        let mut connections = connect(&pair)?;
        let load = Load::on(&pair, &VIPS)?;
        for next in ["lvs2", "lvs1", "lvs2"] {
            let documents = on_standby(if next == "lvs1" { "lvs2" } else { "lvs1" });
            for agent in [&first, &second] {
                agent.write("all.yaml", &documents)?;
            }
            pair.await_holder(next, &running)?;
        }
        load.expect_no_failure()?;
        for (server, connections) in &mut connections {
            expect_alive(connections, server)?;
        }
    }
    Ok(())
}

/// The connections of the other machine go on, without a table that would know them.
#[test]
fn a_director_that_is_a_real_server_keeps_its_connections_when_the_active_one_dies() -> Result<()> {
    for (id, forwarding) in [(75, "DR"), (76, "TUN")] {
        let documents = documents(
            &format!("virtualRouterId: {id}, advertisementMilliseconds: 100"),
            forwarding,
            HASH,
        );
        let pair = Pair::with_responders(&DIRECTORS)?;
        let [(_, first), (_, running)] = start(&pair, &documents)?;
        let mut connections = connect(&pair)?;
        let host = pair.lab.host("lvs1")?;
        host.run(&["ip", "link", "set", "eth0", "down"])?;
        first.kill()?;
        pair.await_holder("lvs2", &running)?;
        let survivors = connections.get_mut("lvs2").context("no connection")?;
        expect_alive(survivors, "lvs2").with_context(|| running.log())?;
    }
    Ok(())
}

/// The new real server gives packets of the first machine's connections a second chance, and the first machine, which is active no more,
/// keeps them. Only those that the hash moves between the other two are lost: the active director gives no second chance.
#[test]
fn connections_survive_a_new_active_director_and_a_new_real_server_beside_them() -> Result<()> {
    const MOST_LOST: usize = 3;
    for (id, forwarding) in [(77, "DR"), (78, "TUN")] {
        let settings = format!("virtualRouterId: {id}, advertisementMilliseconds: 100");
        let before = documents(&settings, forwarding, HASH);
        let more = ", {address: 10.0.0.21}, {address: 'fd00::21'}";
        let after = documents_with(&settings, forwarding, HASH, more);
        let pair = Pair::with_responders(&["lvs1", "lvs2", "rs1"])?;
        let third = pair.agent("rs1", &before)?;
        let joining = third.start()?;
        joining.await_log(0, "ready")?;
        let [(_, first), (second, running)] = start(&pair, &before)?;
        let mut connections = connect(&pair)?;

        first.kill()?;
        third.write("all.yaml", &after)?;
        joining.await_log(0, "prerouting marks")?;
        second.write("all.yaml", &after)?;
        running.await_log(0, "-r 10.0.0.21:80")?;
        pair.await_holder("lvs2", &running)?;
        let mut lost = 0;
        for (server, connections) in &mut connections {
            for connection in connections {
                match connection.ask() {
                    Ok(answer) if answer.server == *server => {}
                    Ok(answer) => anyhow::bail!("{answer:?} for {server}"),
                    Err(_) => lost += 1,
                }
            }
        }
        // A machine that does not direct sends nothing on but these.
        let moved = self::connections(pair.lab.host("rs1")?)?.len();
        println!("{forwarding}: {moved} connections with a second chance, {lost} lost");
        ensure!(
            lost <= MOST_LOST && moved > 0,
            "{forwarding}: {moved} moved, {lost} lost"
        );
    }
    Ok(())
}

/// The table has forgotten them, and the hash of the changed set leads to another machine. Sent there, they would come back for ever.
#[test]
fn an_active_director_that_is_a_real_server_keeps_its_connections_when_the_set_changes()
-> Result<()> {
    let settings = "virtualRouterId: 79, advertisementMilliseconds: 100";
    let before = documents(settings, "DR", HASH);
    let more = ", {address: 10.0.0.21}, {address: 'fd00::21'}";
    let after = documents_with(settings, "DR", HASH, more);
    let pair = Pair::with_responders(&["lvs1", "lvs2", "rs1"])?;
    let third = pair.agent("rs1", &before)?;
    let joining = third.start()?;
    joining.await_log(0, "ready")?;
    let [(first, active), _second] = start(&pair, &before)?;
    let host = pair.lab.host("lvs1")?;
    host.run(&["ipvsadm", "--set", "1", "1", "1"])?;
    let mut connections = connect(&pair)?;
    active.await_that("lvs1 to forget the connections", || {
        Ok(self::connections(host)?.is_empty())
    })?;

    third.write("all.yaml", &after)?;
    joining.await_log(0, "prerouting marks")?;
    first.write("all.yaml", &after)?;
    active.await_log(0, "-r 10.0.0.21:80")?;
    let expired = expired_in_transit(&pair)?;
    let own = connections.get_mut("lvs1").context("no connection")?;
    expect_alive(own, "lvs1").with_context(|| active.log())?;
    ensure!(expired_in_transit(&pair)? == expired, "packets went round");
    Ok(())
}

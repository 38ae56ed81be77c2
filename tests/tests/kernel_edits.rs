//! Objects are edited in place: connections and counters continue, and a removal affects nothing else.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipvs_netlink::{ServiceKey, ServiceTable, Stats};
use lab::{Connection, Protocol, Site, director_group, scenery, virtual_service, wait_until};

/// How long the kernel may take to add up its counters.
const COUNTING: Duration = Duration::from_secs(10);

const VIPS: [&str; 2] = ["192.168.220.100", "fd00:220::100"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// NAT from a port of both VIPs, over TCP and UDP, to both real servers.
fn nat(name: &str, port: u16, scheduler: &str, weight: u32) -> String {
    let spec = format!(
        "addresses: [192.168.220.100, 'fd00:220::100'], forwarding: NAT, scheduler: {{name: {scheduler}}},
         ports: [{{name: t, port: {port}, targetPort: 8080}}, {{name: u, protocol: UDP, port: {port}, targetPort: 8080}}],
         backends: [{{address: 192.168.100.11, weight: {weight}}}, {{address: 192.168.100.12}},
                                 {{address: 'fd00:100::11', weight: {weight}}}, {{address: 'fd00:100::12'}}]"
    );
    virtual_service(name, &spec)
}

/// Connections to both VIPs, each twice over TCP and over UDP, so that both real servers have some of each.
fn connect(site: &Site, port: u16) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for vip in VIPS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for _ in 0..2 {
                let mut connection = site.client()?.over(protocol).connect(at(vip, port))?;
                connection.ask()?;
                connections.push(connection);
            }
        }
    }
    Ok(connections)
}

/// Sends a request over every connection; the same server as before must answer.
fn expect_continuation(connections: &mut [Connection], servers: &[String]) -> Result<()> {
    for (connection, server) in connections.iter_mut().zip(servers) {
        assert_eq!(connection.ask()?.server, *server);
    }
    Ok(())
}

fn servers(connections: &mut [Connection]) -> Result<Vec<String>> {
    connections
        .iter_mut()
        .map(|connection| Ok(connection.ask()?.server))
        .collect()
}

/// The table of the director, sorted.
fn tables(site: &Site) -> Result<Vec<ServiceTable>> {
    let mut tables = site.host("director")?.ipvs()?;
    for table in &mut tables {
        table
            .destinations
            .sort_by_key(|destination| (destination.key.address, destination.key.port));
    }
    tables.sort_by_key(|table| format!("{:?}", table.service.key));
    Ok(tables)
}

/// Returns the table once the kernel has counted two connections for each service of a port. It updates counters every two
/// seconds.
fn counted_tables(site: &Site, port: u16) -> Result<Vec<ServiceTable>> {
    wait_until("the kernel to count", COUNTING, || {
        let mut tables = tables(site)?;
        tables.retain(|table| matches!(table.service.key, ServiceKey::Address { port: found, .. } if found == port));
        Ok(tables
            .iter()
            .all(|table| table.service.stats.connections == 2)
            .then_some(tables))
    })
}

/// Waits until every counter of `before` has grown; an error names one that has not.
fn await_counters(site: &Site, before: &[ServiceTable]) -> Result<()> {
    let mut verdict = Ok(());
    let awaited = wait_until("the counters to grow", COUNTING, || {
        verdict = expect_counters_to_go_on(before, &tables(site)?);
        Ok(verdict.is_ok().then_some(()))
    });
    verdict.and(awaited)
}

/// Checks that every counter of `before` has grown, and that no connection was scheduled since.
fn expect_counters_to_go_on(before: &[ServiceTable], after: &[ServiceTable]) -> Result<()> {
    ensure!(before.len() == after.len(), "the services are not the same");
    for (before, after) in before.iter().zip(after) {
        ensure!(
            before.service.key == after.service.key,
            "the services are not the same"
        );
        goes_on(&before.service.stats, &after.service.stats)
            .with_context(|| format!("{:?}", before.service.key))?;
        for (before, after) in before.destinations.iter().zip(&after.destinations) {
            goes_on(&before.stats, &after.stats).with_context(|| format!("{:?}", before.key))?;
            ensure!(
                before.connections == after.connections,
                "{:?} lost connections",
                before.key
            );
        }
    }
    Ok(())
}

fn goes_on(before: &Stats, after: &Stats) -> Result<()> {
    ensure!(
        before.connections > 0 && before.in_packets > 0,
        "nothing was counted before"
    );
    ensure!(
        after.connections == before.connections,
        "{before:?} became {after:?}"
    );
    ensure!(
        after.in_packets > before.in_packets,
        "{before:?} became {after:?}"
    );
    ensure!(
        after.out_bytes > before.out_bytes,
        "{before:?} became {after:?}"
    );
    Ok(())
}

/// Runs the agent with the first file, connects, and writes the second; connections and counters must continue.
fn expect_edit_in_place(
    first: &str,
    second: &str,
    is_in: impl Fn(&ServiceTable) -> bool,
) -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", first)?;
    let running = agent.start()?;
    let mut connections = connect(&site, 80)?;
    let servers = servers(&mut connections)?;
    let before = counted_tables(&site, 80)?;
    assert!(!before.iter().any(&is_in));
    agent.write("site.yaml", second)?;
    running.await_that("the edit", || Ok(tables(&site)?.iter().all(&is_in)))?;
    expect_continuation(&mut connections, &servers)?;
    await_counters(&site, &before)?;
    assert_eq!(agent.plan()?, "");
    running.stop().map(drop)
}

#[test]
fn connections_and_counters_survive_a_change_of_weight() -> Result<()> {
    expect_edit_in_place(
        &nat("web", 80, "rr", 1),
        &nat("web", 80, "rr", 7),
        |table| {
            table
                .destinations
                .iter()
                .any(|destination| destination.config.weight == 7)
        },
    )
}

#[test]
fn connections_and_counters_survive_a_change_of_scheduler() -> Result<()> {
    expect_edit_in_place(
        &nat("web", 80, "rr", 1),
        &nat("web", 80, "wlc", 1),
        |table| table.service.config.scheduler.as_str() == "wlc",
    )
}

#[test]
fn connections_and_counters_survive_persistence_and_thresholds() -> Result<()> {
    let first = nat("web", 80, "rr", 1);
    let second = first
        .replace(
            "forwarding: NAT",
            "forwarding: NAT, persistence: {timeoutSeconds: 77}",
        )
        .replace("weight: 1", "weight: 1, upperThreshold: 900");
    expect_edit_in_place(&first, &second, |table| {
        table
            .service
            .config
            .persistence
            .as_ref()
            .is_some_and(|persistence| persistence.timeout_seconds == 77)
            && table
                .destinations
                .iter()
                .any(|destination| destination.config.upper_threshold == 900)
    })
}

#[test]
fn removing_a_virtual_service_leaves_the_connections_of_the_other() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let agent = site.agent("director")?;
    agent.write("first.yaml", nat("first", 80, "rr", 1))?;
    agent.write("second.yaml", nat("second", 81, "rr", 1))?;
    let running = agent.start()?;
    let mut kept = connect(&site, 80)?;
    let servers = servers(&mut kept)?;
    let is_first = |key: &ServiceKey| matches!(key, ServiceKey::Address { port: 80, .. });
    let before = counted_tables(&site, 80)?;
    agent.remove("second.yaml")?;
    running.await_that("the removal", || {
        Ok(tables(&site)?
            .iter()
            .all(|table| is_first(&table.service.key)))
    })?;
    expect_continuation(&mut kept, &servers)?;
    await_counters(&site, &before)?;
    for vip in VIPS {
        site.expect_no_answer(at(vip, 81))?;
    }
    assert_eq!(agent.plan()?, "");
    running.stop().map(drop)
}

#[test]
fn removing_a_real_server_leaves_the_connections_of_the_other() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let agent = site.agent("director")?;
    agent.write("site.yaml", nat("web", 80, "rr", 1))?;
    agent.converge()?;
    let mut connections = connect(&site, 80)?;
    let servers = servers(&mut connections)?;
    let without_rs2 = nat("web", 80, "rr", 1)
        .replace(", {address: 192.168.100.12}", "")
        .replace(", {address: 'fd00:100::12'}", "");
    agent.write("site.yaml", &without_rs2)?;
    agent.converge()?;
    for (connection, server) in connections.iter_mut().zip(&servers) {
        if server == "rs1" {
            assert_eq!(connection.ask()?.server, "rs1");
        }
    }
    for vip in VIPS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let counts = site.client()?.over(protocol).fetch_many(at(vip, 80), 4)?;
            assert_eq!(counts, [("rs1".to_owned(), 4)].into());
        }
    }
    Ok(())
}

/// The director's IPVS timeouts: TCP, TCP after a FIN, UDP.
fn timeouts(site: &Site) -> Result<[u32; 3]> {
    let found = site.host("director")?.ipvs_timeouts()?;
    Ok([found.tcp_seconds, found.tcp_fin_seconds, found.udp_seconds])
}

/// The states of the director's connections, each with the seconds until it is forgotten.
fn remembered(site: &Site) -> Result<Vec<(String, u32)>> {
    let table = site
        .host("director")?
        .run(&["cat", "/proc/net/ip_vs_conn"])?;
    let rows = table.lines().skip(1).map(|row| {
        let mut words = row.split_whitespace().skip(7);
        let state = words.next().context("a connection without a state")?;
        let seconds = words.next().context("a connection without a time")?;
        Ok((state.to_owned(), seconds.parse()?))
    });
    rows.collect()
}

/// docs/modes/nat.md has these times.
#[test]
fn a_nat_connection_that_the_client_has_half_closed_is_remembered_for_a_minute_after_each_packet()
-> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let service = virtual_service(
        "late",
        "addresses: [192.168.220.100], forwarding: NAT, ports: [{port: 81, targetPort: 9090}],
         backends: [{address: 192.168.100.11}]",
    );
    let group = "nodes: {names: [director]}, timeouts: {tcpSeconds: 702, tcpFinSeconds: 72}";
    site.converge(&(service + &director_group("default", group)))?;
    let listener = site
        .host("rs1")?
        .in_namespace(|| TcpListener::bind("192.168.100.11:9090"))??;
    let connect = || -> Result<[TcpStream; 2]> {
        let client = site.host("client")?;
        let client = client.in_namespace(|| TcpStream::connect(at(VIPS[0], 81)))??;
        Ok([client, listener.accept()?.0])
    };
    let is_in = |state: &str, seconds: RangeInclusive<u32>| {
        wait_until(state, COUNTING, || {
            let mut all = remembered(&site)?.into_iter();
            let is_found = |(found, left): (String, u32)| found == state && seconds.contains(&left);
            Ok(all.any(is_found).then_some(()))
        })
    };

    let [mut client, mut server] = connect()?;
    is_in("ESTABLISHED", 690..=702)?;
    client.shutdown(Shutdown::Write)?;
    is_in("CLOSE_WAIT", 50..=57)?;
    server.write_all(b"!")?;
    client.read_exact(&mut [0])?;
    is_in("CLOSE_WAIT", 58..=60)?;

    let [_client, server] = connect()?;
    server.shutdown(Shutdown::Write)?;
    is_in("FIN_WAIT", 60..=72)
}

#[test]
fn timeouts_of_a_group_are_set_changed_and_restored() -> Result<()> {
    let site = Site::lay_out(scenery::NAT, 8080)?;
    let director = site.host("director")?;
    director.run(&["ipvsadm", "--set", "801", "81", "301"])?;
    let before = site.dumps()?;
    assert_eq!(timeouts(&site)?, [801, 81, 301]);
    let group = |timeouts: &str| {
        let group = director_group(
            "default",
            &format!("nodes: {{names: [director]}}{timeouts}"),
        );
        format!("{}{group}", nat("web", 80, "rr", 1))
    };
    let set = group(", timeouts: {tcpSeconds: 702, tcpFinSeconds: 72, udpSeconds: 202}");
    let agent = site.agent("director")?;
    site.write(&set)?;
    let running = agent.start()?;
    assert_eq!(timeouts(&site)?, [702, 72, 202]);
    // A changed file, a change by another program, and a file without timeouts.
    agent.write(
        "site.yaml",
        group(", timeouts: {tcpSeconds: 603, udpSeconds: 203}"),
    )?;
    running.await_that("the change", || Ok(timeouts(&site)? == [603, 120, 203]))?;
    director.run(&["ipvsadm", "--set", "1", "2", "3"])?;
    running.await_that("the repair", || Ok(timeouts(&site)? == [603, 120, 203]))?;
    agent.write("site.yaml", group(""))?;
    running.await_that("the former timeouts", || {
        Ok(timeouts(&site)? == [801, 81, 301])
    })?;
    running.stop()?;
    // Cleanup restores the former timeouts too, even after a restart.
    site.converge(&set)?;
    assert_eq!(timeouts(&site)?, [702, 72, 202]);
    site.clean_up(&before)?;
    assert_eq!(timeouts(&site)?, [801, 81, 301]);
    Ok(())
}

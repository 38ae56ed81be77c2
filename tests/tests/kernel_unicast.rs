//! Directors that send their advertisements by unicast. keepalived can be one of the two.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::{Keepalived, Running};
use lvs_vrrp::{Addresses, Advertisement, Interval, Ipv4Checksum, Priority, Vrid};
use socket2::{Domain, Protocol, Socket, Type};

#[path = "failover/pair.rs"]
mod pair;

use pair::{Pair, TIMEOUT, documents, fetch_metrics, keepalived_configuration};

const LVS1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const LVS2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const METRICS: &str = "127.0.0.1:9100";
const SETTINGS: &str = "virtualRouterId: 51, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]";
const UNICAST: &str = "unicast: [{node: lvs1, addresses: [10.0.0.11, 'fd00::11']}, {node: lvs2, addresses: [10.0.0.12, 'fd00::12']}]";
/// The settings of keepalived on lvs2. It sends with the hop limit 64 over IPv6 if it is given none.
const KEEPALIVED: [&str; 2] = [
    "unicast_src_ip 10.0.0.12\n unicast_ttl 255\n unicast_peer { 10.0.0.11 }",
    "unicast_src_ip fd00::12\n unicast_ttl 255\n unicast_peer { fd00::11 }",
];

fn unicast_documents() -> String {
    documents(&format!("{SETTINGS}, {UNICAST}"))
}

/// Waits until a host has received so many advertisements of each family by unicast that a director which understands none of them would
/// have taken over, without a multicast one in between.
fn await_unicast(pair: &Pair, name: &str) -> Result<()> {
    const ENOUGH: usize = 15;
    let sockets = pair.lab.host(name)?.in_namespace(|| -> Result<_> {
        let protocol = Some(Protocol::from(112));
        let v4 = Socket::new(Domain::IPV4, Type::RAW, protocol)?;
        let v6 = Socket::new(Domain::IPV6, Type::RAW, protocol)?;
        Ok([v4, v6])
    })??;
    for (mut socket, is_v4) in sockets.into_iter().zip([true, false]) {
        socket.set_read_timeout(Some(TIMEOUT))?;
        let start = Instant::now();
        let mut count = 0;
        while count < ENOUGH {
            let mut packet = [0; 256];
            let _ = socket.read(&mut packet)?;
            // The destination is in an IPv4 header; a raw socket for IPv6 gets none.
            let is_multicast = is_v4 && packet[16] == 224;
            count = if is_multicast { 0 } else { count + 1 };
            ensure!(start.elapsed() < TIMEOUT, "advertisements are multicast");
        }
    }
    Ok(())
}

/// Sends advertisements of an unlisted router to a director, from the network namespace of this thread.
fn send_as_stranger(director: Ipv4Addr, priority: u8, count: usize) -> Result<()> {
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let advertisement = Advertisement {
        vrid: Vrid::new(51)?,
        priority: Some(Priority::new(priority)?),
        interval: Interval::from_centiseconds(10)?,
        addresses: Addresses::new(&["10.0.0.100".parse()?])?,
    };
    let packet = advertisement.encode(own.into(), director.into(), Ipv4Checksum::PseudoHeader)?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
    socket.set_ttl_v4(255)?;
    for _ in 0..count {
        socket.send_to(&packet, &SocketAddr::from((director, 0)).into())?;
    }
    Ok(())
}

/// Returns how many packets lvs1 has refused because their senders are none of the peers.
fn refused(pair: &Pair) -> Result<Option<u64>> {
    let shown = pair
        .lab
        .host("lvs1")?
        .in_namespace(|| fetch_metrics(METRICS))??;
    let name = "lvs_agent_vrrp_refused_packets_total{interface=\"eth0\",reason=\"unknown_peer\"} ";
    let count = shown.lines().find_map(|line| line.strip_prefix(name));
    Ok(count.and_then(|count| count.parse().ok()))
}

fn expect_no_move(agent: &Running, mark: usize) -> Result<()> {
    let log = agent.log();
    let news = log.get(mark..).unwrap_or_default();
    ensure!(
        !news.contains("standby:") && !news.contains("active:"),
        "the VIPs moved:\n{log}"
    );
    Ok(())
}

#[test]
fn directors_agree_by_unicast_and_ignore_a_router_that_is_none_of_them() -> Result<()> {
    const FORGED: usize = 50;
    let documents = unicast_documents();
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let first = first.with("LVS_HTTP_ADDRESS", METRICS);
    let second = pair.agent("lvs2", &documents)?;
    let [first, second] = pair.start([&first, &second])?;
    await_unicast(&pair, "lvs2")?;
    ensure!(pair.is_only_holder("lvs1")?, "{}", second.log());
    ensure!(refused(&pair)?.is_none());

    let mark = first.mark();
    let client = pair.lab.host("client")?;
    client.in_namespace(|| send_as_stranger(LVS1, 254, FORGED))??;
    first.await_that("the forged packets to be counted", || {
        Ok(refused(&pair)? == Some(FORGED as u64))
    })?;
    let log = first.log();
    let reports = log[mark..].matches("10.0.0.1 sends advertisements, and is none of the peers");
    ensure!(reports.count() == 1, "{log}");
    expect_no_move(&first, mark)?;

    first.kill()?;
    second.await_that("the standby to hold the VIPs", || pair.is_holder("lvs2"))?;
    pair.await_holder("lvs2", &second)?;
    pair.expect_answers()
}

#[test]
fn directors_change_from_multicast_to_unicast_and_back_without_a_move() -> Result<()> {
    let (multicast, unicast) = (documents(SETTINGS), unicast_documents());
    let pair = Pair::lay_out(&multicast)?;
    let agents = [
        pair.agent("lvs1", &multicast)?,
        pair.agent("lvs2", &multicast)?,
    ];
    let [first, second] = pair.start([&agents[0], &agents[1]])?;
    pair.await_advertisements("lvs2")?;
    let marks = [first.mark(), second.mark()];

    // The standby ignores strangers, but goes on hearing the active director, which sends from another address over IPv6.
    agents[1].write("all.yaml", &unicast)?;
    second.await_that("the standby to ignore strangers", || {
        let client = pair.lab.host("client")?;
        client.in_namespace(|| send_as_stranger(LVS2, 1, 1))??;
        Ok(second.log().contains("none of the peers"))
    })?;
    pair.await_advertisements("lvs2")?;
    agents[0].write("all.yaml", &unicast)?;
    await_unicast(&pair, "lvs2")?;
    agents[1].write("all.yaml", &multicast)?;
    agents[0].write("all.yaml", &multicast)?;
    pair.await_advertisements("lvs2")?;
    expect_no_move(&first, marks[0])?;
    expect_no_move(&second, marks[1])?;
    ensure!(pair.is_only_holder("lvs1")?);
    pair.expect_answers()
}

#[test]
fn a_director_without_its_listed_address_takes_no_part_and_says_so() -> Result<()> {
    let listed = unicast_documents();
    let wrong = listed
        .replace("10.0.0.11", "10.0.0.19")
        .replace("fd00::11", "fd00::19");
    let pair = Pair::lay_out(&listed)?;
    let first = pair.agent("lvs1", &wrong)?.start()?;
    for address in ["10.0.0.19", "fd00::19"] {
        first.await_log(0, &format!("eth0 does not have {address}"))?;
    }
    let second = pair.agent("lvs2", &listed)?.start()?;
    pair.await_holder("lvs2", &second)?;
    ensure!(!first.log().contains("active:"), "{}", first.log());
    pair.expect_answers()
}

/// It goes on with the settings that it has, and hands its VIPs over when it is asked to.
#[test]
fn an_active_director_that_loses_its_listed_address_can_still_be_put_on_standby() -> Result<()> {
    let multicast = documents(SETTINGS);
    let wrong = unicast_documents()
        .replace("10.0.0.11", "10.0.0.19")
        .replace("fd00::11", "fd00::19");
    let pair = Pair::lay_out(&multicast)?;
    let agent = pair.agent("lvs1", &multicast)?;
    let second = pair.agent("lvs2", &multicast)?;
    let [first, second] = pair.start([&agent, &second])?;

    let mark = first.mark();
    agent.write("all.yaml", &wrong)?;
    for address in ["10.0.0.19", "fd00::19"] {
        first.await_log(mark, &format!("eth0 does not have {address}"))?;
    }
    pair.await_advertisements("lvs2")?;
    expect_no_move(&first, mark)?;
    ensure!(pair.is_only_holder("lvs1")?, "{}", first.log());

    let ran = agent.call(&["hand-over"])?;
    ensure!(ran.status.success(), "{}{}", ran.stdout, ran.log);
    pair.await_holder("lvs2", &second)?;
    pair.expect_answers()
}

/// An address from DHCP expires as VIPs do.
#[test]
fn an_address_that_expires_can_be_listed() -> Result<()> {
    let listed = unicast_documents();
    let pair = Pair::lay_out(&listed)?;
    for (name, number) in [("lvs1", "11"), ("lvs2", "12")] {
        let host = pair.lab.host(name)?;
        for address in [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")] {
            let (delete, add) = (["addr", "del", &address], ["addr", "add", &address]);
            let expiring = ["valid_lft", "3600", "preferred_lft", "3600", "nodad"];
            host.run(&[&["ip"], &delete[..], &["dev", "eth0"]].concat())?;
            host.run(&[&["ip"], &add[..], &["dev", "eth0"], &expiring[..]].concat())?;
        }
    }
    let first = pair.agent("lvs1", &listed)?;
    let second = pair.agent("lvs2", &listed)?;
    let [first, second] = pair.start([&first, &second])?;
    await_unicast(&pair, "lvs2").with_context(|| first.log())?;
    ensure!(pair.is_only_holder("lvs1")?, "{}", second.log());
    pair.expect_answers()
}

#[test]
fn keepalived_replaces_an_agent_that_is_killed() -> Result<()> {
    let documents = unicast_documents();
    let pair = Pair::lay_out(&documents)?;
    let agent = pair.agent("lvs1", &documents)?;
    let running = agent.start()?;
    pair.await_holder("lvs1", &running)?;
    let configuration = keepalived_configuration(KEEPALIVED);
    let keepalived = Keepalived::start(pair.lab.host("lvs2")?, &configuration)?;
    keepalived.await_that("keepalived on standby for both families", || {
        Ok(keepalived.log().matches("Entering BACKUP STATE").count() >= 2)
    })?;
    await_unicast(&pair, "lvs2")?;
    ensure!(
        !keepalived.log().contains("MASTER STATE"),
        "keepalived did not follow the agent:\n{}",
        keepalived.log()
    );

    running.kill()?;
    keepalived.await_that("keepalived to hold the VIPs", || pair.is_holder("lvs2"))?;
    keepalived.await_that("lvs1 to lose the VIPs", || pair.is_only_holder("lvs2"))?;

    let again = agent.start()?;
    again.await_log(0, "standby")?;
    await_unicast(&pair, "lvs1")?;
    ensure!(
        pair.is_only_holder("lvs2")? && !again.log().contains("active:"),
        "the agent did not follow keepalived:\n{}",
        again.log()
    );
    pair.expect_answers()
}

#[test]
fn an_agent_replaces_a_keepalived_that_is_killed() -> Result<()> {
    let documents = unicast_documents();
    let pair = Pair::lay_out(&documents)?;
    let configuration = keepalived_configuration(KEEPALIVED);
    let keepalived = Keepalived::start(pair.lab.host("lvs2")?, &configuration)?;
    keepalived.await_that("keepalived to hold the VIPs", || {
        pair.is_only_holder("lvs2")
    })?;
    let agent = pair.agent("lvs1", &documents)?.start()?;
    agent.await_log(0, "standby")?;
    await_unicast(&pair, "lvs1")?;
    ensure!(
        pair.is_only_holder("lvs2")? && !agent.log().contains("active:"),
        "the agent did not follow keepalived:\n{}",
        agent.log()
    );

    keepalived.kill()?;
    agent.await_that("the agent to hold the VIPs", || pair.is_holder("lvs1"))?;
    pair.expect_answers()
}

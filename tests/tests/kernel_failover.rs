//! Two directors of a group: one holds the VIPs, and the other takes them when it falls silent. keepalived can be one of the two.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Agent, Dump, Host, Keepalived, Running, director_group, virtual_service, wait_until};
use socket2::{Domain, Protocol, Socket, Type};

#[path = "failover/busy.rs"]
mod busy;
#[path = "failover/load.rs"]
mod load;
#[path = "failover/pair.rs"]
mod pair;
#[path = "failover/serving.rs"]
mod serving;
#[path = "failover/shared_load.rs"]
mod shared_load;

use load::Load;
use pair::{DIRECTORS, Pair, TIMEOUT, VIPS, documents, fetch_metrics, keepalived_configuration};

/// How long it takes at most until one director has the VIPs alone: the lifetime of VIPs, a retry of an addition, and a start.
const LONGEST_RECOVERY: Duration = Duration::from_secs(20);
/// Where a director can be killed while it takes VIPs over, in this order.
const TAKING_OVER: [&str; 6] = [
    "taking-over",
    "advertised",
    "adding-vips",
    "vips-added",
    "vips-announced",
    "vips-reported",
];
/// Where a director can be killed while it hands VIPs over, in this order.
const GIVING_UP: [&str; 5] = [
    "resigning",
    "resigned",
    "handed-over",
    "removing-vips",
    "vips-removed",
];

impl Pair {
    /// The MAC address of a host.
    fn mac(&self, name: &str) -> Result<String> {
        let link = self
            .lab
            .host(name)?
            .run(&["ip", "-o", "link", "show", "eth0"])?;
        let mut words = link
            .split_whitespace()
            .skip_while(|word| *word != "link/ether");
        let mac = words.nth(1).context("eth0 has no MAC address")?;
        Ok(mac.to_owned())
    }

    /// Returns whether the client sends packets for both VIPs to this director.
    fn is_known(&self, name: &str) -> Result<bool> {
        let mac = self.mac(name)?;
        let neighbours = self.lab.host("client")?.run(&["ip", "neigh"])?;
        let is_known = |vip| {
            let mut lines = neighbours.lines();
            lines.any(|line| line.starts_with(&format!("{vip} ")) && line.contains(&mac))
        };
        Ok(VIPS.iter().all(is_known))
    }
}

/// An agent that kills itself at this point.
fn dying(agent: &Agent, point: &str) -> Agent {
    agent.clone().with("LVS_AGENT_KILL_AT", point)
}

/// Two directors that are killed, started again and cleaned up.
struct Mortal {
    pair: Pair,
    agents: [Agent; 2],
    /// The directors' kernels without an agent.
    before: [Dump; 2],
}

impl Mortal {
    fn lay_out(documents: &str) -> Result<Self> {
        let pair = Pair::lay_out(documents)?;
        let agents = DIRECTORS.map(|name| pair.agent(name, documents));
        let [first, second] = agents;
        let agents = [first?, second?];
        let before = [Dump::of(agents[0].host())?, Dump::of(agents[1].host())?];
        Ok(Self {
            pair,
            agents,
            before,
        })
    }

    /// Starts the first one, which gets the VIPs, and then the second one.
    fn start(&self, [first, second]: &[Agent; 2]) -> Result<[Running; 2]> {
        self.pair.start([first, second])
    }

    /// The IPVS tables of both.
    fn tables(&self) -> Result<[Vec<String>; 2]> {
        let table = |agent: &Agent| -> Result<Vec<String>> {
            let dump = Dump::of(agent.host())?;
            let lines = dump.lines_with("ipvs ").into_iter();
            Ok(lines.map(str::to_owned).collect())
        };
        Ok([table(&self.agents[0])?, table(&self.agents[1])?])
    }

    /// Waits until the second one has the VIPs alone, for a limited time; then both have their tables, and requests are answered.
    fn expect_second(&self, running: &Running, tables: &[Vec<String>; 2]) -> Result<()> {
        wait_until("lvs2 to hold the VIPs alone", LONGEST_RECOVERY, || {
            Ok(self.pair.is_only_holder("lvs2")?.then_some(()))
        })
        .with_context(|| running.log())?;
        ensure!(
            self.tables()? == *tables,
            "the tables have changed:\n{}",
            running.log()
        );
        self.pair.expect_answers()
    }

    /// Ends and cleans up both, which leaves nothing.
    fn end(&self, running: [Running; 2]) -> Result<()> {
        for agent in running {
            agent.stop()?;
        }
        for (agent, before) in self.agents.iter().zip(&self.before) {
            agent.cleanup()?;
            let mut left = before.difference(&Dump::of(agent.host())?);
            // The kernel collects the route of an address that expired only later.
            left.retain(|line| !(line.contains("proto kernel") && line.contains(" expires ")));
            ensure!(left.is_empty(), "{}", left.join("\n"));
        }
        Ok(())
    }
}

/// Sends VRRP packets of random content to the multicast group, from the network namespace of this thread. The pauses leave the only
/// processor to the agents.
fn send_malformed(count: usize) -> Result<()> {
    const BURST: usize = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
    socket.set_multicast_ttl_v4(255)?;
    socket.set_multicast_if_v4(&Ipv4Addr::new(10, 0, 0, 1))?;
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..count {
        let mut packet = vec![0; random.usize(0..64)];
        random.fill(&mut packet);
        // Half of them look like version 3 and this router.
        if let [first, id, ..] = packet.as_mut_slice()
            && number % 2 == 0
        {
            (*first, *id) = (0x31, 57);
        }
        if number % BURST == 0 {
            thread::sleep(PAUSE);
        }
        let group = SocketAddr::from(([224, 0, 0, 18], 0));
        socket.send_to(&packet, &group.into())?;
    }
    Ok(())
}

/// Returns how many VIPs of a host are contested, according to its agent.
fn contested(host: &Host, metrics: &str) -> Result<Option<usize>> {
    let shown = host.in_namespace(|| fetch_metrics(metrics))??;
    let mut lines = shown.lines();
    let count = lines.find_map(|line| line.strip_prefix("lvs_agent_contested_vips "));
    Ok(count.and_then(|count| count.parse().ok()))
}

#[test]
fn a_director_that_is_killed_is_replaced_and_does_not_come_back_unasked() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 51, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let second = pair.agent("lvs2", &documents)?;
    let standby = second.start()?;
    pair.await_holder("lvs1", &running)?;
    let table = pair.lab.host("lvs2")?.run(&["ipvsadm", "-Ln"])?;
    ensure!(
        table.contains("10.0.0.100:80"),
        "the standby has the table:\n{table}"
    );
    pair.expect_answers()?;

    running.kill()?;
    standby.await_that("the standby to hold the VIPs", || {
        Ok(pair.holders("10.0.0.100")?.contains(&"lvs2"))
    })?;
    pair.expect_answers()?;
    // They are no longer renewed, so the kernel removes them.
    pair.await_holder("lvs2", &standby)?;

    let again = first.start()?;
    again.await_log(0, "standby")?;
    pair.await_holder("lvs2", &standby)?;
    pair.expect_answers()?;
    Ok(())
}

#[test]
fn a_director_whose_link_goes_down_gives_up_its_vips_and_is_on_standby_when_the_link_is_back()
-> Result<()> {
    let documents = documents(
        "virtualRouterId: 53, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?.start()?;
    pair.await_holder("lvs1", &first)?;
    let second = pair.agent("lvs2", &documents)?.start()?;
    second.await_log(0, "standby: started")?;
    let host = pair.lab.host("lvs1")?;

    host.run(&["ip", "link", "set", "eth0", "down"])?;
    pair.await_holder("lvs2", &second)?;
    let mark = first.mark();
    host.run(&["ip", "link", "set", "eth0", "up"])?;
    first.await_log(mark, "standby: started")?;
    pair.await_advertisements("lvs1")?;
    ensure!(
        pair.is_only_holder("lvs2")?,
        "the VIPs moved again:\n{}",
        first.log()
    );
    pair.expect_answers()
}

#[test]
fn an_agent_that_is_restarted_moves_nothing() -> Result<()> {
    let documents = documents("virtualRouterId: 52, advertisementMilliseconds: 1000");
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let standby = pair.agent("lvs2", &documents)?.start()?;
    running.stop()?;
    let again = first.start()?;
    again.await_log(0, "was active before a restart")?;
    pair.expect_answers()?;
    ensure!(
        !standby.log().contains("VIP added"),
        "the standby took over:\n{}",
        standby.log()
    );
    Ok(())
}

/// Each of the two has the VIPs, by turns, while a client sends requests.
#[test]
fn a_planned_hand_over_loses_no_request() -> Result<()> {
    let on_standby = |name: &str| {
        documents(&format!(
            "virtualRouterId: 55, advertisementMilliseconds: 1000, standby: [{name}]"
        ))
    };
    let start = on_standby("lvs2");
    let pair = Pair::lay_out(&start)?;
    let agents = [pair.agent("lvs1", &start)?, pair.agent("lvs2", &start)?];
    let running = agents[0].start()?;
    pair.await_holder("lvs1", &running)?;
    let other = agents[1].start()?;
    other.await_log(0, "standby: started")?;

    let load = Load::on(&pair, &VIPS)?;
    for next in ["lvs2", "lvs1", "lvs2", "lvs1"] {
        let documents = on_standby(if next == "lvs1" { "lvs2" } else { "lvs1" });
        for agent in &agents {
            agent.write("all.yaml", &documents)?;
        }
        pair.await_holder(next, &running)?;
    }
    load.expect_no_failure()
}

/// It has the VIPs for a while still, and announcements of it would divert the clients of its successor. The last repeat of its
/// own announcement, two seconds after it took the VIPs, is due about then.
#[test]
fn a_director_that_has_handed_over_announces_nothing() -> Result<()> {
    // Until the successor has the VIPs: about half a second in this kernel. While the other still has them too, the repeat is due.
    const HAND_OVER_TAKES: Duration = Duration::from_millis(600);
    let on_standby = |name: &str| {
        documents(&format!(
            "virtualRouterId: 63, advertisementMilliseconds: 100, standby: [{name}]"
        ))
    };
    let start = on_standby("lvs2");
    let pair = Pair::lay_out(&start)?;
    let agents = [pair.agent("lvs1", &start)?, pair.agent("lvs2", &start)?];
    let running = agents[0].start()?;
    pair.await_holder("lvs1", &running)?;
    let mut held_since = Instant::now();
    let other = agents[1].start()?;
    other.await_log(0, "standby: started")?;

    let load = Load::on(&pair, &VIPS)?;
    for next in ["lvs2", "lvs1", "lvs2", "lvs1"] {
        let begin = held_since + Duration::from_secs(2) - HAND_OVER_TAKES;
        wait_until("the next hand-over", TIMEOUT, || {
            Ok((Instant::now() >= begin).then_some(()))
        })?;
        let documents = on_standby(if next == "lvs1" { "lvs2" } else { "lvs1" });
        for agent in &agents {
            agent.write("all.yaml", &documents)?;
        }
        let knows = || Ok(pair.is_known(next)?.then_some(()));
        wait_until("the client to have learnt the successor", TIMEOUT, knows)?;
        held_since = Instant::now();
        while held_since.elapsed() < Duration::from_secs(1) {
            ensure!(pair.is_known(next)?, "the client has unlearnt {next}");
        }
    }
    load.expect_no_failure()
}

/// It is added again at first. After five removals, it moves to a director on which it stays, without the VIP of the other family. One
/// that a renewal has added again does not count.
#[test]
fn a_vip_that_another_program_removes_again_and_again_moves_to_another_director() -> Result<()> {
    let documents = documents("virtualRouterId: 65, advertisementMilliseconds: 100");
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?.start()?;
    pair.await_holder("lvs1", &first)?;
    let second = pair.agent("lvs2", &documents)?.start()?;
    second.await_log(0, "standby: started")?;

    let is_reported = || {
        first
            .log()
            .contains("removes VIP 10.0.0.100 from eth0 again and again")
    };
    let mut removals = 0;
    while !is_reported() {
        ensure!(removals < 20, "{}", first.log());
        let removed =
            pair.lab
                .host("lvs1")?
                .run(&["ip", "addr", "del", "10.0.0.100/32", "dev", "eth0"]);
        removed.with_context(|| first.log())?;
        removals += 1;
        wait_until("lvs1 to hold the VIPs, or to report", TIMEOUT, || {
            Ok((pair.is_holder("lvs1")? || is_reported()).then_some(()))
        })
        .with_context(|| first.log())?;
    }
    ensure!(removals >= 5, "{removals} removals:\n{}", first.log());
    first.await_that("lvs2 to hold the VIP alone", || {
        Ok(pair.holders(VIPS[0])? == ["lvs2"])
    })?;
    ensure!(pair.holders(VIPS[1])? == ["lvs1"], "{}", first.log());
    pair.expect_answers()
}

/// The request outlives a restart of the agent, until it is withdrawn.
#[test]
fn a_machine_can_be_put_on_standby_by_a_command() -> Result<()> {
    let documents = documents("virtualRouterId: 59, advertisementMilliseconds: 1000");
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let failed = first.call(&["hand-over"])?;
    ensure!(
        failed.status.code() == Some(2) && failed.log.contains("no agent runs"),
        "{}",
        failed.log
    );
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let other = pair.agent("lvs2", &documents)?.start()?;
    other.await_log(0, "standby: started")?;

    let load = Load::on(&pair, &VIPS)?;
    let ran = first.call(&["hand-over"])?;
    ensure!(
        ran.status.success() && ran.stdout == "on standby; VIPs handed over: 2\n",
        "{}{}",
        ran.stdout,
        ran.log
    );
    ensure!(pair.is_only_holder("lvs2")?, "lvs1 still has VIPs");
    load.expect_no_failure()?;

    running.stop()?;
    let again = first.start()?;
    again.await_log(0, "standby: started")?;
    // Its own word moves nothing.
    ensure!(first.call(&["hand-over", "--end"])?.status.success());
    pair.await_holder("lvs2", &again)?;
    pair.expect_answers()
}

/// There is no other that could take them.
#[test]
fn vips_that_no_other_director_takes_stay() -> Result<()> {
    let settings = "virtualRouterId: 56, advertisementMilliseconds: 100";
    let pair = Pair::lay_out(&documents(settings))?;
    let first = pair.agent("lvs1", &documents(settings))?;
    let running = first.start()?;
    pair.await_holder("lvs1", &running)?;
    let load = Load::on(&pair, &VIPS)?;
    first.write(
        "all.yaml",
        documents(&format!("{settings}, standby: [lvs1]")),
    )?;
    running.await_log(0, "no other router has taken over")?;
    ensure!(pair.is_only_holder("lvs1")?, "the VIPs are gone");

    // It tries again.
    let documents = documents(&format!("{settings}, standby: [lvs1]"));
    let second = pair.agent("lvs2", &documents)?.start()?;
    pair.await_holder("lvs2", &second)?;
    load.expect_no_failure()
}

/// What a program sends that knows the protocol only by its number.
#[test]
fn malformed_packets_are_counted_and_move_nothing() -> Result<()> {
    let documents = documents("virtualRouterId: 57, advertisementMilliseconds: 1000");
    let pair = Pair::lay_out(&documents)?;
    let metrics = "127.0.0.1:9100";
    let first = pair
        .agent("lvs1", &documents)?
        .with("LVS_HTTP_ADDRESS", metrics);
    let first = first.start()?;
    pair.await_holder("lvs1", &first)?;
    let second = pair.agent("lvs2", &documents)?.start()?;
    second.await_log(0, "standby: started")?;
    let marks = [first.mark(), second.mark()];

    pair.lab
        .host("client")?
        .in_namespace(|| send_malformed(100_000))??;
    let shown = pair
        .lab
        .host("lvs1")?
        .in_namespace(|| fetch_metrics(metrics))??;
    let refused = shown.lines().filter_map(|line| {
        let line = line.strip_prefix("lvs_agent_vrrp_refused_packets_total{interface=\"eth0\",")?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    });
    let refused: u64 = refused.sum();
    ensure!(refused > 1000, "the packets are not counted:\n{shown}");
    ensure!(
        shown.contains(
            "lvs_agent_vrrp_active{interface=\"eth0\",family=\"IPv4\",router_id=\"57\"} 1"
        ),
        "{shown}"
    );
    pair.await_advertisements("lvs2")?;
    for (agent, mark) in [&first, &second].into_iter().zip(marks) {
        let log = agent.log();
        let news = log.get(mark..).unwrap_or_default();
        ensure!(
            !news.contains("standby:") && !news.contains("active:"),
            "the VIPs moved:\n{log}"
        );
    }
    ensure!(pair.is_only_holder("lvs1")?);
    pair.expect_answers()
}

/// Each would take the other for a director of its own group.
#[test]
fn another_machine_that_answers_for_vips_is_reported_and_gets_no_vip() -> Result<()> {
    let documents = documents("virtualRouterId: 58, advertisementMilliseconds: 1000");
    let pair = Pair::lay_out(&documents)?;
    let metrics = "127.0.0.1:9100";
    let director = pair.lab.host("lvs1")?;
    let first = pair.agent("lvs1", &documents)?;
    let first = first.with("LVS_HTTP_ADDRESS", metrics).start()?;
    pair.await_holder("lvs1", &first)?;
    let second = pair.agent("lvs2", &documents)?.start()?;
    second.await_log(0, "standby: started")?;
    ensure!(contested(director, metrics)? == Some(0));

    // It is silent until it is asked.
    let other = pair.lab.host("client")?;
    let mac = pair.mac("client")?;
    let mark = first.mark();
    for vip in VIPS {
        other.run(&["ip", "addr", "add", vip, "dev", "eth0", "nodad"])?;
    }
    for vip in VIPS {
        let problem = format!("VIP {vip}: {mac} on eth0 answers for it too");
        first.await_log(mark, &problem)?;
    }
    first.await_that("the VIPs to be contested", || {
        Ok(contested(director, metrics)? == Some(VIPS.len()))
    })?;
    // Without the other machine, it would announce them fewer than six times while this waits.
    let before = first.mark();
    first.await_that("the VIPs to be announced again and again", || {
        let log = first.log();
        let news = log.get(before..).unwrap_or_default();
        Ok(news.matches("announced VIPs").count() >= 8)
    })?;
    let log = first.log();
    let news = log.get(mark..).context("the log is shorter")?;
    ensure!(
        pair.is_only_holder("lvs1")? && !news.contains("standby:"),
        "the VIPs moved:\n{log}"
    );

    let mark = first.mark();
    for vip in VIPS {
        other.run(&["ip", "addr", "del", vip, "dev", "eth0"])?;
    }
    first.await_log(mark, "no other machine answers for it any more")?;
    first.await_that("the problem to be over", || {
        Ok(contested(director, metrics)? == Some(0))
    })?;
    pair.expect_answers()
}

#[test]
fn two_groups_with_one_router_id_are_reported() -> Result<()> {
    let group = |name: &str, director: &str, vip: &str| {
        let group = director_group(
            name,
            &format!(
                "nodes: {{names: [{director}, other]}}, failover: {{virtualRouterId: 58, advertisementMilliseconds: 100}}"
            ),
        );
        let service = format!(
            "directorGroup: {name}, addresses: [{vip}], forwarding: DR, ports: [{{port: 80}}], backends: [{{address: 10.0.0.21}}]"
        );
        group + &virtual_service(name, &service)
    };
    let pair = Pair::lay_out("")?;
    let one = pair
        .agent("lvs1", &group("one", "lvs1", "10.0.0.101"))?
        .start()?;
    one.await_log(0, "VIP added")?;
    let other = pair
        .agent("lvs2", &group("other", "lvs2", "10.0.0.102"))?
        .start()?;
    other.await_log(
        0,
        "10.0.0.11 uses the same router id for other addresses: 10.0.0.101",
    )?;
    Ok(())
}

/// The other learns later that it is no director any more, and must not take the VIPs over before.
#[test]
fn the_last_director_of_a_group_keeps_its_vips() -> Result<()> {
    let both = documents("virtualRouterId: 54, advertisementMilliseconds: 1000");
    let one = both.replace("names: [lvs1, lvs2]", "names: [lvs1]");
    let pair = Pair::lay_out(&both)?;
    let first = pair.agent("lvs1", &both)?;
    let second = pair.agent("lvs2", &both)?;
    let [running, standby] = pair.start([&first, &second])?;

    first.write("all.yaml", &one)?;
    running.await_log(0, "the VIPs stay here")?;
    // A resignation would be answered within the skew time, and silence after three intervals.
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        ensure!(
            pair.is_only_holder("lvs1")?,
            "lvs2 took over:\n{}",
            standby.log()
        );
    }
    second.write("all.yaml", &one)?;
    standby.await_log(0, "services=0")?;
    running.await_that("VIPs that do not expire", || {
        let shown = pair
            .lab
            .host("lvs1")?
            .run(&["ip", "addr", "show", "to", VIPS[0]])?;
        Ok(shown.contains("valid_lft forever"))
    })?;
    pair.expect_answers()
}

/// The client sees both all the time, and sends nothing after the split.
#[test]
fn after_a_split_of_the_network_one_director_prevails_and_announces_its_vips() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 62, advertisementMilliseconds: 1000, priorities: [{node: lvs1, priority: 150}]",
    );
    // An interval, the skew time of lvs2, and the time that the agents need on a busy machine.
    let longest_rivalry = Duration::from_millis(1000 + 609 + 500);
    // An announcement is repeated after one second and after two.
    let longest_announcement = Duration::from_millis(3500);
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?.start()?;
    pair.await_holder("lvs1", &first)?;
    let second = pair.agent("lvs2", &documents)?.start()?;
    second.await_log(0, "standby: started")?;
    pair.expect_answers()?;

    DIRECTORS
        .iter()
        .try_for_each(|name| pair.lab.separate(name, "eth0"))?;
    second.await_that("both to hold the VIPs", || {
        Ok(pair.is_holder("lvs1")? && pair.is_holder("lvs2")?)
    })?;
    second.await_that("the client to have learnt lvs2", || pair.is_known("lvs2"))?;
    pair.expect_answers()?;

    DIRECTORS
        .iter()
        .try_for_each(|name| pair.lab.reunite(name, "eth0"))?;
    wait_until("lvs1 to hold the VIPs alone", longest_rivalry, || {
        Ok(pair.is_only_holder("lvs1")?.then_some(()))
    })
    .with_context(|| second.log())?;
    wait_until(
        "the client to have learnt lvs1",
        longest_announcement,
        || Ok(pair.is_known("lvs1")?.then_some(())),
    )
    .with_context(|| first.log())?;
    pair.expect_answers()?;
    ensure!(pair.is_only_holder("lvs1")?);
    Ok(())
}

#[test]
fn a_director_killed_anywhere_while_it_takes_over_has_the_vips_after_a_restart() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 60, advertisementMilliseconds: 500, priorities: [{node: lvs1, priority: 150}]",
    );
    let mortal = Mortal::lay_out(&documents)?;
    let [first, second] = &mortal.agents;
    for point in TAKING_OVER {
        let shown = || format!("killed at `{point}`");
        let agents = [first.clone(), dying(second, point)];
        let [active, standby] = mortal.start(&agents)?;
        let tables = mortal.tables()?;
        active.kill()?;
        standby.await_death().with_context(shown)?;

        let again = second.start()?;

        mortal.expect_second(&again, &tables).with_context(shown)?;
        let other = first.start()?;
        other.await_log(0, "standby: started")?;
        mortal.expect_second(&again, &tables).with_context(shown)?;
        mortal.end([other, again]).with_context(shown)?;
    }
    Ok(())
}

#[test]
fn a_director_killed_anywhere_while_it_hands_over_is_on_standby_after_a_restart() -> Result<()> {
    let settings = "virtualRouterId: 61, advertisementMilliseconds: 500";
    let start = documents(settings);
    let handed_over = documents(&format!("{settings}, standby: [lvs1]"));
    let mortal = Mortal::lay_out(&start)?;
    let [first, second] = &mortal.agents;
    for point in GIVING_UP {
        let shown = || format!("killed at `{point}`");
        let agents = [dying(first, point), second.clone()];
        let [active, standby] = mortal.start(&agents)?;
        let tables = mortal.tables()?;
        for agent in &mortal.agents {
            agent.write("all.yaml", &handed_over)?;
        }
        active.await_death().with_context(shown)?;

        let again = first.start()?;

        mortal
            .expect_second(&standby, &tables)
            .with_context(shown)?;
        mortal.end([again, standby]).with_context(shown)?;
        for agent in &mortal.agents {
            agent.write("all.yaml", &start)?;
        }
    }
    Ok(())
}

#[test]
fn keepalived_replaces_an_agent_that_is_killed() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 51, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let agent = pair.agent("lvs1", &documents)?;
    let running = agent.start()?;
    pair.await_holder("lvs1", &running)?;
    pair.expect_answers()?;
    let keepalived =
        Keepalived::start(pair.lab.host("lvs2")?, &keepalived_configuration(["", ""]))?;
    keepalived.await_that("keepalived on standby for both families", || {
        Ok(keepalived.log().matches("Entering BACKUP STATE").count() >= 2)
    })?;
    pair.await_advertisements("lvs2")?;
    ensure!(
        !keepalived.log().contains("MASTER STATE"),
        "keepalived did not follow the agent:\n{}",
        keepalived.log()
    );

    running.kill()?;
    keepalived.await_that("keepalived to hold the VIPs", || pair.is_holder("lvs2"))?;
    pair.expect_answers()?;
    keepalived.await_that("lvs1 to lose the VIPs", || pair.is_only_holder("lvs2"))?;

    let again = agent.start()?;
    again.await_log(0, "standby")?;
    pair.await_advertisements("lvs1")?;
    ensure!(
        pair.is_only_holder("lvs2")? && !again.log().contains("active:"),
        "the agent did not follow keepalived:\n{}",
        again.log()
    );
    pair.expect_answers()
}

#[test]
fn an_agent_replaces_a_keepalived_that_is_killed() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 51, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let keepalived =
        Keepalived::start(pair.lab.host("lvs2")?, &keepalived_configuration(["", ""]))?;
    keepalived.await_that("keepalived to hold the VIPs", || {
        pair.is_only_holder("lvs2")
    })?;
    let agent = pair.agent("lvs1", &documents)?.start()?;
    agent.await_log(0, "standby")?;
    pair.await_advertisements("lvs1")?;
    ensure!(
        pair.is_only_holder("lvs2")? && !agent.log().contains("active:"),
        "the agent did not follow keepalived:\n{}",
        agent.log()
    );
    pair.expect_answers()?;

    keepalived.kill()?;
    agent.await_that("the agent to hold the VIPs", || pair.is_holder("lvs1"))?;
    pair.expect_answers()
}

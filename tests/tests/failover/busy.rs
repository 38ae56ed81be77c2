//! Directors with thousands of virtual services that change all the time: who has the VIPs does not depend on it.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Agent, Host, virtual_service, wait_until};

use super::{
    DIRECTORS,
    pair::{Pair, documents},
};

/// How many virtual services there are, unless `LAB_SERVICES` says so, and in how many files. A debug build needs a minute for 5,000.
const SERVICES: u16 = 1_000;
const FILES: u16 = 50;
/// The port of the first one.
const FIRST_PORT: u16 = 10_000;
/// One virtual service changes each time this has passed.
const PACE: Duration = Duration::from_millis(100);
const CHANGES: u16 = 100;
/// Who has the VIPs is looked up after so many changes.
const LOOK: u16 = 5;
/// How long a director may take to program all of them.
const TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn a_director_with_many_services_that_change_all_the_time_and_that_restarts_keeps_its_vips()
-> Result<()> {
    let services = match env::var("LAB_SERVICES") {
        Ok(number) => number.parse().context("LAB_SERVICES is not a number")?,
        Err(_) => SERVICES,
    };
    let documents = documents(
        "virtualRouterId: 66, connections: Drop, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let [first, second] = DIRECTORS.map(|name| {
        let agent = pair.agent(name, &documents)?;
        for file in 0..FILES {
            write(&agent, services, file, None)?;
        }
        anyhow::Ok(agent)
    });
    let (first, second) = (first?, second?);
    let [mut active, standby] = pair.start([&first, &second])?;
    for agent in [&first, &second] {
        await_weight(agent.host(), services - 1, 1)?;
    }
    let mark = standby.mark();

    let begin = Instant::now();
    for change in 0..CHANGES {
        let number = change * (services / CHANGES);
        for agent in [&first, &second] {
            write(agent, services, number % FILES, Some(number))?;
        }
        if change % LOOK == 0 {
            ensure!(
                pair.is_only_holder("lvs1")?,
                "the VIPs moved at change {change}:\n{}\n{}",
                active.log(),
                standby.log()
            );
        }
        if change == CHANGES / 2 {
            active.kill()?;
            active = first.start()?;
        }
        let next = begin + PACE * u32::from(change + 1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    println!("{CHANGES} changes in {:.0?}", begin.elapsed());
    for agent in [&first, &second] {
        let last = (CHANGES - 1) * (services / CHANGES);
        await_weight(agent.host(), last, 2)?;
    }
    let log = standby.log();
    let news = log.get(mark..).unwrap_or_default();
    ensure!(!news.contains("active:"), "the VIPs moved:\n{log}");
    ensure!(pair.is_only_holder("lvs1")?);
    pair.expect_answers()
}

/// A large configuration, or a slow disk, takes longer than the VIPs live.
#[test]
fn an_agent_that_is_restarted_holds_its_vips_before_it_has_read_its_configuration() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 67, advertisementMilliseconds: 300, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let file = first.config().join("all.yaml");
    let reader = first.clone().reading(&file);
    let second = pair.agent("lvs2", &documents)?;
    let [active, standby] = pair.start([&reader, &second])?;
    let mark = standby.mark();

    active.kill()?;
    first.remove("all.yaml")?;
    first.host().run(&["mkfifo", &file.to_string_lossy()])?;
    // It waits until the file is opened for writing.
    let mut active = reader.launch()?;
    pair.await_advertisements("lvs2")?;
    ensure!(pair.is_only_holder("lvs1")?, "{}", active.log());
    pair.expect_answers()?;
    ensure!(!active.log().contains("read path"), "{}", active.log());

    let mut pipe = fs::OpenOptions::new().write(true).open(&file)?;
    first.write("all.yaml", &documents)?;
    pipe.write_all(documents.as_bytes())?;
    drop(pipe);
    active.await_state("READY=1")?;
    pair.await_advertisements("lvs2")?;
    ensure!(pair.is_only_holder("lvs1")?, "{}", active.log());
    let log = standby.log();
    let news = log.get(mark..).unwrap_or_default();
    ensure!(!news.contains("active:"), "the VIPs moved:\n{log}");
    pair.expect_answers()
}

#[test]
fn an_agent_that_finds_no_configuration_hands_the_vips_over_that_it_had() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 68, advertisementMilliseconds: 300, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let second = pair.agent("lvs2", &documents)?;
    let [active, _standby] = pair.start([&first, &second])?;

    active.kill()?;
    first.remove("all.yaml")?;
    let active = first.launch()?;
    pair.await_holder("lvs2", &active)?;
    let log = active.log();
    ensure!(
        log.contains("on standby: no configuration is in force"),
        "{log}"
    );
    pair.expect_answers()
}

/// The kernel keeps its VIPs longer than three short intervals.
#[test]
fn an_agent_that_is_restarted_after_another_has_taken_over_leaves_the_vips_there() -> Result<()> {
    let documents = documents(
        "virtualRouterId: 69, advertisementMilliseconds: 100, priorities: [{node: lvs1, priority: 150}]",
    );
    let pair = Pair::lay_out(&documents)?;
    let first = pair.agent("lvs1", &documents)?;
    let second = pair.agent("lvs2", &documents)?;
    let [active, standby] = pair.start([&first, &second])?;
    pair.await_advertisements("lvs2")?;

    active.kill()?;
    standby.await_that("lvs2 to take the VIPs over", || pair.is_holder("lvs2"))?;
    let mark = standby.mark();
    ensure!(pair.is_holder("lvs1")?, "its VIPs have expired already");
    let restarted = first.launch()?;
    restarted.await_log(0, "has taken over")?;
    pair.await_holder("lvs2", &restarted)?;
    pair.await_advertisements("lvs1")?;
    ensure!(pair.is_only_holder("lvs2")?, "{}", restarted.log());
    let log = standby.log();
    let news = log.get(mark..).unwrap_or_default();
    ensure!(!news.contains("standby:"), "the VIPs moved:\n{log}");
    pair.expect_answers()
}

/// Writes a file with every fiftieth of the virtual services. `changed` has another weight than the others.
fn write(agent: &Agent, services: u16, file: u16, changed: Option<u16>) -> Result<()> {
    let mut text = String::new();
    for number in (file..services).step_by(usize::from(FILES)) {
        let weight = if changed == Some(number) { 2 } else { 1 };
        let spec = format!(
            "directorGroup: edge, addresses: [10.0.0.100], forwarding: DR, scheduler: {{name: rr}}, \
             ports: [{{port: {}}}], backends: [{{address: 10.0.0.21, weight: {weight}}}]",
            FIRST_PORT + number
        );
        write!(
            text,
            "{}",
            virtual_service(&format!("many-{number}"), &spec)
        )?;
    }
    agent.write(&format!("many-{file}.yaml"), &text)
}

/// Waits until a virtual service has its real server with this weight in the kernel.
fn await_weight(host: &Host, number: u16, weight: u16) -> Result<()> {
    let service = format!("10.0.0.100:{}", FIRST_PORT + number);
    wait_until(&format!("{service} with weight {weight}"), TIMEOUT, || {
        let shown = host
            .run(&["ipvsadm", "-Ln", "-t", &service])
            .unwrap_or_default();
        let mut servers = shown.lines().filter(|line| line.contains("Route"));
        let has_weight = |line: &str| line.split_whitespace().nth(3) == Some(&weight.to_string());
        Ok(servers.any(has_weight).then_some(()))
    })
}

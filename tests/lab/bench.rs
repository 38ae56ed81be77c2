//! Compares ways to program and read the kernel's table: ipvsadm, keepalived, the agent, and the floor.
//!
//! Every measurement has a network namespace of its own: a removed destination stays for two minutes in a list of its
//! namespace, which the kernel searches for every new one. In a shared namespace this would make the next measurement
//! ten times slower.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Topology, wait_until};
use nix::sys::signal::Signal;

mod configurations;
pub(crate) mod connections;
pub(crate) mod failover;
mod floor;
pub(crate) mod latency;
mod measure;
mod read;
mod table;

pub(crate) use {measure::measured, read::read_table};

use configurations::Load;
use table::{Row, Table};

/// How long the agent is idle while the cost of its table check is measured.
const IDLE: Duration = Duration::from_secs(60);

/// Runs every measurement, each in a new network namespace.
pub(crate) fn run() -> Result<()> {
    lab::require_ipvs()?;
    let bench = Bench {
        agent: PathBuf::from(env::var_os("LVS_AGENT").context("LVS_AGENT names no lvs-agent")?),
        scratch: PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into())),
    };
    let growth = [100, 1_000, 10_000].map(|services| Load {
        services,
        destinations: 10,
    });
    let mut tables = Vec::new();
    for load in growth.iter().skip(1) {
        let table = bench.compare(*load)?;
        print!("{table}");
        tables.push(table);
    }
    let costs: Vec<(Load, Duration)> = growth
        .iter()
        .map(|load| Ok((*load, bench.agent_programming(*load)?)))
        .collect::<Result<_>>()?;
    println!("{}", table::growth(&costs));
    println!("{}", table::verdict(&tables)?);
    Ok(())
}

struct Bench {
    agent: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    /// Measures all programs with one load.
    fn compare(&self, load: Load) -> Result<Table> {
        let files = load.write(&self.scratch)?;
        eprintln!("bench: {load}: the floor");
        let floor = self.fresh(load, |host| host.in_namespace(|| floor::program(load))?)?;
        eprintln!("bench: {load}: lvs-agent");
        let mut rows = self.agent(load, &files.yaml)?;
        eprintln!("bench: {load}: keepalived");
        let keepalived = self.fresh(load, |host| self.keepalived(host, load, &files.keepalived))?;
        eprintln!("bench: {load}: ipvsadm -R");
        let ipvsadm = self.fresh(load, |host| self.ipvsadm(host, load, &files.ipvsadm))?;
        let mut table = vec![
            Row::timed("floor: prepared bytes, 500 requests per send", floor),
            ipvsadm,
            keepalived,
        ];
        table.append(&mut rows);
        Ok(Table { load, rows: table })
    }

    /// Runs one measurement on a machine of its own.
    fn fresh<T>(&self, _load: Load, measure: impl FnOnce(&Host) -> Result<T>) -> Result<T> {
        let topology: Topology = configurations::TOPOLOGY.parse()?;
        let lab = Lab::lay_out(&topology)?;
        let host = lab.host("director")?;
        host.run(&["ip", "link", "add", "wide0", "type", "dummy"])?;
        host.run(&["ip", "addr", "add", "10.0.0.1/8", "dev", "wide0"])?;
        host.run(&["ip", "link", "set", "wide0", "up"])?;
        measure(host)
    }

    fn ipvsadm(&self, host: &Host, load: Load, rules: &Path) -> Result<Row> {
        let mut command = measure::command(host, Path::new("ipvsadm"), &["-R"])?;
        command.stdin(std::fs::File::open(rules)?);
        let usage = measure::run(command)?;
        expect_table(host, load)?;
        Ok(Row::timed("ipvsadm -R", usage.took).with_memory(usage.peak_kib))
    }

    fn keepalived(&self, host: &Host, load: Load, config: &Path) -> Result<Row> {
        let arguments = [
            "--dont-fork",
            "--check",
            "--log-console",
            "--pid",
            "/run/keepalived-bench.pid",
        ];
        let mut command = host.command("keepalived");
        command
            .args(arguments)
            .args([
                "--checkers_pid",
                "/run/keepalived-checkers-bench.pid",
                "--use-file",
            ])
            .arg(config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let mut process = host.spawn(&mut command)?;
        let took = wait_until("keepalived's table", Duration::from_secs(900), || {
            let full =
                floor::count_services(host)? == load.services && floor::is_last_full(host, load)?;
            Ok(full.then(|| started.elapsed()))
        })?;
        let peak = measure::peak_of_tree(process.id())?;
        process.stop(Duration::from_secs(300))?;
        Ok(Row::timed("keepalived, start to full table", took).with_memory(peak))
    }

    /// Measures the agent: the whole run, its parts, a second pass, reading alone, one changed weight, and the idle
    /// time.
    fn agent(&self, load: Load, yaml: &Path) -> Result<Vec<Row>> {
        self.fresh(load, |host| {
            let state = self.scratch.join(format!("bench-state-{}", load.services));
            let first = self.agent_once(host, yaml, &state)?;
            expect_table(host, load)?;
            let second = self.agent_once(host, yaml, &state)?;
            let mut rows = vec![
                Row::timed(
                    "lvs-agent, whole run (read YAML, plan, program)",
                    first.took,
                )
                .with_memory(first.peak_kib),
                Row::timed("lvs-agent, its programming phase", first.execute),
                Row::timed("lvs-agent, second run with nothing to do", second.took)
                    .with_memory(second.peak_kib),
            ];
            rows.append(&mut read::measure(host, load)?);
            rows.append(&mut self.agent_running(host, load, yaml, &state)?);
            Ok(rows)
        })
    }

    fn agent_programming(&self, load: Load) -> Result<Duration> {
        let files = load.write(&self.scratch)?;
        self.fresh(load, |host| {
            let state = self.scratch.join(format!("bench-growth-{}", load.services));
            Ok(self.agent_once(host, &files.yaml, &state)?.execute)
        })
    }

    fn agent_once(&self, host: &Host, yaml: &Path, state: &Path) -> Result<AgentRun> {
        let arguments = self.agent_arguments(yaml, state);
        let mut command = measure::command(host, &self.agent, &["run", "--once"])?;
        command.args(&arguments).args(["--log-format", "json"]);
        let usage = measure::run(command)?;
        Ok(AgentRun {
            took: usage.took,
            execute: measure::logged_milliseconds(&usage.stderr, "execute_ms"),
            peak_kib: usage.peak_kib,
        })
    }

    fn agent_arguments(&self, yaml: &Path, state: &Path) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> = vec!["--node-name".into(), "director".into()];
        arguments.extend([
            "--config".into(),
            yaml.into(),
            "--state-dir".into(),
            state.into(),
        ]);
        arguments
    }

    fn agent_running(
        &self,
        host: &Host,
        load: Load,
        yaml: &Path,
        state: &Path,
    ) -> Result<Vec<Row>> {
        let mut command = host.command(&self.agent);
        command
            .arg("run")
            .args(self.agent_arguments(yaml, state))
            .args(["--log", "info"]);
        let log = self.scratch.join("bench-agent.log");
        command.stderr(std::fs::File::create(&log)?);
        let mut process = host.spawn(&mut command)?;
        wait_until("the agent to be ready", Duration::from_secs(120), || {
            Ok(std::fs::read_to_string(&log)?
                .contains("ready")
                .then_some(()))
        })?;
        let changed = load.write_with_one_changed_weight(yaml)?;
        let started = Instant::now();
        std::fs::rename(changed, yaml)?;
        let took = wait_until("the changed weight", Duration::from_secs(120), || {
            Ok(floor::has_changed_weight(host, load)?.then(|| started.elapsed()))
        })?;
        let agent = measure::only_child_or_self(process.id())?;
        let (cpu, elapsed) = (measure::cpu_time(agent)?, Instant::now());
        wait_until("the idle time to pass", IDLE * 2, || {
            Ok((elapsed.elapsed() >= IDLE).then_some(()))
        })?;
        let share =
            (measure::cpu_time(agent)? - cpu).as_secs_f64() / elapsed.elapsed().as_secs_f64();
        let peak = measure::peak_of_tree(process.id())?;
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(30))?;
        Ok(vec![
            Row::timed("lvs-agent, one changed weight: file saved -> kernel", took)
                .with_memory(peak),
            Row::share("lvs-agent, idle CPU with its check of the table", share),
        ])
    }
}

struct AgentRun {
    took: Duration,
    execute: Duration,
    peak_kib: u64,
}

fn expect_table(host: &Host, load: Load) -> Result<()> {
    let services = floor::count_services(host)?;
    ensure!(
        services == load.services,
        "{services} services are in the table, not {}",
        load.services
    );
    ensure!(
        floor::is_last_full(host, load)?,
        "the last service does not have its {} destinations",
        load.destinations
    );
    Ok(())
}

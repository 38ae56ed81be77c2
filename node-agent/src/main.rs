//! `lvs-agent`: makes the kernel of one machine match its VirtualServices, and keeps it so.
//!
//! Tasks: the loop of `run` owns everything; beside it run one task that carries route netlink, short ones that probe for
//! and announce VIPs, those of the API server (`source::cluster`), and one that answers `--health-address`. Stopping at any point is safe, since the next start takes the same path as any pass.

mod cli;
mod fault;
mod health;
mod kernel;
mod pass;
mod report;
mod run;
mod source;
mod state_dir;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use cli::{Cli, Command, LogFormat, Machine, Output, SourceArgs};
use health::Health;
use lvs_model::{NodeName, Rejection, Severity};
use owo_colors::{OwoColorize, Stream};
use pass::{Agent, Extent};
#[cfg(feature = "kube")]
use source::Cluster;
use source::Source;
use state_dir::StateDir;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    keep_memory();
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!(
                "{} {error:#}",
                "lvs-agent:".if_supports_color(Stream::Stderr, |text| text.red())
            );
            ExitCode::from(2)
        }
    }
}

/// Makes glibc's malloc keep large blocks that were freed, for the next part of the pass to use.
///
/// Giving them back and taking fresh ones costs a page fault for every 4 KiB, more than what is done with the memory.
/// Freeing a block of the largest size that is looked at raises both limits (mallopt(3), `M_MMAP_THRESHOLD`); the block
/// itself is never touched. With another C library this does nothing.
fn keep_memory() {
    const LARGEST_MMAP_THRESHOLD: usize = 32 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        LARGEST_MMAP_THRESHOLD - (64 << 10),
    )));
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    init_log(&cli)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(execute(cli.command))
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run {
            machine,
            source,
            once,
            health_address,
        } => {
            require_net_admin()?;
            let mut agent =
                Agent::new(node_name(&machine)?, StateDir::lock(&machine.state_dir)?).await?;
            let mut source = open(source, &machine).await?;
            if once {
                return Ok(if run::once(&mut agent, &mut source).await? {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(1)
                });
            }
            let health = Arc::new(Health::new());
            if let Some(address) = health_address {
                health::serve(address, Arc::clone(&health)).await?;
            }
            run::run(&mut agent, &mut source, health).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plan {
            machine,
            source,
            output,
        } => plan(&machine, &mut open(source, &machine).await?, output).await,
        Command::Show { machine, output } => show(&machine, output).await,
        Command::Cleanup { machine, dry_run } => cleanup(&machine, dry_run).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "lvs-agent", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The source that the command line names.
#[cfg(feature = "kube")]
async fn open(args: SourceArgs, machine: &Machine) -> anyhow::Result<Source> {
    if !args.kube {
        return Ok(Source::of_files(args.config));
    }
    let cluster = Cluster::new(node_name(machine)?, args.kubeconfig, args.context).await?;
    Ok(Source::Cluster(Box::new(cluster)))
}

/// The source that the command line names.
#[cfg(not(feature = "kube"))]
async fn open(args: SourceArgs, _: &Machine) -> anyhow::Result<Source> {
    Ok(std::future::ready(Source::of_files(args.config)).await)
}

async fn plan(machine: &Machine, source: &mut Source, output: Output) -> anyhow::Result<ExitCode> {
    let mut agent = reader(machine).await?;
    source.list().await?;
    let snapshot = source.read(agent.state())?;
    let prepared = agent.prepare(&snapshot.view, Extent::Whole).await?;
    let rejections: Vec<Rejection> = snapshot
        .rejections
        .iter()
        .chain(&prepared.rejections)
        .cloned()
        .collect();
    match output {
        Output::Json => print_json(&report::PlanReport::new(
            agent.node.as_str(),
            &prepared,
            &rejections,
        ))?,
        Output::Text => {
            write!(
                anstream::stdout().lock(),
                "{}",
                report::dim_comments(&prepared.plan.to_string())
            )?;
            for line in rejections
                .iter()
                .map(|rejection| format!("error: {rejection}"))
            {
                anstream::eprintln!(
                    "{}",
                    line.if_supports_color(Stream::Stderr, |text| text.red())
                );
            }
            for problem in &prepared.problems {
                anstream::eprintln!(
                    "{}",
                    problem.if_supports_color(Stream::Stderr, |text| text.yellow())
                );
            }
        }
    }
    let is_faulty = prepared
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    if is_faulty || !rejections.is_empty() {
        return Ok(ExitCode::from(2));
    }
    Ok(ExitCode::from(u8::from(!prepared.plan.is_empty())))
}

async fn show(machine: &Machine, output: Output) -> anyhow::Result<ExitCode> {
    let mut agent = reader(machine).await?;
    let shown = agent.show().await?;
    match output {
        Output::Json => print_json(&shown)?,
        Output::Text => write!(io::stdout().lock(), "{shown}")?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn cleanup(machine: &Machine, dry_run: bool) -> anyhow::Result<ExitCode> {
    if dry_run {
        let prepared = reader(machine).await?.prepare_cleanup().await?;
        write!(io::stdout().lock(), "{}", prepared.plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    require_net_admin()?;
    let mut agent = Agent::new(node_name(machine)?, StateDir::lock(&machine.state_dir)?).await?;
    let prepared = agent.prepare_cleanup().await?;
    let applied = agent.apply(prepared).await?;
    write!(io::stdout().lock(), "{}", applied.prepared.plan)?;
    for line in report::not_done(&applied) {
        eprintln!("{line}");
    }
    Ok(if applied.outcomes.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// An agent that changes nothing and so needs no lock.
async fn reader(machine: &Machine) -> anyhow::Result<Agent> {
    require_net_admin()?;
    let state = StateDir::read_only(&machine.state_dir)?;
    Ok(Agent::new(node_name(machine)?, state).await?)
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

fn node_name(machine: &Machine) -> anyhow::Result<NodeName> {
    if let Some(name) = &machine.node_name {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().context("reading the host name")?;
    let host = host.to_string_lossy().to_lowercase();
    host.parse()
        .with_context(|| format!("the host name '{host}' cannot name a machine; give --node-name"))
}

/// Says at once what would otherwise fail at every step.
fn require_net_admin() -> anyhow::Result<()> {
    if !caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_NET_ADMIN,
    )? {
        bail!(
            "lvs-agent needs CAP_NET_ADMIN: run it as root, or grant it (AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)"
        );
    }
    if !Path::new("/proc/sys/net").exists() {
        bail!("lvs-agent needs /proc: mount it");
    }
    Ok(())
}

fn init_log(cli: &Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log).with_context(|| format!("--log '{}'", cli.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Text => log
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

//! What each command of `lvs-agent` does.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::CommandFactory;
use lvs_model::{NodeName, Rejection, Severity};
use lvs_runtime::http;
use owo_colors::{OwoColorize, Stream};

#[cfg(feature = "kube")]
use crate::source::Cluster;
use crate::{
    cli::{Cli, Command, Machine, Output, SourceArgs},
    pass::{Agent, Extent},
    probes::Probes,
    report, run,
    source::Source,
    state_dir::StateDir,
};

/// Executes a command and returns its exit status.
///
/// # Errors
/// When it could not be executed at all: exit status 2.
pub async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run {
            machine,
            source,
            once,
            http_address,
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
            let probes = Arc::new(Probes::new());
            if let Some(address) = http_address {
                http::serve(address, Arc::clone(&probes)).await?;
            }
            run::run(&mut agent, &mut source, probes).await?;
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
    let config = lvs_runtime::client::config(args.kubeconfig, args.context).await?;
    let cluster = Cluster::new(node_name(machine)?, kube::Client::try_from(config)?);
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

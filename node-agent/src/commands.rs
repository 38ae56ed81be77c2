//! What each command of `lvs-agent` does.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::CommandFactory;
use lvs_kernel::Kernel;
use lvs_model::{AddressKey, Holding, NodeName, Plan, Severity, Step, report::PlanReport};
use lvs_runtime::http;
use owo_colors::{OwoColorize, Stream};

#[cfg(feature = "kube")]
use crate::source::api::{ApiSource, LeaseArgs};
use crate::{
    cli::{Cli, Command, Machine, Output, SourceArgs},
    essentials::essentials,
    hand_over,
    holder::{Holder, RouterMetrics},
    pass::{Agent, HoldVips, Scope},
    probes::Probes,
    report, run,
    source::Source,
    state_dir::StateDir,
};

/// Executes a command and returns its exit status.
///
/// # Errors
/// If it could not be executed at all; the exit status is then 2.
pub async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run {
            machine,
            source,
            once,
            http_address,
        } => run(&machine, source, once, http_address).await,
        Command::Plan {
            machine,
            source,
            output,
        } => plan(&machine, &mut open(source, &machine).await?, output).await,
        Command::Show { machine, output } => show(&machine, output).await,
        Command::HandOver { machine, end: true } => hand_over::end(&machine.state_dir),
        Command::HandOver {
            machine,
            end: false,
        } => hand_over::begin(&machine.state_dir).await,
        Command::Cleanup { machine, dry_run } => cleanup(&machine, dry_run).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "lvs-agent", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(
    machine: &Machine,
    source: SourceArgs,
    once: bool,
    http_address: Option<SocketAddr>,
) -> anyhow::Result<ExitCode> {
    require_net_admin()?;
    let node = node_name(machine)?;
    let state = StateDir::lock(&machine.state_dir)?;
    let routers = RouterMetrics::default();
    let mut holder = Holder::start(routers.clone()).await?;
    if !once {
        let is_on_standby = state.is_on_standby();
        holder.resume(state.load_routers(), is_on_standby).await;
    }
    let mut agent = Agent::new(Kernel::connect()?, holder, state)?;
    let mut source = open(source, machine).await?;
    agent.set_essentials(essentials(source.api_server()));
    if once {
        let is_done = run::once(&node, &mut agent, &mut source).await?;
        return Ok(ExitCode::from(u8::from(!is_done)));
    }
    let probes = Arc::new(Probes::new(&routers));
    if let Some(address) = http_address {
        http::serve(address, Arc::clone(&probes))?;
    }
    run::run(&node, &mut agent, &mut source, probes).await?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the source that the command line selects.
#[cfg(feature = "kube")]
async fn open(args: SourceArgs, machine: &Machine) -> anyhow::Result<Source> {
    if !args.kube {
        return Ok(Source::of_files(args.config));
    }
    let config = lvs_runtime::client::config(args.kubeconfig, args.context).await?;
    let client = kube::Client::try_from(config.clone())?;
    let lease = LeaseArgs {
        config,
        namespace: args.lease_namespace,
    };
    let source = ApiSource::new(node_name(machine)?, client, lease);
    Ok(Source::Api(Box::new(source)))
}

/// Opens the source that the command line selects.
#[cfg(not(feature = "kube"))]
async fn open(args: SourceArgs, _: &Machine) -> anyhow::Result<Source> {
    Ok(std::future::ready(Source::of_files(args.config)).await)
}

async fn plan(machine: &Machine, source: &mut Source, output: Output) -> anyhow::Result<ExitCode> {
    let node = node_name(machine)?;
    let mut agent = read_only_agent(machine)?;
    agent.set_essentials(essentials(source.api_server()));
    source.list().await?;
    source.read(agent.state())?;
    let snapshot = source.snapshot().context("there is no configuration")?;
    let prepared = agent
        .prepare(&node, &snapshot.view, Scope::Everything)
        .await?;
    let rejections = snapshot.rejections.iter().chain(&prepared.rejections);
    let report = prepared.report(&node, rejections.cloned().collect());
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print_plan(&report)?,
    }
    let mut problems = report.problems.iter();
    let is_faulty = problems.any(|problem| problem.severity == Severity::Error);
    if is_faulty || !report.rejections.is_empty() {
        return Ok(ExitCode::from(2));
    }
    Ok(ExitCode::from(u8::from(!report.steps.is_empty())))
}

fn print_plan(report: &PlanReport) -> anyhow::Result<()> {
    let text = report::dim_comments(&report.to_string());
    write!(anstream::stdout().lock(), "{text}")?;
    for rejection in &report.rejections {
        let line = format!("error: {rejection}");
        let line = line.if_supports_color(Stream::Stderr, |text| text.red());
        anstream::eprintln!("{line}");
    }
    for problem in &report.problems {
        let line = problem.if_supports_color(Stream::Stderr, |text| text.yellow());
        anstream::eprintln!("{line}");
    }
    Ok(())
}

async fn show(machine: &Machine, output: Output) -> anyhow::Result<ExitCode> {
    let state = read_only_agent(machine)?.show(shown_name(machine)).await?;
    match output {
        Output::Json => print_json(&state)?,
        Output::Text => write!(io::stdout().lock(), "{state}")?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn cleanup(machine: &Machine, dry_run: bool) -> anyhow::Result<ExitCode> {
    if dry_run {
        let prepared = read_only_agent(machine)?.prepare_cleanup().await?;
        print_steps(&prepared.steps())?;
        return Ok(ExitCode::SUCCESS);
    }
    require_net_admin()?;
    let state = StateDir::lock(&machine.state_dir)?;
    let mut agent = Agent::new(
        Kernel::connect()?,
        Holder::start(RouterMetrics::default()).await?,
        state,
    )?;
    let prepared = agent.prepare_cleanup().await?;
    let (steps, holding) = (prepared.steps(), prepared.holding.clone());
    let applied = agent.apply(prepared).await?;
    let vips = agent.holder().settled().await;
    let released = holding.into_iter().flat_map(|holding| holding.release);
    agent.forget_vips(released.filter(|key| !vips.is_unreleased(key)))?;
    print_steps(&steps)?;
    let undone: Vec<String> = report::undone(&applied).map(|(_, text)| text).collect();
    let failures: Vec<String> = undone.into_iter().chain(vips.failures()).collect();
    for line in &failures {
        eprintln!("{line}");
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

fn print_steps(steps: &[Step]) -> anyhow::Result<()> {
    let steps = steps.to_vec();
    write!(io::stdout().lock(), "{}", Plan { steps })?;
    Ok(())
}

/// Returns an agent that changes nothing, and so needs neither the lock nor a holder.
fn read_only_agent(machine: &Machine) -> anyhow::Result<Agent<Kernel, NoHolder>> {
    require_net_admin()?;
    let state = StateDir::read_only(&machine.state_dir)?;
    Ok(Agent::new(Kernel::connect()?, NoHolder, state)?)
}

/// Ignores the VIPs it is given.
struct NoHolder;

impl HoldVips for NoHolder {
    async fn release(&mut self, _: Holding) {}

    fn hand_over(&mut self, _: Holding) {}

    fn failed(&self) -> Vec<AddressKey> {
        Vec::new()
    }
}

/// The name that `show` prints: the given one, or the host name, even if that is no valid node name.
fn shown_name(machine: &Machine) -> String {
    machine.node_name.as_ref().map_or_else(
        || {
            let host = nix::unistd::gethostname().unwrap_or_default();
            host.to_string_lossy().into_owned()
        },
        ToString::to_string,
    )
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
    host.parse().with_context(|| {
        format!("the host name '{host}' is not a valid node name; give --node-name")
    })
}

/// Fails if the process lacks what every step needs: `CAP_NET_ADMIN` and /proc.
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

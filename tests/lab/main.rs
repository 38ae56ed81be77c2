//! `lab`: runs commands under a kernel with IPVS, lays out networks, makes traffic, and starts Kubernetes control planes.

mod apart;
mod bench;
mod demo;
mod pair;
mod signals;
mod standing;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use lab::{
    Boot, Client, ControlPlane, ControlPlaneSpec, Exit, Guest, Lab, ProgramSet, Protocol,
    Responder, Topology, wait_until,
};
use nix::sys::signalfd::SignalFd;

use crate::signals::{FOREVER, hold_signals};

#[derive(Parser)]
#[command(name = "lab", version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a command under a kernel with IPVS and returns its exit status.
    Run(Run),
    /// Lays out a topology and runs a command that can use its namespaces; for use under `lab run`.
    LayOut(LayOut),
    /// Boots a kernel with IPVS, lays out a topology and starts a shell.
    Try(Try),
    /// Answers requests until it is ended.
    Respond(Respond),
    /// Sends requests to a responder and prints the answers.
    Fetch(Fetch),
    /// Demonstrates the three forwarding methods with real packets.
    Demo,
    /// Demonstrates a failover: the power of a director is cut while clients use it.
    DemoFailover,
    /// Demonstrates the operator: a control plane, the controller, and machines with agents.
    DemoCluster,
    /// Starts a Kubernetes control plane, prints the path of its kubeconfig, and ends it on Ctrl-C.
    ControlPlane(StartControlPlane),
    /// Starts a cluster of three nodes with the operator, which runs until `cluster-down`, and prints how to use it.
    ClusterUp,
    /// Ends the cluster of `cluster-up`.
    ClusterDown,
    /// The process that owns the cluster of `cluster-up`.
    #[command(hide = true)]
    ClusterRun,
    /// Compares ways to program the kernel; for use under `lab run`.
    BenchProgram,
    /// Compares how long a changed EndpointSlice takes to reach the kernel, with the operator and with kube-proxy.
    BenchLatency(bench::latency::Options),
    /// Compares how long clients get no answer when a director fails, with the agent and with keepalived.
    BenchFailover(bench::failover::FailoverOptions),
    /// Counts the connections that go on when a director fails and a real server is replaced; for use under `lab run`.
    BenchConnections(bench::connections::ConnectionOptions),
    /// Runs a command and prints its peak memory on standard error.
    #[command(hide = true)]
    Measured {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Reads the IPVS table and writes how long that took to standard error.
    #[command(hide = true)]
    ReadTable {
        /// Keeps all of it until the end.
        #[arg(long)]
        keep: bool,
    },
    /// In a guest: runs the scripts that the host sends, until the guest ends.
    #[command(hide = true)]
    RunScripts,
    /// In a guest: runs the machines outside the cluster.
    #[command(hide = true)]
    Machines,
    /// The first process of a guest.
    #[command(hide = true)]
    GuestInit {
        /// The directory of the run.
        directory: PathBuf,
        /// Arguments that the kernel appends.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    },
}

#[derive(Args)]
struct GuestOptions {
    /// Memory of the guest, in the kernel's notation.
    #[arg(long, default_value = "512M")]
    memory: String,
    /// A kernel module that the command needs.
    #[arg(long = "need", value_name = "MODULE")]
    needs: Vec<String>,
    /// Seconds after which the guest is ended.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    guest: GuestOptions,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct LayOut {
    /// The prefix of the namespaces' names.
    #[arg(long, default_value = "")]
    prefix: String,
    /// The topology, a YAML file.
    topology: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct Try {
    #[command(flatten)]
    guest: GuestOptions,
    /// The topology, a YAML file.
    topology: PathBuf,
}

#[derive(Args)]
struct Respond {
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// The port, for TCP and UDP.
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// The only address to answer on, which need not exist yet; every address by default.
    #[arg(long)]
    address: Option<IpAddr>,
}

#[derive(Args)]
struct Fetch {
    /// The protocol.
    #[arg(long, value_enum, default_value_t)]
    over: Protocol,
    /// How many requests to send, each over a new connection.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Prints the number of answers of each server instead of the answers.
    #[arg(long)]
    tally: bool,
    /// The address to send from.
    #[arg(long)]
    source: Option<IpAddr>,
    /// The port to send from.
    #[arg(long, default_value_t = 0)]
    source_port: u16,
    /// Seconds to wait for each answer.
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    timeout: u64,
    /// The address of the server.
    server: SocketAddr,
}

#[derive(Args)]
struct StartControlPlane {
    /// The address of this machine on which the API server listens.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// A user besides the administrator, with its groups; it gets a kubeconfig.
    #[arg(long = "user", value_name = "NAME[=GROUP,…]")]
    users: Vec<String>,
    /// Starts the controller manager and the scheduler too.
    #[arg(long)]
    controllers: bool,
}

fn main() -> ExitCode {
    match perform(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(EXIT_LAB_FAILED)
        }
    }
}

/// The exit status if the lab, not the command in it, has failed.
const EXIT_LAB_FAILED: u8 = 125;

fn perform(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run(run) => run.perform(),
        Verb::LayOut(lay_out) => lay_out.perform(),
        Verb::Try(attempt) => attempt.perform(),
        Verb::Respond(respond) => respond.perform(),
        Verb::Fetch(fetch) => fetch.perform(),
        Verb::Demo => demo::run().map(|()| ExitCode::SUCCESS),
        Verb::DemoFailover => apart::run(demo::failover::run),
        Verb::DemoCluster => demo::cluster::run().map(|()| ExitCode::SUCCESS),
        Verb::ControlPlane(start) => start.perform(),
        Verb::BenchLatency(options) => bench::latency::run(&options).map(|()| ExitCode::SUCCESS),
        Verb::BenchFailover(options) => apart::run(|| bench::failover::run(&options)),
        Verb::BenchConnections(options) => {
            bench::connections::run(&options).map(|()| ExitCode::SUCCESS)
        }
        Verb::BenchProgram => bench::run().map(|()| ExitCode::SUCCESS),
        Verb::Measured { command } => {
            let (program, arguments) = command.split_first().context("there is no command")?;
            exit_code(&Exit::Code(bench::measured(program, arguments)?))
        }
        Verb::ReadTable { keep } => bench::read_table(keep).map(|()| ExitCode::SUCCESS),
        Verb::ClusterUp => standing::up().map(|()| ExitCode::SUCCESS),
        Verb::ClusterDown => standing::down().map(|()| ExitCode::SUCCESS),
        Verb::ClusterRun => standing::run().map(|()| ExitCode::SUCCESS),
        Verb::RunScripts => lab::run_scripts().map(|()| ExitCode::SUCCESS),
        Verb::Machines => lab::run_machines().map(|()| ExitCode::SUCCESS),
        Verb::GuestInit {
            directory,
            ignored: _,
        } => lab::run_as_init(&directory).map(|()| ExitCode::SUCCESS),
    }
}

impl GuestOptions {
    fn boot(self, program: impl Into<String>) -> Boot {
        let boot = Boot::new(program)
            .memory(self.memory)
            .timeout(Duration::from_secs(self.timeout));
        self.needs.into_iter().fold(boot, Boot::need)
    }
}

impl Run {
    fn perform(self) -> Result<ExitCode> {
        let (program, arguments) = self
            .command
            .split_first()
            .context("there is no command to run")?;
        let signals = hold_signals()?;
        let guest = self
            .guest
            .boot(program)
            .args(arguments)
            .start_into(io::stdout(), io::stderr())?;
        await_end(guest, &signals)
    }
}

/// Waits for the end of the guest; ends it on a signal.
fn await_end(guest: Guest, signals: &SignalFd) -> Result<ExitCode> {
    let signal = wait_until("the end of the guest", FOREVER, || {
        if guest.is_finished() {
            return Ok(Some(None));
        }
        Ok(signals
            .read_signal()
            .context("could not read the signals")?
            .map(Some))
    })?;
    let exit = match signal {
        None => guest.wait()?.exit,
        Some(received) => {
            guest.pull_the_plug();
            Exit::Signal(i32::try_from(received.ssi_signo).context("a signal out of range")?)
        }
    };
    exit_code(&exit)
}

fn exit_code(exit: &Exit) -> Result<ExitCode> {
    let code = u8::try_from(exit.code())
        .with_context(|| format!("the exit status {} is out of range", exit.code()))?;
    Ok(ExitCode::from(code))
}

impl LayOut {
    fn perform(self) -> Result<ExitCode> {
        let _lab = Lab::lay_out_as(&self.prefix, &Topology::read(&self.topology)?)?;
        let (program, arguments) = self
            .command
            .split_first()
            .context("there is no command to run")?;
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| format!("could not start `{program}`"))?;
        match status.code() {
            Some(code) => exit_code(&Exit::Code(code)),
            None => bail!("`{program}` ended with {status}"),
        }
    }
}

impl Try {
    fn perform(self) -> Result<ExitCode> {
        // Parsed here too, so that a mistake is reported before anything boots.
        let topology = Topology::read(&self.topology)?;
        let names: Vec<&str> = topology.hosts.keys().map(String::as_str).collect();
        eprintln!(
            "lab: hosts {}; enter one with `ip netns exec NAME COMMAND`; `exit` ends the lab",
            names.join(", ")
        );
        let lab = std::env::current_exe().context("could not find the path of this program")?;
        let lab = lab
            .to_str()
            .context("the path of the lab is not text")?
            .to_owned();
        let topology = self
            .topology
            .to_str()
            .context("the path of the topology is not text")?
            .to_owned();
        let arguments = [
            "lay-out".to_owned(),
            topology,
            "--".to_owned(),
            "bash".to_owned(),
        ];
        let guest = self.guest.boot(lab).args(arguments).interactive().start()?;
        exit_code(&guest.wait()?.exit)
    }
}

impl Respond {
    fn perform(self) -> Result<ExitCode> {
        let responder = match self.address {
            None => Responder::on_every_address(&self.name, self.port)?,
            Some(address) => {
                let address = SocketAddr::new(address, self.port);
                Responder::start(
                    &self.name,
                    [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, address)),
                )?
            }
        };
        responder.run_forever();
        Ok(ExitCode::SUCCESS)
    }
}

impl Fetch {
    fn perform(self) -> Result<ExitCode> {
        let mut client = Client::here()
            .over(self.over)
            .timeout(Duration::from_secs(self.timeout))
            .source_port(self.source_port);
        if let Some(source) = self.source {
            client = client.source(source);
        }
        if self.tally {
            for (server, count) in client.fetch_many(self.server, self.count)? {
                println!("{count} {server}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        for _ in 0..self.count {
            println!("{}", client.fetch(self.server)?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl StartControlPlane {
    fn perform(self) -> Result<ExitCode> {
        let signals = hold_signals()?;
        let mut control_plane = ControlPlane::start_as(&self.spec())?;
        if self.controllers {
            control_plane.start_controller_manager()?;
            control_plane.start_scheduler()?;
        }
        println!("{}", control_plane.kubeconfig().display());
        for user in self.spec().users.keys() {
            println!("{}", control_plane.kubeconfig_of(user)?.display());
        }
        eprintln!(
            "lab: the API server listens on {}; `export KUBECONFIG={}` elsewhere, and end it with Ctrl-C here",
            control_plane.address(),
            control_plane.kubeconfig().display()
        );
        wait_until("a signal", FOREVER, || {
            control_plane.check()?;
            signals.read_signal().context("could not read the signals")
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn spec(&self) -> ControlPlaneSpec {
        let spec = ControlPlaneSpec {
            address: self.address,
            users: BTreeMap::new(),
            programs: if self.controllers {
                ProgramSet::Cluster
            } else {
                ProgramSet::Api
            },
        };
        self.users.iter().fold(spec, |spec, user| {
            let (name, groups) = user.split_once('=').unwrap_or((user, ""));
            let groups: Vec<&str> = groups
                .split(',')
                .filter(|group| !group.is_empty())
                .collect();
            spec.user(name, &groups)
        })
    }
}

//! `lvs-controller`: watches VirtualServices and endpoints, and tells every machine its part.
//!
//! Tasks: the loop of [`run`] owns what is known of the cluster; beside it run one task that holds the Lease and one
//! that serves health and metrics. Stopping at any point is safe: the next start computes the same from the objects.

mod cli;
mod cluster;
mod http;
mod lease;
mod outbox;
mod run;
mod watch;
mod write;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::{Cli, LogFormat};
use http::Health;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use lease::Candidate;
use owo_colors::{OwoColorize, Stream};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch as channel,
};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;
use write::Writer;

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let name = "lvs-controller:"
                .if_supports_color(Stream::Stderr, |text| text.red())
                .to_string();
            anstream::eprintln!("{name} {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<ExitCode> {
    if let Some(shell) = cli.completions {
        clap_complete::generate(
            shell,
            &mut Cli::command(),
            "lvs-controller",
            &mut io::stdout(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    init_log(cli)?;
    // Another provider in the tree would make rustls refuse to choose; it does no harm when one is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(execute(cli))
}

async fn execute(cli: &Cli) -> anyhow::Result<ExitCode> {
    let config = patient(config(cli).await?);
    let identity = cli.identity.clone().map_or_else(own_identity, Ok)?;
    let client = Client::try_from(config.clone())?;
    let health = Health::new();
    if let Some(address) = cli.health_address {
        let health = health.clone();
        tokio::spawn(async move {
            if let Err(error) = http::serve(address, health).await {
                error!(%address, %error, "health and metrics are not served");
            }
        });
    }
    let (leads, leading) = channel::channel(None);
    let (stop, stopping) = channel::channel(false);
    let (give_up, given_up) = channel::channel(false);
    let candidate = Candidate::new(
        Client::try_from(impatient(config))?,
        &cli.lease_namespace,
        &cli.lease_name,
        &identity,
    );
    let election = tokio::spawn(candidate.run(leads, given_up));
    tokio::spawn(wait_for_signal(stop));

    let writer = Writer::new(client.clone(), &identity);
    run::run(
        watch::watch_all(&client),
        writer,
        health,
        leading,
        stopping.clone(),
    )
    .await;

    let is_asked = *stopping.borrow();
    // Nothing is written from here on: another one may lead.
    give_up.send_replace(true);
    election.await.context("holding the lease")?;
    if is_asked {
        info!("stopped");
        return Ok(ExitCode::SUCCESS);
    }
    error!("this controller leads no more; a new start stands by");
    Ok(ExitCode::from(1))
}

async fn config(cli: &Cli) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: cli.context.clone(),
        ..KubeConfigOptions::default()
    };
    match &cli.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            Ok(Config::from_custom_kubeconfig(file, &options).await?)
        }
        None if cli.context.is_some() => Ok(Config::from_kubeconfig(&options).await?),
        None => Config::infer()
            .await
            .context("there is neither a kubeconfig nor a service account: give --kubeconfig"),
    }
}

/// For watches and writes. A connection that died in silence must not be waited for, nor be used again: nothing at all may
/// come from one only for longer than a watch is open. The library's own retries would pause for up to 1000 s.
fn patient(mut config: Config) -> Config {
    config.read_timeout = Some(watch::READ_TIMEOUT);
    config.default_retry = false;
    config
}

/// For the lease: a call that hangs must not outlast the lease.
fn impatient(mut config: Config) -> Config {
    let limit = Some(Duration::from_secs(3));
    config.connect_timeout = limit;
    config.read_timeout = limit;
    config.write_timeout = limit;
    config
}

fn own_identity() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname().context("reading the host name")?;
    Ok(format!("{}-{}", host.to_string_lossy(), std::process::id()))
}

async fn wait_for_signal(stop: channel::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
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

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

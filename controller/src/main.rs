//! `lvs-controller`: watches VirtualServices and endpoints, and writes to the API server what every machine must do.
//!
//! Threads: the loop of [`run`] owns the [`cluster`] and the writes; one thread holds the Lease, and one serves probes and
//! metrics, so that neither waits for the loop. The controller may be stopped at any point: the next start computes the same
//! from the objects.

mod cli;
mod cluster;
mod complete;
mod elect;
mod lease;
mod observe;
mod probes;
mod reconcile;
mod run;
mod watch;
mod write;
mod write_queue;
mod writer;

use std::{io, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::Cli;
use kube::Client;
use lease::Candidate;
use lvs_runtime::{
    client,
    definitions::{self, DefinitionError},
    error::chain,
    http, log, thread,
};
use owo_colors::{OwoColorize, Stream};
use probes::Probes;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch as channel},
};
use tracing::{error, info};
use writer::Writer;

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
    log::init(&cli.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(execute(cli))
}

async fn execute(cli: &Cli) -> anyhow::Result<ExitCode> {
    let config = client::config(cli.kubeconfig.clone(), cli.context.clone()).await?;
    let identity = cli.identity.clone().map_or_else(own_identity, Ok)?;
    let client = Client::try_from(config.clone())?;
    let probes = Probes::new();
    if let Some(address) = cli.http_address {
        http::serve(address, Arc::clone(&probes))?;
    }
    let (leader_until, leading) = channel::channel(None);
    let (stop, mut stopping) = channel::channel(false);
    tokio::spawn(wait_for_signal(stop));
    tokio::select! {
        () = await_definitions(&client, &probes) => {}
        never = probes.beat() => match never {},
        _ = stopping.wait_for(|stop| *stop) => return Ok(ExitCode::SUCCESS),
    }
    let (release, released) = channel::channel(false);
    let election = start_election(cli, config, &identity, leader_until, released)?;

    let writer = Writer::new(client.clone(), &identity);
    run::run(
        watch::watch_all(&client, &cli.lease_namespace),
        writer,
        probes,
        leading,
        stopping.clone(),
    )
    .await;

    let is_stopping = *stopping.borrow();
    // Nothing is written from here on: another controller may be the leader.
    release.send_replace(true);
    election.await.context("holding the lease")?;
    if is_stopping {
        info!("stopped");
        return Ok(ExitCode::SUCCESS);
    }
    error!("exiting: this controller is no longer the leader");
    Ok(ExitCode::from(1))
}

/// Waits until the definitions of the API types fit. A controller that wrote with older ones would lose fields of bindings.
async fn await_definitions(client: &Client, probes: &Probes) {
    let crds = lvs_crd::crds().into_iter();
    for name in crds.filter_map(|crd| crd.metadata.name) {
        let report = |error: Option<&DefinitionError>| {
            probes.set_unfit(error.map(|error| chain(error)));
        };
        definitions::await_fit(client, &name, report).await;
    }
}

/// Takes part in the election on a thread of its own, so that the Lease is renewed however long a round of the loop takes.
fn start_election(
    cli: &Cli,
    config: kube::Config,
    identity: &str,
    leader_until: channel::Sender<Option<Instant>>,
    released: channel::Receiver<bool>,
) -> anyhow::Result<oneshot::Receiver<()>> {
    let config = client::with_timeout(config, lease::CALL_TIMEOUT);
    let (namespace, name) = (cli.lease_namespace.clone(), cli.lease_name.clone());
    let identity = identity.to_owned();
    let elect = async move {
        // The client belongs to the runtime that it was made in.
        match Client::try_from(config) {
            Ok(client) => {
                let candidate = Candidate::new(client, &namespace, &name, &identity);
                candidate.run(leader_until, released).await;
            }
            Err(error) => error!(%error, "the client for the lease could not be made"),
        }
    };
    thread::spawn("lease", elect).context("starting the thread for the lease")
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

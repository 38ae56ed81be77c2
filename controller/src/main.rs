//! `lvs-controller`: watches VirtualServices and endpoints, and tells every machine its part.
//!
//! Tasks: the loop of [`run`] owns what is known of the cluster; beside it run one task that holds the Lease and one
//! that serves health and metrics. Stopping at any point is safe: the next start computes the same from the objects.

mod cli;
mod cluster;
mod lease;
mod probes;
mod run;
mod watch;
mod write_queue;
mod writer;

use std::{io, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::Cli;
use kube::Client;
use lease::Candidate;
use lvs_runtime::{client, http, log};
use owo_colors::{OwoColorize, Stream};
use probes::Probes;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch as channel,
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
        http::serve(address, Arc::clone(&probes)).await?;
    }
    let (leads, leading) = channel::channel(None);
    let (stop, stopping) = channel::channel(false);
    let (give_up, given_up) = channel::channel(false);
    let candidate = Candidate::new(
        Client::try_from(client::with_timeout(config, lease::CALL_TIMEOUT))?,
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
        probes,
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

//! The client of a Kubernetes API server.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How many seconds a watch may stay silent before it is opened again.
pub const WATCH_SECONDS: u32 = 35;

/// How long a connection may stay silent before it counts as dead. Longer than [`WATCH_SECONDS`], so that only a dead
/// connection runs into it: one that died without a FIN is noticed within a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// Finds the API server and configures a client for watches and writes.
///
/// Without a kubeconfig file, `KUBECONFIG`, `~/.kube/config` or a pod's service account says where the API server is.
/// The library's own retries, which pause for up to 1000 s, are off: the callers retry.
///
/// # Errors
/// When the kubeconfig cannot be read, or there is neither a kubeconfig nor a service account.
pub async fn config(
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
) -> anyhow::Result<Config> {
    // rustls refuses to choose between two providers, and another dependency may bring one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(&path)
                .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None if options.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer()
            .await
            .context("finding the API server: give --kubeconfig, or run in a pod")?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.default_retry = false;
    Ok(config)
}

/// The same configuration for calls of which each must end within a time: those that renew a lease.
#[must_use]
pub fn with_timeout(mut config: Config, timeout: Duration) -> Config {
    config.connect_timeout = Some(timeout);
    config.read_timeout = Some(timeout);
    config.write_timeout = Some(timeout);
    config
}

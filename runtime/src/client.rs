//! Configures the client of a Kubernetes API server.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How many seconds a watch lasts before the API server ends it, and it is opened again.
pub const WATCH_SECONDS: u32 = 35;

/// How long a connection can be silent before it counts as dead.
///
/// It is longer than [`WATCH_SECONDS`]: a live watch ends before, so that only a dead connection reaches it. A
/// connection that died without a FIN is detected within a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// Finds the API server and configures a client for watches and writes.
///
/// Without a kubeconfig file, the API server is taken from `KUBECONFIG`, `~/.kube/config` or a pod's service account.
/// The library's own retries, which pause for up to 1000 s, are disabled: the callers retry.
///
/// # Errors
/// When the kubeconfig cannot be read, or there is neither a kubeconfig nor a service account.
pub async fn config(
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
) -> anyhow::Result<Config> {
    // rustls needs an explicit choice if dependencies bring several providers.
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

/// Returns the configuration with a timeout on connecting, reading and writing, for calls that renew a lease.
#[must_use]
pub fn with_timeout(mut config: Config, timeout: Duration) -> Config {
    config.connect_timeout = Some(timeout);
    config.read_timeout = Some(timeout);
    config.write_timeout = Some(timeout);
    config
}

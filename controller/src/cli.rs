//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use lvs_runtime::log::LogArgs;

/// Watches VirtualServices and endpoints, and writes to the API server what every machine must do.
#[derive(Debug, Parser)]
#[command(name = "lvs-controller", version, about)]
pub(crate) struct Cli {
    /// The kubeconfig file. Without one, a pod's service account is used.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig file.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// The address on which /livez, /readyz and /metrics are served.
    #[arg(long, env = "LVS_HTTP_ADDRESS", value_name = "ADDRESS:PORT")]
    pub http_address: Option<SocketAddr>,

    /// The namespace of the Leases: that of the leader of several controllers, and those of the agents.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "default",
        value_name = "NAMESPACE"
    )]
    pub lease_namespace: String,

    /// The name of the Lease.
    #[arg(long, default_value = "lvs-controller", value_name = "NAME")]
    pub lease_name: String,

    /// The name of this controller among several. By default the pod's name, or else host name and process id.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    #[command(flatten)]
    pub log: LogArgs,

    /// Prints a completion script for a shell and exits.
    #[arg(long, value_enum, value_name = "SHELL")]
    pub completions: Option<clap_complete::Shell>,
}

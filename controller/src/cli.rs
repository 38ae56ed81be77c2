//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

/// Watches VirtualServices and endpoints, and tells every machine its part.
#[derive(Debug, Parser)]
#[command(name = "lvs-controller", version, about)]
pub(crate) struct Cli {
    /// The kubeconfig file; in a pod the service account is used when there is none.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig file.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "LVS_HEALTH_ADDRESS", value_name = "ADDRESS:PORT")]
    pub health_address: Option<SocketAddr>,

    /// The namespace of the Lease that one of several controllers holds.
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

    /// The name of this controller among several; the pod's name, or the host name with the process id.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// What is logged: a level, or a filter such as `info,lvs_controller=debug`.
    #[arg(long, env = "LVS_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How it is logged.
    #[arg(long, env = "LVS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Prints a completion script for a shell and exits.
    #[arg(long, value_enum, value_name = "SHELL")]
    pub completions: Option<clap_complete::Shell>,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

//! Logs to standard error, with a filter and in a format that the command line selects.

use std::io::{self, IsTerminal};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The command-line options for the log.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,lvs_agent=debug`.
    #[arg(
        long,
        global = true,
        env = "LVS_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// The form of log lines.
    #[arg(long, global = true, env = "LVS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to standard error, in colour on a terminal only.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let directives = with_defaults(&args.log);
    let filter = EnvFilter::try_new(directives).with_context(|| format!("--log '{}'", args.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => log
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Returns a filter that leaves out the log of the API client, unless the filter names it. The client logs each failed call as
/// an error; the programs log the same failure once, with its consequences.
fn with_defaults(filter: &str) -> String {
    const API_CLIENT: &str = "kube_client";
    if filter.contains(API_CLIENT) {
        filter.to_owned()
    } else {
        format!("{filter},{API_CLIENT}=off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_clients_log_is_left_out_unless_the_filter_names_it() {
        assert_eq!(with_defaults("info"), "info,kube_client=off");
        assert_eq!(
            with_defaults("warn,kube_client=debug"),
            "warn,kube_client=debug"
        );
        assert!(EnvFilter::try_new(with_defaults("info,lvs_agent=debug")).is_ok());
    }
}

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lvs_model::NodeName;

/// Makes the kernel of this machine match its VirtualServices: IPVS tables, virtual IPs, and what real servers need.
#[derive(Debug, Parser)]
#[command(name = "lvs-agent", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LVS_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as lvs_agent=debug.
    #[arg(long, global = true, default_value = "info", env = "LVS_LOG")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the kernel match, keeps it so, and follows changes of the configuration.
    Run {
        #[command(flatten)]
        machine: Machine,
        #[command(flatten)]
        source: SourceArgs,
        /// Makes one pass and exits: 0 when all is done, 1 when something is not.
        #[arg(long)]
        once: bool,
    },
    /// Shows what would be done, as the commands an administrator would type, and touches nothing.
    ///
    /// Exits with 0 when there is nothing to do, 1 when there is something, 2 on an error.
    Plan {
        #[command(flatten)]
        machine: Machine,
        #[command(flatten)]
        source: SourceArgs,
        /// How the plan is written.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Shows what this kernel holds and what of it is owned by lvs-agent.
    Show {
        #[command(flatten)]
        machine: Machine,
        /// How it is written.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Removes exactly what is owned and writes back the sysctls found before.
    Cleanup {
        #[command(flatten)]
        machine: Machine,
        /// Shows the steps and takes none.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints a completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Who this machine is and where it keeps its state.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// The name of this machine in DirectorGroups; its host name by default.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<NodeName>,
    /// Where the record of what is owned is kept. It must survive a restart of the agent.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/lvs-agent",
        env = "LVS_STATE_DIR"
    )]
    pub(crate) state_dir: PathBuf,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// YAML files, or directories of .yaml, .yml and .json files, with VirtualServices and DirectorGroups.
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., env = "LVS_CONFIG", value_delimiter = ',')]
    pub(crate) config: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn several_paths_may_follow_one_option() {
        let cli =
            Cli::try_parse_from(["lvs-agent", "run", "--config", "a.yaml", "b", "--once"]).unwrap();
        let Command::Run { source, once, .. } = cli.command else {
            panic!("not run")
        };
        assert_eq!(source.config, [PathBuf::from("a.yaml"), PathBuf::from("b")]);
        assert!(once);
    }
}

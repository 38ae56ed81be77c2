//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lvs_model::NodeName;
use lvs_runtime::log::LogArgs;

/// Makes the kernel of this machine match its VirtualServices: IPVS tables, virtual IPs, and what real servers need.
#[derive(Debug, Parser)]
#[command(name = "lvs-agent", version, max_term_width = 100)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the kernel match, keeps it so, and follows changes of the configuration.
    Run {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Its configuration.
        #[command(flatten)]
        source: SourceArgs,
        /// Makes one pass and exits: 0 when all is done, 1 when something is not.
        #[arg(long)]
        once: bool,
        /// Answers /livez, /readyz and /metrics over HTTP there: 127.0.0.1:9760 for one. Off by default.
        #[arg(
            long,
            value_name = "ADDRESS:PORT",
            env = "LVS_HTTP_ADDRESS",
            conflicts_with = "once"
        )]
        http_address: Option<SocketAddr>,
    },
    /// Shows what would be done, as the commands an administrator would type, and touches nothing.
    ///
    /// Exits with 0 when there is nothing to do, 1 when there is something, 2 on an error.
    Plan {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Its configuration.
        #[command(flatten)]
        source: SourceArgs,
        /// How the plan is written.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Shows what this kernel holds and what of it is owned by lvs-agent.
    Show {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// How it is written.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Removes exactly what is owned and writes back the sysctls found before.
    Cleanup {
        /// The machine.
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
pub struct Machine {
    /// The name of this machine in DirectorGroups; its host name by default.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<NodeName>,
    /// Where the record of what is owned is kept. It must survive a restart of the agent.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/lvs-agent",
        env = "LVS_STATE_DIR"
    )]
    pub state_dir: PathBuf,
}

/// Where the configuration is: files, or an API server.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// YAML files, or directories of .yaml, .yml and .json files, with VirtualServices and DirectorGroups.
    #[arg(long, value_name = "PATH", num_args = 1.., env = "LVS_CONFIG", value_delimiter = ',')]
    #[cfg_attr(
        feature = "kube",
        arg(required_unless_present = "kube", conflicts_with = "kube")
    )]
    #[cfg_attr(not(feature = "kube"), arg(required = true))]
    pub config: Vec<PathBuf>,
    /// The DirectorBindings and the LvsNode of this machine at a Kubernetes API server, in place of --config.
    ///
    /// The API server is found by --kubeconfig, KUBECONFIG, ~/.kube/config, or the service account of a pod. What it said
    /// last is kept in the state directory and served after a reboot until it answers again.
    #[cfg(feature = "kube")]
    #[arg(long, env = "LVS_KUBE")]
    pub kube: bool,
    /// The kubeconfig file that says where the API server is and who asks.
    #[cfg(feature = "kube")]
    #[arg(
        long,
        value_name = "FILE",
        requires = "kube",
        conflicts_with = "config"
    )]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file; its current one by default.
    #[cfg(feature = "kube")]
    #[arg(
        long,
        value_name = "NAME",
        requires = "kube",
        conflicts_with = "config"
    )]
    pub context: Option<String>,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
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

    #[cfg(feature = "kube")]
    #[test]
    fn there_is_exactly_one_source() {
        let parses = |args: &[&str]| {
            let command = ["lvs-agent", "run"].iter().chain(args);
            Cli::try_parse_from(command).is_ok()
        };
        assert!(parses(&["--config", "a.yaml"]));
        assert!(parses(&["--kube"]));
        assert!(parses(&[
            "--kube",
            "--kubeconfig",
            "admin.conf",
            "--context",
            "lab"
        ]));
        assert!(!parses(&[]));
        assert!(!parses(&["--kube", "--config", "a.yaml"]));
        assert!(!parses(&[
            "--config",
            "a.yaml",
            "--kubeconfig",
            "admin.conf"
        ]));
    }
}

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
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// The logging options.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the kernel match the configuration, keeps it that way, and follows changes of the configuration.
    Run {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Its configuration.
        #[command(flatten)]
        source: SourceArgs,
        /// Makes one pass and exits: with 0 if everything is done, 1 if something is not.
        #[arg(long)]
        once: bool,
        /// Serves /livez, /readyz and /metrics over HTTP at this address, such as 127.0.0.1:9760. Off by default.
        #[arg(
            long,
            value_name = "ADDRESS:PORT",
            env = "LVS_HTTP_ADDRESS",
            conflicts_with = "once"
        )]
        http_address: Option<SocketAddr>,
    },
    /// Shows what would be done, as the commands an administrator would type, and changes nothing.
    ///
    /// Exits with 0 if there is nothing to do, 1 if there is something, 2 on an error.
    Plan {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Its configuration.
        #[command(flatten)]
        source: SourceArgs,
        /// The output format.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Shows what this kernel holds and which parts of it lvs-agent owns.
    Show {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// The output format.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Lets other directors take the VIPs of this machine over, without a gap, and keeps the machine on standby.
    ///
    /// Exits with 0 once this machine holds no VIPs that another director can hold, 1 if no other takes them, 2 on an error.
    HandOver {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Ends that: the machine may hold VIPs again.
        #[arg(long)]
        end: bool,
    },
    /// Removes exactly what lvs-agent owns and restores the values that sysctls had before.
    Cleanup {
        /// The machine.
        #[command(flatten)]
        machine: Machine,
        /// Shows the steps without executing them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints a completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The machine's name and its state directory.
#[derive(Debug, Args)]
pub struct Machine {
    /// The name of this machine in DirectorGroups; its host name by default.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<NodeName>,
    /// The directory with the record of what lvs-agent owns. It must survive a restart of the agent.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/lvs-agent",
        env = "LVS_STATE_DIR"
    )]
    pub state_dir: PathBuf,
}

/// The source of the configuration: files, or an API server.
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
    /// Reads the DirectorBindings and the LvsNode of this machine from a Kubernetes API server, instead of --config.
    ///
    /// The API server is found by --kubeconfig, KUBECONFIG, ~/.kube/config, or the service account of a pod. The objects
    /// last read are cached in the state directory and served after a reboot until the API server answers again.
    #[cfg(feature = "kube")]
    #[arg(long, env = "LVS_KUBE")]
    pub kube: bool,
    /// The kubeconfig file, with the address of the API server and the credentials.
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
    /// The namespace of the agent's Lease: that of the chart's release. Without the Lease, the controller shows the state of
    /// this machine as unknown.
    #[cfg(feature = "kube")]
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "LVS_LEASE_NAMESPACE",
        default_value = "lvs-system"
    )]
    pub lease_namespace: String,
}

/// The output format.
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
    fn exactly_one_source_is_required() {
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

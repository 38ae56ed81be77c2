//! A Kubernetes cluster: a control plane on this machine, and guests on one bridge as nodes.
//!
//! - Every node has its own kernel with IPVS, a container runtime, a kubelet, and the images of the controller and of the agent
//!   that were built here. There is no registry.
//! - This machine has the first address of the nodes' network, so that it can be a client.
//! - Nothing of the cluster outlives it, however the process that started it ends.

mod machines;
mod node;
mod release;
mod services;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use self::machines::{MACHINES, Machines};
use self::node::NodeSpec;
use crate::control_plane::{ControlPlane, ControlPlaneSpec, ProgramSet};
use crate::guest::{Bridge, Network};
use crate::leftovers::remove_at_the_end;
use crate::operator::{program, user};
use crate::wait::wait_until;

pub use self::machines::run_machines;
pub use self::node::Node;
pub use self::release::Tag;
pub use self::services::{SERVICES, Service};

/// How many nodes a cluster has.
const NODES: u8 = 3;
/// The host number of a node's address is this plus the node's number, which starts at 1.
const NODE_OFFSET: u8 = 10;
/// How long nodes may take to be ready once they have booted.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// The script that builds the images.
const BUILD_IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images/build.sh");

/// The user of kube-proxy.
const PROXY: &str = "system:kube-proxy";
/// The script that prints what an agent may change in a kernel.
const STATE: &str = include_str!("cluster/state.sh");

/// A running cluster, and two machines outside it that are real servers: `rs1` and `rs2`. Dropping it ends all of it and
/// removes its files and devices.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: the guests before the directory and the bridge that they use.
    nodes: Vec<Node>,
    machines: Option<Machines>,
    control_plane: ControlPlane,
    bridge: Bridge,
    directory: TempDir,
    began: Instant,
}

impl Cluster {
    /// Starts a cluster and prints its progress; waits until the nodes are ready and the machines' servers answer.
    pub fn start() -> Result<Self> {
        let began = Instant::now();
        let directory = tempfile::Builder::new()
            .prefix("lab-cluster-")
            // Not in /tmp, which may be in memory: the directory holds disks.
            .tempdir_in("/var/tmp")
            .context("could not create a directory for the cluster")?;
        remove_at_the_end(directory.path())?;
        let agent = program("lvs-agent", "LVS_AGENT")?;
        let images = build_images(&agent, directory.path())?;
        let bridge = Bridge::create()?;
        let names: Vec<String> = (1..=NODES).map(|number| format!("node{number}")).collect();
        let control_plane = start_control_plane(&bridge, &names)?;
        remove_at_the_end(control_plane.directory())?;
        let mut cluster = Self {
            nodes: Vec::new(),
            machines: None,
            control_plane,
            bridge,
            directory,
            began,
        };
        cluster.say("the images are built and the control plane runs; booting the nodes");
        cluster.start_nodes(&names, &images)?;
        cluster.start_machines(agent)?;
        cluster.await_nodes()?;
        cluster.say("all nodes are ready");
        Ok(cluster)
    }

    /// Prints progress, with the age of the cluster.
    pub fn say(&self, what: &str) {
        eprintln!("cluster: {:>3} s  {what}", self.began.elapsed().as_secs());
    }

    /// Runs kubectl as the administrator and returns its standard output; an error includes its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control_plane.kubectl(arguments)
    }

    /// What an agent may change in the kernel of each node and machine, as lines.
    pub fn states(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let machines = self.machines.as_ref().context("there are no machines")?;
        std::thread::scope(|scope| {
            let of_nodes = self.nodes.iter().map(|node| {
                let state = scope.spawn(|| node.run(STATE));
                (node.name(), state)
            });
            let of_machines = MACHINES.iter().map(|(name, _)| {
                let state = scope.spawn(|| machines.run(name, STATE));
                (*name, state)
            });
            let all: Vec<_> = of_nodes.chain(of_machines).collect();
            let mut states = BTreeMap::new();
            for (name, state) in all {
                let state = state
                    .join()
                    .map_err(|_panic| anyhow!("a thread panicked"))??;
                states.insert(name.to_owned(), state.lines().map(String::from).collect());
            }
            Ok(states)
        })
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The network of the nodes and this machine.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node, to switch it off and on.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let mut nodes = self.nodes.iter_mut();
        let found = nodes.find(|node| node.name() == name);
        found.with_context(|| format!("the cluster has no node {name}"))
    }

    /// Waits until every node is ready.
    pub fn await_nodes(&self) -> Result<()> {
        for node in &self.nodes {
            node.await_boot()?;
        }
        let ready = wait_until("all nodes to be ready", READY_TIMEOUT, || {
            let condition = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
            let statuses = self
                .control_plane
                .kubectl(&["get", "nodes", "-o", condition])?;
            let ready = statuses
                .split(' ')
                .filter(|status| *status == "True")
                .count();
            Ok((ready == self.nodes.len()).then_some(()))
        });
        ready.with_context(|| self.report())
    }

    /// The state and the logs of nodes, pods and machines, for debugging.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for arguments in [
            &["get", "nodes,pods", "--all-namespaces", "--output=wide"] as &[&str],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
            ],
            &["describe", "pods", "--namespace=lvs-system"],
            &[
                "logs",
                "--namespace=lvs-system",
                "--selector=app.kubernetes.io/name=lvs-operator",
                "--all-containers",
                "--prefix",
                "--tail=40",
            ],
            &["get", "lvs", "--all-namespaces", "--output=wide"],
        ] {
            let output = self.control_plane.kubectl(arguments);
            let output = output.unwrap_or_else(|error| format!("{error:#}"));
            report += &format!("--- kubectl {}\n{output}\n", arguments.join(" "));
        }
        for node in &self.nodes {
            report += &format!("=== {}\n{}\n", node.name(), node.logs());
        }
        for (name, _) in MACHINES {
            let log = self.machines.as_ref().map(|machines| machines.log(name));
            report += &format!("=== agent of {name}\n{}\n", log.unwrap_or_default());
        }
        report
    }

    fn start_machines(&mut self, agent: PathBuf) -> Result<()> {
        let kubeconfigs = MACHINES
            .iter()
            .map(|(name, _)| Ok(self.control_plane.kubeconfig_of(&user(name))?.to_owned()))
            .collect::<Result<Vec<_>>>()?;
        let machines = Machines::start(&self.bridge, agent, &kubeconfigs)?;
        self.machines.insert(machines).await_boot()
    }

    fn start_nodes(&mut self, names: &[String], images: &Path) -> Result<()> {
        let pods = Network::choose()?;
        let of_pods = |number: u8| format!("{}/26", pods.address(64 * (number - 1)));
        let members: Vec<(String, Ipv4Addr)> = (1..=NODES)
            .map(|number| (of_pods(number), self.bridge.address(NODE_OFFSET + number)))
            .collect();
        for (name, number) in names.iter().zip(1..) {
            let (own, others): (Vec<_>, Vec<_>) = members
                .iter()
                .cloned()
                .partition(|(network, _)| *network == of_pods(number));
            let (network, address) = own.into_iter().next().context("a node has no pods")?;
            self.bridge.route(&network, address)?;
            let spec = NodeSpec {
                name: name.clone(),
                address,
                gateway: self.bridge.address(1),
                pods: network,
                routes: others,
                kubelet: self.control_plane.program("kubelet")?.to_owned(),
                kubeconfig: self.control_plane.kubeconfig_of(&user_of(name))?.to_owned(),
                proxy: self.control_plane.program("kube-proxy")?.to_owned(),
                proxy_kubeconfig: self.control_plane.kubeconfig_of(PROXY)?.to_owned(),
                authority: self.control_plane.authority(),
                images: images.to_owned(),
            };
            let tap = self.bridge.tap(NODE_OFFSET + number)?;
            let node = Node::start(spec, tap, self.directory.path())?;
            self.nodes.push(node);
        }
        Ok(())
    }
}

fn start_control_plane(bridge: &Bridge, nodes: &[String]) -> Result<ControlPlane> {
    let mut spec = ControlPlaneSpec {
        address: bridge.address(1).into(),
        programs: ProgramSet::Cluster,
        ..ControlPlaneSpec::default()
    };
    spec = spec.user(PROXY, &[]);
    for node in nodes {
        spec = spec.user(&user_of(node), &["system:nodes"]);
    }
    for (machine, _) in MACHINES {
        spec = spec.user(&user(machine), &[]);
    }
    let mut control_plane = ControlPlane::start_as(&spec)?;
    control_plane.start_controller_manager()?;
    control_plane.start_scheduler()?;
    Ok(control_plane)
}

/// The user of a kubelet.
fn user_of(node: &str) -> String {
    format!("system:node:{node}")
}

/// Builds the archive of the images.
fn build_images(agent: &Path, directory: &Path) -> Result<PathBuf> {
    let output = Command::new(BUILD_IMAGES)
        .arg(agent)
        .arg(program("lvs-controller", "LVS_CONTROLLER")?)
        .arg(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not run {BUILD_IMAGES}"))?;
    ensure!(output.status.success(), "the images could not be built");
    let path = String::from_utf8(output.stdout).context("a path is not text")?;
    Ok(path.trim_end().into())
}

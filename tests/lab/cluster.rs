//! A Kubernetes cluster: a control plane on this machine, and nodes that are guests on one bridge.
//!
//! - Every node is a kernel of its own with IPVS, a container runtime and a kubelet, and has the images of the controller and of
//!   the agent that were built here. There is no registry.
//! - This machine is on the nodes' network, with its first address: it is a client as good as any.
//! - Nothing of it outlives it, however the process that started it ends.

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
/// The last part of the address of the node before the first.
const BEFORE_FIRST: u8 = 10;
/// How long nodes may take to be ready once they have booted.
const PATIENCE: Duration = Duration::from_secs(180);
/// Makes the images.
const BUILD_IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images/build.sh");

/// The user that kube-proxy is.
const PROXY: &str = "system:kube-proxy";
/// Prints what an agent may change of a kernel.
const STATE: &str = include_str!("cluster/state.sh");

/// A cluster that runs, and two machines outside of it that are real servers: `rs1` and `rs2`. Dropping it ends all of it and
/// removes what it made.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: the guests before what they write to and are plugged into.
    nodes: Vec<Node>,
    machines: Option<Machines>,
    control_plane: ControlPlane,
    bridge: Bridge,
    directory: TempDir,
    began: Instant,
}

impl Cluster {
    /// Starts one, saying how far it is, and waits until its nodes are ready and the machines' servers answer.
    pub fn start() -> Result<Self> {
        let began = Instant::now();
        let directory = tempfile::Builder::new()
            .prefix("lab-cluster-")
            // Disks do not belong in memory, where /tmp may be.
            .tempdir_in("/var/tmp")
            .context("could not make a directory for the cluster")?;
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
        cluster.say("images and control plane are there; the nodes boot and unpack the images");
        cluster.start_nodes(&names, &images)?;
        cluster.start_machines(agent)?;
        cluster.await_nodes()?;
        cluster.say("all nodes are ready");
        Ok(cluster)
    }

    /// Says how far something is, and how long the cluster has been there.
    pub fn say(&self, what: &str) {
        eprintln!("cluster: {:>3} s  {what}", self.began.elapsed().as_secs());
    }

    /// Runs kubectl as the administrator and returns what it writes; a failure shows its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control_plane.kubectl(arguments)
    }

    /// What an agent may change of the kernels of all nodes and machines, line by line.
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

    /// Its control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The network that the nodes and this machine are on.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node, to be switched off and on.
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
        let ready = wait_until("all nodes to be ready", PATIENCE, || {
            let condition = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
            let said = self
                .control_plane
                .kubectl(&["get", "nodes", "-o", condition])?;
            let ready = said.split(' ').filter(|status| *status == "True").count();
            Ok((ready == self.nodes.len()).then_some(()))
        });
        ready.with_context(|| self.report())
    }

    /// What there is to know of nodes and pods, for people who look for what went wrong.
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
            let said = self.control_plane.kubectl(arguments);
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            report += &format!("--- kubectl {}\n{said}\n", arguments.join(" "));
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
            .map(|number| (of_pods(number), self.bridge.address(BEFORE_FIRST + number)))
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
            let tap = self.bridge.tap(BEFORE_FIRST + number)?;
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

/// The user that a kubelet is.
fn user_of(node: &str) -> String {
    format!("system:node:{node}")
}

/// Makes the archive of the images.
fn build_images(agent: &Path, directory: &Path) -> Result<PathBuf> {
    let output = Command::new(BUILD_IMAGES)
        .arg(agent)
        .arg(program("lvs-controller", "LVS_CONTROLLER")?)
        .arg(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not run {BUILD_IMAGES}"))?;
    ensure!(output.status.success(), "the images could not be made");
    let path = String::from_utf8(output.stdout).context("a path is not text")?;
    Ok(path.trim_end().into())
}

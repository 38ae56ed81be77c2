//! A node of a cluster: a guest with a disk, a container runtime and a kubelet.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::{Boot, Guest, READY, Tap};
use crate::kernel::find_program;

/// The pause image, which holds the namespaces of a pod.
const PAUSE: &str = "lvs-operator.test/pause:one";

const SCRIPT: &str = include_str!("node.sh");

/// How long a node may take to boot. It takes half a minute on an idle machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a script may take.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Longer than any cluster runs.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The size of a disk. The file is sparse.
const DISK: u64 = 8 << 30;

/// The description of a node.
#[derive(Clone, Debug)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
    /// The network of its pods.
    pub(super) pods: String,
    /// The networks of the other nodes' pods, each with the node's address.
    pub(super) routes: Vec<(String, Ipv4Addr)>,
    pub(super) kubelet: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) proxy: PathBuf,
    pub(super) proxy_kubeconfig: PathBuf,
    /// The certificate of the authority, by which the kubelet authenticates the API server.
    pub(super) authority: PathBuf,
    pub(super) images: PathBuf,
}

/// A node. Dropping it ends its guest.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    tap: Tap,
    disk: PathBuf,
    guest: Option<Guest>,
}

impl Node {
    /// Switches on a new node, with an empty disk in a directory.
    pub(super) fn start(spec: NodeSpec, tap: Tap, directory: &Path) -> Result<Self> {
        let disk = directory.join(format!("{}.disk", spec.name));
        make_disk(&disk)?;
        let mut node = Self {
            spec,
            tap,
            disk,
            guest: None,
        };
        node.switch_on()?;
        Ok(node)
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.spec.address
    }

    /// Runs a shell script on the node and returns its standard output.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.guest()?.run_script(script, SCRIPT_TIMEOUT);
        output.with_context(|| format!("on {}", self.spec.name))
    }

    /// Cuts its power, and leaves it off.
    pub fn cut_power(&mut self) {
        if let Some(guest) = self.guest.take() {
            guest.pull_the_plug();
        }
    }

    /// Boots it with its disk, without waiting; [`Node::await_boot`] waits.
    pub fn switch_on(&mut self) -> Result<()> {
        ensure!(self.guest.is_none(), "{} is on already", self.spec.name);
        self.guest = Some(self.boot()?.start()?);
        Ok(())
    }

    /// Waits until its kubelet has been started.
    pub fn await_boot(&self) -> Result<()> {
        let booted = self.guest()?.wait_for_output(READY, BOOT_TIMEOUT);
        booted.with_context(|| format!("{} does not boot", self.spec.name))
    }

    /// The ends of the logs of its kubelet, kube-proxy and container runtime, for debugging.
    pub fn logs(&self) -> String {
        let script = "for log in kubelet kube-proxy containerd; do echo \"--- $log\"; tail -n 25 /var/log/$log.log; done";
        self.run(script)
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    fn guest(&self) -> Result<&Guest> {
        let guest = self.guest.as_ref();
        guest.with_context(|| format!("{} is switched off", self.spec.name))
    }

    fn boot(&self) -> Result<Boot> {
        let NodeSpec {
            name,
            address,
            gateway,
            pods,
            routes,
            kubelet,
            kubeconfig,
            proxy,
            proxy_kubeconfig,
            authority,
            images,
        } = &self.spec;
        let routes: Vec<String> = routes
            .iter()
            .map(|(network, neighbour)| format!("{network} {neighbour}"))
            .collect();
        let lab = crate::guest::find_lab_binary()?;
        let show = |path: &Path| path.display().to_string();
        Ok(Boot::script(SCRIPT)
            .memory("1536M")
            .timeout(FOREVER)
            .tap(&self.tap)
            .disk(&self.disk)
            .current_dir("/")
            .env("NODE", name)
            .env("NODE_ADDRESS", address.to_string())
            .env("NODE_GATEWAY", gateway.to_string())
            .env("NODE_PODS", pods)
            .env("NODE_ROUTES", routes.join("\n"))
            .env("NODE_KUBELET", show(kubelet))
            .env("NODE_KUBECONFIG", show(kubeconfig))
            .env("NODE_PROXY", show(proxy))
            .env("NODE_PROXY_KUBECONFIG", show(proxy_kubeconfig))
            .env("NODE_AUTHORITY", show(authority))
            .env("NODE_IMAGES", show(images))
            .env("NODE_PAUSE", PAUSE)
            .env("NODE_LAB", show(&lab)))
    }
}

/// Creates an empty disk with a file system.
fn make_disk(path: &Path) -> Result<()> {
    let shown = path.display();
    File::create_new(path)
        .and_then(|file| file.set_len(DISK))
        .with_context(|| format!("could not create {shown}"))?;
    let output = Command::new(find_program("mkfs.ext4")?)
        .arg("-q")
        .arg(path)
        .output()
        .context("could not start mkfs.ext4")?;
    ensure!(
        output.status.success(),
        "mkfs.ext4 {shown}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

//! A cluster that keeps running until it is stopped: `make cluster` and `make cluster-down`.
//!
//! A separate process, `lab cluster-run`, owns the cluster; everything ends with that process. A directory in the user's cache
//! has the process id and the files that are needed to use the cluster.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Cluster, SERVICES, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::signals::{FOREVER, hold_signals};

/// How long a cluster may take to be ready, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(900);

/// How long its process may take to end everything.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

/// Starts a cluster with the operator installed, unless one runs already, and prints how to use it.
pub(crate) fn up() -> Result<()> {
    let directory = ClusterDirectory::open()?;
    if directory.process()?.is_some() {
        println!("A cluster runs already.\n\n{}", directory.usage()?);
        return Ok(());
    }
    directory.clear()?;
    let signals = hold_signals()?;
    let mut child = directory.start()?;
    let mut log = File::open(directory.log()).context("could not read the log")?;
    let started = wait_until("the cluster", START_TIMEOUT, || {
        io::copy(&mut log, &mut io::stderr()).context("could not show the log")?;
        if directory.usage_file().exists() {
            return Ok(Some(()));
        }
        if let Some(status) = child
            .try_wait()
            .context("could not wait for the cluster's process")?
        {
            bail!(
                "it ended with {status}; its log is {}",
                directory.log().display()
            );
        }
        if signals.read_signal()?.is_some() {
            bail!("interrupted");
        }
        Ok(None)
    });
    if let Err(error) = started {
        end(&mut child)?;
        return Err(error.context("could not start a cluster"));
    }
    println!("\n{}", directory.usage()?);
    Ok(())
}

/// Ends the cluster, and fails if anything of it is left.
pub(crate) fn down() -> Result<()> {
    let directory = ClusterDirectory::open()?;
    let Some(process) = directory.process()? else {
        directory.clear()?;
        println!("No cluster is running.");
        return Ok(());
    };
    eprintln!("cluster: ending process {process} and everything that it started");
    // An error means that it has ended in the meantime.
    kill(process, Signal::SIGTERM).ok();
    let ended = wait_until("the end of the cluster", STOP_TIMEOUT, || {
        Ok(directory.process()?.is_none().then_some(()))
    });
    if ended.is_err() {
        kill(process, Signal::SIGKILL).ok();
    }
    await_no_devices(process)?;
    directory.clear()?;
    println!("The cluster is removed.");
    ended
}

/// Runs in the cluster's process: starts the cluster, writes how to use it, and ends it on a signal.
pub(crate) fn run() -> Result<()> {
    let directory = ClusterDirectory::open()?;
    let signals = hold_signals()?;
    let cluster = Cluster::start()?;
    cluster.say("installing the chart");
    cluster.install().with_context(|| cluster.report())?;
    cluster.say("the operator is ready");
    directory.describe(&cluster)?;
    wait_until("a signal", FOREVER, || {
        signals.read_signal().context("could not read the signals")
    })?;
    Ok(())
}

/// The directory with the process id of the running cluster and the files to use it.
struct ClusterDirectory(PathBuf);

impl ClusterDirectory {
    fn open() -> Result<Self> {
        let home = std::env::var_os("HOME").context("HOME is not set")?;
        let path = Path::new(&home).join(".cache/lvs-operator/cluster");
        fs::create_dir_all(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
        Ok(Self(path))
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0).context("could not read the cluster's directory")? {
            let path = entry
                .context("could not read the cluster's directory")?
                .path();
            fs::remove_file(&path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
        Ok(())
    }

    fn start(&self) -> Result<Child> {
        let log = File::create(self.log()).context("could not create the log")?;
        let lab = std::env::current_exe().context("could not find the path of this program")?;
        // A separate session, so that closing the terminal does not end it. setsid replaces itself with the program.
        let child = Command::new("setsid")
            .arg(lab)
            .arg("cluster-run")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("could not open the log twice")?)
            .stderr(log)
            .spawn()
            .context("could not start the cluster's process")?;
        let id = child.id();
        let start = start_time(id).context("the cluster's process ended immediately")?;
        fs::write(self.process_file(), format!("{id} {start}\n"))
            .context("could not write the id of the cluster's process")?;
        Ok(child)
    }

    /// The cluster's process, if it runs.
    fn process(&self) -> Result<Option<Pid>> {
        let Ok(text) = fs::read_to_string(self.process_file()) else {
            return Ok(None);
        };
        let (id, start) = text
            .trim_end()
            .split_once(' ')
            .context("the file with the id of the cluster's process is not valid")?;
        let id: u32 = id.parse().context("a process id is not a number")?;
        // Another process may have the id by now.
        if start_time(id).as_deref() != Some(start) {
            return Ok(None);
        }
        let id = i32::try_from(id).context("the process id is out of range")?;
        Ok(Some(Pid::from_raw(id)))
    }

    /// Writes the files that are needed to use a cluster, and last the instructions.
    fn describe(&self, cluster: &Cluster) -> Result<()> {
        let control_plane = cluster.control_plane();
        let text = fs::read(control_plane.kubeconfig())?;
        let mut kubeconfig = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.kubeconfig())
            .context("could not write the kubeconfig")?;
        kubeconfig.write_all(&text)?;
        let mut requests = String::new();
        for service in &SERVICES {
            let file = self.0.join(format!("{}.yaml", service.name));
            fs::write(&file, service.manifest(cluster)?)?;
            let (vip, port) = service.vip(cluster);
            let file = file.display();
            requests += &format!(
                "  kubectl apply -f {file} && curl -s --connect-timeout 1 --retry 30 --retry-all-errors http://{vip}:{port}/\n"
            );
        }
        let mut tools = control_plane.program("kubectl")?.to_owned();
        tools.pop();
        let (kubeconfig, tools) = (self.kubeconfig(), tools.display());
        let usage = format!(
            "The cluster is ready: three nodes with the operator, and two machines outside the cluster, rs1 and rs2, which answer requests.

  export KUBECONFIG={} PATH={tools}:$PATH
  kubectl get nodes -o wide
  kubectl get pods -n lvs-system -o wide
  kubectl get lvsnodes.lvs-operator.io

Virtual services for rs1 and rs2, directed by node1, node2, node3 and node3; this machine is on their network:

{requests}
  kubectl get virtualservices.lvs-operator.io -o wide

The state of a node's kernel (here node1; `kubectl get pods -o wide` shows the node of each agent):

  kubectl exec -n lvs-system $(kubectl get pods -n lvs-system -l app.kubernetes.io/component=agent --field-selector spec.nodeName=node1 -o name) -c agent -- lvs-agent show

`make cluster-down` ends it. The log is {}.
",
            kubeconfig.display(),
            self.log().display(),
        );
        let temporary = self.0.join("usage.new");
        fs::write(&temporary, usage)?;
        fs::rename(&temporary, self.usage_file()).context("could not write the instructions")
    }

    fn usage(&self) -> Result<String> {
        let path = self.usage_file();
        let mut text = String::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| {
                format!(
                    "the cluster is not ready yet; its log is {}",
                    self.log().display()
                )
            })?;
        Ok(text)
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    fn process_file(&self) -> PathBuf {
        self.0.join("process")
    }

    fn usage_file(&self) -> PathBuf {
        self.0.join("usage")
    }
}

/// The start time of a process in clock ticks since boot; `None` if it does not exist or has ended.
fn start_time(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may contain any characters.
    let (_, rest) = text.rsplit_once(") ")?;
    let start = rest.split(' ').nth(19)?;
    (!rest.starts_with('Z')).then(|| start.to_owned())
}

fn end(child: &mut Child) -> Result<()> {
    let id = i32::try_from(child.id()).context("the process id is out of range")?;
    // An error means that it has ended already.
    kill(Pid::from_raw(id), Signal::SIGTERM).ok();
    let ended = wait_until("the end of the cluster", STOP_TIMEOUT, || {
        child
            .try_wait()
            .context("could not wait for the cluster's process")
    });
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    Ok(())
}

/// Waits until the network devices that a process created are gone.
fn await_no_devices(process: Pid) -> Result<()> {
    let prefix = format!("lab{process}");
    let mut left = Vec::new();
    let gone = wait_until("the cluster's network devices to go", STOP_TIMEOUT, || {
        left.clear();
        for entry in fs::read_dir("/sys/class/net").context("could not list the devices")? {
            let name = entry.context("could not list the devices")?.file_name();
            let name = name.to_string_lossy().into_owned();
            // A digit after the prefix means that the device is of another process, whose id is longer.
            let rest = name.strip_prefix(&prefix);
            if rest.is_some_and(|rest| !rest.starts_with(|first: char| first.is_ascii_digit())) {
                left.push(name);
            }
        }
        Ok(left.is_empty().then_some(()))
    });
    ensure!(
        gone.is_ok(),
        "these network devices are left: {}",
        left.join(", ")
    );
    Ok(())
}

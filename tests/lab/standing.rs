//! A cluster that stands until it is told to go: `make cluster` and `make cluster-down`.
//!
//! It belongs to a process of its own, `lab cluster-run`, with whose end everything of it goes. A folder of the user's cache
//! says which process that is, and has what is needed to use the cluster.

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

/// How long a cluster may take to be ready, on a machine that has other work too.
const START: Duration = Duration::from_secs(900);

/// How long its process may take to end everything.
const END: Duration = Duration::from_secs(300);

/// Starts a cluster with the operator installed, unless one stands already, and says how to use it.
pub(crate) fn up() -> Result<()> {
    let place = Place::open()?;
    if place.process()?.is_some() {
        println!("A cluster stands already.\n\n{}", place.usage()?);
        return Ok(());
    }
    place.clear()?;
    let signals = hold_signals()?;
    let mut child = place.start()?;
    let mut log = File::open(place.log()).context("could not read the log")?;
    let started = wait_until("the cluster", START, || {
        io::copy(&mut log, &mut io::stderr()).context("could not show the log")?;
        if place.usage_file().exists() {
            return Ok(Some(()));
        }
        if let Some(status) = child
            .try_wait()
            .context("could not look after the cluster")?
        {
            bail!(
                "it ended with {status}; its log is {}",
                place.log().display()
            );
        }
        if signals.read_signal()?.is_some() {
            bail!("interrupted");
        }
        Ok(None)
    });
    if let Err(error) = started {
        end(&mut child)?;
        return Err(error.context("there is no cluster"));
    }
    println!("\n{}", place.usage()?);
    Ok(())
}

/// Ends the cluster, and fails when anything of it is left.
pub(crate) fn down() -> Result<()> {
    let place = Place::open()?;
    let Some(process) = place.process()? else {
        place.clear()?;
        println!("There is no cluster.");
        return Ok(());
    };
    eprintln!("cluster: ending process {process} and all that it started");
    // It may have ended since.
    kill(process, Signal::SIGTERM).ok();
    let ended = wait_until("the end of the cluster", END, || {
        Ok(place.process()?.is_none().then_some(()))
    });
    if ended.is_err() {
        kill(process, Signal::SIGKILL).ok();
    }
    await_no_devices(process)?;
    place.clear()?;
    println!("The cluster is gone.");
    ended
}

/// In the cluster's own process: starts it, writes down how to use it, and ends it on a signal.
pub(crate) fn run() -> Result<()> {
    let place = Place::open()?;
    let signals = hold_signals()?;
    let cluster = Cluster::start()?;
    cluster.say("installing the chart");
    cluster.install().with_context(|| cluster.report())?;
    cluster.say("the operator is ready");
    place.describe(&cluster)?;
    wait_until("a signal", FOREVER, || {
        signals
            .read_signal()
            .context("could not listen to the signals")
    })?;
    Ok(())
}

/// The folder that says which cluster stands.
struct Place(PathBuf);

impl Place {
    fn open() -> Result<Self> {
        let home = std::env::var_os("HOME").context("HOME is not set")?;
        let folder = Path::new(&home).join(".cache/lvs-operator/cluster");
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0).context("could not read the cluster's folder")? {
            let path = entry.context("could not read the cluster's folder")?.path();
            fs::remove_file(&path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
        Ok(())
    }

    fn start(&self) -> Result<Child> {
        let log = File::create(self.log()).context("could not make the log")?;
        let lab = std::env::current_exe().context("could not find out which program this is")?;
        // A session of its own, which no closed terminal ends. It becomes the program that it is to start.
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
        let start = start_time(id).context("the cluster's process ended at once")?;
        fs::write(self.process_file(), format!("{id} {start}\n"))
            .context("could not write down the cluster's process")?;
        Ok(child)
    }

    /// The cluster's process, when it runs.
    fn process(&self) -> Result<Option<Pid>> {
        let Ok(text) = fs::read_to_string(self.process_file()) else {
            return Ok(None);
        };
        let (id, start) = text
            .trim_end()
            .split_once(' ')
            .context("the cluster's process was written down wrongly")?;
        let id: u32 = id.parse().context("a process id is no number")?;
        // Another process may have the number by now.
        if start_time(id).as_deref() != Some(start) {
            return Ok(None);
        }
        let id = i32::try_from(id).context("the process id is out of range")?;
        Ok(Some(Pid::from_raw(id)))
    }

    /// Writes what is needed to use a cluster; last of it how to.
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
        let mut asking = String::new();
        for service in &SERVICES {
            let file = self.0.join(format!("{}.yaml", service.name));
            fs::write(&file, service.manifest(cluster)?)?;
            let (vip, port) = service.vip(cluster);
            let file = file.display();
            asking += &format!(
                "  kubectl apply -f {file} && curl -s --connect-timeout 1 --retry 30 --retry-all-errors http://{vip}:{port}/\n"
            );
        }
        let mut tools = control_plane.program("kubectl")?.to_owned();
        tools.pop();
        let (kubeconfig, tools) = (self.kubeconfig(), tools.display());
        let usage = format!(
            "The cluster is ready: three nodes with the operator, and two machines outside of it, rs1 and rs2, which answer requests.

  export KUBECONFIG={} PATH={tools}:$PATH
  kubectl get nodes -o wide
  kubectl get pods -n lvs-system -o wide
  kubectl get lvsnodes.lvs-operator.io

Virtual services for rs1 and rs2, directed by node1, node2, node3 and node3; this machine is on their network:

{asking}
  kubectl get virtualservices.lvs-operator.io -o wide

What the kernel of a node holds (node1; `kubectl get pods -o wide` shows which agent is where):

  kubectl exec -n lvs-system $(kubectl get pods -n lvs-system -l app.kubernetes.io/component=agent --field-selector spec.nodeName=node1 -o name) -c agent -- lvs-agent show

`make cluster-down` ends it. The log is {}.
",
            kubeconfig.display(),
            self.log().display(),
        );
        let hidden = self.0.join("usage.new");
        fs::write(&hidden, usage)?;
        fs::rename(&hidden, self.usage_file()).context("could not write down how to use it")
    }

    fn usage(&self) -> Result<String> {
        let path = self.usage_file();
        let mut text = String::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("it is not ready yet; its log is {}", self.log().display()))?;
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

/// When a process was started, in the kernel's own measure; nothing when there is none or it has ended.
fn start_time(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let start = rest.split(' ').nth(19)?;
    (!rest.starts_with('Z')).then(|| start.to_owned())
}

fn end(child: &mut Child) -> Result<()> {
    let id = i32::try_from(child.id()).context("the process id is out of range")?;
    // It may have ended.
    kill(Pid::from_raw(id), Signal::SIGTERM).ok();
    let ended = wait_until("the end of the cluster", END, || {
        child.try_wait().context("could not look after the cluster")
    });
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    Ok(())
}

/// Waits until the network devices of a process's labs are gone.
fn await_no_devices(process: Pid) -> Result<()> {
    let mine = format!("lab{process}");
    let mut left = Vec::new();
    let gone = wait_until("the cluster's network devices to go", END, || {
        left.clear();
        for entry in fs::read_dir("/sys/class/net").context("could not list the devices")? {
            let name = entry.context("could not list the devices")?.file_name();
            let name = name.to_string_lossy().into_owned();
            // A letter follows, or it is another process, whose number is longer.
            let rest = name.strip_prefix(&mine);
            if rest.is_some_and(|rest| !rest.starts_with(|first: char| first.is_ascii_digit())) {
                left.push(name);
            }
        }
        Ok(left.is_empty().then_some(()))
    });
    ensure!(gone.is_ok(), "left are {}", left.join(", "));
    Ok(())
}

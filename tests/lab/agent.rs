//! The agent under test, on a host of the lab.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::host::{Host, Process};
use crate::wait::wait_until;

/// How long the agent may take for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells the directories of agents apart.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program that `LVS_AGENT` names.
pub fn agent_program() -> Result<PathBuf> {
    let program = std::env::var_os("LVS_AGENT").context("LVS_AGENT names no lvs-agent")?;
    Ok(program.into())
}

/// Starts an agent on a host that goes by an API server. The host's name is the machine's.
pub fn start_kube_agent(
    host: &Host,
    program: &Path,
    kubeconfig: &Path,
    state: &Path,
    log: &Path,
) -> Result<Process> {
    let mut command = host.command(program);
    command
        .args(["run", "--kube", "--node-name", host.name(), "--kubeconfig"])
        .arg(kubeconfig)
        .arg("--state-dir")
        .arg(state)
        .stderr(File::create(log).with_context(|| format!("could not make {}", log.display()))?);
    host.spawn(&mut command)
}

/// The agent of one host: a directory for its configuration, one for its state, and the ways to run it.
///
/// The program is the one that `LVS_AGENT` names. Each agent is given the name of its host as its node name.
#[derive(Clone, Debug)]
pub struct Agent {
    program: PathBuf,
    host: Host,
    config: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
}

/// How a run of the agent ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its log.
    pub log: String,
}

impl Agent {
    /// An agent that has neither configuration nor state yet.
    pub fn on(host: &Host) -> Result<Self> {
        let program = std::env::var_os("LVS_AGENT")
            .context("LVS_AGENT names no lvs-agent; run `make test-kernel`")?;
        let home = scratch().join(format!(
            "agent-{}-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed),
            host.name()
        ));
        let agent = Self {
            program: program.into(),
            host: host.clone(),
            config: home.join("config"),
            state: home.join("state"),
            environment: Vec::new(),
        };
        fs::create_dir_all(&agent.config)
            .with_context(|| format!("could not make {}", agent.config.display()))?;
        Ok(agent)
    }

    /// The same agent with another configuration, a file or a directory.
    #[must_use]
    pub fn reading(mut self, config: impl Into<PathBuf>) -> Self {
        self.config = config.into();
        self
    }

    /// The same agent with an environment variable.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.environment.push((key.to_owned(), value.into()));
        self
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The file or directory it reads.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The directory in which it keeps its ledger.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The file in which it keeps what it owns.
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger.json")
    }

    /// Replaces a file of the configuration directory as editors do: another file is renamed over it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        replace_file(&self.config.join(name), content)
    }

    /// Removes a file of the configuration directory.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.config.join(name);
        fs::remove_file(&path).with_context(|| format!("could not remove {}", path.display()))
    }

    /// A command that will run the agent with these arguments, to be started in the host's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let reads = |verb: &&str| matches!(*verb, "run" | "plan");
        command.args(arguments).args(["--log", "debug"]);
        command.args(["--node-name", self.host.name()]);
        command.arg("--state-dir").arg(&self.state);
        if arguments.first().is_some_and(reads) {
            command.arg("--config").arg(&self.config);
        }
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Runs the agent to its end.
    pub fn call(&self, arguments: &[&str]) -> Result<Ran> {
        self.finish(&mut self.command(arguments))
    }

    /// Runs a command, such as one made by [`Agent::command`], in the host's namespace to its end.
    pub fn finish(&self, command: &mut Command) -> Result<Ran> {
        let shown = format!("{command:?} on {}", self.host.name());
        let output = self
            .host
            .in_namespace(|| command.output())?
            .with_context(|| format!("could not start {shown}"))?;
        Ok(Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Makes one pass, whatever comes of it.
    pub fn run_once(&self) -> Result<Ran> {
        self.call(&["run", "--once"])
    }

    /// Makes one pass that does everything it was asked for.
    pub fn converge(&self) -> Result<Ran> {
        let ran = self.run_once()?;
        ensure!(
            ran.status.success(),
            "one pass on {} was not enough, {}:\n{}",
            self.host.name(),
            ran.status,
            ran.log
        );
        Ok(ran)
    }

    /// The steps that a pass would take, one a line; a refused object is an error.
    pub fn plan(&self) -> Result<String> {
        let ran = self.call(&["plan"])?;
        ensure!(
            ran.status.code() == Some(i32::from(!ran.stdout.is_empty())),
            "the plan on {} ended with {}:\n{}{}",
            self.host.name(),
            ran.status,
            ran.stdout,
            ran.log
        );
        Ok(ran.stdout)
    }

    /// Removes everything that is owned.
    pub fn cleanup(&self) -> Result<Ran> {
        let ran = self.call(&["cleanup"])?;
        ensure!(
            ran.status.success(),
            "cleanup on {} ended with {}:\n{}{}",
            self.host.name(),
            ran.status,
            ran.stdout,
            ran.log
        );
        Ok(ran)
    }

    /// Starts the agent and waits until it says over `NOTIFY_SOCKET` that it is ready.
    pub fn start(&self) -> Result<Running> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let notify = scratch().join(format!("notify-{}-{number}", std::process::id()));
        let socket = UnixDatagram::bind(&notify)
            .with_context(|| format!("could not listen on {}", notify.display()))?;
        socket
            .set_nonblocking(true)
            .context("could not make a socket non-blocking")?;
        let log = scratch().join(format!("log-{}-{number}", std::process::id()));
        let file =
            File::create(&log).with_context(|| format!("could not make {}", log.display()))?;
        let mut command = self.command(&["run"]);
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdout(Stdio::null())
            .stderr(file);
        let process = self.host.in_namespace(|| self.host.spawn(&mut command))??;
        let mut running = Running {
            process,
            log,
            socket,
            name: self.host.name().to_owned(),
        };
        running.await_state("READY=1")?;
        Ok(running)
    }
}

/// An agent that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Process,
    log: PathBuf,
    socket: UnixDatagram,
    name: String,
}

impl Running {
    /// Waits until the agent tells its service manager this, such as `READY=1`.
    pub fn await_state(&mut self, state: &str) -> Result<()> {
        let what = format!("`{state}` from the agent on {}", self.name);
        let told = wait_until(&what, PATIENCE, || {
            let mut buffer = [0; 4096];
            let told = match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => String::new(),
                Err(error) => return Err(error).context("could not listen to the agent"),
            };
            if told.lines().any(|line| line == state) {
                return Ok(Some(()));
            }
            match self.process.try_wait()? {
                Some(status) if told.is_empty() => bail!("the agent ended with {status}"),
                Some(_) | None => Ok(None),
            }
        });
        told.with_context(|| format!("it wrote:\n{}", self.log()))
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of the log, to wait for what comes after it.
    pub fn mark(&self) -> usize {
        self.log().len()
    }

    /// Waits until the log says this after the mark.
    pub fn await_log(&self, mark: usize, text: &str) -> Result<()> {
        self.await_that(&format!("the log to say `{text}`"), || {
            Ok(self.log().get(mark..).unwrap_or_default().contains(text))
        })
    }

    /// Waits until something is so; a failure shows the log.
    pub fn await_that(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        wait_until(what, PATIENCE, || Ok(is_so()?.then_some(())))
            .with_context(|| format!("the agent on {} wrote:\n{}", self.name, self.log()))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to read its configuration again.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// Asks it to end, waits for that, and returns its log.
    pub fn stop(mut self) -> Result<String> {
        let status = self.process.stop(PATIENCE)?;
        ensure!(
            status.success(),
            "the agent on {} ended with {status}:\n{}",
            self.name,
            self.log()
        );
        Ok(self.log())
    }

    /// Ends it at once.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }
}

/// A VirtualService of namespace `default` as a document of a YAML file. `spec` stands between braces.
pub fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// A DirectorGroup as a document of a YAML file. `spec` stands between braces.
pub fn director_group(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: lvs-operator.io/v1alpha1\nkind: DirectorGroup\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// Replaces a file by renaming another over it.
pub fn replace_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut hidden = path.to_owned();
    let name = path.file_name().context("the path names no file")?;
    hidden.set_file_name(format!(".{}.new", name.to_string_lossy()));
    fs::write(&hidden, content)
        .and_then(|()| fs::rename(&hidden, path))
        .with_context(|| format!("could not replace {}", path.display()))
}

/// The guest's directory in memory.
fn scratch() -> PathBuf {
    std::env::var_os("LAB_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from)
}

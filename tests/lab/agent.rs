//! Runs the agent under test on a host of the lab.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::host::{Host, Process};
use crate::wait::wait_until;

/// How long to wait for the agent.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A kubeconfig of an API server that does not answer.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: none, user: {}}]
";

/// Makes the directories of agents unique.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program that `LVS_AGENT` names.
pub fn agent_program() -> Result<PathBuf> {
    let program = std::env::var_os("LVS_AGENT").context("LVS_AGENT is not set")?;
    Ok(program.into())
}

/// Starts an agent with an API server as its source. The host's name is the node name.
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
        .stderr(File::create(log).with_context(|| format!("could not create {}", log.display()))?);
    host.spawn(&mut command)
}

/// The agent of one host, with a configuration directory and a state directory.
///
/// `LVS_AGENT` names the program. The host's name is the node name.
#[derive(Clone, Debug)]
pub struct Agent {
    program: PathBuf,
    host: Host,
    config: PathBuf,
    state: PathBuf,
    /// The kubeconfig of an API server, in place of the configuration directory.
    kubeconfig: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

/// The exit status and the output of one run of the agent.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its log.
    pub log: String,
}

impl Agent {
    /// An agent without configuration or state.
    pub fn on(host: &Host) -> Result<Self> {
        let program = std::env::var_os("LVS_AGENT")
            .context("LVS_AGENT is not set; run `make test-kernel`")?;
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
            kubeconfig: None,
            environment: Vec::new(),
        };
        fs::create_dir_all(&agent.config)
            .with_context(|| format!("could not create {}", agent.config.display()))?;
        Ok(agent)
    }

    /// Changes the configuration that it reads, a file or a directory.
    #[must_use]
    pub fn reading(mut self, config: impl Into<PathBuf>) -> Self {
        self.config = config.into();
        self
    }

    /// Makes an API server its source, which does not answer: the agent serves the objects that it has cached.
    pub fn without_api_server(mut self) -> Result<Self> {
        let path = self.config.join("kubeconfig");
        fs::write(&path, KUBECONFIG)
            .with_context(|| format!("could not write {}", path.display()))?;
        self.kubeconfig = Some(path);
        Ok(self)
    }

    /// Replaces the objects of an API server that it has cached. They are read at its next start.
    pub fn cache(&self, objects: &serde_json::Value) -> Result<()> {
        fs::create_dir_all(&self.state)
            .with_context(|| format!("could not create {}", self.state.display()))?;
        replace_file(&self.state.join("objects.json"), format!("{objects}\n"))
    }

    /// Adds an environment variable.
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

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The ledger's file.
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger.json")
    }

    /// Replaces a file of the configuration directory by renaming another over it, as editors do.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        replace_file(&self.config.join(name), content)
    }

    /// Removes a file of the configuration directory.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.config.join(name);
        fs::remove_file(&path).with_context(|| format!("could not remove {}", path.display()))
    }

    /// A command that runs the agent with these arguments; to be started in the host's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let reads = |verb: &&str| matches!(*verb, "run" | "plan");
        command.args(arguments).args(["--log", "debug"]);
        command.args(["--node-name", self.host.name()]);
        command.arg("--state-dir").arg(&self.state);
        if arguments.first().is_some_and(reads) {
            match &self.kubeconfig {
                Some(kubeconfig) => command.args(["--kube", "--kubeconfig"]).arg(kubeconfig),
                None => command.arg("--config").arg(&self.config),
            };
        }
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Runs the agent to its end.
    pub fn call(&self, arguments: &[&str]) -> Result<Ran> {
        self.finish(&mut self.command(arguments))
    }

    /// Runs a command, such as one from [`Agent::command`], in the host's namespace to its end.
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

    /// Makes one pass, which may fail.
    pub fn run_once(&self) -> Result<Ran> {
        self.call(&["run", "--once"])
    }

    /// Makes one pass, which must do everything.
    pub fn converge(&self) -> Result<Ran> {
        let ran = self.run_once()?;
        ensure!(
            ran.status.success(),
            "one pass on {} did not do everything, {}:\n{}",
            self.host.name(),
            ran.status,
            ran.log
        );
        Ok(ran)
    }

    /// The steps that a pass would take, one per line; a rejected object is an error.
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

    /// Runs `lvs-agent cleanup`, which must succeed.
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

    /// Starts the agent and waits until it reports readiness over `NOTIFY_SOCKET`.
    pub fn start(&self) -> Result<Running> {
        let mut running = self.launch()?;
        running.await_state("READY=1")?;
        Ok(running)
    }

    /// Starts the agent and waits for nothing.
    pub fn launch(&self) -> Result<Running> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let notify = scratch().join(format!("notify-{}-{number}", std::process::id()));
        let socket = UnixDatagram::bind(&notify)
            .with_context(|| format!("could not listen on {}", notify.display()))?;
        socket
            .set_nonblocking(true)
            .context("could not make a socket non-blocking")?;
        let log = scratch().join(format!("log-{}-{number}", std::process::id()));
        let file =
            File::create(&log).with_context(|| format!("could not create {}", log.display()))?;
        let mut command = self.command(&["run"]);
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdout(Stdio::null())
            .stderr(file);
        let process = self.host.in_namespace(|| self.host.spawn(&mut command))??;
        Ok(Running {
            process,
            log,
            socket,
            name: self.host.name().to_owned(),
        })
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Process,
    log: PathBuf,
    socket: UnixDatagram,
    name: String,
}

impl Running {
    /// Waits until the agent sends this state to its service manager, such as `READY=1`.
    pub fn await_state(&mut self, state: &str) -> Result<()> {
        let what = format!("`{state}` from the agent on {}", self.name);
        let waited = wait_until(&what, TIMEOUT, || {
            let mut buffer = [0; 4096];
            let received = match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => String::new(),
                Err(error) => return Err(error).context("could not read from the notify socket"),
            };
            if received.lines().any(|line| line == state) {
                return Ok(Some(()));
            }
            match self.process.try_wait()? {
                Some(status) if received.is_empty() => bail!("the agent ended with {status}"),
                Some(_) | None => Ok(None),
            }
        });
        waited.with_context(|| format!("it wrote:\n{}", self.log()))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The current end of the log, from which [`Running::await_log`] searches.
    pub fn mark(&self) -> usize {
        self.log().len()
    }

    /// Waits until the log contains a text after the mark.
    pub fn await_log(&self, mark: usize, text: &str) -> Result<()> {
        self.await_that(&format!("the log to contain `{text}`"), || {
            Ok(self.log().get(mark..).unwrap_or_default().contains(text))
        })
    }

    /// Waits until a condition holds; an error includes the log.
    pub fn await_that(&self, what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
        wait_until(what, TIMEOUT, || Ok(condition()?.then_some(())))
            .with_context(|| format!("the agent on {} wrote:\n{}", self.name, self.log()))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends SIGHUP, which makes a pass over everything.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// Sends SIGTERM, waits until it has ended, and returns its log.
    pub fn stop(mut self) -> Result<String> {
        let status = self.process.stop(TIMEOUT)?;
        ensure!(
            status.success(),
            "the agent on {} ended with {status}:\n{}",
            self.name,
            self.log()
        );
        Ok(self.log())
    }

    /// Kills it.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Waits until it has killed itself, at the point that `LVS_AGENT_KILL_AT` names.
    pub fn await_death(mut self) -> Result<()> {
        let ended = self.process.wait(TIMEOUT);
        let status = ended.with_context(|| self.log())?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        ensure!(killed, "it ended with {status}:\n{}", self.log());
        Ok(())
    }
}

/// A VirtualService in the namespace `default` as a YAML document. `spec` is placed between braces.
pub fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// A DirectorGroup as a YAML document. `spec` is placed between braces.
pub fn director_group(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: lvs-operator.io/v1alpha1\nkind: DirectorGroup\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// Replaces a file by renaming another over it.
pub fn replace_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut hidden = path.to_owned();
    let name = path.file_name().context("the path has no file name")?;
    hidden.set_file_name(format!(".{}.new", name.to_string_lossy()));
    fs::write(&hidden, content)
        .and_then(|()| fs::rename(&hidden, path))
        .with_context(|| format!("could not replace {}", path.display()))
}

/// The directory in memory that a guest provides.
fn scratch() -> PathBuf {
    std::env::var_os("LAB_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from)
}

//! Runs a program of the control plane until it is killed, with its own log file.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow, bail};

use crate::host::Process;
use crate::kernel::find_program;
use crate::log::last_lines;

/// How many lines of the end of a log an error includes.
const LOG_LINES: usize = 40;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program. Its log file is in `directory` and named after it.
    pub(super) fn start(program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let log = directory.join(format!("{name}.log"));
        let open = || {
            let file = File::options().create(true).append(true).open(&log)?;
            Ok::<_, io::Error>((file.try_clone()?, file))
        };
        let (output, errors) =
            open().with_context(|| format!("could not create {}", log.display()))?;
        let mut command = Command::new(find_program("setpriv")?);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Its own process group, so that the terminal's Ctrl-C does not reach it: the lab ends it in order.
            .process_group(0);
        let child =
            start_on_lasting_thread(command).with_context(|| format!("could not start {name}"))?;
        let process = Process::adopt(child, name.clone());
        Ok(Self { name, process, log })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the program, since `setpriv` replaces itself with it.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails if the program has ended; the error includes the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; {}", self.name, self.end_of_log()),
        }
    }

    /// The end of the log.
    pub(super) fn end_of_log(&self) -> String {
        let lines = last_lines(&self.log, LOG_LINES);
        format!("the end of {}:\n{lines}", self.log.display())
    }

    /// Kills the program and waits until it has ended.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }
}

/// Starts a command from a thread that lives as long as this process.
///
/// `setpriv --pdeathsig` ends a program with the thread that started it. A test's thread ends with the test, and the next test
/// may need the program.
fn start_on_lasting_thread(command: Command) -> Result<Child> {
    type StartOrder = (Command, Sender<io::Result<Child>>);
    static STARTER: OnceLock<Sender<StartOrder>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<StartOrder>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                reply.send(command.spawn()).ok();
            }
        });
        orders
    });
    let (reply, child) = channel();
    let ended = || anyhow!("the thread that starts programs has ended");
    starter
        .send((command, reply))
        .map_err(|_returned| ended())?;
    Ok(child.recv().map_err(|_ended| ended())??)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::wait_until;

    fn shell(script: &str, directory: &Path) -> Daemon {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Daemon::start(Path::new("/bin/sh"), &arguments, directory).unwrap()
    }

    #[test]
    fn a_daemon_that_has_ended_is_reported_with_the_end_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = shell("seq 100; echo no such port >&2; exit 3", directory.path());
        let error = wait_until("its end", Duration::from_secs(20), || {
            Ok(daemon.check().err())
        });
        let error = error.unwrap().to_string();
        assert!(error.starts_with("sh ended with exit status: 3; the end of /"));
        assert!(error.ends_with("\n99\n100\nno such port"), "{error}");
        assert!(!error.contains("\n60\n"), "{error}");
    }

    #[test]
    fn a_daemon_outlives_the_thread_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = std::thread::scope(|scope| {
            let path = directory.path();
            scope.spawn(|| shell("sleep 1000", path)).join().unwrap()
        });
        daemon.check().unwrap();
        daemon.kill().unwrap();
        assert!(daemon.check().is_err());
    }
}

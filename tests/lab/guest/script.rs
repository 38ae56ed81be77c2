//! Runs shell scripts in a running guest, on request of the host.
//!
//! They are exchanged through the directory of the run, like the request. That needs no network and no terminal, so it works even
//! if a test has broken the guest's network, and only the host's administrator can send a script.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Guest;
use super::request::Exit;
use crate::wait::wait_until;

/// The environment variable with the directory for scripts, in a guest.
pub(super) const DIRECTORY: &str = "LAB_SCRIPTS";

/// Longer than any guest runs.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Counts the scripts of this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The files of one script. The guest removes the script when it starts, and renames the exit file into place when the output is
/// complete.
struct ScriptFiles {
    script: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    exit: PathBuf,
}

impl ScriptFiles {
    fn new(directory: &Path, name: &str) -> Self {
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        Self {
            script: file("script"),
            stdout: file("stdout"),
            stderr: file("stderr"),
            exit: file("exit"),
        }
    }
}

impl Guest {
    /// Runs a shell script in the guest and returns its standard output; an error includes its standard error. The guest's command
    /// must be [`run_scripts`].
    pub fn run_script(&self, script: &str, timeout: Duration) -> Result<String> {
        self.ensure_running()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let files = ScriptFiles::new(&self.scripts, &number.to_string());
        let temporary = files.script.with_extension("new");
        fs::write(&temporary, script)
            .and_then(|()| fs::rename(&temporary, &files.script))
            .context("could not write a script")?;
        let exit: Exit = wait_until("the end of a script", timeout, || {
            if let Ok(text) = fs::read(&files.exit) {
                return Ok(Some(serde_json::from_slice(&text)?));
            }
            self.ensure_running()?;
            Ok(None)
        })
        .with_context(|| format!("a script in a guest: {script}"))?;
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let stdout = read(&files.stdout);
        let stderr = read(&files.stderr);
        ensure!(
            exit.success(),
            "a script in a guest ended with status {}: {script}\n{}{}",
            exit.code(),
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    fn ensure_running(&self) -> Result<()> {
        ensure!(
            !self.is_finished(),
            "the guest ended\n{}{}",
            self.stdout(),
            self.stderr()
        );
        Ok(())
    }
}

/// Runs scripts as they arrive, in parallel, until the guest ends.
pub fn run_scripts() -> Result<()> {
    let directory = std::env::var_os(DIRECTORY)
        .with_context(|| format!("{DIRECTORY} is not set: this is not the command of a guest"))?;
    let directory = PathBuf::from(directory);
    println!("{READY}");
    wait_until("scripts", FOREVER, || {
        for entry in fs::read_dir(&directory).context("could not list the scripts")? {
            let path = entry.context("could not list the scripts")?.path();
            if path.extension() == Some(OsStr::new("script")) {
                take(&directory, &path)?;
            }
        }
        Ok(None)
    })
}

/// The line that [`run_scripts`] prints first.
pub(crate) const READY: &str = "ready for scripts";

fn take(directory: &Path, script: &Path) -> Result<()> {
    let name = script.file_stem().context("a script has no name")?;
    let files = ScriptFiles::new(directory, &name.to_string_lossy());
    let text = fs::read_to_string(script).context("could not read a script")?;
    fs::remove_file(script).context("could not remove a script")?;
    std::thread::Builder::new()
        .name("script".to_owned())
        .spawn(move || {
            if let Err(error) = run(&text, &files) {
                eprintln!("lab: {error:#}");
            }
        })
        .context("could not start a thread for a script")?;
    Ok(())
}

fn run(script: &str, files: &ScriptFiles) -> Result<()> {
    let status = Command::new("sh")
        .args(["-e", "-c", script])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&files.stdout)?)
        .stderr(fs::File::create(&files.stderr)?)
        .status()
        .context("could not start a shell for a script")?;
    let exit = Exit::of(status).context("a script ended neither with a status nor by a signal")?;
    let temporary = files.exit.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&exit)?)?;
    fs::rename(&temporary, &files.exit).context("could not write the exit status of a script")
}

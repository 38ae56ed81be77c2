//! Errands: shell scripts that the host sends to a running guest.
//!
//! They are exchanged through the directory of the run, like the request. That needs no network and no terminal, so it works even
//! if a test has broken the guest's network, and only the host's administrator can send one.

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

/// The environment variable with the directory for errands, in a guest.
pub(super) const DIRECTORY: &str = "LAB_ERRANDS";

/// Longer than any guest runs.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Counts the errands of this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The files of one errand. The guest removes the script when it starts, and renames the exit file into place when the output is
/// complete.
struct Errand {
    script: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    exit: PathBuf,
}

impl Errand {
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
    /// must be [`attend_to_errands`].
    pub fn run_errand(&self, script: &str, timeout: Duration) -> Result<String> {
        self.ensure_running()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let errand = Errand::new(&self.errands, &number.to_string());
        let temporary = errand.script.with_extension("new");
        fs::write(&temporary, script)
            .and_then(|()| fs::rename(&temporary, &errand.script))
            .context("could not write an errand")?;
        let exit: Exit = wait_until("the end of an errand", timeout, || {
            if let Ok(text) = fs::read(&errand.exit) {
                return Ok(Some(serde_json::from_slice(&text)?));
            }
            self.ensure_running()?;
            Ok(None)
        })
        .with_context(|| format!("an errand to a guest: {script}"))?;
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let stdout = read(&errand.stdout);
        let stderr = read(&errand.stderr);
        ensure!(
            exit.success(),
            "an errand to a guest ended with status {}: {script}\n{}{}",
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

/// Runs errands as they arrive, in parallel, until the guest ends.
pub fn attend_to_errands() -> Result<()> {
    let directory = std::env::var_os(DIRECTORY)
        .with_context(|| format!("{DIRECTORY} is not set: this is not the command of a guest"))?;
    let directory = PathBuf::from(directory);
    println!("{READY}");
    wait_until("errands", FOREVER, || {
        for entry in fs::read_dir(&directory).context("could not list errands")? {
            let path = entry.context("could not list errands")?.path();
            if path.extension() == Some(OsStr::new("script")) {
                take(&directory, &path)?;
            }
        }
        Ok(None)
    })
}

/// The line that [`attend_to_errands`] prints first.
pub(crate) const READY: &str = "ready for errands";

fn take(directory: &Path, script: &Path) -> Result<()> {
    let name = script.file_stem().context("an errand has no name")?;
    let errand = Errand::new(directory, &name.to_string_lossy());
    let text = fs::read_to_string(script).context("could not read an errand")?;
    fs::remove_file(script).context("could not remove an errand's script")?;
    std::thread::Builder::new()
        .name("errand".to_owned())
        .spawn(move || {
            if let Err(error) = run(&text, &errand) {
                eprintln!("lab: {error:#}");
            }
        })
        .context("could not start a thread for an errand")?;
    Ok(())
}

fn run(script: &str, errand: &Errand) -> Result<()> {
    let status = Command::new("sh")
        .args(["-e", "-c", script])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&errand.stdout)?)
        .stderr(fs::File::create(&errand.stderr)?)
        .status()
        .context("could not start a shell for an errand")?;
    let exit = Exit::of(status).context("an errand ended neither with a status nor by a signal")?;
    let temporary = errand.exit.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&exit)?)?;
    fs::rename(&temporary, &errand.exit).context("could not write the exit status of an errand")
}

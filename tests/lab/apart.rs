//! Runs a command of the lab apart from this machine's network, mounts and processes.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Set in the new namespaces.
const APART: &str = "LAB_APART";

/// Mounts what a lab writes to, and starts it. The shell is the first process: the kernel shields that one from signals, and the lab
/// must end on Ctrl-C. Everything ends with the shell.
const SCRIPT: &str = "mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys; ip link set lo up; \"$0\" \"$@\"; exit $?";

/// Starts this program again with the same arguments in new namespaces, and runs `work` there. However it ends, no device, no
/// namespace, no process and no file of it is left.
pub(crate) fn run(work: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    if env::var_os(APART).is_some() {
        return work().map(|()| ExitCode::SUCCESS);
    }
    let lab = env::current_exe().context("could not find out which program this is")?;
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
        ])
        .args(["--", "sh", "-e", "-c", SCRIPT])
        .arg(lab)
        .args(env::args_os().skip(1))
        .env(APART, "1")
        .env("TMPDIR", "/run")
        .status()
        .context("could not run unshare")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

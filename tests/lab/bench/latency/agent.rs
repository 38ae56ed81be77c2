//! The agent that is measured, and how it starts.

use std::{env, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Host, Process, agent_program, start_kube_agent};

/// The variable that names the folder of kubeconfig files, in the guest.
pub(super) const KUBECONFIGS: &str = "LAB_BENCH_KUBECONFIGS";

/// What an agent finds when it starts. The kernel is empty in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// No state of an earlier agent.
    NewMachine,
    /// The state of the agent that ran before.
    Reboot,
}

/// The agent of a machine.
pub(super) struct Agent {
    /// Its process.
    pub process: Process,
}

impl Agent {
    /// Empties the kernel and starts an agent. No other runs on the machine.
    pub(super) fn start(host: &Host, start: Start) -> Result<Self> {
        let agent = agent_program()?;
        let state = scratch().join(format!("latency-{}", host.name()));
        let kept = scratch().join(format!("latency-{}-kept", host.name()));
        if start == Start::Reboot {
            let copied = Command::new("cp").arg("-a").args([&state, &kept]).status();
            ensure!(copied?.success(), "could not copy {}", state.display());
        }
        let mut cleanup = host.command(&agent);
        cleanup
            .args(["cleanup", "--node-name", host.name(), "--state-dir"])
            .arg(&state);
        cleanup.stdout(std::process::Stdio::null());
        ensure!(cleanup.status()?.success(), "lvs-agent cleanup failed");
        fs::remove_dir_all(&state)?;
        if start == Start::Reboot {
            fs::rename(kept, &state)?;
        }
        let log = scratch().join(format!("{}.log", host.name()));
        let process = start_kube_agent(host, &agent, &kubeconfig(host.name())?, &state, &log)?;
        Ok(Self { process })
    }

    /// Ends the agent.
    pub(super) fn stop(mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(30)).map(drop)
    }
}

/// The folder for files that only a run needs.
pub(super) fn scratch() -> PathBuf {
    PathBuf::from(env::var_os("LAB_SCRATCH").unwrap_or_else(|| "/tmp".into()))
}

/// The kubeconfig file of a user.
pub(super) fn kubeconfig(name: &str) -> Result<PathBuf> {
    let directory =
        env::var_os(KUBECONFIGS).with_context(|| format!("{KUBECONFIGS} is not set"))?;
    Ok(PathBuf::from(directory).join(name))
}

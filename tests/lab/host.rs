//! A host of a laid-out lab: commands, settings and sockets inside its network namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::topology::HostSpec;
use crate::traffic::Responder;
use crate::wait::wait_until;

/// A machine of the lab. Clones refer to the same machine.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    spec: HostSpec,
    namespace: Arc<Namespace>,
}

impl Host {
    pub(crate) fn new(name: String, spec: HostSpec, namespace: Arc<Namespace>) -> Self {
        Self {
            name,
            spec,
            namespace,
        }
    }

    /// The host's name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its network namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    pub(crate) fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// The file descriptor of its namespace, for netlink requests.
    pub(crate) fn namespace_handle(&self) -> RawFd {
        self.namespace.handle()
    }

    /// The addresses of a link in the topology; empty for an unknown link.
    pub fn addresses(&self, link: &str) -> &[IpNet] {
        self.spec
            .links
            .get(link)
            .map_or(&[], |link| &link.addresses)
    }

    /// A command that runs on this host when started. Its `/sys` and `/proc/sys/net` show this host's network.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.namespace()])
            .arg(program);
        command
    }

    /// Runs a command to its end and returns its standard output; an error includes its standard error.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let (program, arguments) = command
            .split_first()
            .context("there is no command to run")?;
        let shown = || format!("`{}` on {}", command.join(" "), self.name);
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not start {}", shown()))?;
        ensure!(
            output.status.success(),
            "{} ended with {}: {}",
            shown(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8(output.stdout)
            .with_context(|| format!("the output of {} is not text", shown()))
    }

    /// Starts a command from [`Host::command`]; dropping the returned process kills it.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let description = format!("{command:?}");
        let child = command
            .spawn()
            .with_context(|| format!("could not start {description} on {}", self.name))?;
        Ok(Process::adopt(child, description))
    }

    /// Reads a sysctl below `net.`, such as `net.ipv4.ip_forward`. For a link with a dot in its name, use slashes:
    /// `net/ipv4/conf/eth0.1/…`.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key)?;
        let text = self.in_namespace(|| fs::read_to_string(&path))?;
        let text =
            text.with_context(|| format!("could not read the sysctl {key} of {}", self.name))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes a sysctl below `net.`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.in_namespace(|| write_sysctl(key, value))?
            .with_context(|| format!("host `{}`", self.name))
    }

    /// Runs `work` on a thread in this host's network namespace.
    ///
    /// Sockets opened there stay on this host, and `/proc/sys/net` and `/proc/thread-self/net` are this host's. `/sys` is not; only
    /// a command from [`Host::command`] sees the host's `/sys`.
    pub fn in_namespace<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// Answers TCP and UDP on `port` of every IPv4 and IPv6 address, with this host's name.
    pub fn respond(&self, port: u16) -> Result<Responder> {
        self.in_namespace(|| Responder::on_every_address(&self.name, port))?
    }
}

/// Writes a sysctl below `net.` in the network namespace of the calling thread.
pub(crate) fn write_sysctl(key: &str, value: &str) -> Result<()> {
    fs::write(sysctl_path(key)?, value).with_context(|| format!("could not set {key} to {value}"))
}

/// The file of a sysctl. As in sysctl(8), the first dot or slash of the key decides which of the two separates its parts.
fn sysctl_path(key: &str) -> Result<PathBuf> {
    let separator = key
        .find(['.', '/'])
        .and_then(|at| key.get(at..=at))
        .unwrap_or(".");
    let mut path = PathBuf::from("/proc/sys");
    for part in key.split(separator) {
        ensure!(
            !part.is_empty() && part != "..",
            "`{key}` is not the name of a sysctl"
        );
        path.push(part);
    }
    ensure!(
        path.starts_with("/proc/sys/net"),
        "the sysctl {key} is not below `net.`, so it does not belong to one host"
    );
    Ok(path)
}

/// A process that runs on a host. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    description: String,
}

impl Process {
    /// Wraps a child that was started elsewhere.
    pub(crate) fn adopt(child: Child, description: String) -> Self {
        Self { child, description }
    }

    /// The process id. It is the program's own, since `ip netns exec` replaces itself with the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status; `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("could not wait for {}", self.description))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.description);
        wait_until(&what, timeout, || self.try_wait())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("the process id is out of range")?;
        kill(Pid::from_raw(id), signal)
            .with_context(|| format!("could not send {signal} to {}", self.description))
    }

    /// Sends SIGTERM and waits until it has ended.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("could not kill {}", self.description))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_slashes_keeps_the_dots_of_a_link() {
        let path = sysctl_path("net/ipv4/conf/eth0.1/rp_filter").unwrap();
        assert_eq!(
            path,
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
    }

    #[test]
    fn a_sysctl_outside_net_is_refused() {
        for key in [
            "kernel.panic",
            "net.ipv4../../kernel/panic",
            "net/../kernel/panic",
            "",
        ] {
            assert!(sysctl_path(key).is_err(), "{key}");
        }
    }
}

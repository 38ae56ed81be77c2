//! Measures the peak memory and the processor time of a program.

use std::{
    fs,
    num::ParseIntError,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::Host;
use nix::sys::resource::{UsageWho, getrusage};

/// The duration, peak memory and standard error of a program.
pub(super) struct Usage {
    pub took: Duration,
    pub peak_kib: u64,
    pub stderr: String,
}

/// The prefixes of the lines in which `lab measured` prints the time from start to exit, and the
/// peak memory.
const TOOK: &str = "took-us=";
const PEAK: &str = "peak-kib=";

/// Returns a command that runs a program on a machine and prints its time and peak memory at the
/// end.
pub(super) fn command(host: &Host, program: &Path, arguments: &[&str]) -> Result<Command> {
    let lab = std::env::current_exe().context("could not find out which program this is")?;
    let mut command = host.command(lab);
    command
        .args(["measured", "--"])
        .arg(program)
        .args(arguments);
    Ok(command)
}

/// Runs a command from [`command`].
pub(super) fn run(mut command: Command) -> Result<Usage> {
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{stderr}",
        output.status
    );
    Ok(Usage {
        took: reported_duration(&stderr, TOOK)?,
        peak_kib: reported(&stderr, PEAK)?,
        stderr,
    })
}

/// Returns the number in the line of standard error with this prefix.
pub(super) fn reported<T: FromStr<Err = ParseIntError>>(stderr: &str, prefix: &str) -> Result<T> {
    let line = stderr.lines().find_map(|line| line.strip_prefix(prefix));
    let number = line.with_context(|| format!("there is no line with {prefix}"))?;
    Ok(number.parse()?)
}

/// Returns the microseconds in the line of standard error with this prefix.
pub(super) fn reported_duration(stderr: &str, prefix: &str) -> Result<Duration> {
    Ok(Duration::from_micros(reported(stderr, prefix)?))
}

/// Runs a program and prints its time and peak memory on standard error, for `lab measured`.
pub(crate) fn measured(program: &str, arguments: &[String]) -> Result<i32> {
    let started = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("could not start `{program}`"))?;
    eprintln!("{TOOK}{}", started.elapsed().as_micros());
    eprintln!("{PEAK}{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(status.code().unwrap_or(1))
}

/// Returns the greatest value of a field in milliseconds in a JSON log.
pub(super) fn logged_milliseconds(log: &str, field: &str) -> Duration {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let milliseconds = lines
        .filter_map(|line| line.get(field)?.as_f64())
        .fold(0.0, f64::max);
    Duration::from_secs_f64(milliseconds / 1e3)
}

/// Returns the sum of the memory peaks of a process and its descendants, in KiB.
pub(super) fn peak_of_tree(pid: u32) -> Result<u64> {
    let own = status_field(pid, "VmHWM:")?;
    children(pid)?
        .into_iter()
        .try_fold(own, |sum, child| Ok(sum + peak_of_tree(child)?))
}

/// Returns the only child of a process, if the process is a wrapper, or the process itself.
pub(super) fn only_child_or_self(pid: u32) -> Result<u32> {
    Ok(match children(pid)?.as_slice() {
        [child] => *child,
        _ => pid,
    })
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace()
        .map(|child| Ok(child.parse()?))
        .collect()
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Returns the processor time of a process so far, in steps of 10 ms.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat
        .rsplit_once(')')
        .context("/proc/PID/stat is not valid")?
        .1;
    let ticks = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

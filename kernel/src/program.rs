//! Runs other programs, for kernel functions that have no suitable library.

use std::{io, process::Stdio, time::Duration};

use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command};
use tracing::debug;

/// Why a program failed.
#[derive(Debug, Error)]
pub(super) enum ProgramError {
    /// The program is not installed.
    #[error("there is no such program")]
    NotFound,
    /// The program cannot be run.
    #[error("the program cannot be run")]
    Run(#[source] io::Error),
    /// The program reports an error: the first line of its error output.
    #[error("{0}")]
    Refused(String),
    /// The program did not end in time and was killed.
    #[error("it did not end within {} seconds and was killed", .0.as_secs())]
    TimedOut(Duration),
}

/// The longest that a program may run: ten times what a large ruleset needs on a slow machine.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Runs a program until it exits, and returns its output. A program that hangs is killed.
pub(super) async fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, ProgramError> {
    run_within(TIME_LIMIT, program, arguments, input).await
}

async fn run_within(
    limit: Duration,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, ProgramError> {
    // Dropping the future kills the program.
    let ended = tokio::time::timeout(limit, run_to_its_end(program, arguments, input)).await;
    ended.unwrap_or(Err(ProgramError::TimedOut(limit)))
}

async fn run_to_its_end(
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, ProgramError> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                ProgramError::NotFound
            } else {
                ProgramError::Run(error)
            }
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that exits before it has read everything reports the reason itself.
        if let Err(error) = stdin.write_all(input.as_bytes()).await {
            debug!(program, %error, "the program did not read all of its input");
        }
    }
    let output = child.wait_with_output().await.map_err(ProgramError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let first = errors.lines().next().unwrap_or("nothing");
    Err(ProgramError::Refused(first.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_gets_its_input_and_its_first_error_line_is_returned() {
        assert_eq!(run("cat", &["-"], "a\nb\n").await.unwrap(), "a\nb\n");

        let script = "echo one >&2; echo two >&2; exit 3";
        let refused = run("sh", &["-c", script], "not read").await;
        assert!(matches!(refused, Err(ProgramError::Refused(message)) if message == "one"));

        let silent = run("false", &[], "").await;
        assert!(matches!(silent, Err(ProgramError::Refused(message)) if message == "nothing"));

        let absent = run("lvs-operator-has-no-such-program", &[], "").await;
        assert!(matches!(absent, Err(ProgramError::NotFound)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_error_of_a_program_that_exits_without_reading_its_input_is_returned() {
        let long = "x".repeat(1 << 20);
        let refused = run("sh", &["-c", "echo no >&2; exit 1"], &long).await;
        assert!(matches!(refused, Err(ProgramError::Refused(message)) if message == "no"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_hangs_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let limit = Duration::from_millis(500);

        let hung = run_within(limit, "sh", &["-c", &script], "").await;

        assert!(matches!(hung, Err(ProgramError::TimedOut(found)) if found == limit));
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let is_gone = || state().map_or(true, |state| state.contains(") Z"));
        for _ in 0..100 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it runs: {:?}", state());
    }
}

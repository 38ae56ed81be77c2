//! Other programs, for what the kernel is told by them only.

use std::{io, process::Stdio};

use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command};
use tracing::debug;

/// Why a program did not do what it was to do.
#[derive(Debug, Error)]
pub(super) enum ProgramError {
    /// The program is not there.
    #[error("there is no such program")]
    NotThere,
    /// The program does not run.
    #[error("it does not run")]
    Run(#[source] io::Error),
    /// The program refuses; its first complaint.
    #[error("{0}")]
    Refused(String),
}

/// Runs a program to its end and returns what it prints.
pub(super) async fn run(
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
                ProgramError::NotThere
            } else {
                ProgramError::Run(error)
            }
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that exits before it has read everything says why.
        if let Err(error) = stdin.write_all(input.as_bytes()).await {
            debug!(program, %error, "the program did not read all of its input");
        }
    }
    let output = child.wait_with_output().await.map_err(ProgramError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    let first = complaints.lines().next().unwrap_or("nothing");
    Err(ProgramError::Refused(first.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_reads_its_input_and_its_first_complaint_is_told() {
        assert_eq!(run("cat", &["-"], "a\nb\n").await.unwrap(), "a\nb\n");

        let complains = "echo one >&2; echo two >&2; exit 3";
        let refused = run("sh", &["-c", complains], "not read").await;
        assert!(matches!(refused, Err(ProgramError::Refused(says)) if says == "one"));

        let silent = run("false", &[], "").await;
        assert!(matches!(silent, Err(ProgramError::Refused(says)) if says == "nothing"));

        let absent = run("lvs-operator-has-no-such-program", &[], "").await;
        assert!(matches!(absent, Err(ProgramError::NotThere)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_exits_before_it_has_read_everything_is_heard() {
        let long = "x".repeat(1 << 20);
        let refused = run("sh", &["-c", "echo no >&2; exit 1"], &long).await;
        assert!(matches!(refused, Err(ProgramError::Refused(says)) if says == "no"));
    }
}

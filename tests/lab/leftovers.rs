//! Removes temporary directories after this process has ended, however it ends.
//!
//! Normally a value removes its directory when it is dropped, but a static is never dropped, nor is anything in a process that is
//! killed.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// The standard input of the process that removes the directories. It reads end of file when this process has ended.
static REMOVER: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Programs that end with this process may still write for a moment, so the removal is retried.
const SCRIPT: &str = r#"
set --
while IFS= read -r directory; do set -- "$@" "$directory"; done
for directory; do
  for attempt in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$directory" 2>/dev/null && break; sleep 0.5; done
done
"#;

/// Removes a directory after the end of this process, if it still exists then.
pub(crate) fn remove_at_the_end(directory: &Path) -> Result<()> {
    let mut remover = REMOVER.lock().unwrap_or_else(PoisonError::into_inner);
    if remover.is_none() {
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Its own process group, so that the terminal's Ctrl-C does not reach it.
            .process_group(0)
            .spawn()
            .context("could not start the process that removes directories")?;
        *remover = child.stdin;
    }
    let pipe = remover.as_mut().context("the process has no input")?;
    writeln!(pipe, "{}", directory.display())
        .with_context(|| format!("could not schedule the removal of {}", directory.display()))
}

//! What must not outlive this process, however it ends: directories that nobody is left to remove.
//!
//! A value that is dropped removes its own. A static never is, and a process that is killed drops nothing.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// The standard input of the process that removes what is left; it reads on until this process ends.
static UNDERTAKER: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Programs that end with this process may still write for a moment, so that removing does not succeed at once.
const SCRIPT: &str = r#"
set --
while IFS= read -r directory; do set -- "$@" "$directory"; done
for directory; do
  for attempt in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$directory" 2>/dev/null && break; sleep 0.5; done
done
"#;

/// Has a directory removed after the end of this process, if it is still there then.
pub(crate) fn remove_at_the_end(directory: &Path) -> Result<()> {
    let mut undertaker = UNDERTAKER.lock().unwrap_or_else(PoisonError::into_inner);
    if undertaker.is_none() {
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // A group of its own keeps the terminal's Ctrl-C from it.
            .process_group(0)
            .spawn()
            .context("could not start the process that removes what is left")?;
        *undertaker = child.stdin;
    }
    let pipe = undertaker.as_mut().context("the process has no input")?;
    writeln!(pipe, "{}", directory.display())
        .with_context(|| format!("could not have {} removed", directory.display()))
}

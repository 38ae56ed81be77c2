//! Reads the ends of log files, for error messages.

use std::{fs, path::Path};

/// The last `count` lines of a file; empty if it cannot be read.
pub fn last_lines(path: &Path, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.len().saturating_sub(count);
    lines.into_iter().skip(shown).collect::<Vec<_>>().join("\n")
}

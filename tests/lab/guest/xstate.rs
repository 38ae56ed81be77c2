//! Builds the library that User Mode Linux needs on processors with AMX; `xstate.c` has the reason.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("xstate.c");

/// Builds the library in a directory, to be preloaded (ld.so(8), `LD_PRELOAD`) into `linux.uml`.
///
/// # Errors
/// If there is no C compiler, which Rust needs too, or it fails.
pub(super) fn build(directory: &Path) -> Result<PathBuf> {
    let source = directory.join("xstate.c");
    let library = directory.join("xstate.so");
    fs::write(&source, SOURCE).with_context(|| format!("could not write {}", source.display()))?;
    let output = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .context("the lab compiles a small C library: run `apt-get install gcc libc6-dev`")?;
    ensure!(
        output.status.success(),
        "cc failed on {}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(library)
}

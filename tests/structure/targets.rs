//! The packages of a workspace, with their libraries, programs and tests, from `cargo metadata`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A library or a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The name in messages: the package, and the program if the package has several.
    pub(crate) name: String,
    /// The folder in the table of counts: that of its package, or that of its root file if this is not below `src`.
    pub(crate) folder: String,
    /// The root file, relative to the root of the workspace.
    pub(crate) root_file: String,
}

/// The part of `cargo metadata` that the rules need.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    /// The packages of the workspace.
    pub(crate) packages: Vec<Package>,
    workspace_root: String,
}

/// A package with all of its targets.
#[derive(Deserialize)]
pub(crate) struct Package {
    name: String,
    /// The path of its `Cargo.toml`.
    pub(crate) manifest_path: String,
    targets: Vec<Built>,
}

/// What Cargo builds: a library, a program, a test, an example or a benchmark.
#[derive(Deserialize)]
pub(crate) struct Built {
    /// The name of the target.
    pub(crate) name: String,
    kind: Vec<String>,
    src_path: String,
    #[serde(rename = "required-features", default)]
    required_features: Vec<String>,
}

impl Package {
    /// The integration tests of the package.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &Built> {
        self.targets
            .iter()
            .filter(|built| built.kind.iter().any(|kind| kind == "test"))
    }
}

impl Built {
    /// Whether plain `cargo test` leaves the target out.
    pub(crate) const fn needs_a_feature(&self) -> bool {
        !self.required_features.is_empty()
    }
}

/// Reads what Cargo knows of the workspace in a folder.
///
/// # Errors
///
/// When Cargo cannot read the workspace.
pub(crate) fn read(root: &Path) -> Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root)
        .output()
        .context("could not start `cargo metadata`")?;
    ensure!(
        output.status.success(),
        "`cargo metadata` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("could not read `cargo metadata`")
}

/// The libraries and programs of a workspace; its tests, examples and benchmarks are left out.
pub(crate) fn targets(metadata: &Metadata) -> Vec<Target> {
    let prefix = format!("{}/", metadata.workspace_root);
    let relative = |path: &str| path.strip_prefix(&prefix).unwrap_or(path).to_owned();
    let mut targets = Vec::new();
    for package in &metadata.packages {
        let folder = parent(&relative(&package.manifest_path)).to_owned();
        let built = package.targets.iter().filter(|built| is_shipped(built));
        targets.extend(built.map(|built| {
            let root_file = relative(&built.src_path);
            Target {
                name: target_name(package, built),
                folder: counted_under(&folder, &root_file).to_owned(),
                root_file,
            }
        }));
    }
    targets
}

fn is_shipped(built: &Built) -> bool {
    built
        .kind
        .iter()
        .any(|kind| ["lib", "bin", "rlib"].contains(&kind.as_str()))
}

fn target_name(package: &Package, built: &Built) -> String {
    let several = package
        .targets
        .iter()
        .filter(|other| is_shipped(other))
        .count()
        > 1;
    if several && built.kind.iter().any(|kind| kind == "bin") {
        format!("{} (program {})", package.name, built.name)
    } else {
        package.name.clone()
    }
}

fn counted_under<'a>(package: &'a str, root_file: &'a str) -> &'a str {
    if root_file.starts_with(&format!("{package}/src/")) {
        package
    } else {
        parent(root_file)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_programs_are_read_and_tests_are_not() {
        let json = r#"{"workspace_root": "/w", "packages": [
            {"name": "lvs-crd", "manifest_path": "/w/crd/Cargo.toml", "targets": [
                {"name": "lvs_crd", "kind": ["lib"], "src_path": "/w/crd/src/lib.rs"},
                {"name": "crdgen", "kind": ["bin"], "src_path": "/w/crd/src/bin/crdgen.rs"},
                {"name": "cel", "kind": ["test"], "src_path": "/w/crd/tests/cel.rs"}]},
            {"name": "lvs-tests", "manifest_path": "/w/tests/Cargo.toml", "targets": [
                {"name": "lab", "kind": ["lib"], "src_path": "/w/tests/lab/lib.rs"}]}]}"#;
        let found = targets(&serde_json::from_str(json).unwrap());
        let target = |name: &str, folder: &str, root_file: &str| Target {
            name: name.to_owned(),
            folder: folder.to_owned(),
            root_file: root_file.to_owned(),
        };
        assert_eq!(
            found,
            [
                target("lvs-crd", "crd", "crd/src/lib.rs"),
                target("lvs-crd (program crdgen)", "crd", "crd/src/bin/crdgen.rs"),
                target("lvs-tests", "tests/lab", "tests/lab/lib.rs"),
            ]
        );
    }
}

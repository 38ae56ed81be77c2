//! Finds the programs of a control plane with `tests/tools/build.sh`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The script that finds the programs, and builds them without `--find`.
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/build.sh");

/// The programs that a control plane needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProgramSet {
    /// etcd, kube-apiserver, kubectl and helm.
    Api,
    /// [`ProgramSet::Api`] and the other programs of a cluster.
    Cluster,
}

impl fmt::Display for ProgramSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Api => "api",
            Self::Cluster => "cluster",
        })
    }
}

/// The paths of the programs of a set.
#[derive(Debug)]
pub(super) struct Programs {
    set: ProgramSet,
    paths: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Finds the programs of a set; the error says how to build them.
    pub(super) fn find(set: ProgramSet) -> Result<Self> {
        let output = Command::new(BUILD)
            .args(["--find", &set.to_string()])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not run {BUILD}"))?;
        ensure!(
            output.status.success(),
            "could not find the programs of a control plane: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        let paths = parse(&String::from_utf8_lossy(&output.stdout));
        Ok(Self { set, paths })
    }

    pub(super) fn path(&self, name: &str) -> Result<&Path> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("`{name}` is not among the programs of `{}`", self.set))
    }
}

/// Parses lines "NAME PATH".
fn parse(lines: &str) -> BTreeMap<String, PathBuf> {
    lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, path)| (name.to_owned(), path.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_contain_spaces() {
        let paths = parse("etcd /a b/etcd\nkubectl /c/kubectl\n");
        assert_eq!(paths["etcd"], PathBuf::from("/a b/etcd"));
        assert_eq!(paths["kubectl"], PathBuf::from("/c/kubectl"));
    }
}

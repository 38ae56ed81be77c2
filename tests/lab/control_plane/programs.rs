//! The programs of a control plane, as `tests/tools/build.sh` finds them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Finds the programs, and builds them when it is asked to.
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/build.sh");

/// Which programs a control plane needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProgramSet {
    /// etcd, kube-apiserver, kubectl and helm.
    Api,
    /// Those and the other programs of a cluster.
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

/// Where the programs of a set are.
#[derive(Debug)]
pub(super) struct Programs {
    set: ProgramSet,
    paths: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Finds the programs of a set; the error says how to have them built.
    pub(super) fn find(set: ProgramSet) -> Result<Self> {
        let output = Command::new(BUILD)
            .args(["--find", &set.to_string()])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not run {BUILD}"))?;
        ensure!(
            output.status.success(),
            "there are no programs of a control plane: {}",
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

/// Reads lines "NAME PATH".
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
    fn a_path_may_have_blanks() {
        let paths = parse("etcd /a b/etcd\nkubectl /c/kubectl\n");
        assert_eq!(paths["etcd"], PathBuf::from("/a b/etcd"));
        assert_eq!(paths["kubectl"], PathBuf::from("/c/kubectl"));
    }
}

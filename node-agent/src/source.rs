//! Where what is wanted comes from: files, or the API server. One pipeline follows either.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lvs_crd::manifest::Identity;
use lvs_model::{ClusterView, DirectorGroup, GroupName, ObjectName, Rejection, VirtualService};

use crate::{
    pass::{Applied, PassError},
    state_dir::StateDir,
};

#[cfg(feature = "kube")]
mod cluster;
mod files;

#[cfg(feature = "kube")]
pub(crate) use cluster::{Cluster, ClusterError};
use files::Files;

/// Why there is no configuration. What is in the kernel stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A path given by the user cannot be read.
    #[error("reading the configuration {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no file.
    #[error(
        "there is no configuration: no .yaml, .yml or .json file in {}; what is in the kernel stays (`lvs-agent cleanup` removes it)",
        display(.0)
    )]
    Empty(Vec<PathBuf>),
    /// Changes cannot be noticed.
    #[error("watching for changes")]
    Watch(#[source] io::Error),
    /// The API server cannot be asked.
    #[cfg(feature = "kube")]
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

fn display(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

impl SourceError {
    /// Says whether nothing is wrong: the first answer is not there yet.
    pub(crate) const fn is_waiting(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Empty(_) | Self::Watch(_) => false,
            #[cfg(feature = "kube")]
            Self::Cluster(error) => matches!(error, ClusterError::NotListed(None)),
        }
    }
}

/// What is wanted, and what was refused on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// The objects that convert; a faulty one is here in its last good version, if it ever had one.
    pub view: ClusterView,
    /// The faults.
    pub rejections: Vec<Rejection>,
}

impl Snapshot {
    fn add(&mut self, converted: Converted) {
        match converted {
            Converted::Service(name, service) => drop(self.view.services.insert(name, service)),
            Converted::Group(name, group) => drop(self.view.groups.insert(name, group)),
        }
    }
}

/// Where what is wanted comes from.
pub(crate) enum Source {
    /// Files and directories.
    Files(Files),
    /// The API server.
    #[cfg(feature = "kube")]
    Cluster(Box<Cluster>),
}

impl Source {
    /// Files, and the files in directories.
    pub(crate) const fn of_files(paths: Vec<PathBuf>) -> Self {
        Self::Files(Files::new(paths))
    }

    /// Notices changes from here on.
    pub(crate) fn watch(&mut self) -> Result<(), SourceError> {
        match self {
            Self::Files(files) => files.watch(),
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => {
                cluster.watch();
                Ok(())
            }
        }
    }

    /// Asks once for everything, for a single pass without `watch`.
    #[cfg_attr(
        not(feature = "kube"),
        expect(clippy::unused_async, reason = "files need not be asked")
    )]
    pub(crate) async fn list(&mut self) -> Result<(), SourceError> {
        match self {
            Self::Files(_) => Ok(()),
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => Ok(cluster.list().await?),
        }
    }

    /// Waits until something may have changed. May be dropped at any time: the next call tells of it.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Files(files) => files.changed().await,
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => cluster.changed().await,
        }
    }

    /// Notices that come this close together are one. An editor writes a file in several steps; an object of the API
    /// server changes in one, and what changes during a pass is taken together after it.
    pub(crate) const fn quiet(&self) -> Duration {
        match self {
            Self::Files(_) => Duration::from_millis(20),
            #[cfg(feature = "kube")]
            Self::Cluster(_) => Duration::ZERO,
        }
    }

    /// Returns everything that is wanted.
    ///
    /// # Errors
    /// When it cannot be read, or never was in full: then nothing may be concluded from what is missing.
    pub(crate) fn read(&mut self, state: &StateDir) -> Result<Snapshot, SourceError> {
        match self {
            Self::Files(files) => files.read(state),
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => Ok(cluster.read(state)?),
        }
    }

    /// Takes over newer versions of virtual services that are in force, when they are all that has changed since the last
    /// read; otherwise returns `None`, and everything is to be read.
    pub(crate) fn read_part(&mut self) -> Option<BTreeMap<ObjectName, Arc<VirtualService>>> {
        match self {
            Self::Files(_) => None,
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => cluster.read_part(),
        }
    }

    /// Tells whoever wants to know what became of what was read last. Files want nothing.
    pub(crate) fn report(&mut self, result: Result<&Applied, &PassError>) {
        match self {
            Self::Files(_) => drop(result.is_ok()),
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => cluster.report(result),
        }
    }

    /// The same for the part that was read last.
    pub(crate) fn report_part(&self, applied: &Applied) {
        match self {
            Self::Files(_) => (),
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => cluster.report_part(applied),
        }
    }

    /// Finishes what was to be written.
    pub(crate) async fn finish(&mut self) {
        match self {
            Self::Files(_) => std::future::ready(()).await,
            #[cfg(feature = "kube")]
            Self::Cluster(cluster) => cluster.finish().await,
        }
    }
}

#[derive(Clone)]
enum Converted {
    Service(ObjectName, Arc<VirtualService>),
    Group(GroupName, DirectorGroup),
}

/// The objects of one file, or of the API server, and what keeps others from being among them.
#[derive(Default)]
struct Objects {
    converted: BTreeMap<Identity, Converted>,
    rejections: Vec<Rejection>,
    faulty: BTreeSet<Identity>,
}

impl Objects {
    /// Takes over what was there before and cannot be read any more: the faulty objects, and all that are missing when
    /// what could not be read may hide them.
    fn keep(&mut self, before: Self, hides_more: bool) {
        for (identity, converted) in before.converted {
            if hides_more || self.faulty.contains(&identity) {
                self.converted.entry(identity).or_insert(converted);
            }
        }
    }

    fn reject(&mut self, identity: Option<Identity>, rejection: Rejection) {
        self.faulty.extend(identity);
        self.rejections.push(rejection);
    }
}

//! Where what is wanted comes from: files, or the API server. One pipeline follows either.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use lvs_model::ObjectName;

use crate::state_dir::StateDir;

#[cfg(feature = "kube")]
pub(crate) mod api;
mod error;
mod files;
mod objects;

#[cfg(feature = "kube")]
use api::ApiSource;
pub(crate) use error::SourceError;
use files::Files;
pub(crate) use objects::Snapshot;

/// Where what is wanted comes from.
pub(crate) enum Source {
    /// Files and directories.
    Files(Files),
    /// The API server.
    #[cfg(feature = "kube")]
    Api(Box<ApiSource>),
}

/// What has changed since the last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// There are newer versions of these virtual services, which were in force before; nothing else has changed.
    Services(BTreeSet<ObjectName>),
    /// Anything may have changed.
    Anything,
}

impl Source {
    /// Files, and the files in directories.
    pub(crate) const fn of_files(paths: Vec<PathBuf>) -> Self {
        Self::Files(Files::new(paths))
    }

    /// Asks once for everything, for a single pass without watches.
    #[cfg_attr(
        not(feature = "kube"),
        expect(clippy::unused_async, reason = "files need not be asked")
    )]
    pub(crate) async fn list(&mut self) -> Result<(), SourceError> {
        match self {
            Self::Files(_) => Ok(()),
            #[cfg(feature = "kube")]
            Self::Api(api) => Ok(api.list().await?),
        }
    }

    /// Waits until something may have changed. May be dropped at any time: the next call tells of it.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Files(files) => files.changed().await,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.changed().await,
        }
    }

    /// Changes that come this close together are one. An editor writes a file in several steps; an object of the API
    /// server changes in one, and what changes during a pass is taken together after it.
    pub(crate) const fn quiet(&self) -> Duration {
        match self {
            Self::Files(_) => Duration::from_millis(20),
            #[cfg(feature = "kube")]
            Self::Api(_) => Duration::ZERO,
        }
    }

    /// Reads what is wanted; afterwards it is in the snapshot.
    ///
    /// # Errors
    /// When it cannot be read, or never was in full: then nothing may be concluded from what is missing, and the snapshot
    /// stays as it was.
    pub(crate) fn read(&mut self, state: &StateDir) -> Result<Changes, SourceError> {
        match self {
            Self::Files(files) => files.read(state),
            #[cfg(feature = "kube")]
            Self::Api(api) => Ok(api.read(state)?),
        }
    }

    /// What is wanted, as it was read last; `None` before the first read that succeeded.
    pub(crate) const fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Files(files) => files.snapshot(),
            #[cfg(feature = "kube")]
            Self::Api(api) => api.snapshot(),
        }
    }

    /// Finishes what was to be written.
    pub(crate) async fn finish(&mut self) {
        match self {
            Self::Files(_) => std::future::ready(()).await,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.finish().await,
        }
    }
}

//! The source of the configuration: files, or the API server. The same pipeline follows both.

use std::{path::PathBuf, time::Duration};

use crate::state_dir::StateDir;

#[cfg(feature = "kube")]
pub(crate) mod api;
mod changes;
mod error;
mod files;
mod objects;

#[cfg(feature = "kube")]
use api::ApiSource;
pub(crate) use changes::Changes;
pub(crate) use error::SourceError;
use files::Files;
pub(crate) use objects::Snapshot;

/// The source of the configuration.
pub(crate) enum Source {
    /// Files and directories.
    Files(Files),
    /// The API server.
    #[cfg(feature = "kube")]
    Api(Box<ApiSource>),
}

impl Source {
    /// A source of files, and of the files in directories.
    pub(crate) const fn of_files(paths: Vec<PathBuf>) -> Self {
        Self::Files(Files::new(paths))
    }

    /// The host in the URL of the API server, if that is the source.
    pub(crate) fn api_server(&self) -> Option<&str> {
        match self {
            Self::Files(_) => None,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.server(),
        }
    }

    /// Lists all objects once, for a single pass without watches.
    #[cfg_attr(
        not(feature = "kube"),
        expect(clippy::unused_async, reason = "files need no list")
    )]
    pub(crate) async fn list(&mut self) -> Result<(), SourceError> {
        match self {
            Self::Files(_) => Ok(()),
            #[cfg(feature = "kube")]
            Self::Api(api) => Ok(api.list().await?),
        }
    }

    /// Waits until something may have changed. Cancel-safe: the next call returns for the same change.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Files(files) => files.changed().await,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.changed().await,
        }
    }

    /// Changes that follow each other this closely cause one pass. An editor writes a file in several steps; an object of
    /// the API server changes in one step, and changes during a pass are handled together after it.
    pub(crate) const fn debounce(&self) -> Duration {
        match self {
            Self::Files(_) => Duration::from_millis(20),
            #[cfg(feature = "kube")]
            Self::Api(_) => Duration::ZERO,
        }
    }

    /// Reads the configuration into the snapshot, and returns what has changed.
    ///
    /// # Errors
    /// If it cannot be read, or no complete list has come yet. The snapshot then stays as it was, since an object that is
    /// missing need not be deleted.
    pub(crate) fn read(&mut self, state: &StateDir) -> Result<Changes, SourceError> {
        match self {
            Self::Files(files) => files.read(state),
            #[cfg(feature = "kube")]
            Self::Api(api) => Ok(api.read(state)?),
        }
    }

    /// Returns why nothing can be read from the source until an administrator has mended it.
    pub(crate) fn unfit(&self) -> Option<String> {
        match self {
            Self::Files(_) => None,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.unfit(),
        }
    }

    /// The configuration as it was last read; `None` before the first successful read.
    pub(crate) const fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Files(files) => files.snapshot(),
            #[cfg(feature = "kube")]
            Self::Api(api) => api.snapshot(),
        }
    }

    /// Finishes pending writes.
    pub(crate) async fn finish(&mut self) {
        match self {
            Self::Files(_) => std::future::ready(()).await,
            #[cfg(feature = "kube")]
            Self::Api(api) => api.finish().await,
        }
    }
}

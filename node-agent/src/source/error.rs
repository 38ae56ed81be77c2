//! The errors of reading the configuration.

use std::{io, path::PathBuf};

#[cfg(feature = "kube")]
use super::api::ApiError;
use crate::state_dir::StateDirError;

/// The configuration could not be read or watched. The kernel stays as it is.
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
    /// There is no configuration file.
    #[error(
        "there is no configuration: no .yaml, .yml or .json file in {}; what is in the kernel stays (`lvs-agent cleanup` removes it)",
        display(.0)
    )]
    Empty(Vec<PathBuf>),
    /// Files cannot be watched.
    #[error("watching for changes")]
    Watch(#[source] io::Error),
    /// The last good version of a file cannot be read.
    #[error(transparent)]
    LastGood(#[from] StateDirError),
    /// The objects cannot be read from the API server.
    #[cfg(feature = "kube")]
    #[error(transparent)]
    Api(#[from] ApiError),
}

fn display(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(", ")
}

impl SourceError {
    /// Returns whether the source only waits for the API server's first answer, so that nothing is wrong.
    pub(crate) const fn is_waiting(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Empty(_) | Self::Watch(_) | Self::LastGood(_) => false,
            #[cfg(feature = "kube")]
            Self::Api(error) => matches!(error, ApiError::NotListed(None)),
        }
    }
}

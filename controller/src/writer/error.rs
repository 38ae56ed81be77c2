//! Why a write fails.

use std::time::Duration;

/// How long a write may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused it or cannot be reached.
    #[error("calling the API server")]
    Api(#[from] kube::Error),
    /// It took too long.
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

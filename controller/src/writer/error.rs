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

impl WriteError {
    /// Why the API server refuses the write, if the same write will be refused again: by a quota, a webhook, a policy, a
    /// permission or the schema.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api(kube::Error::Api(status)) => {
                matches!(status.code, 400 | 403 | 413 | 422).then_some(status.message.as_str())
            }
            Self::Api(_) | Self::Timeout => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_differs_from_a_failure_that_passes() {
        let error = |code| {
            let status = Status {
                code,
                ..Status::failure("exceeded quota", "Forbidden")
            };
            WriteError::from(kube::Error::Api(status.boxed()))
        };
        assert_eq!(error(403).refusal(), Some("exceeded quota"));
        assert_eq!(error(422).refusal(), Some("exceeded quota"));
        for passing in [404, 409, 429, 500, 503] {
            assert_eq!(error(passing).refusal(), None, "{passing}");
        }
        assert_eq!(WriteError::Timeout.refusal(), None);
    }
}

//! Waits until the CustomResourceDefinitions of the cluster fit the program.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Resource};
use lvs_crd::api_revision::{self, UnfitDefinition};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::error::chain;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before the next check of a definition that does not fit.
const UNFIT_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait after a call that failed, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// Why a definition was not found to fit.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It does not fit.
    #[error(transparent)]
    Unfit(#[from] UnfitDefinition),
    /// This program may not read it. It was probably upgraded without the roles, and so without the definitions.
    #[error(
        "the API revision of CustomResourceDefinition {0} cannot be read: this account has no right to get it; upgrade the whole chart, or grant it"
    )]
    Forbidden(String),
    /// It could not be read.
    #[error("reading CustomResourceDefinition {name}")]
    Read {
        /// The name of the definition.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("reading CustomResourceDefinition {0}: the API server does not answer")]
    Timeout(String),
}

/// The name of the definition of a kind.
#[must_use]
pub fn name_of<K: Resource<DynamicType = ()>>() -> String {
    format!("{}.{}", K::plural(&()), K::group(&()))
}

impl DefinitionError {
    /// Returns whether an administrator has to mend something; otherwise another try may succeed.
    #[must_use]
    pub const fn is_unfit(&self) -> bool {
        match self {
            Self::Unfit(_) | Self::Forbidden(_) => true,
            Self::Read { .. } | Self::Timeout(_) => false,
        }
    }
}

/// Checks a definition once.
///
/// # Errors
/// The definition does not fit, or could not be read.
pub async fn check(client: &Client, name: &str) -> Result<(), DefinitionError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let call = timeout(CALL_TIMEOUT, api.get_metadata(name)).await;
    let annotations = match call {
        Ok(Ok(found)) => Some(found.metadata.annotations.unwrap_or_default()),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => None,
        Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
            return Err(DefinitionError::Forbidden(name.to_owned()));
        }
        Ok(Err(error)) => {
            return Err(DefinitionError::Read {
                name: name.to_owned(),
                source: Box::new(error),
            });
        }
        Err(_elapsed) => return Err(DefinitionError::Timeout(name.to_owned())),
    };
    Ok(api_revision::check(name, annotations.as_ref())?)
}

/// Waits until a definition fits, and logs why it does not. `report` gets the reason whenever it changes: `None` once the
/// definition fits.
pub async fn await_fit(
    client: &Client,
    name: &str,
    mut report: impl FnMut(Option<&DefinitionError>),
) {
    let mut last = None;
    let mut retry = FIRST_RETRY;
    while let Err(error) = check(client, name).await {
        let text = chain(&error);
        let pause = if error.is_unfit() { UNFIT_PAUSE } else { retry };
        retry = (retry * 2).min(LAST_RETRY);
        if last.as_ref() != Some(&text) {
            if error.is_unfit() {
                error!("{text}. Until then, this program reads and writes no objects");
            } else {
                warn!("{text}; it is tried again");
            }
            report(Some(&error));
            last = Some(text);
        }
        sleep(pause).await;
    }
    if last.is_some() {
        info!(definition = name, "the definition fits");
        report(None);
    }
}

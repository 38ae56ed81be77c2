//! The errors of reading objects from the API server.

/// The objects could not be read from the API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A list failed.
    #[error("listing {what}")]
    List {
        /// The objects.
        what: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The definition of a kind does not fit this program.
    #[error(transparent)]
    Definition(#[from] lvs_runtime::definitions::DefinitionError),
    /// There is no complete list yet.
    #[error("waiting for the API server{}; what is in the kernel stays", because(.0.as_deref()))]
    NotListed(Option<String>),
    /// The thread that renews the agent's Lease cannot be started.
    #[error("starting the thread for the agent's Lease")]
    Lease(#[source] std::io::Error),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

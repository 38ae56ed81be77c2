//! Why nothing is known from an API server.

/// Why nothing is known from an API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A list was refused or not answered.
    #[error("listing {what}")]
    List {
        /// The objects.
        what: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// No complete list has come yet.
    #[error("waiting for the API server{}; what is in the kernel stays", because(.0.as_deref()))]
    NotListed(Option<String>),
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

//! What both programs need at run time: logging, error chains, the client of an API server, and probes and metrics over
//! HTTP.
//!
//! Modules with heavy dependencies need features: `program` for the log and the HTTP server, `kube` for the client and the check of the definitions.

#[cfg(feature = "kube")]
pub mod client;
#[cfg(feature = "kube")]
pub mod definitions;
pub mod error;
#[cfg(feature = "program")]
pub mod http;
#[cfg(feature = "program")]
pub mod log;

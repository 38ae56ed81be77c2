//! What both programs need to run and no other crate decides: logging, error chains, the client of an API server, and
//! probes and metrics over HTTP.
//!
//! The parts that need heavy dependencies are features: `program` for the log and the HTTP server, `kube` for the client.

#[cfg(feature = "kube")]
pub mod client;
pub mod error;
#[cfg(feature = "program")]
pub mod http;
#[cfg(feature = "program")]
pub mod log;

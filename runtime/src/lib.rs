//! What both programs need at run time: logging, error chains, the time of day, threads, the client of an API server and pauses of its
//! watches, and probes and metrics over HTTP.
//!
//! Modules with heavy dependencies need features: `program` for the log, threads and the HTTP server, `kube` for the client, the
//! check of the definitions, guarded objects and the pauses.

#[cfg(feature = "kube")]
pub mod client;
pub mod clock;
#[cfg(feature = "kube")]
pub mod definitions;
pub mod error;
#[cfg(feature = "kube")]
pub mod guarded;
#[cfg(feature = "program")]
pub mod http;
#[cfg(feature = "program")]
pub mod log;
#[cfg(feature = "program")]
pub mod thread;
#[cfg(feature = "kube")]
pub mod watch;

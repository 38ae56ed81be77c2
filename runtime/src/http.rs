//! Serves probes and metrics over HTTP: `/livez`, `/readyz` and `/metrics`.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tracing::{info, warn};

use crate::thread;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The answers of a program to probes and to Prometheus.
pub trait Probes: Send + Sync + 'static {
    /// Returns why the program has to be restarted. `None` while it works.
    fn stuck(&self) -> Option<String>;

    /// Returns what the program waits for before it works. `None` once it is ready.
    fn unready(&self) -> Option<String>;

    /// Returns the program's metrics.
    fn registry(&self) -> &Registry;
}

/// Why the HTTP server cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address} for --http-address")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Serves `/livez`, `/readyz` and `/metrics` on a thread of its own until the program ends, so that a main loop that is stuck
/// cannot keep a probe from being answered.
///
/// # Errors
/// When the address cannot be bound, or the thread cannot be started.
pub fn serve(address: SocketAddr, probes: Arc<impl Probes>) -> Result<(), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    thread::spawn("http", async move {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, router(probes)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            warn!(%error, "the server of probes and metrics has failed");
        }
    })
    .map_err(failed)?;
    info!(%address, "serving probes and metrics");
    Ok(())
}

fn router<P: Probes>(probes: Arc<P>) -> Router {
    Router::new()
        .route("/livez", get(livez::<P>))
        .route("/readyz", get(readyz::<P>))
        .route("/metrics", get(metrics::<P>))
        .with_state(probes)
}

async fn livez<P: Probes>(State(probes): State<Arc<P>>) -> (StatusCode, String) {
    answer(probes.stuck())
}

async fn readyz<P: Probes>(State(probes): State<Arc<P>>) -> (StatusCode, String) {
    answer(probes.unready())
}

fn answer(fault: Option<String>) -> (StatusCode, String) {
    match fault {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")),
    }
}

async fn metrics<P: Probes>(State(probes): State<Arc<P>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, probes.registry()) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, METRICS_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    struct Stuck(Registry);

    impl Probes for Stuck {
        fn stuck(&self) -> Option<String> {
            Some("the loop is stuck".to_owned())
        }

        fn unready(&self) -> Option<String> {
            None
        }

        fn registry(&self) -> &Registry {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_probe_is_answered_while_the_programs_own_thread_is_blocked() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        serve(address, Arc::new(Stuck(Registry::default()))).unwrap();
        // These calls block the only thread of the test's runtime.
        let get = |path: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = get("/livez");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("the loop is stuck\n"), "{answer}");
        assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    }
}

//! Serves probes and metrics over HTTP: `/livez`, `/readyz` and `/metrics`.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tracing::{info, warn};

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

/// Serves `/livez`, `/readyz` and `/metrics` in a separate task until the program ends.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, probes: Arc<impl Probes>) -> Result<(), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    info!(%address, "serving probes and metrics");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(probes)).await {
            warn!(%error, "the server of probes and metrics has failed");
        }
    });
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

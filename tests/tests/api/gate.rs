//! A proxy before the API server that knows one write from another.
//!
//! It speaks plain HTTP with its client, and HTTPS with the API server, as the user of the kubeconfig.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::Response,
};
use fastrand::Rng;
use futures::{Stream, StreamExt, future, stream};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use lab::Operator;

/// The longest time for which an answer is delayed.
const LONGEST_DELAY: Duration = Duration::from_millis(60);

/// At which side of a write the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The API server never sees the write.
    Before,
    /// The API server executes the write, and the client gets no answer.
    After,
}

/// A proxy before the API server. It delays answers at random, repeats the events of watches, and records both.
pub(crate) struct Gate {
    kubeconfig: PathBuf,
    state: Arc<GateState>,
    /// Receives the write that is held, as `METHOD PATH`.
    reached: Receiver<String>,
}

struct GateState {
    client: Client,
    trap: Mutex<Option<Trap>>,
    random: Mutex<Rng>,
    /// What the client received: `TYPE PATH` of each event of a watch, and `METHOD PATH` of each other answer.
    received: Mutex<Vec<String>>,
    reached: Sender<String>,
}

/// The write that is waited for.
struct Trap {
    /// How many writes pass before it.
    passing: usize,
    side: Side,
}

impl Gate {
    /// Starts a proxy for the controller of an operator.
    pub(crate) fn start(operator: &Operator, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Self::listen(operator, operator.controller_kubeconfig(), listener, seed)
    }

    /// Starts a proxy for the user of a kubeconfig.
    pub(crate) fn listen(
        operator: &Operator,
        direct: &Path,
        listener: TcpListener,
        seed: u64,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        listener.set_nonblocking(true)?;
        let file = Kubeconfig::read_from(direct)?;
        let (sender, reached) = channel();
        let (state, listener) = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(file, &options).await?;
            config.default_retry = false;
            let state = GateState {
                client: Client::try_from(config)?,
                trap: Mutex::new(None),
                random: Mutex::new(Rng::with_seed(seed)),
                received: Mutex::default(),
                reached: sender,
            };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok::<_, anyhow::Error>((Arc::new(state), listener))
        })?;
        let kubeconfig = write_kubeconfig(operator, direct, listener.local_addr()?)?;
        let router = Router::new()
            .fallback(forward)
            .with_state(Arc::clone(&state));
        thread::spawn(move || {
            let server = axum::serve(listener, router);
            runtime.block_on(server.into_future())
        });
        Ok(Self {
            kubeconfig,
            state,
            reached,
        })
    }

    /// The kubeconfig of the client that leads through the proxy.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What the client received so far: `TYPE PATH` of each event of a watch, and `METHOD PATH` of each other answer.
    pub(crate) fn received(&self) -> Vec<String> {
        lock(&self.state.received).clone()
    }

    /// Holds a write to a virtual service or a binding for ever: the first that follows, or one of those after it.
    pub(crate) fn arm(&self, passing: usize, side: Side) {
        *lock(&self.state.trap) = Some(Trap { passing, side });
    }

    /// Returns the write that is held since the last call, if there is one.
    pub(crate) fn reached(&self) -> Option<String> {
        self.reached.try_recv().ok()
    }

    /// Holds no write any more. Returns whether none was held since the gate was armed.
    pub(crate) fn disarm(&self) -> bool {
        lock(&self.state.trap).take().is_some()
    }
}

fn write_kubeconfig(operator: &Operator, direct: &Path, address: SocketAddr) -> Result<PathBuf> {
    let server = format!("https://{}", operator.control_plane.address());
    let text = fs::read_to_string(direct)?;
    ensure!(
        text.contains(&server),
        "the kubeconfig does not name {server}"
    );
    let path = operator.control_plane.directory().join("gate.kubeconfig");
    fs::write(&path, text.replace(&server, &format!("http://{address}")))?;
    Ok(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GateState {
    /// The side at which a write is to be held, if it is the one.
    fn held(&self, request: &Request) -> Option<Side> {
        let is_write = !matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        let kinds = [
            "/virtualservices/",
            "/directorbindings/",
            "/realserverbindings/",
        ];
        if !is_write || !kinds.iter().any(|kind| path.contains(kind)) {
            return None;
        }
        let mut trap = lock(&self.trap);
        match trap.as_mut() {
            Some(Trap { passing: 0, .. }) => trap.take().map(|trap| trap.side),
            Some(trap) => {
                trap.passing -= 1;
                None
            }
            None => None,
        }
    }

    async fn delay(&self) {
        let millis = u64::try_from(LONGEST_DELAY.as_millis()).unwrap_or(0);
        let millis = lock(&self.random).u64(0..millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn answer(&self, mut request: Request) -> Result<Response> {
        // The client of the API server adds its own.
        request.headers_mut().remove(header::AUTHORIZATION);
        request.headers_mut().remove(header::HOST);
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
        let response = self.client.send(request).await?;
        Ok(response.map(Body::new))
    }
}

async fn forward(State(state): State<Arc<GateState>>, request: Request) -> Response {
    let held = state.held(&request);
    let path = request.uri().path().to_owned();
    let what = format!("{} {path}", request.method());
    let is_watch = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    if held == Some(Side::Before) {
        state.reached.send(what).ok();
        return future::pending().await;
    }
    state.delay().await;
    let answer = state.answer(request).await;
    if held == Some(Side::After) {
        state.reached.send(what).ok();
        return future::pending().await;
    }
    state.delay().await;
    if !is_watch {
        lock(&state.received).push(what.clone());
    }
    match answer.context(what) {
        Ok(response) if is_watch && response.status().is_success() => {
            response.map(|body| Body::from_stream(repeated(state, path, body)))
        }
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("{error:#}")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

/// Repeats each event of a watch, with delays. The order stays, as the API server guarantees it.
fn repeated(
    state: Arc<GateState>,
    path: String,
    body: Body,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let start = (state, path, body.into_data_stream(), Vec::new());
    stream::unfold(
        start,
        |(state, path, mut chunks, mut rest): (_, _, _, Vec<u8>)| async move {
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let after = rest.split_off(end + 1);
                    let kind = kind_of(&rest);
                    let is_event = kind != "BOOKMARK";
                    lock(&state.received).push(format!("{kind} {path}"));
                    let line = if is_event { rest.repeat(2) } else { rest };
                    state.delay().await;
                    return Some((Ok(Bytes::from(line)), (state, path, chunks, after)));
                }
                match chunks.next().await? {
                    Ok(chunk) => rest.extend_from_slice(&chunk),
                    Err(error) => return Some((Err(error), (state, path, chunks, rest))),
                }
            }
        },
    )
}

/// The type of an event of a watch.
fn kind_of(line: &[u8]) -> String {
    let event = serde_json::from_slice::<serde_json::Value>(line).unwrap_or_default();
    let kind = event.get("type").and_then(serde_json::Value::as_str);
    kind.unwrap_or("UNKNOWN").to_owned()
}

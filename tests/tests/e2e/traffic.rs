//! Clients that send requests while a test changes something.

use std::{
    net::Ipv4Addr,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::{Client, Connection};

/// The pause between two requests of one client.
const PACE: Duration = Duration::from_millis(100);

/// How long a client waits for an answer under traffic.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many failures of a client are shown.
const SHOWN: usize = 5;

/// How many requests a client sends at most.
const MOST: usize = 20_000;

/// A client that sends requests to one service until it is stopped.
pub(crate) struct Traffic {
    stop: Sender<()>,
    thread: JoinHandle<Tally>,
}

/// The results of a client's requests.
#[derive(Debug)]
pub(crate) struct Tally {
    service: &'static str,
    /// How many were sent.
    pub requests: usize,
    /// How long the slowest took.
    pub slowest: Duration,
    /// How many failed.
    pub failed: usize,
    /// The first failures.
    failures: Vec<String>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            service,
            requests,
            slowest,
            failed,
            failures,
        } = self;
        write!(
            f,
            "{service}: {requests} requests, {failed} failed, the slowest took {} ms",
            slowest.as_millis()
        )?;
        failures
            .iter()
            .try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

impl Traffic {
    pub(crate) fn start(service: &'static str, vip: (Ipv4Addr, u16)) -> Result<Self> {
        let client = Client::here().timeout(CLIENT_TIMEOUT);
        let mut open = client.connect(vip)?;
        open.ask()?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut tally = Tally {
                service,
                requests: 0,
                slowest: Duration::ZERO,
                failed: 0,
                failures: Vec::new(),
            };
            while tally.requests < MOST
                && stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout)
            {
                tally.count("a new connection", || client.fetch(vip).map(drop));
                tally.count("the open connection", || ask(&mut open));
            }
            tally
        });
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> Result<Tally> {
        drop(self.stop);
        match self.thread.join() {
            Ok(tally) => Ok(tally),
            Err(_panic) => bail!("a client panicked"),
        }
    }
}

fn ask(connection: &mut Connection) -> Result<()> {
    connection.ask().map(drop)
}

impl Tally {
    fn count(&mut self, what: &str, request: impl FnOnce() -> Result<()>) {
        let began = Instant::now();
        let done = request();
        self.requests += 1;
        self.slowest = self.slowest.max(began.elapsed());
        if let Err(error) = done {
            self.failed += 1;
            if self.failures.len() < SHOWN {
                self.failures.push(format!("{what}: {error:#}"));
            }
        }
    }
}

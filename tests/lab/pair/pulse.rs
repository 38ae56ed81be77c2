//! A client that sends at a steady pace and records the answers.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Host;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// Sends datagrams from one port until it is dropped, whether they are answered or not.
pub(crate) struct Pulse {
    /// When answers arrived, oldest first.
    answers: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Starts to send from a host to a responder.
    pub(crate) fn start(host: &Host, server: SocketAddr, pace: Duration) -> Result<Self> {
        let socket = host.in_namespace(|| UdpSocket::bind("0.0.0.0:0"))??;
        socket.set_nonblocking(true)?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (recorded, stopped) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("pulse".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    // Without a route or a neighbour it fails, which counts as a lost datagram.
                    socket.send_to(b"ask", server).ok();
                    record_answers(&socket, Instant::now() + pace, &recorded);
                }
            })
            .context("could not start a thread that sends")?;
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// When the answers after a moment arrived.
    pub(crate) fn answers_since(&self, since: Instant) -> Vec<Instant> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let first = answers.partition_point(|at| *at < since);
        answers.iter().skip(first).copied().collect()
    }

    /// Returns whether there were answers all the time from a moment until now, with no gap longer than `longest`.
    pub(crate) fn is_steady_since(&self, since: Instant, longest: Duration) -> bool {
        self.longest_gap_since(since) <= longest
    }

    /// Returns whether there was no answer since a moment.
    pub(crate) fn is_silent_since(&self, since: Instant) -> bool {
        self.answers_since(since).is_empty()
    }

    /// The longest time without an answer between a moment and now.
    pub(crate) fn longest_gap_since(&self, since: Instant) -> Duration {
        let mut last = since;
        let mut longest = Duration::ZERO;
        for answer in self
            .answers_since(since)
            .into_iter()
            .chain([Instant::now()])
        {
            longest = longest.max(answer - last);
            last = answer;
        }
        longest
    }
}

/// Records the answers until a moment.
fn record_answers(socket: &UdpSocket, until: Instant, answers: &Mutex<Vec<Instant>>) {
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None).ok();
        while socket.recv(&mut [0; 512]).is_ok() {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push(Instant::now());
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

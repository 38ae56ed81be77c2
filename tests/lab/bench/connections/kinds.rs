//! The connections that are open when a director loses its power, by what they are doing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Connection, Fleet};

/// How many requests a connection has had before it is idle, and for how long it is idle: directors that send each other their
/// connections have sent it by then.
const REQUESTS: usize = 3;
const IDLE: Duration = Duration::from_secs(4);

/// The oldest of the young connections.
const YOUTH: Duration = Duration::from_secs(1);

/// How many connections of a busy thread take turns, and the pace of its requests.
const BUSY_OF_A_THREAD: usize = 4;
const PACE: Duration = Duration::from_millis(100);

/// How many of each kind there are, and how many of them go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Nothing was sent for some seconds.
    pub idle: Share,
    /// A part of a request was sent before, the rest afterwards.
    pub half_sent: Share,
    /// Requests were sent all the time.
    pub busy: Share,
    /// Younger than a second.
    pub young: Share,
}

/// Some of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub kept: usize,
    pub of: usize,
}

impl Share {
    fn add(&mut self, is_kept: bool) {
        self.kept += usize::from(is_kept);
        self.of += 1;
    }
}

impl Kept {
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.idle, other.idle),
            (&mut self.half_sent, other.half_sent),
            (&mut self.busy, other.busy),
            (&mut self.young, other.young),
        ];
        for (sum, share) in pairs {
            sum.kept += share.kept;
            sum.of += share.of;
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} of {}", self.kept, self.of))
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            idle,
            half_sent,
            busy,
            young,
        } = self;
        write!(
            f,
            "idle {idle}, half sent {half_sent}, busy {busy}, young {young}"
        )
    }
}

/// Open connections. A connection is one to the server that answered first.
pub(super) struct Opened {
    idle: Vec<(Connection, String)>,
    half_sent: Vec<(Connection, String)>,
    busy: Vec<JoinHandle<Share>>,
    is_over: Arc<AtomicBool>,
    young: Vec<(Connection, String)>,
}

impl Opened {
    /// Opens connections: a tenth of them is busy, the others are of the other kinds in equal parts. There may be fewer young ones, if
    /// so many cannot be opened within a second.
    pub(super) fn open(fleet: &Fleet, count: usize) -> Result<Self> {
        let (client, address) = (fleet.client()?, fleet.address()?);
        let open = |requests: usize| {
            let mut connection = client.connect(address)?;
            let mut server = String::new();
            for _ in 0..requests {
                server = connection.ask()?.server;
            }
            anyhow::Ok((connection, server))
        };
        let each = count * 3 / 10;
        let many = |count: usize| {
            (0..count)
                .map(|_| open(REQUESTS))
                .collect::<Result<Vec<_>>>()
        };
        let (idle, mut half_sent) = (many(each)?, many(each)?);
        for (connection, _) in &mut half_sent {
            connection.begin_to_ask()?;
        }
        let since = Instant::now();
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = count.div_ceil(10 * BUSY_OF_A_THREAD);
        let busy = (0..threads).map(|_| {
            let connections = many(BUSY_OF_A_THREAD)?;
            let is_over = Arc::clone(&is_over);
            Ok(std::thread::spawn(move || keep_busy(connections, &is_over)))
        });
        let busy = busy.collect::<Result<_>>()?;
        lab::wait_until("connections to be idle", IDLE * 2, || {
            Ok((since.elapsed() >= IDLE).then_some(()))
        })?;
        let (mut young, begin) = (Vec::new(), Instant::now());
        while young.len() < each && begin.elapsed() < YOUTH * 9 / 10 {
            young.push(open(1)?);
        }
        Ok(Self {
            idle,
            half_sent,
            busy,
            is_over,
            young,
        })
    }

    /// Uses each connection once more.
    pub(super) fn finish(self) -> Kept {
        let mut kept = Kept::default();
        for (mut connection, server) in self.half_sent {
            let answer = connection.finish_to_ask();
            kept.half_sent
                .add(answer.is_ok_and(|answer| answer.server == server));
        }
        for (connections, share) in [(self.idle, &mut kept.idle), (self.young, &mut kept.young)] {
            for (mut connection, server) in connections {
                let answer = connection.ask();
                share.add(answer.is_ok_and(|answer| answer.server == server));
            }
        }
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.busy {
            let share = thread.join().unwrap_or_default();
            kept.busy.kept += share.kept;
            kept.busy.of += share.of;
        }
        kept
    }
}

/// Sends requests over each connection in turn. Returns how many were answered until the end.
fn keep_busy(mut connections: Vec<(Connection, String)>, is_over: &AtomicBool) -> Share {
    let of = connections.len();
    loop {
        // Once after the end, too.
        let is_last = is_over.load(Ordering::Relaxed);
        connections.retain_mut(|(connection, server)| {
            std::thread::sleep(PACE);
            let answer = connection.ask();
            answer.is_ok_and(|answer| answer.server == *server)
        });
        if is_last || connections.is_empty() {
            let kept = connections.len();
            return Share { kept, of };
        }
    }
}

//! Measures for how long clients get no answer when a director fails, and for how long two directors hold the VIP, with the agent and
//! with keepalived.
//!
//! The client sends a datagram every 2 ms, from one port. A probe for each director does the same, but its packets reach that
//! director only; it gets answers if and only if that director holds the VIP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::wait_until;

use crate::pair::{Director, Pair, Program, Pulse};

mod failure;
mod table;

use failure::Failure;
use table::{Cost, FailoverRow};

/// The pace of the client.
const CLIENT_PACE: Duration = Duration::from_millis(2);
/// The pace of the probes, and the resolution of the time that two directors hold the VIP.
const PROBE_PACE: Duration = Duration::from_millis(5);
const SLOT: Duration = Duration::from_millis(10);
/// For how long one director must hold the VIP alone before the next failure.
const QUIET: Duration = Duration::from_secs(1);
/// The longest gap of a client that counts as service without a fault.
const HICCUP: Duration = Duration::from_millis(100);
/// How long a takeover and the recovery of a director may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FailoverOptions {
    /// How often each failure is measured.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// The failures to measure; all by default.
    #[arg(long, value_enum)]
    failure: Vec<Failure>,
    /// The programs to measure; both by default.
    #[arg(long, value_enum)]
    program: Vec<Program>,
}

/// Measures and prints the table.
pub(crate) fn run(options: &FailoverOptions) -> Result<()> {
    let failures = or_all(&options.failure);
    let mut rows = Vec::new();
    for program in or_all::<Program>(&options.program) {
        let mut bench = FailoverBench::start(program)?;
        for failure in &failures {
            let costs = (1..=options.kills).map(|number| {
                let cost = bench.measure(*failure);
                let cost =
                    cost.with_context(|| format!("{program}, {failure}, number {number}"))?;
                eprintln!("bench: {program}, {failure}, number {number}: {cost}");
                Ok(cost)
            });
            let costs = costs.collect::<Result<_>>()?;
            rows.push(FailoverRow::new(*failure, program, costs));
        }
    }
    print!("{}", table::print(&rows));
    Ok(())
}

/// The chosen values, or all if none is chosen.
pub(super) fn or_all<T: clap::ValueEnum + Clone>(chosen: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        T::value_variants().to_vec()
    } else {
        chosen.to_vec()
    }
}

/// A pair of directors with one program.
struct FailoverBench {
    program: Program,
    client: Pulse,
    /// In the order of the directors.
    probes: [Pulse; 2],
    pair: Pair,
}

impl FailoverBench {
    fn start(program: Program) -> Result<Self> {
        let pair = Pair::boot()?;
        let vip = pair.vip();
        let [first, second] = pair.probes()?;
        let probes = [
            Pulse::start(first, vip, PROBE_PACE)?,
            Pulse::start(second, vip, PROBE_PACE)?,
        ];
        let client = Pulse::start(pair.client()?, vip, CLIENT_PACE)?;
        for director in pair.directors() {
            program.start(&pair, director)?;
        }
        Ok(Self {
            program,
            client,
            probes,
            pair,
        })
    }

    /// Lets the active director fail and recover once.
    fn measure(&mut self, failure: Failure) -> Result<Cost> {
        let active = self.await_quiet()?;
        let begin = Instant::now();
        self.strike(failure, active)?;
        let standby = 1 - active;
        let what = "the other director to take over";
        let taken_over = self.wait(what, |bench| {
            Some(*bench.probe(standby).answers_since(begin).first()?)
        })?;
        self.wait("the end of the failure", |_| {
            (taken_over.elapsed() >= failure.lasts()).then_some(())
        })?;
        self.heal(failure, active)?;
        self.await_quiet()?;
        Ok(Cost {
            gap: self.client.longest_gap_since(begin),
            both: self.both_answered_since(begin),
        })
    }

    fn strike(&mut self, failure: Failure, director: usize) -> Result<()> {
        match failure {
            Failure::Kill => self.program.kill(self.director(director)?),
            Failure::PowerOff => {
                self.director_mut(director)?.cut_power();
                Ok(())
            }
            Failure::LinkDown => self
                .director(director)?
                .run("ip link set vec0 down")
                .map(drop),
            Failure::Freeze => self.director(director)?.freeze(),
            Failure::HandOver => self.program.hand_over(self.director(director)?),
        }
    }

    fn heal(&mut self, failure: Failure, director: usize) -> Result<()> {
        match failure {
            Failure::Kill => self.program.start(&self.pair, self.director(director)?),
            Failure::PowerOff => {
                self.director_mut(director)?.switch_on()?;
                self.program.start(&self.pair, self.director(director)?)
            }
            Failure::LinkDown => self
                .director(director)?
                .run("ip link set vec0 up")
                .map(drop),
            Failure::Freeze => self.director(director)?.thaw(),
            Failure::HandOver => self.program.take_back(&self.pair, self.director(director)?),
        }
    }

    /// Waits until one director has held the VIP alone for a while and the client has been served; returns which.
    fn await_quiet(&self) -> Result<usize> {
        let started = Instant::now();
        self.wait("one director to hold the VIP alone", |bench| {
            let since = Instant::now()
                .checked_sub(QUIET)
                .filter(|since| *since >= started)?;
            let [first, second] = &bench.probes;
            let holds = |one: &Pulse, other: &Pulse| {
                one.is_steady_since(since, HICCUP) && other.is_silent_since(since)
            };
            let holder = match (holds(first, second), holds(second, first)) {
                (true, _) => 0,
                (_, true) => 1,
                (false, false) => return None,
            };
            bench
                .client
                .is_steady_since(since, HICCUP)
                .then_some(holder)
        })
    }

    /// Waits for a condition; an error has the logs of the program.
    fn wait<T>(&self, what: &str, condition: impl Fn(&Self) -> Option<T>) -> Result<T> {
        wait_until(what, TIMEOUT, || Ok(condition(self))).with_context(|| {
            let logs = self.pair.directors().iter().map(|director| {
                let log = self
                    .program
                    .log(director)
                    .unwrap_or_else(|error| format!("{error:#}"));
                format!("{} wrote:\n{log}\n", director.name())
            });
            logs.collect::<String>()
        })
    }

    /// The time in which both probes got answers.
    fn both_answered_since(&self, begin: Instant) -> Duration {
        let slots = self.probes.each_ref().map(|probe| {
            let answers = probe.answers_since(begin).into_iter();
            let slots = answers.map(|at| (at - begin).as_millis() / SLOT.as_millis());
            slots.collect::<std::collections::BTreeSet<_>>()
        });
        let [first, second] = &slots;
        let shared = first.intersection(second).count();
        SLOT * u32::try_from(shared).unwrap_or(u32::MAX)
    }

    fn probe(&self, number: usize) -> &Pulse {
        let [first, second] = &self.probes;
        if number == 0 { first } else { second }
    }

    fn director(&self, number: usize) -> Result<&Director> {
        self.pair
            .directors()
            .get(number)
            .context("there is no such director")
    }

    fn director_mut(&mut self, number: usize) -> Result<&mut Director> {
        self.pair
            .directors_mut()
            .get_mut(number)
            .context("there is no such director")
    }
}

//! A rolling change: each real server is replaced in turn, and the director is changed with each step. Connections are open throughout.

use std::fmt;
use std::mem::swap;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::{Connection, FleetSet, SERVERS, wait_until};

use super::keeper::KEEP_SECONDS;
use super::{ConnectionBench, TIMEOUT};

/// The sets of real servers after each step: the machine that is free replaces one that has not been replaced yet, and stands last in the
/// file.
const STEPS: [FleetSet; 4] = [[0, 1, 2, 4], [0, 1, 4, 3], [0, 4, 3, 2], [4, 3, 2, 1]];

/// The connections of a rolling change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rolled {
    /// How many there were.
    pub opened: usize,
    /// How many were cut while their real server was there: in the set, or replaced less than `keepSeconds` before.
    pub cut: usize,
    /// How many were there until their real server was gone.
    pub until_gone: usize,
    /// How many are still there at the end.
    pub kept: usize,
}

impl fmt::Display for Rolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            opened,
            cut,
            until_gone,
            kept,
        } = self;
        write!(
            f,
            "of {opened} connections, {cut} cut, {until_gone} until their real server was gone, {kept} at the end"
        )
    }
}

impl ConnectionBench {
    /// Makes a rolling change. Each connection is used once in each step, after the director has changed.
    pub(super) fn roll(&mut self, count: usize) -> Result<Rolled> {
        let (client, address) = (self.fleet.client()?, self.fleet.address()?);
        let open = |_| {
            let mut connection = client.connect(address)?;
            let server = connection.ask()?.server;
            anyhow::Ok((connection, server))
        };
        let mut connections: Vec<(Connection, String)> =
            (0..count).map(open).collect::<Result<_>>()?;
        let mut rolled = Rolled {
            opened: count,
            ..Rolled::default()
        };
        for set in STEPS {
            let before = self.set;
            let since = Instant::now();
            self.replace_at_failover(set)?;
            let there = connections.len();
            connections.retain_mut(|(connection, server)| {
                let answer = connection.ask();
                answer.is_ok_and(|answer| answer.server == *server)
            });
            rolled.cut += there - connections.len();
            self.restart_failed()?;
            wait_until("the end of the previous set", TIMEOUT, || {
                let is_over = since.elapsed().as_secs() > u64::from(KEEP_SECONDS) + 5;
                Ok(is_over.then_some(()))
            })?;
            let replaced = before.iter().find(|server| !set.contains(server));
            let replaced = replaced.and_then(|index| SERVERS.get(*index));
            let replaced = replaced.context("no real server was replaced")?;
            let there = connections.len();
            connections.retain(|(_, server)| server != replaced);
            rolled.until_gone += there - connections.len();
            eprintln!("bench: {set:?}: {rolled}");
        }
        rolled.kept = connections.len();
        Ok(rolled)
    }

    /// Lets the active director lose its power while the set changes, and waits until the other one has the VIP and the set.
    pub(super) fn replace_at_failover(&mut self, set: FleetSet) -> Result<()> {
        self.set = set;
        self.tell_servers()?;
        self.cut_power()?;
        swap(&mut self.active, &mut self.standby);
        self.change_set()?;
        self.await_active()?;
        wait_until("the new set in the table", TIMEOUT, || {
            let has_table = self.fleet.has_table(self.active, self.set)?;
            Ok(has_table.then_some(()))
        })
    }
}

//! The state Resuming: a router that was active before a restart, until it knows whether another has taken over.

use std::{net::IpAddr, time::Duration};

use super::{Candidacy, Machine, Resuming, Role, role::OtherActive};
use crate::{Action, ActiveReason, BackupReason, Priority, Received, Time};

/// The longest wait for an answer. A packet and its answer take less on a network whose routers back each other up.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl Machine {
    /// Asks whether another router has taken over, with an advertisement of the lowest priority.
    ///
    /// 1. Another active router is preferred to that, so it stays active and answers at once (RFC 9568, section 6.4.3).
    /// 2. A backup hears that there is an active router, and does not take over while this one waits for the answer. A backup that
    ///    preempts waits for its own skew time first. This router waits for half of its skew time, so for less than each router that is
    ///    not preferred. If it has a high priority and a short interval, that is less than an answer takes: it goes on without one.
    ///
    /// Listening silently does not work: a restart may take almost three intervals, and the backups would take over meanwhile.
    pub(super) fn resume(&mut self, actions: &mut Vec<Action>) {
        let interval = self.config.interval;
        let wait = interval.skew(self.config.priority) / 2;
        self.role = Role::Resuming(Resuming {
            since: self.now,
            until: self.now + wait.min(LONGEST_WAIT),
            interval,
        });
        self.send(Some(Priority::LOWEST), actions);
    }

    /// Leaves the addresses to a router that has taken over, whatever its priority. One that gives way because even the lowest priority
    /// outranks it is no such router, and neither is one that resigns.
    pub(super) fn receive_as_resuming(&mut self, received: &Received, actions: &mut Vec<Action>) {
        let source = received.source;
        let Some(priority) = received.advertisement.priority else {
            return;
        };
        if !self.is_answer(priority, source) {
            return;
        }
        let successor = OtherActive {
            source,
            priority,
            interval: received.advertisement.interval,
            heard: self.now,
        };
        let reason = BackupReason::TakenOver { by: source };
        self.leave(Some(successor), reason, actions);
    }

    /// Becomes active once no router has answered. A hand-over that was asked for meanwhile begins.
    pub(super) fn end_resuming(&mut self, until: Time, actions: &mut Vec<Action>) {
        if self.now < until {
            return;
        }
        self.become_active(ActiveReason::Resumed, actions);
        if self.candidacy == Candidacy::Withdrawn {
            self.hand_over(actions);
        }
    }

    fn is_answer(&self, priority: Priority, source: IpAddr) -> bool {
        (priority, source) > (Priority::LOWEST, self.config.source)
    }
}

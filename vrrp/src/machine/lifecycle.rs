//! The state Initialize (RFC 9568, section 6.4.1), and what takes a router out of the election or back into it.

use super::{Backup, Machine, Participation, Role, State, Wait};
use crate::{Action, ActiveReason, BackupReason, Fitness, Link, Start};

impl Machine {
    pub(super) fn start(&mut self, start: Start, actions: &mut Vec<Action>) {
        if self.participation == Participation::Started {
            return;
        }
        self.participation = Participation::Started;
        match self.link {
            Link::Up => self.enter(start, actions),
            Link::Down => {}
        }
    }

    /// Leaves Initialize (RFC 9568, section 6.4.1).
    fn enter(&mut self, start: Start, actions: &mut Vec<Action>) {
        let is_owner = self.config.priority.is_owner() && self.can_preempt();
        match (self.fitness, start) {
            (Fitness::Fit, Start::Continue) => {
                return self.become_active(ActiveReason::Continued, actions);
            }
            (Fitness::Fit, Start::Resume) if is_owner => {
                return self.become_active(ActiveReason::Resumed, actions);
            }
            (Fitness::Fit, Start::Resume) => return self.resume(actions),
            (Fitness::Fit, Start::Fresh) if is_owner => {
                return self.become_active(ActiveReason::Owner, actions);
            }
            (Fitness::Fit, Start::Fresh) | (Fitness::Unfit, _) => {}
        }
        self.role = Role::Backup(Backup::listening(self.now, self.config.interval, None));
        actions.push(Action::BecomeBackup(BackupReason::Started));
    }

    pub(super) fn stop(&mut self, actions: &mut Vec<Action>) {
        self.participation = Participation::Stopped;
        self.resign(BackupReason::Stopped, actions);
        self.role = Role::Initialize;
    }

    pub(super) fn set_link(&mut self, link: Link, actions: &mut Vec<Action>) {
        if link == self.link {
            return;
        }
        self.link = link;
        match (link, self.participation) {
            (_, Participation::Stopped) => {}
            (Link::Up, Participation::Started) => self.enter(Start::Fresh, actions),
            (Link::Down, Participation::Started) => {
                match self.state() {
                    State::Resuming | State::Active => {
                        actions.push(Action::BecomeBackup(BackupReason::LinkDown));
                    }
                    State::Initialize | State::Backup => {}
                }
                self.role = Role::Initialize;
            }
        }
    }

    pub(super) fn set_fitness(&mut self, fitness: Fitness, actions: &mut Vec<Action>) {
        if fitness == self.fitness {
            return;
        }
        self.fitness = fitness;
        match fitness {
            Fitness::Unfit => {
                self.resign(BackupReason::Unfit, actions);
                self.cancel_preemption();
            }
            Fitness::Fit => self.become_candidate(actions),
        }
    }

    /// Lets a backup that has become fit listen anew: what it waited for before says nothing of the present.
    fn become_candidate(&mut self, actions: &mut Vec<Action>) {
        let can_preempt = self.can_preempt();
        let Role::Backup(backup) = &mut self.role else {
            return;
        };
        if self.config.priority.is_owner() && can_preempt {
            return self.become_active(ActiveReason::Owner, actions);
        }
        backup.since = self.now;
        backup.wait = Wait::Silence;
    }
}

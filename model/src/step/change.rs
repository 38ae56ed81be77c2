//! What all steps have in common: the target of a step, and its action on the target.

use std::fmt;

use crate::Target;

/// What a step does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes it. The kernel refuses if the object exists, which may then be foreign.
    Make,
    /// Sets something that exists once per kernel or is replaced as a whole. It is restored or removed later.
    Set,
    /// Changes it, or a part of it, in place. It exists before and after.
    Edit,
    /// Removes it, or restores what was found before.
    Remove,
}

/// What all steps have in common.
pub(crate) trait Change: fmt::Display {
    /// Returns the object that the step makes, changes or removes.
    fn target(&self) -> Target;

    /// Returns what the step does to its target.
    fn action(&self) -> Action;

    /// Returns why an administrator would type the command, in a few words. `None` where the command makes it clear.
    fn reason(&self) -> Option<&'static str>;
}

//! What all steps have in common: the object that a step is about, and what it does to it.

use std::fmt;

use crate::Target;

/// What a step does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes it. The kernel refuses when it exists, and then it may be somebody else's.
    Make,
    /// Sets something of which there is exactly one, and which is restored or removed later.
    Set,
    /// Changes it in place, or something in it. It is there before and after.
    Edit,
    /// Removes it, or restores what was found before.
    Remove,
}

/// What every step can tell of itself.
pub(crate) trait Change: fmt::Display {
    /// The object that the step is about.
    fn target(&self) -> Target;

    /// What the step does to it.
    fn action(&self) -> Action;

    /// Why an administrator would type the command, in a few words; `None` where the command says it all.
    fn reason(&self) -> Option<&'static str>;
}

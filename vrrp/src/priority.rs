//! The priority of a router.

use std::{fmt, num::NonZeroU8};

use thiserror::Error;

/// How much a router is preferred, 1 to 255; the highest of a virtual router's becomes active (RFC 9568, section 5.2.4).
///
/// On the wire 0 means that the sender resigns. It is no priority here; see [`Advertisement::priority`](crate::Advertisement).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(NonZeroU8);

/// The priority 0 was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the priority must be 1 to 255, not 0, which means resignation")]
pub struct PriorityError;

impl Priority {
    /// The priority of the router that owns the virtual addresses as its own.
    pub const OWNER: Self = Self(NonZeroU8::MAX);
    /// The lowest priority, 1.
    pub const LOWEST: Self = Self(NonZeroU8::MIN);

    /// Creates a priority.
    ///
    /// # Errors
    ///
    /// If the number is 0.
    pub fn new(number: u8) -> Result<Self, PriorityError> {
        NonZeroU8::new(number).map(Self).ok_or(PriorityError)
    }

    /// Returns the number, 1 to 255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// Returns whether this is the owner's.
    #[must_use]
    pub const fn is_owner(self) -> bool {
        self.get() == u8::MAX
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

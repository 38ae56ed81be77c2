//! The version of a kernel.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of a kernel: the first two numbers of its release, such as 5.4 of `5.4.0-216-generic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// Creates a version.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Parses the beginning of a release as printed by `uname -r`. `None` if it is no release.
    #[must_use]
    pub fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        Some(Self::new(number()?, number()?))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_two_numbers_of_a_release() {
        for (release, expected) in [
            ("5.4.0-216-generic", Some(KernelVersion::new(5, 4))),
            ("6.1+", Some(KernelVersion::new(6, 1))),
            ("4.18.0-553.el8_10.x86_64", Some(KernelVersion::new(4, 18))),
            ("linux", None),
            ("", None),
        ] {
            assert_eq!(KernelVersion::of_release(release), expected, "{release}");
        }
        assert!(KernelVersion::new(4, 18) < KernelVersion::new(5, 9));
        assert!(KernelVersion::new(5, 10) > KernelVersion::new(5, 9));
    }
}

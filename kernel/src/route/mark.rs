//! The marks by which what this program makes is known.

/// The number in `IFA_PROTO`, and the protocol of routes and rules, of what this program makes.
pub(crate) const OUR_PROTOCOL: u8 = 76;

/// The alias of links that this program makes.
pub(super) const OUR_ALIAS: &str = "lvs-operator";

//! The marks on objects that this program makes.

/// The `IFA_PROTO` of our addresses, and the protocol of our routes and rules.
pub(crate) const OUR_PROTOCOL: u8 = 76;

/// The alias of our links.
pub(super) const OUR_ALIAS: &str = "lvs-operator";

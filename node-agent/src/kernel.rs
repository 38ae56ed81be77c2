//! The kernel of this network namespace: what it holds is observed, plans are executed on it.

pub(crate) mod announce;
pub(crate) mod fou;
pub(crate) mod monitor;
pub(crate) mod nft;
pub(crate) mod route;
pub(crate) mod sysctl;

//! The crate against a kernel with IPVS: every command, what it does and how it is refused.
//!
//! Each test works in a network namespace of its own, which goes with it. They need
//! `CAP_SYS_ADMIN` for that, `CAP_NET_ADMIN` for IPVS, and iproute2.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod batches;
mod daemons;
mod destinations;
mod namespace;
mod other_families;
mod refusals;
mod services;
mod speed;
mod tables;

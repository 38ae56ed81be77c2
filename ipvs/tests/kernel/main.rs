//! Tests the crate on a kernel with IPVS: the effect and the refusals of every command.
//!
//! Each test runs in a network namespace of its own, which is removed afterwards. They need
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

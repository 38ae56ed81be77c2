//! Virtual services: what identifies one, what can be set on it, and what it has counted.

mod config;
mod decode;
mod key;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    config::{Granularity, Persistence, SchedulerFlags, ServiceConfig},
    key::{Protocol, ServiceKey},
};
use crate::Stats;

/// A virtual service as the kernel described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What identifies it.
    pub key: ServiceKey,
    /// What is set on it.
    pub config: ServiceConfig,
    /// What it has counted since it was made or zeroed.
    pub stats: Stats,
}

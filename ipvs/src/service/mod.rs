//! Virtual services: identity, settings and counters.

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

/// A virtual service as the kernel reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its identity.
    pub key: ServiceKey,
    /// Its settings.
    pub config: ServiceConfig,
    /// Its counters since it was created or zeroed.
    pub stats: Stats,
}

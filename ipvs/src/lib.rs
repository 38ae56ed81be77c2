//! The `IPVS` generic-netlink family of Linux: the load balancer in the kernel (LVS).
//!
//! Two layers and a handle:
//!
//! - [`wire`]: every command and attribute of `linux/ip_vs.h`, byte for byte, unknown ones kept.
//! - The types of this module give the attributes their meaning, in three parts: the identity of an
//!   object ([`ServiceKey`], [`DestinationKey`]), its settings ([`ServiceConfig`],
//!   [`DestinationConfig`]) and its counters ([`Stats`]). They keep values that this crate has no
//!   name for, so that a foreign object is read without loss.
//! - [`Handle`] reads the tables of a network namespace and changes them by [`Request`]s,
//!   hundreds in a system call.
//!
//! The crate has no policy. It sends every request as given, including settings that the kernel
//! silently accepts and never serves.
//!
//! # Example
//! ```no_run
//! use ipvs_netlink::{
//!     DestinationConfig, DestinationKey, Forwarding, Handle, Name, Protocol, Request,
//!     ServiceConfig, ServiceKey,
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceKey::Address {
//!     protocol: Protocol::Tcp,
//!     address: "192.0.2.1".parse()?,
//!     port: 80,
//! };
//! let mut handle = Handle::connect().await?;
//! let failures = handle
//!     .execute(&[
//!         Request::CreateService { key: service, config: ServiceConfig::new(Name::new("wlc")?) },
//!         Request::CreateDestination {
//!             service,
//!             key: DestinationKey { address: "198.51.100.7".parse()?, port: 8080 },
//!             config: DestinationConfig {
//!                 forwarding: Forwarding::Masquerade,
//!                 weight: 1,
//!                 upper_threshold: 0,
//!                 lower_threshold: 0,
//!             },
//!         },
//!     ])
//!     .await?;
//! for failure in failures {
//!     eprintln!("request {}: {}", failure.index, failure.error);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod daemon;
mod destination;
mod error;
mod family;
mod handle;
mod name;
pub mod pipeline;
mod request;
mod service;
mod settings;
mod stats;
mod tables;
pub mod wire;

pub use self::{
    daemon::{Daemon, DaemonState},
    destination::{
        Connections, Destination, DestinationConfig, DestinationKey, Forwarding, Tunnel,
        TunnelChecksum, TunnelKind,
    },
    error::{Error, Failure, KernelError, KernelErrorKind, RequestError},
    family::Family,
    handle::Handle,
    name::{Name, NameError},
    request::Request,
    service::{
        Granularity, Persistence, Protocol, SchedulerFlags, Service, ServiceConfig, ServiceKey,
    },
    settings::{Info, Timeouts, Version},
    stats::Stats,
    tables::{ServiceTable, Tables},
};

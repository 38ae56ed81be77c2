//! Makes the kernel of one machine match its VirtualServices, and keeps it so: the library behind `lvs-agent`.
//!
//! Tasks: the loop of `run` owns everything but the VIPs that the network sees, which a thread of their own holds
//! (`holder`). Beside the loop run one task that carries route netlink, those of the API server (`source::api`,
//! `status`), and one that answers `--http-address`. Stopping at any point is safe, since the next start takes the same
//! path as any pass.

pub mod cli;
pub mod commands;
mod holder;
pub mod kernel;
mod pass;
mod probes;
mod report;
mod run;
mod source;
mod state_dir;
#[cfg(feature = "kube")]
mod status;

//! Makes the kernel of one machine match its VirtualServices, and keeps it so: the library behind `lvs-agent`.
//!
//! Tasks: the loop of `run` owns everything; beside it run one task that carries route netlink, short ones that probe for
//! and announce VIPs, those of the API server (`source::cluster`), and one that answers `--http-address`. Stopping at any
//! point is safe, since the next start takes the same path as any pass.

pub mod cli;
pub mod commands;
mod pass;
mod probes;
mod report;
mod run;
mod source;
mod state_dir;

//! The library behind `lvs-agent`: makes the kernel of one machine match its VirtualServices and keeps it that way.
//!
//! Tasks: the loop of `run` owns everything except the VIPs that the network sees; a separate thread holds those
//! (`holder`), and another renews the agent's Lease (`lease`). Other tasks carry route netlink, watch the API server and write to it (`source::api`, `status`), and serve
//! `--http-address`. Stopping at any point is safe: the next start takes the same path as any pass.

pub mod cli;
pub mod commands;
mod essentials;
mod file_watch;
mod hand_over;
mod holder;
pub mod kernel;
#[cfg(feature = "kube")]
mod lease;
mod log_limit;
mod pass;
mod probes;
mod report;
mod run;
mod source;
mod state_dir;
#[cfg(feature = "kube")]
mod status;

//! The lab: a kernel with IPVS, networks laid out from a short description, and traffic through them.
//!
//! - [`Boot`] and [`Guest`] run a command under a kernel with IPVS: the host's, or a User Mode Linux kernel booted for it.
//! - [`Topology`] describes networks and hosts; [`Lab`] is a topology that is laid out, [`Host`] one of its machines.
//! - [`Responder`] and [`Client`] are the server and the client of test traffic.
//! - [`ControlPlane`] is a Kubernetes API server with etcd and, on request, the Kubernetes controllers.
//! - [`Cluster`] is a control plane with three guests as nodes, and real servers outside the cluster; [`SERVICES`] are
//!   virtual services for it.
//! - [`Operator`] is the chart installed on a control plane, [`Controller`] a running lvs-controller, [`Reporter`] writes
//!   statuses as an agent does, and [`Objects`] is the API as one user sees it.
//! - [`Agent`] is the agent of a host, [`Keepalived`] a keepalived beside it; [`Dump`] is the state of a host's kernel. [`scenery`] has the usual
//!   topologies, and a [`Fleet`] is two directors with five real servers.
//!
//! A kernel test starts like this:
//!
//! ```no_run
//! use lab::{Client, Lab, Topology};
//!
//! # fn main() -> anyhow::Result<()> {
//! lab::require_ipvs()?;
//! let topology: Topology = "
//! networks: [outer]
//! hosts:
//!   client: {links: {eth0: {network: outer, addresses: [192.168.220.50/24]}}}
//!   rs1: {links: {eth0: {network: outer, addresses: [192.168.220.132/24]}}}
//! "
//! .parse()?;
//! let lab = Lab::lay_out(&topology)?;
//! let _page = lab.host("rs1")?.respond(80)?;
//! let answer = Client::on(lab.host("client")?).fetch("192.168.220.132:80")?;
//! assert_eq!(answer.server, "rs1");
//! # Ok(())
//! # }
//! ```

mod agent;
mod cluster;
mod control_plane;
mod dump;
mod fleet;
mod guest;
mod host;
mod keepalived;
mod kernel;
mod layout;
mod leftovers;
mod log;
mod namespace;
mod objects;
mod operator;
mod rtnetlink;
pub mod scenery;
mod site;
mod topology;
mod traffic;
mod wait;

pub use agent::{
    Agent, Ran, Running, agent_program, director_group, replace_file, start_kube_agent,
    virtual_service,
};
pub use cluster::{Cluster, Node, SERVICES, Service, Tag, run_machines};
pub use control_plane::{ControlPlane, ControlPlaneSpec, ProgramSet};
pub use dump::Dump;
pub use fleet::{DIRECTORS, Fleet, FleetSet, FleetSetting, SERVERS};
pub use guest::{Boot, Bridge, Exit, Finished, Guest, Tap, run_as_init, run_scripts};
pub use host::{Host, Process};
pub use keepalived::Keepalived;
pub use kernel::{Kernel, require_ipvs};
pub use layout::Lab;
pub use log::last_lines;
pub use objects::Objects;
pub use operator::{
    Controller, Operator, Reporter, agent_lease, condition_of, install_chart, message_of,
    programmed,
};
pub use site::{Site, ask_both};
pub use topology::{Destination, Hop, Hops, HostSpec, LinkSpec, Setting, Topology};
pub use traffic::{Answer, Client, Connection, Protocol, Responder};
pub use wait::wait_until;

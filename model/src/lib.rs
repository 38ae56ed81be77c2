//! Decides what each machine's kernel must hold and by which steps; does no I/O.
//!
//! The pipeline, each arrow a pure function:
//!
//! ```text
//! ClusterView + Node      --assign-->   NodeSpec + Rejections
//! NodeSpec + NodeFacts    --desired-->  KernelState + Owners + Problems
//! KernelStates + Ledger   --diff-->     Plan of Steps + Problems
//! KernelStates + Ledger   --holding-->  Holding: the VIPs for the holder
//! ```
//!
//! The agent with YAML files, the agent under Kubernetes, the controller, `plan` and the tests all use these functions.
//! Nothing here uses a socket, a clock, a file or a Kubernetes client.

mod abridged;
mod absence;
mod accepted;
mod address;
mod assign;
mod claims;
mod connection_sync;
mod conntrack_table;
mod desired;
mod diff;
mod digest;
mod director_group;
mod extent;
mod failover;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fitness;
mod holding;
mod ipvs;
mod kernel_version;
mod ledger;
mod mac_addr;
mod names;
mod node;
mod node_route;
mod observation;
mod owners;
mod plan;
mod pool;
mod problem;
mod programmed;
mod readiness;
mod removals;
pub mod report;
mod routes;
#[cfg(test)]
mod sample;
mod second_chance;
mod server_history;
mod server_order;
mod server_set;
mod settling;
mod shares;
mod state;
mod step;
mod target;
mod update;
mod virtual_routers;
mod virtual_service;

pub use abridged::abridged;
pub use absence::{Absence, Absent};
pub use accepted::AcceptedVips;
pub use address::{Family, is_usable_unicast};
pub use assign::{Assignment, assign};
pub use claims::{Claim, ClaimState, Claims, Conflict, Sharing, Stage, check_machines};
pub use connection_sync::{
    ConnectionSync, DEFAULT_SYNC_GROUP, DEFAULT_SYNC_PORT, DEFAULT_SYNC_TTL, SyncDaemon, SyncRole,
    SyncSettings, default_sync_length,
};
pub use conntrack_table::ConntrackTable;
pub use desired::{Desired, desired};
pub use diff::{Difference, diff};
pub use digest::digest;
pub use director_group::DirectorGroup;
pub use extent::{Extent, Part, ServiceExtent};
pub use failover::{Candidacy, DEFAULT_PRIORITY, Failover, Keeping, Unicast};
pub use fitness::unfit_vips;
pub use holding::{Holding, SavedRouter, holding, steps_in_order};
pub use ipvs::{
    Destination, DestinationKey, Forwarding, Persistence, Protocol, Scheduler, SchedulerFlag,
    SchedulerName, Service, ServiceConfig, ServiceKey, Timeouts, Tunnel, TunnelChecksum,
    TunnelKind,
};
pub use kernel_version::KernelVersion;
pub use ledger::{Ledger, Stamp, SysctlRecord};
pub use mac_addr::MacAddr;
pub use names::{GroupName, InterfaceName, InvalidName, NodeName, ObjectName, PoolName};
pub use node::{
    Director, GroupGateways, Interface, InterfaceAddress, Listener, Node, NodeFacts, NodeSpec,
    RealServerRole, ServedAddress, Standing,
};
pub use node_route::{NodeRoute, RouteAnswers, RouteOrigin};
pub use observation::{Needs, Network, Observation, Tables};
pub use owners::Owners;
pub use plan::{Outcome, Outcomes, Plan, StepFailure};
pub use pool::{AddressRange, Asker, InvalidRange, Pool, PoolRefusal, Pools};
pub use problem::{ObjectRef, Problem, Rejection, Severity, Subject};
pub use readiness::{Readiness, may_have_weight};
pub use removals::remove_nothing;
pub use second_chance::{ending, forget, is_keepable, recall, remember, server_sets};
pub use server_history::{MOST_KEPT_SERVERS, PreviousVersion, ServerHistory};
pub use server_order::keep_server_order;
pub use server_set::{
    KeptService, LOCAL_MARK, RESERVED_MARKS, ReplacedSet, SecondChance, ServerSet, local_service,
};
pub use settling::Settling;
pub use shares::{Share, spread};
pub use state::{
    AddressConfig, AddressKey, FouPort, KernelState, Link, LinkKind, Masquerade, NextHop, Owner,
    PolicyRule, Route, RouterKey, RuleSelector, Services, StrayMark, Strays, Sysctl,
    VIP_LIFETIME_SECONDS, VirtualRouter,
};
pub use step::{
    Action, FouStep, IpvsStep, MasqueradeStep, NetworkStep, Step, StrayStep, SysctlStep,
};
pub use target::Target;
pub use update::{Baseline, Update};
pub use virtual_routers::{MOST_ROUTERS, router_of_vip, router_priorities};
pub use virtual_service::{
    ClusterView, Frontend, Nat, PersistenceByFamily, Port, RealServer, ReturnPath, ServerPorts,
    VirtualService,
};

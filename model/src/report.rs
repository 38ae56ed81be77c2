//! The reports of `plan` and `show`: what would be done on a machine, and what its kernel holds.
//!
//! `Display` is for people; `Serialize` gives stable JSON with `apiVersion` and `kind`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{
    Forwarding, KernelState, Ledger, NodeName, Owner, Plan, Problem, Rejection, Service,
    ServiceKey, Step, Target,
};

const API_VERSION: &str = "lvs-operator.io/v1alpha1";

/// What would be done on a machine, with problems and rejections.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    api_version: &'static str,
    kind: &'static str,
    /// The machine.
    pub node: NodeName,
    /// All changes that would be made to the kernel, in order.
    pub steps: Vec<StepReport>,
    /// The problems that keep virtual services from working in full.
    pub problems: Vec<Problem>,
    /// The objects that are not served.
    pub rejections: Vec<Rejection>,
}

/// A step with its command.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The command that an administrator would type.
    pub command: String,
    /// The reason for the step. `None` where the command makes it clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The step.
    pub step: Step,
}

impl PlanReport {
    /// Creates a report.
    #[must_use]
    pub fn new(
        node: &NodeName,
        steps: Vec<Step>,
        problems: Vec<Problem>,
        rejections: Vec<Rejection>,
    ) -> Self {
        let steps = steps.into_iter().map(|step| StepReport {
            command: step.to_string(),
            reason: step.reason(),
            step,
        });
        Self {
            api_version: API_VERSION,
            kind: "Plan",
            node: node.clone(),
            steps: steps.collect(),
            problems,
            rejections,
        }
    }
}

/// One command per line, followed by its reason.
impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.iter().map(|report| report.step.clone());
        let steps = steps.collect();
        Plan { steps }.fmt(f)
    }
}

/// What the kernel of a machine holds, and what of it is owned.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    api_version: &'static str,
    kind: &'static str,
    /// The machine.
    pub node: String,
    /// The IPVS services, including foreign ones.
    pub services: Vec<ServiceState>,
    /// The addresses that are owned.
    pub addresses: Vec<OwnedState>,
    /// The tunnel devices that are owned.
    pub links: Vec<OwnedState>,
    /// The routes that are owned.
    pub routes: Vec<OwnedState>,
    /// How many policy routing rules are owned.
    pub rules: usize,
    /// Whether the masquerading table is owned.
    pub masquerade: bool,
    /// Whether the table that marks stray packets is owned.
    pub strays: bool,
    /// The connection-sync daemons that are owned.
    pub sync_daemons: Vec<OwnedState>,
    /// The sysctls that were changed.
    pub sysctls: Vec<SysctlState>,
}

/// An IPVS service.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceState {
    /// Its identity: `TCP 192.0.2.1:80`.
    pub key: String,
    /// Whether it is owned.
    pub owner: Owner,
    /// Its scheduler.
    pub scheduler: String,
    /// Its real servers.
    pub destinations: Vec<DestinationState>,
}

/// A real server of an IPVS service.
#[derive(Clone, Debug, Serialize)]
pub struct DestinationState {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How packets reach it: `NAT`, `DR`, `TUN` or `other`.
    pub forwarding: &'static str,
    /// Its weight, 0 to 65535.
    pub weight: u32,
}

/// An owned object.
#[derive(Clone, Debug, Serialize)]
pub struct OwnedState {
    /// A description of it.
    pub what: String,
    /// Whether the kernel has it.
    pub present: bool,
}

/// A sysctl that was changed.
#[derive(Clone, Debug, Serialize)]
pub struct SysctlState {
    /// Its name.
    pub sysctl: String,
    /// Its value. `None` if it cannot be read.
    pub value: Option<i64>,
    /// The value found before it was changed.
    pub before: i64,
}

impl NodeState {
    /// Creates a report from what is observed and what is owned.
    #[must_use]
    pub fn new(node: String, observed: &KernelState, ledger: &Ledger) -> Self {
        let mut state = Self {
            api_version: API_VERSION,
            kind: "NodeState",
            node,
            services: Vec::with_capacity(observed.services.len()),
            addresses: Vec::new(),
            links: Vec::new(),
            routes: Vec::new(),
            rules: 0,
            masquerade: false,
            strays: false,
            sync_daemons: Vec::new(),
            sysctls: Vec::new(),
        };
        for (key, service) in &observed.services {
            state.services.push(service_state(key, service, ledger));
        }
        for target in &ledger.made {
            state.add(target, observed.has(target));
        }
        for (sysctl, record) in &ledger.sysctls {
            state.sysctls.push(SysctlState {
                sysctl: sysctl.to_string(),
                value: observed.sysctls.get(sysctl).copied(),
                before: record.before,
            });
        }
        state
    }

    fn add(&mut self, target: &Target, present: bool) {
        let owned = |what| OwnedState { what, present };
        match target {
            Target::Address(key) => self.addresses.push(owned(key.to_string())),
            Target::Link(name) => self.links.push(owned(name.to_string())),
            Target::Route(route) => {
                let what = format!("{} table {}", route.destination(), route.table);
                self.routes.push(owned(what));
            }
            Target::Rule(_) => self.rules += 1,
            Target::Masquerade => self.masquerade = true,
            Target::Strays => self.strays = true,
            Target::SyncDaemon(role) => self.sync_daemons.push(owned(role.to_string())),
            Target::Service(_) | Target::FouPort(_) | Target::Sysctl(_) | Target::Timeouts => {}
        }
    }
}

fn service_state(key: &ServiceKey, service: &Service, ledger: &Ledger) -> ServiceState {
    let destinations = service.destinations.iter();
    let destinations = destinations.map(|(key, destination)| DestinationState {
        address: key.address,
        port: key.port,
        forwarding: match destination.forwarding {
            Forwarding::Nat => "NAT",
            Forwarding::Dr => "DR",
            Forwarding::Tun(_) => "TUN",
            Forwarding::Foreign => "other",
        },
        weight: destination.weight,
    });
    ServiceState {
        key: key.to_string(),
        owner: if ledger.owns(&Target::Service(*key)) {
            Owner::Ours
        } else {
            Owner::Foreign
        },
        scheduler: service.config.scheduler.name.to_string(),
        destinations: destinations.collect(),
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.services.len();
        writeln!(f, "IPVS services ({count} on {})", self.node)?;
        for service in &self.services {
            let foreign = match service.owner {
                Owner::Ours => "",
                Owner::Foreign | Owner::Unknown => "  (not made by lvs-agent)",
            };
            writeln!(f, "  {:<40} {}{foreign}", service.key, service.scheduler)?;
            for to in &service.destinations {
                let address = SocketAddr::new(to.address, to.port).to_string();
                let (forwarding, weight) = (to.forwarding, to.weight);
                writeln!(f, "    -> {address:<35} {forwarding:<5} weight {weight}")?;
            }
        }
        writeln!(f, "Owned by lvs-agent")?;
        write_owned(f, "address", &self.addresses)?;
        write_owned(f, "link", &self.links)?;
        write_owned(f, "route", &self.routes)?;
        if self.rules > 0 {
            writeln!(f, "  rules    {}", self.rules)?;
        }
        if self.masquerade {
            writeln!(f, "  table    inet lvs-operator")?;
        }
        if self.strays {
            writeln!(f, "  table    inet lvs-operator-strays")?;
        }
        write_owned(f, "sync", &self.sync_daemons)?;
        for owned in &self.sysctls {
            let value = owned.value.map(|value| value.to_string());
            let value = value.as_deref().unwrap_or("?");
            let (sysctl, before) = (&owned.sysctl, owned.before);
            writeln!(f, "  sysctl   {sysctl} = {value} (before: {before})")?;
        }
        Ok(())
    }
}

fn write_owned(f: &mut fmt::Formatter<'_>, title: &str, all: &[OwnedState]) -> fmt::Result {
    for OwnedState { what, present } in all {
        let missing = if *present { "" } else { "  (missing)" };
        writeln!(f, "  {title:<8} {what}{missing}")?;
    }
    Ok(())
}

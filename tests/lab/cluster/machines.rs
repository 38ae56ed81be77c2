//! The machines outside of the cluster: real servers, each with an agent that has its own LvsNode and its own user.
//!
//! They are network namespaces of one more guest on the nodes' network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::agent::start_kube_agent;
use crate::guest::{Boot, Bridge, Guest, READY, Tap, attend_to_errands, find_lab_binary};
use crate::host::Process;
use crate::layout::Lab;
use crate::topology::{Destination, Hop, Hops, HostSpec, LinkSpec, Topology};
use crate::traffic::Responder;

/// The machines' names, with the last parts of their addresses.
pub(super) const MACHINES: [(&str, u8); 2] = [("rs1", 51), ("rs2", 52)];

/// The ports on which they answer, over TCP and UDP.
const PORTS: [u16; 4] = [81, 82, 8080, 8084];

/// The address of the guest's link, which no one has.
const GUEST: u8 = 50;

/// The environment variable with the [`Order`].
const ORDER: &str = "LAB_MACHINES";

/// The name of the nodes' network in the guest.
const NETWORK: &str = "nodes";

const BOOT: Duration = Duration::from_secs(120);
const ERRAND: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What the guest is told.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    gateway: Ipv4Addr,
    agent: PathBuf,
    machines: BTreeMap<String, Machine>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Machine {
    address: Ipv4Addr,
    kubeconfig: PathBuf,
}

/// The guest with the machines. Dropping it pulls its plug.
#[derive(Debug)]
pub(super) struct Machines {
    guest: Guest,
    _tap: Tap,
}

impl Machines {
    /// Boots the guest; `kubeconfigs` are those of the machines' users, in the order of [`MACHINES`].
    pub(super) fn start(bridge: &Bridge, agent: PathBuf, kubeconfigs: &[PathBuf]) -> Result<Self> {
        let machines = MACHINES
            .iter()
            .zip(kubeconfigs)
            .map(|((name, number), kubeconfig)| {
                let machine = Machine {
                    address: bridge.address(*number),
                    kubeconfig: kubeconfig.clone(),
                };
                (String::from(*name), machine)
            })
            .collect();
        let order = Order {
            gateway: bridge.address(1),
            agent,
            machines,
        };
        let tap = bridge.tap(GUEST)?;
        let guest = Boot::new(find_lab_binary()?.display().to_string())
            .args(["machines"])
            .memory("256M")
            .timeout(FOREVER)
            .tap(&tap)
            .current_dir("/")
            .env(ORDER, serde_json::to_string(&order)?)
            .start()?;
        Ok(Self { guest, _tap: tap })
    }

    /// Waits until servers answer and agents run.
    pub(super) fn await_boot(&self) -> Result<()> {
        let booted = self.guest.wait_for_output(READY, BOOT);
        booted.context("the machines outside of the cluster do not boot")
    }

    /// Runs the lines of a shell script on a machine and returns what they print.
    pub(super) fn run(&self, machine: &str, script: &str) -> Result<String> {
        let entered =
            format!("ip netns exec {machine} sh -e <<'END OF SCRIPT'\n{script}\nEND OF SCRIPT\n");
        let output = self.guest.run_errand(&entered, ERRAND);
        output.with_context(|| format!("on {machine}"))
    }

    /// The end of the log of a machine's agent.
    pub(super) fn log(&self, machine: &str) -> String {
        let said = self
            .guest
            .run_errand(&format!("tail -n 25 {}", log(machine)), ERRAND);
        said.unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn log(machine: &str) -> String {
    format!("/run/lab/{machine}.log")
}

/// In the guest: lays out the machines, starts servers and agents, and attends to errands.
pub fn run_machines() -> Result<()> {
    let order = std::env::var(ORDER).with_context(|| format!("{ORDER} is not set"))?;
    let order: Order = serde_json::from_str(&order).context("the order is no order")?;
    let lab = Lab::lay_out_as("", &topology(&order)?)?;
    lab.plug("vec0", NETWORK)?;
    let _responders = respond(&lab)?;
    let _agents = order
        .machines
        .iter()
        .map(|(name, machine)| start_agent(&lab, name, machine, &order))
        .collect::<Result<Vec<Process>>>()?;
    attend_to_errands()
}

fn topology(order: &Order) -> Result<Topology> {
    let mut topology = Topology {
        networks: vec![NETWORK.to_owned()],
        ..Topology::default()
    };
    for (name, machine) in &order.machines {
        let link = LinkSpec {
            network: Some(NETWORK.to_owned()),
            addresses: vec![format!("{}/24", machine.address).parse()?],
            mtu: None,
        };
        let gateway = Hops::One(Hop::Gateway(order.gateway.into()));
        let host = HostSpec {
            links: [("eth0".to_owned(), link)].into(),
            routes: [(Destination::Default, gateway)].into(),
            ..HostSpec::default()
        };
        topology.hosts.insert(name.clone(), host);
    }
    Ok(topology)
}

fn respond(lab: &Lab) -> Result<Vec<Responder>> {
    let everywhere = lab
        .hosts()
        .flat_map(|host| PORTS.map(|port| host.respond(port)));
    everywhere.collect()
}

fn start_agent(lab: &Lab, name: &str, machine: &Machine, order: &Order) -> Result<Process> {
    let host = lab.host(name)?;
    let state = PathBuf::from(format!("/run/lab/{name}.state"));
    start_kube_agent(
        host,
        order.agent.as_ref(),
        machine.kubeconfig.as_ref(),
        &state,
        log(name).as_ref(),
    )
}

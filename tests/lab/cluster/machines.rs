//! The machines outside the cluster: real servers, each with an agent that has its own LvsNode and its own user.
//!
//! They are network namespaces of another guest on the nodes' network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::agent::start_kube_agent;
use crate::guest::{Boot, Bridge, Guest, READY, Tap, find_lab_binary, run_scripts};
use crate::host::Process;
use crate::layout::Lab;
use crate::topology::{Destination, Hop, Hops, HostSpec, LinkSpec, Topology};
use crate::traffic::Responder;

/// The machines' names, with the last octets of their addresses.
pub(super) const MACHINES: [(&str, u8); 2] = [("rs1", 51), ("rs2", 52)];

/// The ports on which the machines answer, over TCP and UDP.
const PORTS: [u16; 4] = [81, 82, 8080, 8084];

/// The number of the guest's link on the network, which no machine has as its address.
const GUEST: u8 = 50;

/// The environment variable with the [`MachinesSpec`].
const SPEC: &str = "LAB_MACHINES";

/// The name of the nodes' network in the guest.
const NETWORK: &str = "nodes";

const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The description of the machines, for the guest.
#[derive(Debug, Deserialize, Serialize)]
struct MachinesSpec {
    gateway: Ipv4Addr,
    agent: PathBuf,
    machines: BTreeMap<String, Machine>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Machine {
    address: Ipv4Addr,
    kubeconfig: PathBuf,
}

/// The guest with the machines. Dropping it ends the guest.
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
        let spec = MachinesSpec {
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
            .env(SPEC, serde_json::to_string(&spec)?)
            .start()?;
        Ok(Self { guest, _tap: tap })
    }

    /// Waits until the servers answer and the agents run.
    pub(super) fn await_boot(&self) -> Result<()> {
        let booted = self.guest.wait_for_output(READY, BOOT_TIMEOUT);
        booted.context("the machines outside the cluster do not boot")
    }

    /// Runs a shell script on a machine and returns its standard output.
    pub(super) fn run(&self, machine: &str, script: &str) -> Result<String> {
        let entered =
            format!("ip netns exec {machine} sh -e <<'END OF SCRIPT'\n{script}\nEND OF SCRIPT\n");
        let output = self.guest.run_script(&entered, SCRIPT_TIMEOUT);
        output.with_context(|| format!("on {machine}"))
    }

    /// The end of the log of a machine's agent.
    pub(super) fn log(&self, machine: &str) -> String {
        let lines = self
            .guest
            .run_script(&format!("tail -n 25 {}", log(machine)), SCRIPT_TIMEOUT);
        lines.unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn log(machine: &str) -> String {
    format!("/run/lab/{machine}.log")
}

/// Runs in the guest: lays out the machines, starts servers and agents, and runs scripts.
pub fn run_machines() -> Result<()> {
    let spec = std::env::var(SPEC).with_context(|| format!("{SPEC} is not set"))?;
    let spec: MachinesSpec =
        serde_json::from_str(&spec).with_context(|| format!("{SPEC} is not valid"))?;
    let lab = Lab::lay_out_as("", &topology(&spec)?)?;
    lab.plug("vec0", NETWORK)?;
    let _responders = respond(&lab)?;
    let _agents = spec
        .machines
        .iter()
        .map(|(name, machine)| start_agent(&lab, name, machine, &spec))
        .collect::<Result<Vec<Process>>>()?;
    run_scripts()
}

fn topology(spec: &MachinesSpec) -> Result<Topology> {
    let mut topology = Topology {
        networks: vec![NETWORK.to_owned()],
        ..Topology::default()
    };
    for (name, machine) in &spec.machines {
        let link = LinkSpec {
            network: Some(NETWORK.to_owned()),
            addresses: vec![format!("{}/24", machine.address).parse()?],
            mtu: None,
        };
        let gateway = Hops::One(Hop::Gateway(spec.gateway.into()));
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

fn start_agent(lab: &Lab, name: &str, machine: &Machine, spec: &MachinesSpec) -> Result<Process> {
    let host = lab.host(name)?;
    let state = PathBuf::from(format!("/run/lab/{name}.state"));
    start_kube_agent(
        host,
        spec.agent.as_ref(),
        machine.kubeconfig.as_ref(),
        &state,
        log(name).as_ref(),
    )
}

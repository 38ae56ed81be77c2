//! The machines of a scenario: a fake kernel, the commands of its administrator, and a twin without the agent.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use lvs_model::{
    AddressConfig, AddressKey, ConntrackTable, Interface, InterfaceAddress, InterfaceName,
    KernelState, KernelVersion, Ledger, Link, LinkKind, NetworkStep, NextHop, NodeFacts, NodeRoute,
    Owner, Route, RouteOrigin, Stamp, Sysctl, SysctlStep,
    fake::{FakeKernel, pass},
};
use serde::Deserialize;

use crate::ipvsadm;

/// The description of a machine in a scenario file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    /// How many connections are tracked, and how many may be.
    conntrack: Option<(u64, u64)>,
    /// The interfaces that merge packets.
    #[serde(default)]
    lro: Vec<String>,
    /// The release of its kernel. Without one, its version is unknown.
    kernel: Option<String>,
    /// Interfaces with their addresses; `lo` is added.
    interfaces: BTreeMap<String, Vec<IpNet>>,
    /// Routes as `ip route` prints them, without those of the interfaces' own networks.
    #[serde(default)]
    routes: Vec<String>,
    /// Sysctls that differ from the kernel's defaults. `null`: the kernel was built without this one.
    #[serde(default)]
    sysctls: BTreeMap<String, Option<i64>>,
}

impl Description {
    fn facts(&self) -> NodeFacts {
        let mut facts = NodeFacts::default();
        let lo = [("lo".to_owned(), vec!["127.0.0.1/8".parse().unwrap()])];
        for (index, (name, networks)) in lo
            .iter()
            .map(|(n, a)| (n, a))
            .chain(&self.interfaces)
            .enumerate()
        {
            let name: InterfaceName = name.parse().unwrap();
            let loopback = name.as_str() == "lo";
            let index = u32::try_from(index).unwrap() + 1;
            facts.interfaces.insert(
                name.clone(),
                Interface {
                    index,
                    up: true,
                    mtu: 1500,
                    loopback,
                    tunnel: name.as_str() == "tunl0",
                    mac: None,
                },
            );
            for network in networks {
                // The kernel makes no route for a network of one host.
                let has_route = !loopback && network.prefix_len() < network.max_prefix_len();
                facts.addresses.push(InterfaceAddress {
                    interface: name.clone(),
                    network: *network,
                });
                facts
                    .routes
                    .extend(has_route.then(|| connected(&name, *network)));
            }
        }
        facts
            .routes
            .extend(self.routes.iter().map(|line| read_route(line)));
        facts.conntrack = self
            .conntrack
            .map(|(count, max)| ConntrackTable { count, max });
        facts.lro = self.lro.iter().map(|name| name.parse().unwrap()).collect();
        facts.kernel = self
            .kernel
            .as_ref()
            .map(|release| KernelVersion::of_release(release).unwrap());
        facts.sysctls = default_sysctls(&facts);
        for (path, value) in &self.sysctls {
            match *value {
                Some(value) => facts.sysctls.insert(read_sysctl(path), value),
                None => facts.sysctls.remove(&read_sysctl(path)),
            };
        }
        facts
    }
}

fn connected(interface: &InterfaceName, network: IpNet) -> NodeRoute {
    NodeRoute {
        destination: network.trunc(),
        gateway: None,
        interface: interface.clone(),
        metric: 0,
        origin: RouteOrigin::Other,
    }
}

/// Reads `default via 192.168.220.1 dev eth1 [proto ra]`.
fn read_route(line: &str) -> NodeRoute {
    let words: Vec<&str> = line.split(' ').collect();
    let [destination, "via", gateway, "dev", interface, origin @ ..] = words.as_slice() else {
        panic!("not a route: {line}")
    };
    let gateway: IpAddr = gateway.parse().unwrap();
    let destination = match (*destination, gateway) {
        ("default", IpAddr::V4(_)) => "0.0.0.0/0",
        ("default", IpAddr::V6(_)) => "::/0",
        (network, _) => network,
    };
    NodeRoute {
        destination: destination.parse().unwrap(),
        gateway: Some(gateway),
        interface: interface.parse().unwrap(),
        metric: 0,
        origin: match origin {
            ["proto", "ra"] => RouteOrigin::RouterAdvertisement,
            _ => RouteOrigin::Other,
        },
    }
}

fn read_sysctl(path: &str) -> Sysctl {
    path.replace('.', "/").parse().unwrap()
}

fn default_sysctls(facts: &NodeFacts) -> BTreeMap<Sysctl, i64> {
    let mut sysctls = BTreeMap::from([
        (Sysctl::Ipv4Forward, 0),
        (Sysctl::Ipv6Forward, 0),
        (Sysctl::VsConntrack, 0),
        (Sysctl::VsConnReuseMode, 1),
        (Sysctl::VsExpireNodestConn, 0),
        (Sysctl::VsExpireQuiescentTemplate, 0),
        (Sysctl::VsSloppyTcp, 0),
        (Sysctl::VsBackupOnly, 0),
    ]);
    for interface in facts.interfaces.keys().cloned().map(Some).chain([None]) {
        sysctls.extend(
            interface
                .is_some()
                .then(|| (Sysctl::Forwarding(interface.clone()), 0)),
        );
        sysctls.extend([
            (Sysctl::AcceptRedirects(interface.clone()), 1),
            (Sysctl::ArpIgnore(interface.clone()), 0),
            (Sysctl::ArpAnnounce(interface.clone()), 0),
            (Sysctl::RpFilter(interface.clone()), 0),
            (Sysctl::SendRedirects(interface.clone()), 1),
        ]);
    }
    sysctls
}

/// A running machine.
#[derive(Clone)]
pub(crate) struct Machine {
    boot: FakeKernel,
    /// Its kernel, which the agent programs.
    pub(crate) kernel: FakeKernel,
    /// A second kernel, which gets the same commands without the agent.
    pub(crate) twin: FakeKernel,
    /// The agent's ledger.
    pub(crate) ledger: Ledger,
}

impl Machine {
    pub(crate) fn boot(description: &Description) -> Self {
        Self::start(FakeKernel::boot(description.facts()), Ledger::default())
    }

    fn start(boot: FakeKernel, ledger: Ledger) -> Self {
        Self {
            kernel: boot.clone(),
            twin: boot.clone(),
            ledger,
            boot,
        }
    }

    /// Runs a command of the administrator on the machine and on its twin.
    pub(crate) fn run(&mut self, command: &str) {
        match command {
            "reboot" => {
                let ledger = self.ledger.clone().restamped(Stamp::default());
                *self = Self::start(self.boot.clone(), ledger);
                return;
            }
            "lvs-agent cleanup" => {
                let outcomes = pass(&mut self.kernel, &KernelState::default(), &mut self.ledger);
                assert!(outcomes.is_complete(), "{outcomes:?}");
                self.ledger.has_served = false;
                return;
            }
            _ => {}
        }
        let before = self.kernel.clone();
        for kernel in [&mut self.kernel, &mut self.twin] {
            run_on(kernel, command);
        }
        assert!(self.kernel != before, "{command} changes nothing");
    }
}

fn run_on(kernel: &mut FakeKernel, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["ipvsadm", "-C"] => kernel.state.services.clear(),
        // The twin does not have what the command edits or removes.
        ["ipvsadm", ..] => drop(kernel.step(&ipvsadm::parse(command).unwrap().into())),
        ["ip", words @ ..] => run_ip(kernel, words),
        ["conntrack", "-F"] => {
            let table = kernel.facts.conntrack.as_mut().unwrap();
            table.count = 0;
        }
        ["ethtool", "-K", name, "lro", "off"] => {
            assert!(kernel.facts.lro.remove(&name.parse().unwrap()));
        }
        ["sysctl", "-w", setting] => {
            let (path, value) = setting.split_once('=').unwrap();
            let (sysctl, value) = (read_sysctl(path), value.parse().unwrap());
            let step = SysctlStep::Restore { sysctl, value };
            kernel.step(&step.into()).unwrap();
        }
        _ => panic!("unknown command: {command}"),
    }
}

fn run_ip(kernel: &mut FakeKernel, words: &[&str]) {
    match words {
        ["addr", "add", network, "dev", interface] => {
            let (key, network) = read_address(network, interface);
            kernel.facts.routes.push(connected(&key.interface, network));
            let config = AddressConfig {
                deprecated: false,
                expires: false,
                owner: Owner::Foreign,
            };
            kernel.state.addresses.insert(key, config);
        }
        ["addr", "del", network, "dev", interface] => {
            let (key, network) = read_address(network, interface);
            let route = connected(&key.interface, network);
            kernel.facts.routes.retain(|known| *known != route);
            kernel.state.addresses.remove(&key);
        }
        [
            "addr",
            "change",
            network,
            "dev",
            interface,
            "preferred_lft",
            lifetime,
        ] => {
            let (key, _) = read_address(network, interface);
            // The twin does not have the address.
            if let Some(config) = kernel.state.addresses.get_mut(&key) {
                config.deprecated = *lifetime == "0";
            }
        }
        ["link", "add", name, "type", "dummy"] => {
            let link = Link {
                kind: LinkKind::Foreign,
                up: true,
                owner: Owner::Foreign,
            };
            kernel.state.links.insert(name.parse().unwrap(), link);
        }
        ["link", "set", name, "down"] => {
            if let Some(link) = kernel.state.links.get_mut(&name.parse().unwrap()) {
                link.up = false;
            }
        }
        ["link", "del", name] => remove_interface(kernel, &name.parse().unwrap()),
        _ => panic!("unknown command: ip {words:?}"),
    }
}

fn read_address(network: &str, interface: &str) -> (AddressKey, IpNet) {
    let network: IpNet = network.parse().unwrap();
    let key = AddressKey {
        interface: interface.parse().unwrap(),
        address: network.addr(),
        prefix: network.prefix_len(),
    };
    (key, network)
}

fn remove_interface(kernel: &mut FakeKernel, name: &InterfaceName) {
    kernel.facts.interfaces.remove(name);
    kernel.facts.routes.retain(|route| route.interface != *name);
    kernel
        .step(&NetworkStep::RemoveLink(name.clone()).into())
        .unwrap();
    let is_lost = |route: &Route| matches!(&route.next_hop, NextHop::Gateway { interface, .. } if interface == name);
    kernel.state.routes.retain(|route| !is_lost(route));
}

//! Lays out a topology in the kernel, and removes it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::host::{Host, write_sysctl};
use crate::namespace::{self, Namespace};
use crate::rtnetlink::{Cable, Rtnetlink};
use crate::topology::{Hop, HostSpec, LOOPBACK, LinkSpec, Topology};
use crate::wait::wait_until;

/// How long links may take to get their carrier.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts the labs of this process, so that several can exist at the same time.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A topology laid out in network namespaces. Dropping it kills the processes in them and removes them.
#[derive(Debug)]
pub struct Lab {
    hosts: BTreeMap<String, Host>,
    /// Every namespace of the lab: first that of the switch, then those of the hosts.
    namespaces: Vec<Arc<Namespace>>,
}

impl Lab {
    /// Lays out a topology. Afterwards every link has its carrier and every address is usable.
    pub fn lay_out(topology: &Topology) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::lay_out_as(&format!("lab-{}-{number}-", std::process::id()), topology)
    }

    /// Lays out a topology in namespaces whose names begin with `prefix`. It may be empty if no other lab is laid out.
    pub fn lay_out_as(prefix: &str, topology: &Topology) -> Result<Self> {
        topology.check()?;
        let mut lab = Self {
            hosts: BTreeMap::new(),
            namespaces: Vec::new(),
        };
        let switch = lab.add_namespace(format!("{prefix}switch"))?;
        for (name, spec) in &topology.hosts {
            ensure!(
                name != "switch",
                "host `switch`: this name is reserved for the lab's switch"
            );
            let namespace = lab.add_namespace(format!("{prefix}{name}"))?;
            namespace
                .enter(write_default_sysctls)?
                .with_context(|| format!("host `{name}`"))?;
            lab.hosts.insert(
                name.clone(),
                Host::new(name.clone(), spec.clone(), namespace),
            );
        }
        switch
            .enter(|| lab.lay_cables(&topology.networks))?
            .context("could not connect the hosts")?;
        for (name, spec) in &topology.hosts {
            lab.host(name)?
                .in_namespace(|| configure(spec))?
                .with_context(|| format!("could not configure host `{name}`"))?;
        }
        for (name, spec) in &topology.hosts {
            let what = format!("the links of host `{name}`");
            lab.host(name)?.in_namespace(|| {
                wait_until(&what, CARRIER_TIMEOUT, || Ok(is_ready(spec)?.then_some(())))
            })??;
        }
        Ok(lab)
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .get(name)
            .with_context(|| format!("the topology has no host `{name}`"))
    }

    /// Connects a link of this thread's namespace, such as a guest's link to the host, to a network.
    pub fn plug(&self, link: &str, network: &str) -> Result<()> {
        let switch = self.namespaces.first().context("the lab has no switch")?;
        wait_until(&format!("the link {link}"), CARRIER_TIMEOUT, || {
            Ok(nix::net::if_::if_nametoindex(link).is_ok().then_some(()))
        })?;
        Rtnetlink::open()?.move_link(link, switch.handle())?;
        switch.enter(|| Rtnetlink::open()?.attach(link, network))?
    }

    /// Separates a link from the other separated links of its network. It still reaches those that are not separated.
    pub fn separate(&self, host: &str, link: &str) -> Result<()> {
        self.set_isolation(host, link, "on")
    }

    /// Ends what [`Lab::separate`] began.
    pub fn reunite(&self, host: &str, link: &str) -> Result<()> {
        self.set_isolation(host, link, "off")
    }

    fn set_isolation(&self, host: &str, link: &str, value: &str) -> Result<()> {
        let switch = self.namespaces.first().context("the lab has no switch")?;
        let mut links = self.plugged_links();
        let number = links.position(|(of, name, _)| of.name() == host && name == link);
        let number = number.with_context(|| format!("{host}/{link} is on no network"))?;
        let set = [
            "bridge",
            "link",
            "set",
            "dev",
            &port(number),
            "isolated",
            value,
        ];
        let status = Command::new("ip")
            .args(["netns", "exec", switch.name()])
            .args(set)
            .status()
            .context("could not start `bridge`")?;
        ensure!(status.success(), "`{}` ended with {status}", set.join(" "));
        Ok(())
    }

    /// Every host, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    fn add_namespace(&mut self, name: String) -> Result<Arc<Namespace>> {
        let namespace = Arc::new(Namespace::create(name)?);
        self.namespaces.push(Arc::clone(&namespace));
        Ok(namespace)
    }

    /// Creates the bridges, and the cables from them to the hosts, in the switch's namespace.
    fn lay_cables(&self, networks: &[String]) -> Result<()> {
        if has_ipv6() {
            // The switch must not have addresses on the networks.
            write_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        let rtnetlink = Rtnetlink::open()?;
        for network in networks {
            rtnetlink.add_bridge(network)?;
        }
        for (number, (host, link, spec)) in self.plugged_links().enumerate() {
            let bridge = spec.network.as_deref();
            let bridge = bridge.with_context(|| format!("{link} is on no network"))?;
            rtnetlink.add_cable(&Cable {
                port: port(number),
                alias: format!("{}/{link}", host.name()),
                bridge,
                link,
                namespace: host.namespace_handle(),
                mtu: spec.mtu,
            })?;
        }
        Ok(())
    }

    /// The links that are on a network, in the order of the switch's ports.
    fn plugged_links(&self) -> impl Iterator<Item = (&Host, &str, &LinkSpec)> {
        self.hosts.values().flat_map(|host| {
            let links = host.spec().links.iter();
            let plugged = links.filter(|(_, spec)| spec.network.is_some());
            plugged.map(move |(link, spec)| (host, link.as_str(), spec))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = namespace::tear_down(self.namespaces.iter().map(Arc::as_ref)) {
            eprintln!("lab: could not remove everything: {error:#}");
        }
    }
}

/// The name of a port of the switch.
fn port(number: usize) -> String {
    format!("port{number}")
}

/// Writes the kernel's default sysctls to a new namespace, which may have inherited others from the machine's namespace.
///
/// Duplicate address detection is off, so that addresses are usable immediately.
fn write_default_sysctls() -> Result<()> {
    let mut settings = vec![
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ];
    if has_ipv6() {
        settings.extend([
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.all.disable_ipv6", "0"),
            ("net.ipv6.conf.default.disable_ipv6", "0"),
        ]);
    }
    settings
        .into_iter()
        .try_for_each(|(key, value)| write_sysctl(key, value))
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Sets the sysctls, addresses and routes of a host. Sysctls come first, since some affect only addresses that are added
/// later.
fn configure(spec: &HostSpec) -> Result<()> {
    if spec.forwarding {
        write_sysctl("net.ipv4.ip_forward", "1")?;
        if has_ipv6() {
            write_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }
    }
    for (key, value) in &spec.sysctls {
        write_sysctl(key, &value.to_string())?;
    }
    let rtnetlink = Rtnetlink::open()?;
    rtnetlink.bring_up(LOOPBACK)?;
    for (link, spec) in &spec.links {
        rtnetlink.bring_up(link)?;
        for address in &spec.addresses {
            rtnetlink.add_address(link, *address)?;
        }
    }
    // The kernel accepts a route only if its gateway is reachable.
    let routes = spec
        .routes
        .iter()
        .flat_map(|(to, hops)| hops.iter().map(|hop| (*to, hop)));
    let (direct, indirect): (Vec<_>, Vec<_>) =
        routes.partition(|(_, hop)| matches!(hop, Hop::Link(_)));
    for (destination, hop) in direct.into_iter().chain(indirect.into_iter().rev()) {
        rtnetlink.add_route(destination, hop)?;
    }
    Ok(())
}

/// Returns whether every link of the host in this thread's namespace has its carrier and every address is usable.
fn is_ready(spec: &HostSpec) -> Result<bool> {
    let mut running = Vec::new();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for interface in getifaddrs().context("could not list the interfaces")? {
        if interface
            .flags
            .contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING)
        {
            running.push(interface.interface_name);
        }
        let address = interface.address.as_ref();
        let ipv4 = address
            .and_then(|a| a.as_sockaddr_in())
            .map(|a| IpAddr::V4(a.ip()));
        let ipv6 = address
            .and_then(|a| a.as_sockaddr_in6())
            .map(|a| IpAddr::V6(a.ip()));
        addresses.extend(ipv4.or(ipv6));
    }
    let tentative = links_with_tentative_addresses();
    Ok(spec.links.iter().all(|(link, spec)| {
        let usable = |address: &IpNet| addresses.contains(&address.addr());
        running.contains(link) && spec.addresses.iter().all(usable) && !tentative.contains(link)
    }))
}

/// The links with an IPv6 address that is not usable yet, by the flags in `/proc/net/if_inet6`.
fn links_with_tentative_addresses() -> Vec<String> {
    const IFA_F_TENTATIVE: u32 = 0x40;
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let link = |line: &str| {
        let [_address, _index, _length, _scope, flags, link] = line
            .split_whitespace()
            .collect::<Vec<_>>()
            .try_into()
            .ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (flags & IFA_F_TENTATIVE != 0).then(|| String::from(link))
    };
    table.lines().filter_map(link).collect()
}

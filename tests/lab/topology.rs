//! Topologies: descriptions of a lab's networks and hosts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;

/// The loopback link, which every host has.
pub(crate) const LOOPBACK: &str = "lo";

/// The longest name that an interface may have (`IFNAMSIZ` without its final zero).
const LONGEST_LINK_NAME: usize = 15;

/// Networks and the hosts on them. Parsed from YAML with [`FromStr`], or built as a value.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The names of the networks; each becomes a bridge that only forwards frames.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The hosts by name; each becomes a network namespace.
    pub hosts: BTreeMap<String, HostSpec>,
}

/// One host of a [`Topology`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The interfaces by name. `lo` may be listed to give it addresses.
    #[serde(default)]
    pub links: BTreeMap<String, LinkSpec>,
    /// The routes.
    #[serde(default)]
    pub routes: BTreeMap<Destination, Hops>,
    /// Whether the host forwards IPv4 and IPv6 packets.
    #[serde(default)]
    pub forwarding: bool,
    /// Sysctls below `net.`, written before the links come up.
    #[serde(default)]
    pub sysctls: BTreeMap<String, Setting>,
}

/// One interface of a host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// The network it is connected to; required for every link except `lo`.
    pub network: Option<String>,
    /// Its addresses with their prefix lengths.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The MTU in bytes, if it is not 1500.
    pub mtu: Option<u32>,
}

/// The destination of a route.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub enum Destination {
    /// The default route.
    Default,
    /// A network.
    Network(IpNet),
}

/// The next hops to one destination: one, or one for each address family.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged)]
pub enum Hops {
    /// One next hop.
    One(Hop),
    /// One for IPv4 and one for IPv6.
    Several(Vec<Hop>),
}

/// The next hop of a route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "String")]
pub enum Hop {
    /// A router.
    Gateway(IpAddr),
    /// A link on whose network the destination is.
    Link(String),
}

/// The value of a sysctl: a number or text in YAML.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

impl Topology {
    /// Reads a description from a YAML file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        text.parse().with_context(|| path.display().to_string())
    }

    /// Checks what the types do not; an error names the host and the field.
    pub(crate) fn check(&self) -> Result<()> {
        for network in &self.networks {
            check_name(network, LONGEST_LINK_NAME)
                .with_context(|| format!("network `{network}`"))?;
        }
        for (name, host) in &self.hosts {
            host.check(name, &self.networks)
                .with_context(|| format!("host `{name}`"))?;
        }
        Ok(())
    }
}

impl FromStr for Topology {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut field = String::new();
        let topology: Self = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                field = error.path().to_string();
                error.into_inner()
            })
        })
        .with_context(|| format!("not a valid topology, at `{field}`"))?;
        topology.check()?;
        Ok(topology)
    }
}

impl HostSpec {
    fn check(&self, name: &str, networks: &[String]) -> Result<()> {
        check_name(name, 63)?;
        for (link, spec) in &self.links {
            spec.check(link, networks)
                .with_context(|| format!("link `{link}`"))?;
        }
        for (destination, hops) in &self.routes {
            self.check_route(*destination, hops)
                .with_context(|| format!("route to {destination}"))?;
        }
        for key in self.sysctls.keys() {
            ensure!(
                key.starts_with("net.") || key.starts_with("net/"),
                "sysctl `{key}`: only sysctls below `net.` belong to one host"
            );
        }
        Ok(())
    }

    fn check_route(&self, destination: Destination, hops: &Hops) -> Result<()> {
        let mut seen = [false; 2];
        for hop in hops.iter() {
            let is_ipv6 = match (destination, hop) {
                (Destination::Network(network), Hop::Gateway(gateway)) => {
                    let (wanted, given) = (network.addr().is_ipv6(), gateway.is_ipv6());
                    ensure!(
                        wanted == given,
                        "the gateway {gateway} has the other address family"
                    );
                    given
                }
                (Destination::Default, Hop::Gateway(gateway)) => gateway.is_ipv6(),
                (Destination::Network(network), Hop::Link(_)) => network.addr().is_ipv6(),
                (Destination::Default, Hop::Link(_)) => false,
            };
            if let Hop::Link(link) = hop {
                ensure!(
                    self.links.contains_key(link) || link == LOOPBACK,
                    "`{link}` is neither an address nor a link of this host"
                );
            }
            let [ipv4, ipv6] = &mut seen;
            let slot = if is_ipv6 { ipv6 } else { ipv4 };
            ensure!(
                !std::mem::replace(slot, true),
                "there are two next hops of one address family"
            );
        }
        Ok(())
    }
}

impl LinkSpec {
    fn check(&self, name: &str, networks: &[String]) -> Result<()> {
        check_name(name, LONGEST_LINK_NAME)?;
        match &self.network {
            None => ensure!(name == LOOPBACK, "field `network` is missing"),
            Some(_) if name == LOOPBACK => {
                bail!("field `network`: the loopback link is on no network")
            }
            Some(network) => ensure!(
                networks.contains(network),
                "field `network`: `{network}` is not one of the networks [{}]",
                networks.join(", ")
            ),
        }
        Ok(())
    }
}

impl Hops {
    /// The next hops one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Hop> {
        match self {
            Self::One(hop) => std::slice::from_ref(hop),
            Self::Several(hops) => hops.as_slice(),
        }
        .iter()
    }
}

impl TryFrom<String> for Destination {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        if text == "default" {
            return Ok(Self::Default);
        }
        let network = text.parse().with_context(|| {
            format!("`{text}` is neither `default` nor a network such as 10.0.0.0/8")
        })?;
        Ok(Self::Network(network))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl From<String> for Hop {
    fn from(text: String) -> Self {
        text.parse()
            .map_or_else(|_not_an_address| Self::Link(text), Self::Gateway)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn check_name(name: &str, longest: usize) -> Result<()> {
    let fits = (1..=longest).contains(&name.len());
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    ensure!(
        fits && plain && name != "." && name != "..",
        "a name has 1 to {longest} letters, digits, dots, hyphens or underscores"
    );
    Ok(())
}

#[cfg(test)]
mod tests;

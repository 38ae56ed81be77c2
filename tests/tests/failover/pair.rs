//! Two directors of a group, two real servers and a client; keepalived can be one of the directors.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{
    Agent, Client, Host, Lab, Responder, Running, Topology, director_group, virtual_service,
    wait_until,
};

pub(crate) const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const DIRECTORS: [&str; 2] = ["lvs1", "lvs2"];
pub(crate) const TOPOLOGY: &str = "
networks: [lan]
hosts:
  client: {links: {eth0: {network: lan, addresses: [10.0.0.1/24, 'fd00::1/64']}}}
  lvs1: {links: {eth0: {network: lan, addresses: [10.0.0.11/24, 'fd00::11/64']}}}
  lvs2: {links: {eth0: {network: lan, addresses: [10.0.0.12/24, 'fd00::12/64']}}}
  rs1: {links: {eth0: {network: lan, addresses: [10.0.0.21/24, 'fd00::21/64']}}}
  rs2: {links: {eth0: {network: lan, addresses: [10.0.0.22/24, 'fd00::22/64']}}}
";

pub(crate) fn documents(failover: &str) -> String {
    let group = director_group(
        "edge",
        &format!("nodes: {{names: [lvs1, lvs2]}}, failover: {{{failover}}}"),
    );
    let service = virtual_service(
        "web",
        "directorGroup: edge, addresses: [10.0.0.100, 'fd00::100'], forwarding: DR, scheduler: {name: mh}, ports: [{port: 80}],
         backends: [{address: 10.0.0.21}, {address: 10.0.0.22}, {address: 'fd00::21'}, {address: 'fd00::22'}]",
    );
    group + &service
}

/// The machines, with agents on all except the client.
pub(crate) struct Pair {
    _servers: Vec<Running>,
    _responders: Vec<Responder>,
    pub(crate) lab: Lab,
}

impl Pair {
    pub(crate) fn lay_out(documents: &str) -> Result<Self> {
        let mut pair = Self::with_responders(&["rs1", "rs2"])?;
        for name in ["rs1", "rs2"] {
            let agent = agent(pair.lab.host(name)?, documents)?;
            pair._servers.push(agent.start()?);
        }
        Ok(pair)
    }

    /// No agent runs, and requests are answered on these hosts.
    pub(crate) fn with_responders(names: &[&str]) -> Result<Self> {
        let lab = Lab::lay_out(&TOPOLOGY.parse::<Topology>()?)?;
        let responders = names.iter().map(|name| lab.host(name)?.respond(80));
        Ok(Self {
            _servers: Vec::new(),
            _responders: responders.collect::<Result<_>>()?,
            lab,
        })
    }

    pub(crate) fn agent(&self, name: &str, documents: &str) -> Result<Agent> {
        agent(self.lab.host(name)?, documents)
    }

    /// The directors that have a VIP.
    pub(crate) fn holders(&self, vip: &str) -> Result<Vec<&'static str>> {
        let mut holders = Vec::new();
        for name in DIRECTORS {
            let shown = self
                .lab
                .host(name)?
                .run(&["ip", "addr", "show", "to", vip])?;
            if !shown.trim().is_empty() {
                holders.push(name);
            }
        }
        Ok(holders)
    }

    /// Starts the agent of lvs1, which gets the VIPs, and then that of lvs2, which is on standby.
    pub(crate) fn start(&self, [first, second]: [&Agent; 2]) -> Result<[Running; 2]> {
        let active = first.start()?;
        self.await_holder("lvs1", &active)?;
        let standby = second.start()?;
        standby.await_log(0, "standby: started")?;
        Ok([active, standby])
    }

    /// Waits until one director, whose agent runs, has both VIPs, and the other has none.
    pub(crate) fn await_holder(&self, name: &str, agent: &Running) -> Result<()> {
        agent.await_that(&format!("{name} to hold the VIPs alone"), || {
            self.is_only_holder(name)
        })
    }

    pub(crate) fn is_only_holder(&self, name: &str) -> Result<bool> {
        let holders = VIPS.iter().map(|vip| self.holders(vip));
        let holders = holders.collect::<Result<Vec<_>>>()?;
        Ok(holders.iter().all(|holders| *holders == [name]))
    }

    pub(crate) fn is_holder(&self, name: &'static str) -> Result<bool> {
        let holders = VIPS.iter().map(|vip| self.holders(vip));
        let holders = holders.collect::<Result<Vec<_>>>()?;
        Ok(holders.iter().all(|holders| holders.contains(&name)))
    }

    /// Waits until a host has received so many multicast packets of each family that a director which understands none of them
    /// would have taken over.
    pub(crate) fn await_advertisements(&self, name: &str) -> Result<()> {
        const ENOUGH: u64 = 15;
        let counts = || self.lab.host(name)?.in_namespace(multicasts_received)?;
        let before = counts()?;
        wait_until("advertisements", TIMEOUT, || {
            let mut grown = counts()?.into_iter().zip(before);
            Ok(grown
                .all(|(now, before)| now >= before + ENOUGH)
                .then_some(()))
        })
    }

    pub(crate) fn expect_answers(&self) -> Result<()> {
        for vip in VIPS {
            let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), 80);
            Client::on(self.lab.host("client")?).fetch(address)?;
        }
        Ok(())
    }
}

pub(crate) fn agent(host: &Host, documents: &str) -> Result<Agent> {
    let agent = Agent::on(host)?;
    agent.write("all.yaml", documents)?;
    Ok(agent)
}

/// The multicast packets that the network namespace of this thread has received, of IPv4 and of IPv6.
fn multicasts_received() -> Result<[u64; 2]> {
    let ipv4 = counter("netstat", "IpExt:", "InMcastPkts")?;
    let snmp6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
    let ipv6 = snmp6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6InMcastPkts"));
    let ipv6 = ipv6.context("no count of IPv6 multicast packets")?;
    Ok([ipv4, ipv6.trim().parse()?])
}

/// A counter of the network namespace of this thread, from a file with a line of names and a line of values for each group.
pub(crate) fn counter(file: &str, group: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut columns = names.split(' ').zip(values.split(' '));
    let (_, value) = columns
        .find(|(column, _)| *column == name)
        .with_context(|| format!("no counter {name} in {file}"))?;
    Ok(value.parse()?)
}

/// Reads the metrics of the agent in the network namespace of this thread.
pub(crate) fn fetch_metrics(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// keepalived's settings, with more of them for the routers of IPv4 and IPv6. The first address of an IPv6 router is a link-local one, as
/// in the agent's advertisements.
pub(crate) fn keepalived_configuration([v4, v6]: [&str; 2]) -> String {
    let router = |name: &str, vips: &str, more: &str| {
        format!(
            "vrrp_instance {name} {{
               state BACKUP
               nopreempt
               interface eth0
               virtual_router_id 51
               priority 100
               advert_int 0.1
               virtual_ipaddress {{ {vips} }}
               {more}
             }}\n"
        )
    };
    let service = |vip: &str, [first, second]: [&str; 2]| {
        format!(
            "virtual_server {vip} 80 {{
               lvs_sched mh
               lvs_method DR
               protocol TCP
               real_server {first} 80 {{ weight 1 }}
               real_server {second} 80 {{ weight 1 }}
             }}\n"
        )
    };
    [
        "global_defs {\n  vrrp_version 3\n}\n".to_owned(),
        router("v4", "10.0.0.100/32", v4),
        router("v6", "fe80::200:5eff:fe00:233/128\nfd00::100/128", v6),
        service(VIPS[0], ["10.0.0.21", "10.0.0.22"]),
        service(VIPS[1], ["fd00::21", "fd00::22"]),
    ]
    .concat()
}

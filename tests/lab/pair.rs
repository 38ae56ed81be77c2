//! Two directors of one group, each with a kernel of its own: guests on a bridge of this machine. On the same network are two real
//! servers, a client, and a probe for each director, which are network namespaces of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Boot, Bridge, Guest, Host, Lab, Responder, Tap, Topology};

mod program;
mod pulse;

pub(crate) use program::{Program, agent_configuration};
pub(crate) use pulse::Pulse;

/// The port of the service, for TCP and UDP.
const PORT: u16 = 80;

/// The numbers of the VIP and of the real servers in the network. The topology has the latter too.
const VIP: u8 = 100;
const SERVERS: [u8; 2] = [21, 22];

/// The directors' names, numbers in the network, and priorities. The higher that of a standby, the sooner it takes over.
const DIRECTORS: [(&str, u8, u8); 2] = [("lvs1", 11, 254), ("lvs2", 12, 250)];

/// The hosts that send to one director each.
const PROBES: [&str; 2] = ["probe1", "probe2"];

/// The machines that are no directors; the network is filled in. The real servers have what forwarding by DR needs.
const TOPOLOGY: &str = "
networks: [lan]
hosts:
  client: {links: {eth0: {network: lan, addresses: [NET.50/24]}}}
  probe1: {links: {eth0: {network: lan, addresses: [NET.51/24]}}}
  probe2: {links: {eth0: {network: lan, addresses: [NET.52/24]}}}
  rs1:
    links: {lo: {addresses: [NET.100/32]}, eth0: {network: lan, addresses: [NET.21/24]}}
    sysctls: {net.ipv4.conf.all.arp_ignore: 1, net.ipv4.conf.all.arp_announce: 2}
  rs2:
    links: {lo: {addresses: [NET.100/32]}, eth0: {network: lan, addresses: [NET.22/24]}}
    sysctls: {net.ipv4.conf.all.arp_ignore: 1, net.ipv4.conf.all.arp_announce: 2}
";

/// How long a guest may take to boot, and a script to end, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Longer than any measurement takes.
const LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// The machines. Dropping it ends and removes all of them.
pub(crate) struct Pair {
    directors: [Director; 2],
    _responders: Vec<Responder>,
    lab: Lab,
    bridge: Bridge,
}

/// A machine that can direct.
pub(crate) struct Director {
    name: &'static str,
    address: Ipv4Addr,
    priority: u8,
    tap: Tap,
    /// `None` while its power is off.
    guest: Option<Guest>,
}

impl Pair {
    /// Boots the directors and starts the real servers.
    pub(crate) fn boot() -> Result<Self> {
        let bridge = Bridge::create()?;
        let [a, b, c, _] = bridge.address(0).octets();
        let topology = TOPOLOGY.replace("NET", &format!("{a}.{b}.{c}"));
        let lab = Lab::lay_out(&topology.parse::<Topology>()?)?;
        bridge.connect(&lab, "lan")?;
        let responders = ["rs1", "rs2"].map(|name| lab.host(name)?.respond(PORT));
        let [first, second] = DIRECTORS.map(|director| Director::new(&bridge, director));
        let mut pair = Self {
            directors: [first?, second?],
            _responders: responders.into_iter().collect::<Result<_>>()?,
            lab,
            bridge,
        };
        for director in &mut pair.directors {
            director.switch_on()?;
        }
        for (director, probe) in pair.directors.iter().zip(PROBES) {
            pair.direct_to(pair.lab.host(probe)?, director)?;
        }
        Ok(pair)
    }

    /// Sends the packets of a host for the VIP to one director, whichever director has the VIP.
    fn direct_to(&self, host: &Host, director: &Director) -> Result<()> {
        let vip = self.vip().ip().to_string();
        let mac = director.run("cat /sys/class/net/vec0/address")?;
        let entry = ["ip", "neigh", "replace", &vip, "lladdr", mac.trim()];
        host.run(&[&entry[..], &["dev", "eth0", "nud", "permanent"]].concat())?;
        Ok(())
    }

    pub(crate) fn directors(&self) -> &[Director; 2] {
        &self.directors
    }

    pub(crate) fn directors_mut(&mut self) -> &mut [Director; 2] {
        &mut self.directors
    }

    pub(crate) fn client(&self) -> Result<&Host> {
        self.lab.host("client")
    }

    /// The hosts that send to the first and to the second director only.
    pub(crate) fn probes(&self) -> Result<[&Host; 2]> {
        let [first, second] = PROBES;
        Ok([self.lab.host(first)?, self.lab.host(second)?])
    }

    /// The VIP with the port of the service.
    pub(crate) fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.bridge.address(VIP).into(), PORT)
    }

    fn servers(&self) -> [Ipv4Addr; 2] {
        SERVERS.map(|number| self.bridge.address(number))
    }
}

impl Director {
    fn new(bridge: &Bridge, (name, number, priority): (&'static str, u8, u8)) -> Result<Self> {
        Ok(Self {
            name,
            address: bridge.address(number),
            priority,
            tap: bridge.tap(number)?,
            guest: None,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_on(&self) -> bool {
        self.guest.is_some()
    }

    /// Boots its kernel and configures its link.
    pub(crate) fn switch_on(&mut self) -> Result<()> {
        let lab = std::env::current_exe().context("could not find out which program this is")?;
        let guest = Boot::new(lab.to_string_lossy())
            .args(["run-scripts"])
            .memory("256M")
            .timeout(LIFETIME)
            .tap(&self.tap)
            .start()?;
        self.guest = Some(guest);
        let address = self.address;
        self.run(&format!(
            "ip addr add {address}/24 dev vec0; ip link set vec0 up"
        ))?;
        Ok(())
    }

    /// Ends its kernel at once.
    pub(crate) fn cut_power(&mut self) {
        if let Some(guest) = self.guest.take() {
            guest.pull_the_plug();
        }
    }

    /// Stops its kernel, with everything on it.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.guest()?.freeze()
    }

    /// Lets its kernel go on after [`Director::freeze`].
    pub(crate) fn thaw(&self) -> Result<()> {
        self.guest()?.thaw()
    }

    /// Runs a shell script on it and returns its standard output.
    pub(crate) fn run(&self, script: &str) -> Result<String> {
        let output = self.guest()?.run_script(script, TIMEOUT);
        output.with_context(|| format!("on {}", self.name))
    }

    fn guest(&self) -> Result<&Guest> {
        let guest = self.guest.as_ref();
        guest.with_context(|| format!("the power of {} is off", self.name))
    }
}

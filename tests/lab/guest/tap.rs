//! Network devices between this machine and guests.
//!
//! Their networks are /24s of 198.18.0.0/15, which is reserved for benchmark tests of devices (RFC 2544), so that no other host
//! has their addresses.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::layout::Lab;

/// Counts the devices and networks of this process.
static NUMBER: AtomicU8 = AtomicU8::new(0);

/// A tap device of this machine whose other end is a guest's `vec0`. It is removed when this is dropped and when this process
/// ends, however it ends.
#[derive(Debug)]
pub struct Tap {
    device: Device,
    network: Network,
    /// The link address of the guest's end: the same after each boot, as with a real network card.
    link_address: String,
}

impl Tap {
    /// Creates a tap device with its own network, and gives this machine the network's first address.
    pub fn create() -> Result<Self> {
        let network = Network::choose()?;
        let device = Device::tap()?;
        device.open(network)?;
        Ok(Self {
            device,
            network,
            link_address: network.link_address(2),
        })
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// The link address of the guest's end.
    pub(super) fn link_address(&self) -> &str {
        &self.link_address
    }

    /// An address of its network; this machine has 1.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        self.network.address(host)
    }
}

/// A bridge of this machine: one network for all guests and namespaces connected to it. It is removed like a tap device.
#[derive(Debug)]
pub struct Bridge {
    device: Device,
    network: Network,
}

impl Bridge {
    /// Creates a bridge and gives this machine the first address of its network.
    pub fn create() -> Result<Self> {
        let network = Network::choose()?;
        let name = device_name('b');
        // By default a bridge has the lowest link address of its ports, which changes when a port is added or removed.
        let link = network.link_address(1);
        let add = ["link", "add", &name, "address", &link, "type", "bridge"];
        let device = Device::create(name.clone(), &add)?;
        device.open(network)?;
        Ok(Self { device, network })
    }

    /// An address of its network; this machine has 1.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        self.network.address(host)
    }

    /// Creates a tap device that is a port of this bridge, for the guest with the address `host`.
    pub fn tap(&self, host: u8) -> Result<Tap> {
        let device = Device::tap()?;
        let bridge = &self.device.name;
        ip(&["link", "set", &device.name, "master", bridge, "up"])?;
        Ok(Tap {
            device,
            network: self.network,
            link_address: self.network.link_address(host),
        })
    }

    /// Connects a network of a lab on this machine to this bridge, until the lab is removed.
    pub fn connect(&self, lab: &Lab, network: &str) -> Result<()> {
        let (port, end) = (device_name('p'), device_name('e'));
        ip(&["link", "add", &port, "type", "veth", "peer", "name", &end])?;
        ip(&["link", "set", &port, "master", &self.device.name, "up"])?;
        lab.plug(&end, network)
    }

    /// Adds a route to another network via a neighbour on this bridge. It is removed with the bridge.
    pub fn route(&self, network: &str, neighbour: Ipv4Addr) -> Result<()> {
        let via = neighbour.to_string();
        let bridge = &self.device.name;
        ip(&["route", "add", network, "via", &via, "dev", bridge])
    }
}

/// A /24, as the first three octets of its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network([u8; 3]);

impl Network {
    /// Chooses a network that this machine has no route to. The search starts at a network that depends on the process id.
    pub(crate) fn choose() -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        for _ in 0..=u8::MAX {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let network = Self([198, 18 + (high & 1), low.wrapping_add(number)]);
            // An address of this machine has a route too.
            let range = format!("{}/24", network.address(0));
            if ip_output(&["route", "show", "table", "all", "root", &range])?.is_empty() {
                return Ok(network);
            }
        }
        bail!("every network of 198.18.0.0/15 that this process may use is in use")
    }

    pub(crate) fn address(self, host: u8) -> Ipv4Addr {
        let Self([a, b, c]) = self;
        Ipv4Addr::new(a, b, c, host)
    }

    /// A link address for a host of this network. The second bit marks it as locally administered.
    fn link_address(self, host: u8) -> String {
        let Self([a, b, c]) = self;
        format!("02:4c:{a:02x}:{b:02x}:{c:02x}:{host:02x}")
    }
}

/// A network device of this machine, and the process that removes it.
#[derive(Debug)]
struct Device {
    name: String,
    remover: Child,
}

impl Device {
    fn create(name: String, add: &[&str]) -> Result<Self> {
        ip(add)?;
        Ok(Self {
            remover: start_remover(&name)?,
            name,
        })
    }

    fn tap() -> Result<Self> {
        let name = device_name('n');
        Self::create(
            name.clone(),
            &["tuntap", "add", "dev", &name, "mode", "tap"],
        )
    }

    /// Brings the device up with the first address of a network.
    fn open(&self, network: Network) -> Result<()> {
        let address = format!("{}/24", network.address(1));
        ip(&["addr", "add", &address, "dev", &self.name])?;
        ip(&["link", "set", &self.name, "up"])
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        if let Err(error) = self.remover.wait() {
            eprintln!(
                "lab: could not wait for the removal of {}: {error}",
                self.name
            );
        }
    }
}

/// A unique device name.
fn device_name(kind: char) -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("lab{}{kind}{number}", std::process::id())
}

/// Starts a process that removes a device when its standard input is closed, which happens when this process ends. The device
/// may have been removed before, with a namespace.
fn start_remover(name: &str) -> Result<Child> {
    let remover = Command::new("sh")
        .args(["-c", "read -r _; exec ip link del \"$0\" 2>/dev/null", name])
        .stdin(Stdio::piped())
        // Its own process group, so that the terminal's Ctrl-C does not reach it.
        .process_group(0)
        .spawn();
    if remover.is_err() {
        ip(&["link", "del", name])?;
    }
    remover.with_context(|| format!("could not start the process that removes {name}"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    ip_output(arguments).map(drop)
}

fn ip_output(arguments: &[&str]) -> Result<String> {
    let what = || format!("`ip {}`", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .with_context(what)?;
    ensure!(
        output.status.success(),
        "{}: {}",
        what(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

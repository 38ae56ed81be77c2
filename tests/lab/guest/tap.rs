//! Wires between this machine and guests.
//!
//! A network of theirs is a /24 of 198.18.0.0/15, which is set aside for tests of devices (RFC 2544): no other host is there.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// Counts the wires of this process.
static NUMBER: AtomicU8 = AtomicU8::new(0);

/// A tap device of this machine whose other end is a guest's `vec0`. It goes when this is dropped or this process ends,
/// however it ends.
#[derive(Debug)]
pub struct Tap {
    device: Device,
    network: Network,
    /// What the guest's end is known by on the network: the same after each boot, as with a real network card.
    link_address: String,
}

impl Tap {
    /// Makes one and gives this machine the first address of its network.
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

    /// An address of its network; 1 is this machine's.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        self.network.address(host)
    }
}

/// A bridge of this machine: one network for all the guests and namespaces that are plugged into it. It goes as a tap goes.
#[derive(Debug)]
pub struct Bridge {
    device: Device,
    network: Network,
}

impl Bridge {
    /// Makes one and gives this machine the first address of its network.
    pub fn create() -> Result<Self> {
        let network = Network::choose()?;
        let name = device_name('b');
        // Else it has the lowest of its ports' link addresses, and neighbours lose it when a port comes or goes.
        let link = network.link_address(1);
        let add = ["link", "add", &name, "address", &link, "type", "bridge"];
        let device = Device::create(name.clone(), &add)?;
        device.open(network)?;
        Ok(Self { device, network })
    }

    /// An address of its network; 1 is this machine's.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        self.network.address(host)
    }

    /// Makes a tap that is a port of this bridge, for the guest that has one of the network's addresses.
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

    /// Makes this machine send what is for another network to a neighbour on this bridge, until the bridge goes.
    pub fn route(&self, network: &str, neighbour: Ipv4Addr) -> Result<()> {
        let via = neighbour.to_string();
        let bridge = &self.device.name;
        ip(&["route", "add", network, "via", &via, "dev", bridge])
    }
}

/// The first three parts of the addresses of a /24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network([u8; 3]);

impl Network {
    /// Chooses one that this machine has no route to; two processes rarely begin with the same.
    pub(crate) fn choose() -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        for _ in 0..=u8::MAX {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let network = Self([198, 18 + (high & 1), low.wrapping_add(number)]);
            // An address of this machine makes a route too.
            let range = format!("{}/24", network.address(0));
            if ip_says(&["route", "show", "table", "all", "root", &range])?.is_empty() {
                return Ok(network);
            }
        }
        bail!("every network of 198.18.0.0/15 that this process may take is taken")
    }

    pub(crate) fn address(self, host: u8) -> Ipv4Addr {
        let Self([a, b, c]) = self;
        Ipv4Addr::new(a, b, c, host)
    }

    /// A link address for the host with an address; the second bit says that no manufacturer gave it.
    fn link_address(self, host: u8) -> String {
        let Self([a, b, c]) = self;
        format!("02:4c:{a:02x}:{b:02x}:{c:02x}:{host:02x}")
    }
}

/// A network device of this machine with whoever removes it.
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

    /// Brings it up with the first address of a network.
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
            eprintln!("lab: could not wait for {} to go: {error}", self.name);
        }
    }
}

/// A name for a device that no other of this machine has.
fn device_name(kind: char) -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("lab{}{kind}{number}", std::process::id())
}

/// Starts a process that removes a device as soon as its standard input is closed, which it is when this process ends.
/// The device may have gone before, with a namespace.
fn start_remover(name: &str) -> Result<Child> {
    let remover = Command::new("sh")
        .args(["-c", "read -r _; exec ip link del \"$0\" 2>/dev/null", name])
        .stdin(Stdio::piped())
        // A group of its own keeps the terminal's Ctrl-C from it.
        .process_group(0)
        .spawn();
    if remover.is_err() {
        ip(&["link", "del", name])?;
    }
    remover.with_context(|| format!("could not start what removes {name}"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    ip_says(arguments).map(drop)
}

fn ip_says(arguments: &[&str]) -> Result<String> {
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

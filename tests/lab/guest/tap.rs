//! A wire between this machine and a guest.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};

/// Counts the taps of this process.
static NUMBER: AtomicU8 = AtomicU8::new(0);

/// A tap device of this machine whose other end is a guest's `vec0`. It goes when this is dropped or this process ends,
/// however it ends.
///
/// Its network is a /24 of 198.18.0.0/15, which is set aside for tests of devices (RFC 2544): no other host is there.
#[derive(Debug)]
pub struct Tap {
    name: String,
    network: [u8; 3],
    remover: Child,
}

impl Tap {
    /// Makes one and gives this machine the first address of its network.
    pub fn create() -> Result<Self> {
        let process = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = process.to_be_bytes();
        let name = format!("lab{process}n{number}");
        ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        let tap = Self {
            network: [198, 18 + (high & 1), low.wrapping_add(number)],
            remover: start_remover(&name)?,
            name,
        };
        let address = format!("{}/24", tap.address(1));
        ip(&["addr", "add", &address, "dev", &tap.name])?;
        ip(&["link", "set", &tap.name, "up"])?;
        Ok(tap)
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An address of its network; 1 is this machine's.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, host)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        if let Err(error) = self.remover.wait() {
            eprintln!("lab: could not wait for {} to go: {error}", self.name);
        }
    }
}

/// Starts a process that removes a device as soon as its standard input is closed, which it is when this process ends.
fn start_remover(name: &str) -> Result<Child> {
    let remover = Command::new("sh")
        .args(["-c", "read -r _; exec ip link del \"$0\"", name])
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
    Ok(())
}

//! A wire between this machine and a guest.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};

/// Counts the taps of this process.
static NUMBER: AtomicU8 = AtomicU8::new(0);

/// A tap device of this machine whose other end is a guest's `vec0`. Dropping it removes the device.
///
/// Its network is a /24 of 198.18.0.0/15, which is set aside for tests of devices (RFC 2544): no other host is there.
#[derive(Debug)]
pub struct Tap {
    name: String,
    network: [u8; 3],
}

impl Tap {
    /// Makes one and gives this machine the first address of its network.
    pub fn create() -> Result<Self> {
        let process = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = process.to_be_bytes();
        let tap = Self {
            name: format!("lab{process}n{number}"),
            network: [198, 18 + (high & 1), low.wrapping_add(number)],
        };
        ip(&["tuntap", "add", "dev", &tap.name, "mode", "tap"])?;
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
        if let Err(error) = ip(&["link", "del", &self.name]) {
            eprintln!("lab: could not remove {}: {error:#}", self.name);
        }
    }
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

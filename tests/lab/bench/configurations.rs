//! The same load as rules for ipvsadm, a configuration for keepalived, and VirtualServices.

use std::{
    fmt::{self, Write as _},
    fs,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// The machine that is programmed.
pub(super) const TOPOLOGY: &str = "{networks: [lan], hosts: {director: {links: {eth0: {network: lan, addresses: [192.0.2.1/24]}}}}}";

/// The ports that share a VIP.
const PORTS: usize = 100;

/// How much is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// The number of services.
    pub services: usize,
    /// The number of destinations of each.
    pub destinations: usize,
}

/// One load in three notations.
pub(super) struct Files {
    pub ipvsadm: PathBuf,
    pub keepalived: PathBuf,
    pub yaml: PathBuf,
}

impl Load {
    /// The VIP and port of a service.
    pub(super) fn frontend(&self, service: usize) -> (IpAddr, u16) {
        let vip =
            Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 1).to_bits() + number(service / PORTS));
        (
            vip.into(),
            NonZeroU16::MIN.get() * 8000 + u16::try_from(service % PORTS).unwrap_or(0),
        )
    }

    /// The address of a real server.
    pub(super) fn real_server(&self, service: usize, index: usize) -> IpAddr {
        let first = Ipv4Addr::new(10, 64, 0, 1).to_bits();
        Ipv4Addr::from_bits(first + number(service * self.destinations + index)).into()
    }

    /// Writes all notations below a directory.
    pub(super) fn write(&self, directory: &Path) -> Result<Files> {
        let file = |name: &str| directory.join(format!("{name}-{}", self.services));
        let files = Files {
            ipvsadm: file("ipvsadm.rules"),
            keepalived: file("keepalived.conf"),
            yaml: file("services").with_extension("yaml"),
        };
        fs::write(&files.ipvsadm, self.ipvsadm()?)?;
        fs::write(&files.keepalived, self.keepalived()?)?;
        fs::write(&files.yaml, self.yaml(None)?)?;
        Ok(files)
    }

    /// Writes the VirtualServices with another weight for the last destination, beside the file they are in.
    pub(super) fn write_with_one_changed_weight(&self, yaml: &Path) -> Result<PathBuf> {
        let path = yaml.with_extension("new");
        fs::write(&path, self.yaml(Some(CHANGED_WEIGHT))?)?;
        Ok(path)
    }

    fn ipvsadm(&self) -> Result<String> {
        let mut text = String::new();
        for service in 0..self.services {
            let (vip, port) = self.frontend(service);
            writeln!(text, "-A -t {vip}:{port} -s wlc")?;
            for index in 0..self.destinations {
                let server = self.real_server(service, index);
                writeln!(text, "-a -t {vip}:{port} -r {server}:{port} -g -w {WEIGHT}")?;
            }
        }
        Ok(text)
    }

    fn keepalived(&self) -> Result<String> {
        let mut text = String::from("global_defs {\n  router_id bench\n}\n");
        for service in 0..self.services {
            let (vip, port) = self.frontend(service);
            writeln!(
                text,
                "virtual_server {vip} {port} {{\n  lvs_sched wlc\n  lvs_method DR\n  protocol TCP"
            )?;
            for index in 0..self.destinations {
                let server = self.real_server(service, index);
                writeln!(
                    text,
                    "  real_server {server} {port} {{\n    weight {WEIGHT}\n  }}"
                )?;
            }
            text.push_str("}\n");
        }
        Ok(text)
    }

    fn yaml(&self, last_weight: Option<u32>) -> Result<String> {
        let mut text = String::new();
        for service in 0..self.services {
            let (vip, port) = self.frontend(service);
            write!(
                text,
                "---\napiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata:\n  name: service-{service}\n\
                 spec:\n  addresses:\n  - {vip}\n  ports:\n  - port: {port}\n  forwarding: DR\n  backends:\n"
            )?;
            for index in 0..self.destinations {
                let is_last = service + 1 == self.services && index + 1 == self.destinations;
                let weight = last_weight.filter(|_| is_last).unwrap_or(WEIGHT);
                writeln!(
                    text,
                    "    - address: {}\n      weight: {weight}",
                    self.real_server(service, index)
                )?;
            }
        }
        Ok(text)
    }
}

/// The weight of every destination.
pub(super) const WEIGHT: u32 = 3;
/// The weight of the last destination after the change.
pub(super) const CHANGED_WEIGHT: u32 = 7;

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} services x {} destinations",
            self.services, self.destinations
        )
    }
}

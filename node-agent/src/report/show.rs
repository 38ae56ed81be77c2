//! What `show` prints: what this kernel holds, and whose it is.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use lvs_model::{Forwarding, KernelState, Ledger, Owner, Service, ServiceKey};
use serde::Serialize;

/// The state of this machine as `show` tells it.
#[derive(Serialize)]
pub(crate) struct Shown {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    node: String,
    services: Vec<ShownService>,
    addresses: Vec<Owned>,
    links: Vec<Owned>,
    routes: Vec<Owned>,
    rules: usize,
    masquerade: bool,
    sysctls: Vec<ShownSysctl>,
}

#[derive(Serialize)]
struct ShownService {
    key: String,
    owner: Owner,
    scheduler: String,
    destinations: Vec<ShownDestination>,
}

#[derive(Serialize)]
struct ShownDestination {
    address: IpAddr,
    port: u16,
    forwarding: &'static str,
    weight: u32,
}

#[derive(Serialize)]
struct Owned {
    what: String,
    present: bool,
}

#[derive(Serialize)]
struct ShownSysctl {
    sysctl: String,
    value: Option<i64>,
    before: i64,
}

impl Shown {
    /// Puts together what is observed and what is owned.
    pub(crate) fn new(node: &str, observed: &KernelState, ledger: &Ledger) -> Self {
        let services = observed
            .services
            .iter()
            .map(|(key, service)| shown_service(key, service, ledger))
            .collect();
        let addresses = ledger.addresses.iter().map(|key| Owned {
            what: key.to_string(),
            present: observed.addresses.contains_key(key),
        });
        let links = ledger.links.iter().map(|name| Owned {
            what: name.to_string(),
            present: observed.links.contains_key(name),
        });
        let routes = ledger.routes.iter().map(|route| Owned {
            what: format!("{} table {}", route.destination(), route.table()),
            present: observed.routes.contains(route),
        });
        let sysctls = ledger.sysctls.iter().map(|(sysctl, record)| ShownSysctl {
            sysctl: sysctl.to_string(),
            value: observed.sysctls.get(sysctl).copied(),
            before: record.before,
        });
        Self {
            api_version: "lvs-operator.io/v1alpha1",
            kind: "NodeState",
            node: node.to_owned(),
            services,
            addresses: addresses.collect(),
            links: links.collect(),
            routes: routes.collect(),
            rules: ledger.rules.len(),
            masquerade: ledger.masquerade,
            sysctls: sysctls.collect(),
        }
    }
}

fn shown_service(key: &ServiceKey, service: &Service, ledger: &Ledger) -> ShownService {
    let destinations = service
        .destinations
        .iter()
        .map(|(key, destination)| ShownDestination {
            address: key.address,
            port: key.port,
            forwarding: match destination.forwarding {
                Forwarding::Nat => "NAT",
                Forwarding::Dr => "DR",
                Forwarding::Tun(_) => "TUN",
                Forwarding::Foreign => "other",
            },
            weight: destination.weight,
        });
    ShownService {
        key: key.to_string(),
        owner: if ledger.services.contains(key) {
            Owner::Ours
        } else {
            Owner::Foreign
        },
        scheduler: service.config.scheduler.name.to_string(),
        destinations: destinations.collect(),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "IPVS services ({} on {})",
            self.services.len(),
            self.node
        )?;
        for service in &self.services {
            let foreign = if service.owner == Owner::Ours {
                ""
            } else {
                "  (not made by lvs-agent)"
            };
            writeln!(f, "  {:<40} {}{foreign}", service.key, service.scheduler)?;
            for to in &service.destinations {
                let address = SocketAddr::new(to.address, to.port).to_string();
                writeln!(
                    f,
                    "    -> {address:<35} {:<5} weight {}",
                    to.forwarding, to.weight
                )?;
            }
        }
        writeln!(f, "Owned by lvs-agent")?;
        for (title, owned) in [
            ("address", &self.addresses),
            ("link", &self.links),
            ("route", &self.routes),
        ] {
            for Owned { what, present } in owned {
                writeln!(
                    f,
                    "  {title:<8} {what}{}",
                    if *present { "" } else { "  (missing)" }
                )?;
            }
        }
        if self.rules > 0 {
            writeln!(f, "  rules    {}", self.rules)?;
        }
        if self.masquerade {
            writeln!(f, "  table    inet lvs-operator")?;
        }
        for ShownSysctl {
            sysctl,
            value,
            before,
        } in &self.sysctls
        {
            let value = value.map_or_else(|| "?".to_owned(), |value| value.to_string());
            writeln!(f, "  sysctl   {sysctl} = {value} (before: {before})")?;
        }
        Ok(())
    }
}

//! What a virtual service claims.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Frontend, GroupName, VirtualService};

/// Which virtual services may share a VIP, by different ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All of one group: files are their administrator's own word.
    #[default]
    AcrossNamespaces,
    /// Those of one namespace: in a cluster, another namespace is another tenant.
    WithinNamespace,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Directors have it: it goes before what is only granted.
    Programmed,
    /// It is asked for, or granted.
    Asked,
    /// It is asked for, or granted, but no director would be given it: its real servers and its mark are not held.
    Idle,
}

/// What a virtual service claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When the virtual service was created, in seconds since 1970; `None` in files.
    pub created: Option<i64>,
    /// Its group.
    pub group: GroupName,
    /// Its VIPs and ports, or its firewall mark.
    pub frontend: Frontend,
    /// The addresses of its real servers, which are VIPs of no virtual service.
    pub servers: BTreeSet<IpAddr>,
    /// How far it has come.
    pub stage: Stage,
    /// Whether the virtual service is refused for another reason. Its claim is not granted, and so blocks no other.
    pub is_refused: bool,
}

impl Claim {
    /// The claim of a virtual service with all of its real servers.
    #[must_use]
    pub fn of(service: &VirtualService) -> Self {
        let servers = service.real_servers.iter();
        Self::with_servers(service, servers.map(|server| server.address).collect())
    }

    /// The claim of a virtual service with some of its real servers: those that can be a VIP of another.
    #[must_use]
    pub fn with_servers(service: &VirtualService, servers: BTreeSet<IpAddr>) -> Self {
        Self {
            created: service.created,
            group: service.group.clone(),
            frontend: service.frontend.clone(),
            servers,
            stage: Stage::Asked,
            is_refused: false,
        }
    }
}

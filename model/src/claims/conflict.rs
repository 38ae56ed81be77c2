//! What stands in the way of a claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Frontend, GroupName, NodeName, ObjectName, ObjectRef, Rejection, ServiceKey};

/// What stands in the way of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// A VIP is the address of a real server.
    RealServer {
        /// The VIP.
        vip: IpAddr,
        /// The first virtual service that names the real server.
        user: ObjectName,
    },
    /// A VIP is the address of a machine that does not direct the virtual service.
    Machine {
        /// The VIP.
        vip: IpAddr,
        /// The machine.
        machine: NodeName,
    },
    /// A VIP belongs to another group.
    Group {
        /// The VIP.
        vip: IpAddr,
        /// The group.
        group: GroupName,
        /// The oldest virtual service that holds the VIP.
        holder: ObjectName,
    },
    /// A VIP belongs to another namespace.
    Namespace {
        /// The VIP.
        vip: IpAddr,
        /// The virtual service that holds the VIP.
        holder: ObjectName,
    },
    /// A real server has the address of a VIP.
    Vip {
        /// The address.
        server: IpAddr,
        /// The virtual service that holds the VIP.
        holder: ObjectName,
    },
    /// A VIP with its protocol and port, or a mark, belongs to another virtual service.
    Key {
        /// The key.
        key: ServiceKey,
        /// The virtual service.
        holder: ObjectName,
    },
}

impl Conflict {
    /// The VIP that another virtual service holds, if that is the conflict: another VIP would be free of it.
    #[must_use]
    pub const fn held_vip(&self) -> Option<IpAddr> {
        match self {
            Self::Group { vip, .. } | Self::Namespace { vip, .. } => Some(*vip),
            Self::Key { key, .. } => match key {
                ServiceKey::Address { address, .. } => Some(*address),
                ServiceKey::Fwmark { .. } => None,
            },
            Self::RealServer { .. } | Self::Machine { .. } | Self::Vip { .. } => None,
        }
    }

    /// The reason, which continues the sentence that the field begins.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::RealServer { vip, user } => format!(
                "must not be the address of a real server: '{vip}' is one of VirtualService {user}"
            ),
            Self::Machine { vip, machine } => format!(
                "must not be the address of a machine that does not direct it: '{vip}' is one of {machine}"
            ),
            Self::Group { vip, group, holder } => format!(
                "must not be a VIP of another group: '{vip}' is held by DirectorGroup {group} for VirtualService {holder}"
            ),
            Self::Namespace { vip, holder } => format!(
                "must not be a VIP of another namespace: '{vip}' is held by VirtualService {holder}"
            ),
            Self::Vip { server, holder } => format!(
                "must not hold the VIP of another virtual service: '{server}' is held by VirtualService {holder}"
            ),
            Self::Key { key, holder } => {
                format!("must not be in use: {key} belongs to VirtualService {holder}")
            }
        }
    }

    /// The rejection of the virtual service whose claim waits.
    #[must_use]
    pub fn rejection(&self, name: &ObjectName, frontend: &Frontend) -> Rejection {
        let field = match self {
            Self::RealServer { vip, .. }
            | Self::Machine { vip, .. }
            | Self::Group { vip, .. }
            | Self::Namespace { vip, .. } => frontend.field_of_vip(*vip),
            Self::Vip { .. } => "spec.backends".to_owned(),
            Self::Key { key, .. } => frontend.field_of_key(key),
        };
        let object = ObjectRef::VirtualService(name.clone());
        Rejection::new(object, field, self.text())
    }
}

/// Checks that no VIP is the address of a machine that does not direct the virtual service.
///
/// `machines` has the machines by their addresses. Some addresses, such as that of a container bridge, belong to several.
///
/// # Errors
/// The first VIP that is such an address.
pub fn check_machines(
    vips: &[IpAddr],
    directors: &[NodeName],
    machines: &BTreeMap<IpAddr, BTreeSet<NodeName>>,
) -> Result<(), Conflict> {
    for vip in vips {
        let mut owners = machines.get(vip).into_iter().flatten();
        if let Some(machine) = owners.find(|machine| !directors.contains(machine)) {
            return Err(Conflict::Machine {
                vip: *vip,
                machine: machine.clone(),
            });
        }
    }
    Ok(())
}

//! What a namespace may ask for: VIPs from pools that serve it, real servers and marks that the group permits.
//!
//! A virtual service that holds something already keeps it: then the fault is a warning. An administrator who edits a pool or
//! a group takes nothing away from what serves.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use lvs_crd::{DirectorGroup, Namespaces, VirtualService, condition::Reason};
use lvs_model::{Asker, Frontend, NodeName, ObjectName, ServiceKey, check_machines};

use super::resolve::Resolved;
use crate::cluster::{Cluster, Fault};

/// Ports of a machine's own address that no virtual service may take: ssh, BGP, etcd, the API server, and the ports of kubelet,
/// kube-proxy, controller manager and scheduler.
const PROTECTED_PORTS: [u16; 13] = [
    22, 179, 2379, 2380, 6443, 10248, 10249, 10250, 10255, 10256, 10257, 10258, 10259,
];

impl Cluster {
    /// Refuses what the namespace of a virtual service may not have, or warns of it.
    pub(super) fn admit(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        resolved: &mut Resolved,
    ) {
        let Some(service) = &resolved.service else {
            return;
        };
        if resolved.refusal.is_some() {
            return;
        }
        let frontend = service.frontend.clone();
        let asker = Asker {
            namespace: name.namespace(),
            group: &service.group.clone(),
        };
        let mut faults = Vec::new();
        for vip in frontend.vips() {
            let fault = self.vip_fault(asker, *vip, &resolved.directors);
            let fault = fault.map(|(reason, text)| {
                let text = format!("`{}` {text}", field_of_vip(object, *vip));
                (self.claims.holds_vip(name, *vip), Fault::new(reason, text))
            });
            faults.extend(fault);
        }
        faults.extend(self.port_fault(name, &frontend));
        faults.extend(self.mark_fault(name, object));
        faults.extend(self.server_fault(name, object));
        faults.extend(self.gateway_fault(name, object, &resolved.directors));
        for (is_held, fault) in faults {
            if is_held {
                resolved.warn(fault);
            } else {
                resolved.refuse(fault.reason, fault.message);
            }
        }
    }

    /// Why a VIP may not be had.
    fn vip_fault(
        &self,
        asker: Asker<'_>,
        vip: IpAddr,
        directors: &[NodeName],
    ) -> Option<(Reason, String)> {
        let is_machine = self.index.machines().contains_key(&vip);
        if let Err(refusal) = self.pools.check(asker, vip) {
            return Some((Reason::OutsidePools, refusal.text(asker)));
        }
        if self.objects.is_api_server(vip) {
            return Some((
                Reason::Conflict,
                format!("must not be the address of the API server '{vip}'"),
            ));
        }
        if self.is_reserved(vip) {
            let text = format!(
                "must not be a gateway, or the first or last address of a network of a machine: '{vip}' is one"
            );
            return Some((Reason::Conflict, text));
        }
        if let Err(conflict) = check_machines(&[vip], directors, self.index.machines()) {
            return Some((Reason::Conflict, conflict.text()));
        }
        if is_machine && !self.pools.lists(asker, vip) {
            let text = format!(
                "must not be an address of a machine unless an AddressPool lists it by itself: '{vip}' is one"
            );
            return Some((Reason::OutsidePools, text));
        }
        None
    }

    /// Returns whether no VIP may have an address: it is a gateway, or the end of a network of a machine.
    pub(super) fn is_reserved(&self, address: IpAddr) -> bool {
        let groups = self.objects.groups.values();
        let mut gateways = groups.flat_map(|group| &group.spec.gateways);
        self.index.is_reserved(address)
            || gateways.any(|gateway| gateway.parse::<IpAddr>() == Ok(address))
    }

    /// A port on which a machine listens at its own address, which is the VIP.
    fn port_fault(&self, name: &ObjectName, frontend: &Frontend) -> Option<(bool, Fault)> {
        let mut keys = frontend.keys();
        let key = keys.find(|key| match key {
            ServiceKey::Address { address, port, .. } => {
                PROTECTED_PORTS.contains(port) && self.index.machines().contains_key(address)
            }
            ServiceKey::Fwmark { .. } => false,
        })?;
        let message =
            format!("`spec.ports` must not hold a port of the machine itself: {key} is one");
        let fault = Fault::new(Reason::NotPermitted, message);
        Some((self.claims.holds(name, &key), fault))
    }

    /// A mark that the group does not give to the namespace.
    fn mark_fault(&self, name: &ObjectName, object: &VirtualService) -> Option<(bool, Fault)> {
        let mark = object.spec.fwmark?;
        let (group_name, group) = self.group_of(object)?;
        let mut ranges = group.spec.fwmarks.iter();
        let is_given = ranges.any(|range| {
            (range.from..=range.to).contains(&mark)
                && self.includes(range.namespaces.as_ref(), name)
        });
        if is_given {
            return None;
        }
        let message = format!(
            "`spec.fwmark` must be in `spec.fwmarks` of DirectorGroup '{group_name}' for namespace '{}': '{mark}' is not",
            name.namespace()
        );
        let is_held = self.held_marks(name).any(|held| i64::from(held) == mark);
        Some((is_held, Fault::new(Reason::NotPermitted, message)))
    }

    fn held_marks(&self, name: &ObjectName) -> impl Iterator<Item = u32> {
        let bindings = self.bindings_of(name);
        bindings.filter_map(|(_, binding)| u32::try_from(binding.spec.fwmark?).ok())
    }

    /// An address among the real servers that the group does not let the namespace list.
    fn server_fault(&self, name: &ObjectName, object: &VirtualService) -> Option<(bool, Fault)> {
        let (group_name, _) = self.group_of(object)?;
        let endpoints = object.spec.backends.iter().enumerate();
        let addresses = endpoints.filter_map(|(i, backend)| {
            let address = backend.address.as_deref()?;
            Some((i, address.parse().ok()?))
        });
        let refused: Vec<(usize, IpAddr)> = addresses
            .filter(|(_, address)| !self.may_list(name, &object.spec.director_group, *address))
            .collect();
        let is_new = |(_, address): &&(usize, IpAddr)| !self.claims.holds_server(name, *address);
        let new = refused.iter().find(is_new);
        let (i, address) = new.or(refused.first())?;
        let message = format!(
            "`spec.backends[{i}].address` must be in `spec.realServers` of DirectorGroup '{group_name}' for namespace '{}': '{address}' is not",
            name.namespace()
        );
        Some((new.is_none(), Fault::new(Reason::NotPermitted, message)))
    }

    /// A gateway that is no address of a director: real servers would send replies to another machine. It is not known before
    /// the directors have reported their addresses.
    fn gateway_fault(
        &self,
        name: &ObjectName,
        object: &VirtualService,
        directors: &[NodeName],
    ) -> Option<(bool, Fault)> {
        let mut own = BTreeSet::new();
        for director in directors {
            let addresses = self.index.reported(director).addresses;
            if addresses.is_empty() {
                return None;
            }
            own.extend(addresses);
        }
        let gateways = object.spec.nat.iter().flat_map(|nat| &nat.gateways);
        let group = self.objects.groups.get(&object.spec.director_group);
        let of_group = group.into_iter().flat_map(|group| &group.spec.gateways);
        own.extend(of_group.filter_map(|gateway| gateway.parse::<IpAddr>().ok()));
        let mut foreign = gateways.enumerate().filter(|(_, gateway)| {
            let gateway = gateway.parse::<IpAddr>();
            gateway.is_ok_and(|gateway| !own.contains(&gateway))
        });
        let (i, gateway) = foreign.next().filter(|_| !own.is_empty())?;
        let names: Vec<&str> = directors.iter().map(NodeName::as_str).collect();
        let message = format!(
            "`spec.nat.gateways[{i}]` must be an address of the director {}, or a gateway of its DirectorGroup: '{gateway}' is not",
            names.join(" or ")
        );
        let mut bindings = self.bindings_of(name);
        let is_held = bindings.any(|(_, binding)| {
            let nat = binding.spec.nat.iter();
            nat.flat_map(|nat| &nat.gateways)
                .any(|held| held == gateway)
        });
        Some((is_held, Fault::new(Reason::NotPermitted, message)))
    }

    /// Returns whether the virtual services of a group may list an address as a real server in the namespace of one of them.
    pub(super) fn may_list(&self, name: &ObjectName, group: &str, address: IpAddr) -> bool {
        let group = self.objects.groups.get(group);
        let Some(permitted) = group.and_then(|group| group.spec.real_servers.as_ref()) else {
            return false;
        };
        let mut networks = permitted.cidrs.iter();
        self.includes(permitted.namespaces.as_ref(), name)
            && networks.any(|network| {
                let network = network.parse::<IpNet>();
                network.is_ok_and(|network| network.contains(&address))
            })
    }

    /// Returns whether the namespace of a virtual service is in a set; an absent set has all.
    fn includes(&self, set: Option<&Namespaces>, name: &ObjectName) -> bool {
        set.is_none_or(|set| {
            let labels = self.objects.namespaces.get(name.namespace());
            set.include(name.namespace(), labels.unwrap_or(&Default::default()))
        })
    }

    fn group_of<'a>(&self, object: &'a VirtualService) -> Option<(&'a str, &DirectorGroup)> {
        let name = object.spec.director_group.as_str();
        Some((name, self.objects.groups.get(name)?))
    }
}

fn field_of_vip(object: &VirtualService, vip: IpAddr) -> String {
    let text = vip.to_string();
    let index = object.spec.addresses.iter().position(|own| *own == text);
    index.map_or_else(
        || "status.addresses".to_owned(),
        |i| format!("spec.addresses[{i}]"),
    )
}

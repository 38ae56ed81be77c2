//! Computes the steps from the observed to the desired state.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    AddressConfig, AddressKey, Extent, FouStep, InterfaceName, IpvsStep, KernelState, Ledger, Link,
    MasqueradeStep, NetworkStep, NextHop, Owner, Part, Plan, Problem, Route, Service,
    ServiceExtent, ServiceKey, Step, StrayStep, Subject, Sysctl, SysctlStep, Target,
    server_set::{is_marked_by_us, local_service},
};

/// The difference between the observed and the desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The steps from observed to desired.
    pub plan: Plan,
    /// One problem for each foreign object that occupies a desired key.
    pub problems: Vec<Problem>,
    /// Whether another pass is needed after the holder has moved VIPs from lo to other interfaces. That later pass
    /// removes them from lo.
    pub waits_for_holder: bool,
}

/// Computes the steps from observed to desired.
///
/// Foreign objects are neither changed nor removed. Objects that exist are edited in place.
///
/// The order of the steps:
///
/// 1. sysctls: without them this host would answer ARP requests for the VIPs on lo;
/// 2. GUE ports and tunnel devices, then the sysctls and addresses on them;
/// 3. VIPs on lo;
/// 4. routes before the rules that lead to them, then masquerading;
/// 5. timeouts; connection-sync daemons that are to stop: some destinations cannot be added while they run; the services for packets with
///    our marks, then these marks; the other services, each followed by its destinations: with destinations and without marks, a director
///    that is a real server would send on what another director has sent it; connection-sync daemons, which learn nothing of unknown
///    destinations;
/// 6. removals in the reverse order: what moves exists in the new place before it is removed from the old one.
///
/// VIPs that the network sees are not in the plan: see [`holding`](crate::holding()).
///
/// `extent` says which part of the kernel was observed. The plan has no steps for the rest.
#[must_use]
pub fn diff(
    desired: &KernelState,
    observed: &KernelState,
    ledger: &Ledger,
    extent: &Extent,
) -> Difference {
    let mut comparison = Comparison {
        desired,
        observed,
        ledger,
        unmarked: desired
            .strays
            .as_ref()
            .filter(|_| !extent.reads(Part::Strays))
            .map(|strays| &strays.local),
        creates: Vec::new(),
        removes: Vec::new(),
        problems: Vec::new(),
        moving: moving(desired, observed),
    };
    if extent.network {
        comparison.sysctls();
        if extent.reads(Part::FouPorts) {
            comparison.fou_ports();
        }
        comparison.links();
        comparison.hidden_addresses();
        comparison.routing();
        if extent.reads(Part::Masquerade) {
            comparison.masquerade();
        }
        comparison.timeouts();
        comparison.stop_daemons();
    }
    comparison.services(&extent.services, is_marked_by_us);
    if extent.reads(Part::Strays) {
        comparison.strays();
    }
    comparison.services(&extent.services, |key| !is_marked_by_us(key));
    if extent.network {
        comparison.start_daemons();
    }
    let Comparison {
        mut creates,
        mut removes,
        problems,
        moving,
        ..
    } = comparison;
    removes.reverse();
    creates.append(&mut removes);
    Difference {
        plan: Plan { steps: creates },
        problems,
        waits_for_holder: !moving.is_empty(),
    }
}

/// Room for the steps after those for services. A list of a million steps that is full would double for one more.
const STEPS_AFTERWARDS: usize = 64;

/// The plan while it is being built. Removals are collected in the order of creation and reversed at the end.
struct Comparison<'a> {
    desired: &'a KernelState,
    observed: &'a KernelState,
    ledger: &'a Ledger,
    /// The services that need marks, if it is not known whether these are there.
    unmarked: Option<&'a BTreeSet<ServiceKey>>,
    creates: Vec<Step>,
    removes: Vec<Step>,
    problems: Vec<Problem>,
    /// The VIPs on lo that the holder will add to another interface. They stay on lo, and the ARP sysctls stay set,
    /// until the holder has added them; the next pass removes both.
    moving: BTreeSet<IpAddr>,
}

/// Returns the VIPs that are on lo and are desired on another interface that does not have them yet. With a route of ours to it, a VIP is
/// local without an address.
fn moving(desired: &KernelState, observed: &KernelState) -> BTreeSet<IpAddr> {
    let hidden = observed.addresses.keys();
    let hidden: BTreeSet<IpAddr> = hidden
        .filter(|key| key.interface.is_loopback())
        .map(|key| key.address)
        .collect();
    let wanted = desired.addresses.keys().filter(|key| {
        !key.interface.is_loopback()
            && hidden.contains(&key.address)
            && !desired.routes.contains(&Route::to_vip(key.address))
            && !observed.addresses.contains_key(key)
    });
    wanted.map(|key| key.address).collect()
}

impl Comparison<'_> {
    fn create(&mut self, step: impl Into<Step>) {
        self.creates.push(step.into());
    }

    fn remove(&mut self, step: impl Into<Step>) {
        self.removes.push(step.into());
    }

    fn conflict(&mut self, target: Target, message: String) {
        let subject = Subject::Target(target);
        self.problems.push(Problem::error(subject, message));
    }

    fn sysctls(&mut self) {
        let desired = self.desired;
        for (sysctl, value) in &desired.sysctls {
            let previous = self.observed.sysctls.get(sysctl).copied();
            if !self.is_on_our_link(sysctl) && previous != Some(*value) {
                self.set_sysctl(sysctl, *value, previous);
            }
        }
        // `removes` is reversed at the end, so sysctls are restored in the order of `Sysctl`: `ip_forward` comes before
        // the ones that the kernel changes with it.
        let ledger = self.ledger;
        for (sysctl, record) in ledger.sysctls.iter().rev() {
            let is_ours = record.matches(self.observed.sysctls.get(sysctl).copied());
            let waits = sysctl.is_of_arp() && !self.moving.is_empty();
            if is_ours && !waits && !desired.needs(sysctl) {
                self.remove(SysctlStep::Restore {
                    sysctl: sysctl.clone(),
                    value: record.before,
                });
            }
        }
    }

    fn is_on_our_link(&self, sysctl: &Sysctl) -> bool {
        let interface = sysctl.interface();
        interface.is_some_and(|interface| self.desired.links.contains_key(interface))
    }

    fn set_sysctl(&mut self, sysctl: &Sysctl, value: i64, previous: Option<i64>) {
        let sysctl = sysctl.clone();
        self.create(SysctlStep::Set {
            sysctl,
            value,
            previous,
        });
    }

    fn fou_ports(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for port in desired.fou_ports.difference(&observed.fou_ports) {
            self.create(FouStep::AddPort(*port));
        }
        for port in observed.fou_ports.difference(&desired.fou_ports) {
            if self.ledger.owns(&Target::FouPort(*port)) {
                self.remove(FouStep::RemovePort(*port));
            }
        }
    }

    fn links(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for (name, link) in &desired.links {
            self.link(name, link);
        }
        for (name, found) in &observed.links {
            if !desired.links.contains_key(name) && self.owns_link(name, found) {
                self.remove(NetworkStep::RemoveLink(name.clone()));
            }
        }
    }

    fn link(&mut self, name: &InterfaceName, link: &Link) {
        let add = NetworkStep::AddLink {
            name: name.clone(),
            kind: link.kind,
        };
        match self.observed.links.get(name) {
            None => {
                self.create(add);
                self.configure_link(name, true);
            }
            Some(found) if !self.owns_link(name, found) => self.conflict(
                Target::Link(name.clone()),
                format!("{name} exists and was not made by lvs-agent; remove it with `ip link del {name}`"),
            ),
            Some(found) if found.kind != link.kind => {
                self.create(NetworkStep::RemoveLink(name.clone()));
                self.create(add);
                self.configure_link(name, true);
            }
            Some(found) => {
                if !found.up {
                    self.create(NetworkStep::SetLinkUp(name.clone()));
                }
                self.configure_link(name, false);
            }
        }
    }

    fn owns_link(&self, name: &InterfaceName, found: &Link) -> bool {
        found.owner == Owner::Ours || self.ledger.owns(&Target::Link(name.clone()))
    }

    /// Sets the sysctls and addresses of a link. For a new link nothing that was observed counts: it starts without
    /// them.
    fn configure_link(&mut self, name: &InterfaceName, is_new: bool) {
        let (desired, observed) = (self.desired, self.observed);
        for (sysctl, value) in &desired.sysctls {
            let found = observed.sysctls.get(sysctl).filter(|_| !is_new);
            if sysctl.interface() == Some(name) && found != Some(value) {
                self.set_sysctl(sysctl, *value, None);
            }
        }
        for (key, config) in &desired.addresses {
            let is_there = !is_new && observed.addresses.contains_key(key);
            if key.interface == *name && !is_there {
                self.add_address(key, *config);
            }
        }
        for (key, found) in &observed.addresses {
            if key.interface == *name
                && !is_new
                && self.owns_address(key, found)
                && !desired.addresses.contains_key(key)
            {
                self.remove(NetworkStep::RemoveAddress(key.clone()));
            }
        }
    }

    fn owns_address(&self, key: &AddressKey, found: &AddressConfig) -> bool {
        self.ledger.owns_address(key, found.owner)
    }

    fn add_address(&mut self, key: &AddressKey, config: AddressConfig) {
        let key = key.clone();
        self.create(NetworkStep::AddAddress { key, config });
    }

    /// Adds the steps for the addresses on lo.
    fn hidden_addresses(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        let is_hidden = |key: &AddressKey| key.interface.is_loopback();
        for (key, config) in &desired.addresses {
            match observed.addresses.get(key) {
                _ if !is_hidden(key) => {}
                None => self.add_address(key, *config),
                Some(found) => {
                    let is_equal = found.deprecated == config.deprecated;
                    if !is_equal && self.owns_address(key, found) {
                        self.create(NetworkStep::EditAddress {
                            key: key.clone(),
                            config: *config,
                        });
                    }
                }
            }
        }
        for (key, found) in &observed.addresses {
            if is_hidden(key)
                && !desired.addresses.contains_key(key)
                && self.owns_address(key, found)
                && !self.moving.contains(&key.address)
            {
                self.remove(NetworkStep::RemoveAddress(key.clone()));
            }
        }
    }

    fn routing(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for route in desired.routes.difference(&observed.routes) {
            self.create(NetworkStep::AddRoute(route.clone()));
        }
        for rule in desired.rules.difference(&observed.rules) {
            self.create(NetworkStep::AddRule(*rule));
        }
        for route in observed.routes.difference(&desired.routes) {
            if !self.is_removed_with_link(route) {
                self.remove(NetworkStep::RemoveRoute(route.clone()));
            }
        }
        for rule in observed.rules.difference(&desired.rules) {
            self.remove(NetworkStep::RemoveRule(*rule));
        }
    }

    fn is_removed_with_link(&self, route: &Route) -> bool {
        match &route.next_hop {
            NextHop::Gateway { interface, .. } => self.observed.links.contains_key(interface),
            NextHop::Local { .. } | NextHop::Vip(_) => false,
        }
    }

    fn masquerade(&mut self) {
        match (&self.desired.masquerade, &self.observed.masquerade) {
            (Some(desired), observed) if observed.as_ref() != Some(desired) => {
                self.create(MasqueradeStep::Set(desired.clone()));
            }
            (None, Some(_)) => self.remove(MasqueradeStep::Remove),
            (Some(_) | None, _) => {}
        }
    }

    /// Sets the marks of packets, except those that lead to a foreign service.
    fn strays(&mut self) {
        let mut desired = self.desired.strays.clone();
        if let Some(desired) = &mut desired {
            let is_free = |key: ServiceKey| {
                !self.observed.services.contains_key(&key)
                    || self.ledger.owns(&Target::Service(key))
            };
            desired.marks.retain(|mark| is_free(mark.leads_to()));
            let local = &mut desired.local;
            local.retain(|key| is_free(local_service(key.family())));
        }
        match (desired, &self.observed.strays) {
            (Some(desired), observed) if observed.as_ref() != Some(&desired) => {
                self.create(StrayStep::Set(desired));
            }
            (None, Some(_)) => self.remove(StrayStep::Remove),
            (Some(_) | None, _) => {}
        }
    }

    fn timeouts(&mut self) {
        let (desired, previous) = (self.desired.timeouts, self.observed.timeouts);
        match (desired, previous, self.ledger.timeouts) {
            (Some(timeouts), previous, _) if previous != Some(timeouts) => {
                self.create(IpvsStep::SetTimeouts { timeouts, previous });
            }
            (None, Some(_), Some(before)) => self.remove(IpvsStep::RestoreTimeouts(before)),
            (Some(_) | None, _, _) => {}
        }
    }

    /// Stops the daemons of ours that are not desired, or not with these settings.
    fn stop_daemons(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for (role, found) in &observed.sync_daemons {
            let wanted = desired.sync_daemons.get(role);
            let is_unwanted = wanted != Some(found);
            if is_unwanted && self.ledger.owns(&Target::SyncDaemon(*role)) {
                self.create(IpvsStep::StopDaemon(*role));
            }
        }
    }

    fn start_daemons(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for (role, daemon) in &desired.sync_daemons {
            let target = Target::SyncDaemon(*role);
            match observed.sync_daemons.get(role) {
                Some(found) if daemon == found => {}
                Some(found) if !self.ledger.owns(&target) => self.conflict(
                    target,
                    format!(
                        "a connection-sync {role} runs on {} and was not started by lvs-agent; it is left alone: stop it with \
                         `ipvsadm --stop-daemon {role}`",
                        found.interface
                    ),
                ),
                Some(_) | None => self.create(IpvsStep::StartDaemon {
                    role: *role,
                    daemon: Box::new(daemon.clone()),
                }),
            }
        }
    }

    /// Compares some of the services.
    fn services(&mut self, extent: &ServiceExtent, is_meant: impl Fn(&ServiceKey) -> bool) {
        let (desired, observed) = (self.desired, self.observed);
        match extent {
            ServiceExtent::All => {
                self.creates
                    .reserve(self.count_steps_for_new(&is_meant) + STEPS_AFTERWARDS);
                for (key, service) in &desired.services {
                    if is_meant(key) {
                        self.service(*key, service);
                    }
                }
                for key in observed.services.keys().filter(|key| is_meant(key)) {
                    self.remove_service(*key);
                }
            }
            ServiceExtent::Only(keys) => {
                for key in keys.iter().filter(|key| is_meant(key)) {
                    if let Some(service) = desired.services.get(key) {
                        self.service(*key, service);
                    }
                }
                for key in keys.iter().filter(|key| is_meant(key)) {
                    self.remove_service(*key);
                }
            }
        }
    }

    /// Counts the steps that add the missing ones of some services, with their destinations.
    fn count_steps_for_new(&self, is_meant: impl Fn(&ServiceKey) -> bool) -> usize {
        let desired = self.desired.services.iter();
        desired
            .filter(|(key, _)| is_meant(key) && !self.observed.services.contains_key(key))
            .map(|(_, service)| 1 + service.destinations.len())
            .sum()
    }

    fn service(&mut self, key: ServiceKey, desired: &Arc<Service>) {
        match self.observed.services.get(&key) {
            // It would send on what other directors send here.
            None if self.unmarked.is_some_and(|unmarked| unmarked.contains(&key)) => {}
            None => {
                let config = Box::new(desired.config.clone());
                self.create(IpvsStep::AddService { key, config });
                self.add_destinations(key, desired);
            }
            Some(found) if self.ledger.owns(&Target::Service(key)) => {
                if !Arc::ptr_eq(desired, found) {
                    self.edit_service(key, desired, found);
                }
            }
            Some(_) => self.conflict(
                Target::Service(key),
                format!(
                    "IPVS service {key} exists and was not made by lvs-agent; it is left alone: remove it, or its \
                     VirtualService"
                ),
            ),
        }
    }

    fn add_destinations(&mut self, service: ServiceKey, desired: &Service) {
        let destinations = desired.in_order();
        self.creates.extend(destinations.map(|(key, destination)| {
            Step::Ipvs(IpvsStep::AddDestination {
                service,
                key: *key,
                destination: *destination,
            })
        }));
    }

    fn edit_service(&mut self, service: ServiceKey, desired: &Service, found: &Service) {
        if desired.config != found.config {
            self.create(IpvsStep::EditService {
                key: service,
                config: Box::new(desired.config.clone()),
            });
        }
        for (key, destination) in desired.in_order() {
            let (key, destination) = (*key, *destination);
            match found.destinations.get(&key) {
                None => self.create(IpvsStep::AddDestination {
                    service,
                    key,
                    destination,
                }),
                Some(existing) if *existing != destination => {
                    self.create(IpvsStep::EditDestination {
                        service,
                        key,
                        destination,
                    });
                }
                Some(_) => {}
            }
        }
        for key in found.destinations.keys() {
            if !desired.destinations.contains_key(key) {
                self.remove(IpvsStep::RemoveDestination { service, key: *key });
            }
        }
    }

    fn remove_service(&mut self, key: ServiceKey) {
        let is_unwanted =
            !self.desired.services.contains_key(&key) && self.observed.services.contains_key(&key);
        if is_unwanted && self.ledger.owns(&Target::Service(key)) {
            self.remove(IpvsStep::RemoveService(key));
        }
    }
}

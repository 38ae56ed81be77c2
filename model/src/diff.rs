//! From observed to desired.

use std::collections::BTreeSet;

use crate::{
    AddressConfig, AddressKey, InterfaceName, KernelState, Ledger, Link, Owner, Plan, Problem,
    Route, Service, ServiceKey, Step, Sysctl,
};

/// The way from observed to desired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The steps.
    pub plan: Plan,
    /// What stands in the way: foreign things on keys that are wanted.
    pub problems: Vec<Problem>,
}

/// Works out the steps from observed to desired. Nothing foreign is changed or removed, and what exists is edited in
/// place.
///
/// The order, and why:
///
/// 1. sysctls, since a VIP on lo without them would be answered for;
/// 2. GUE ports and tunnel devices, then the sysctls and addresses on them;
/// 3. VIPs on lo;
/// 4. routes before the rules that lead to them, then masquerading;
/// 5. timeouts, services, each with its destinations;
/// 6. VIPs that the network sees, when everything behind them is ready.
///
/// Removal follows in the reverse order, so that whatever moves is there before it goes.
#[must_use]
pub fn diff(desired: &KernelState, observed: &KernelState, ledger: &Ledger) -> Difference {
    let mut build = Build {
        desired,
        observed,
        ledger,
        creates: Vec::with_capacity(missing(desired, observed)),
        removes: Vec::new(),
        problems: Vec::new(),
    };
    build.sysctls();
    build.links();
    build.hidden_addresses();
    build.routing();
    build.masquerade();
    build.timeouts();
    build.services();
    build.seen_addresses();
    let Build {
        mut creates,
        mut removes,
        problems,
        ..
    } = build;
    removes.reverse();
    creates.append(&mut removes);
    Difference {
        plan: Plan { steps: creates },
        problems,
    }
}

/// How many steps it takes to add the services that are not there: by far the most there are.
fn missing(desired: &KernelState, observed: &KernelState) -> usize {
    desired
        .services
        .iter()
        .filter(|(key, _)| !observed.services.contains_key(key))
        .map(|(_, service)| 1 + service.destinations.len())
        .sum()
}

/// Removals are collected in the order of creation, each group with its last step first, and reversed at the end.
struct Build<'a> {
    desired: &'a KernelState,
    observed: &'a KernelState,
    ledger: &'a Ledger,
    creates: Vec<Step>,
    removes: Vec<Step>,
    problems: Vec<Problem>,
}

impl Build<'_> {
    fn sysctls(&mut self) {
        for (sysctl, value) in &self.desired.sysctls {
            if !self.is_on_our_link(sysctl) {
                self.set_sysctl(sysctl, *value);
            }
        }
        // The order of `Sysctl` is that of writing back too: what the kernel changes with another comes after it.
        for (sysctl, record) in self.ledger.sysctls.iter().rev() {
            let is_ours = record.describes(self.observed.sysctls.get(sysctl).copied());
            if is_ours && !self.desired.needs(sysctl) {
                self.removes.push(Step::RestoreSysctl {
                    sysctl: sysctl.clone(),
                    value: record.before,
                });
            }
        }
    }

    fn is_on_our_link(&self, sysctl: &Sysctl) -> bool {
        sysctl
            .interface()
            .is_some_and(|interface| self.desired.links.contains_key(interface))
    }

    fn set_sysctl(&mut self, sysctl: &Sysctl, value: i64) {
        let previous = self.observed.sysctls.get(sysctl).copied();
        if previous != Some(value) {
            self.creates.push(Step::SetSysctl {
                sysctl: sysctl.clone(),
                value,
                previous,
            });
        }
    }

    fn links(&mut self) {
        self.creates.extend(
            self.desired
                .fou_ports
                .difference(&self.observed.fou_ports)
                .copied()
                .map(Step::AddFouPort),
        );
        let owned_ports = self.ledger.fou_ports.intersection(&self.observed.fou_ports);
        self.removes.extend(
            owned_ports
                .filter(|port| !self.desired.fou_ports.contains(port))
                .copied()
                .map(Step::RemoveFouPort),
        );

        let mut made = BTreeSet::new();
        for (name, link) in &self.desired.links {
            match self.observed.links.get(name) {
                None => self.add_link(name, link, &mut made),
                Some(found) if !self.owns_link(name, found) => {
                    self.conflict(format!("{name} exists and was not made by lvs-agent; remove it with `ip link del {name}`"));
                    continue;
                }
                Some(found) if found.kind != link.kind => {
                    self.creates.push(Step::RemoveLink(name.clone()));
                    self.add_link(name, link, &mut made);
                }
                Some(Link { up: false, .. }) => self.creates.push(Step::SetLinkUp(name.clone())),
                Some(_) => {}
            }
            self.furnish_link(name, made.contains(name));
        }
        for (name, found) in &self.observed.links {
            if !self.desired.links.contains_key(name) && self.owns_link(name, found) {
                self.removes.push(Step::RemoveLink(name.clone()));
            }
        }
    }

    fn add_link(&mut self, name: &InterfaceName, link: &Link, made: &mut BTreeSet<InterfaceName>) {
        self.creates.push(Step::AddLink {
            name: name.clone(),
            kind: link.kind,
        });
        made.insert(name.clone());
    }

    fn owns_link(&self, name: &InterfaceName, found: &Link) -> bool {
        found.owner == Owner::Ours || self.ledger.links.contains(name)
    }

    /// Makes a link have its sysctls and addresses; those of a link just made are those of a new one.
    fn furnish_link(&mut self, name: &InterfaceName, is_new: bool) {
        for (sysctl, value) in self
            .desired
            .sysctls
            .iter()
            .filter(|(sysctl, _)| sysctl.interface() == Some(name))
        {
            let found = self.observed.sysctls.get(sysctl).filter(|_| !is_new);
            if found != Some(value) {
                self.creates.push(Step::SetSysctl {
                    sysctl: sysctl.clone(),
                    value: *value,
                    previous: None,
                });
            }
        }
        for (key, config) in self
            .desired
            .addresses
            .iter()
            .filter(|(key, _)| key.interface == *name)
        {
            if is_new || !self.observed.addresses.contains_key(key) {
                self.creates.push(Step::AddAddress {
                    key: key.clone(),
                    config: *config,
                    announce: false,
                });
            }
        }
        for (key, found) in &self.observed.addresses {
            if key.interface == *name
                && !is_new
                && self.owns_address(key, found)
                && !self.desired.addresses.contains_key(key)
            {
                self.removes.push(Step::RemoveAddress(key.clone()));
            }
        }
    }

    fn owns_address(&self, key: &AddressKey, found: &AddressConfig) -> bool {
        found.owner == Owner::Ours || self.ledger.addresses.contains(key)
    }

    fn hidden_addresses(&mut self) {
        self.addresses(|interface| interface.as_str() == "lo", false);
    }

    fn seen_addresses(&mut self) {
        let links = &self.desired.links;
        self.addresses(
            |interface| interface.as_str() != "lo" && !links.contains_key(interface),
            true,
        );
    }

    fn addresses(&mut self, includes: impl Fn(&InterfaceName) -> bool, announce: bool) {
        for (key, config) in &self.desired.addresses {
            if !includes(&key.interface) {
                continue;
            }
            match self.observed.addresses.get(key) {
                None => self.creates.push(Step::AddAddress {
                    key: key.clone(),
                    config: *config,
                    announce,
                }),
                Some(found)
                    if found.deprecated != config.deprecated && self.owns_address(key, found) =>
                {
                    self.creates.push(Step::EditAddress {
                        key: key.clone(),
                        config: *config,
                    });
                }
                Some(_) => {}
            }
        }
        for (key, found) in &self.observed.addresses {
            let goes_with_link = self.observed.links.contains_key(&key.interface);
            if includes(&key.interface)
                && self.owns_address(key, found)
                && !goes_with_link
                && !self.desired.addresses.contains_key(key)
            {
                self.removes.push(Step::RemoveAddress(key.clone()));
            }
        }
    }

    fn routing(&mut self) {
        let is_lost = |route: &Route| match route {
            Route::Default { interface, .. } => self.observed.links.contains_key(interface),
            Route::Local { .. } => false,
        };
        self.creates.extend(
            self.desired
                .routes
                .difference(&self.observed.routes)
                .cloned()
                .map(Step::AddRoute),
        );
        self.creates.extend(
            self.desired
                .rules
                .difference(&self.observed.rules)
                .copied()
                .map(Step::AddRule),
        );
        let old_routes = self
            .observed
            .routes
            .difference(&self.desired.routes)
            .filter(|route| !is_lost(route));
        self.removes
            .extend(old_routes.cloned().map(Step::RemoveRoute));
        self.removes.extend(
            self.observed
                .rules
                .difference(&self.desired.rules)
                .copied()
                .map(Step::RemoveRule),
        );
    }

    fn masquerade(&mut self) {
        match (&self.desired.masquerade, &self.observed.masquerade) {
            (Some(desired), observed) if observed.as_ref() != Some(desired) => {
                self.creates.push(Step::SetMasquerade(desired.clone()));
            }
            (None, Some(_)) => self.removes.push(Step::RemoveMasquerade),
            (Some(_) | None, _) => {}
        }
    }

    fn timeouts(&mut self) {
        match (
            self.desired.timeouts,
            self.observed.timeouts,
            self.ledger.timeouts,
        ) {
            (Some(timeouts), previous, _) if previous != Some(timeouts) => {
                self.creates.push(Step::SetTimeouts { timeouts, previous });
            }
            (None, Some(_), Some(before)) => self.removes.push(Step::RestoreTimeouts(before)),
            (Some(_) | None, _, _) => {}
        }
    }

    fn services(&mut self) {
        for (key, service) in &self.desired.services {
            match self.observed.services.get(key) {
                None => {
                    self.creates.push(Step::AddService { key: *key, config: Box::new(service.config.clone()) });
                    self.add_destinations(*key, service);
                }
                Some(found) if self.ledger.services.contains(key) => self.edit_service(*key, service, found),
                Some(_) => self.conflict(format!(
                    "IPVS service {key} exists and was not made by lvs-agent; it is left alone: remove it, or its \
                     VirtualService"
                )),
            }
        }
        for key in &self.ledger.services {
            if !self.desired.services.contains_key(key) && self.observed.services.contains_key(key)
            {
                self.removes.push(Step::RemoveService(*key));
            }
        }
    }

    fn add_destinations(&mut self, service: ServiceKey, desired: &Service) {
        self.creates
            .extend(
                desired
                    .destinations
                    .iter()
                    .map(|(key, destination)| Step::AddDestination {
                        service,
                        key: *key,
                        destination: *destination,
                    }),
            );
    }

    fn edit_service(&mut self, service: ServiceKey, desired: &Service, found: &Service) {
        if desired.config != found.config {
            self.creates.push(Step::EditService {
                key: service,
                config: Box::new(desired.config.clone()),
            });
        }
        for (key, destination) in &desired.destinations {
            match found.destinations.get(key) {
                None => self.creates.push(Step::AddDestination {
                    service,
                    key: *key,
                    destination: *destination,
                }),
                Some(existing) if existing != destination => {
                    self.creates.push(Step::EditDestination {
                        service,
                        key: *key,
                        destination: *destination,
                    });
                }
                Some(_) => {}
            }
        }
        let gone = found
            .destinations
            .keys()
            .filter(|key| !desired.destinations.contains_key(key));
        self.removes
            .extend(gone.map(|key| Step::RemoveDestination { service, key: *key }));
    }

    fn conflict(&mut self, message: String) {
        self.problems.push(Problem::error(None, message));
    }
}

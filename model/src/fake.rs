//! A fake kernel for tests. It refuses what the real kernel refuses, and fails on demand.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    AddressKey, Destination, DestinationKey, Difference, Extent, Family, Forwarding, FouStep,
    Holding, InterfaceName, IpvsStep, KernelState, Ledger, MasqueradeStep, NetworkStep, NodeFacts,
    Outcomes, Owner, Part, Plan, SchedulerName, Service, ServiceConfig, ServiceKey, Services, Step,
    StepFailure, StrayStep, SyncDaemon, SyncRole, Sysctl,
};

mod routes;

/// A fake kernel: its state, and the machine that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeKernel {
    /// What it holds, including foreign objects.
    pub state: KernelState,
    /// The machine that it runs on, with its whole routing table. Its addresses are in `state` too.
    pub facts: NodeFacts,
    /// Whether it has IPVS.
    pub ipvs: FakeIpvs,
    /// How many steps succeed before one fails. `None`: no step fails.
    pub fails_after: Option<usize>,
    /// Whether every read fails.
    pub is_unreadable: bool,
    /// The parts whose reads fail.
    pub unread: BTreeSet<Part>,
    /// Whether questions for routes fail.
    pub are_routes_unreadable: bool,
    /// The addresses whose routes were asked for last.
    pub asked: BTreeSet<IpAddr>,
    /// Whether reads of IPVS fail.
    pub is_ipvs_unreadable: bool,
    /// The services that a dump of all leaves out. A read of one service finds them.
    pub dump_gaps: BTreeSet<ServiceKey>,
    /// The services that have active connections, as long as they exist.
    pub in_use: BTreeSet<ServiceKey>,
}

/// Whether a fake kernel has IPVS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FakeIpvs {
    /// IPVS is loaded.
    #[default]
    Loaded,
    /// IPVS is a module that is not loaded yet: there are no `net.ipv4.vs` sysctls.
    Loadable,
    /// There is no IPVS module.
    Missing,
}

impl FakeIpvs {
    /// Returns whether IPVS is loaded.
    #[must_use]
    pub fn is_loaded(self) -> bool {
        self == Self::Loaded
    }
}

impl FakeKernel {
    /// Creates a kernel as it is after boot on a machine with these facts.
    #[must_use]
    pub fn boot(facts: NodeFacts) -> Self {
        let mut state = KernelState {
            sysctls: facts.sysctls.clone(),
            ..KernelState::default()
        };
        state.timeouts = Some(crate::Timeouts {
            tcp_seconds: 900,
            tcp_fin_seconds: 120,
            udp_seconds: 300,
        });
        for own in &facts.addresses {
            let key = AddressKey {
                interface: own.interface.clone(),
                address: own.network.addr(),
                prefix: own.network.prefix_len(),
            };
            state.addresses.insert(
                key,
                crate::AddressConfig {
                    deprecated: false,
                    expires: false,
                    owner: Owner::Foreign,
                },
            );
        }
        Self {
            state,
            facts,
            ..Self::default()
        }
    }

    /// Creates a kernel as it is after boot, before IPVS is loaded.
    #[must_use]
    pub fn boot_without_ipvs(facts: NodeFacts) -> Self {
        let mut kernel = Self::boot(facts);
        kernel.ipvs = FakeIpvs::Loadable;
        kernel
            .state
            .sysctls
            .retain(|sysctl, _| !sysctl.is_of_ipvs());
        kernel
    }

    /// Loads IPVS.
    ///
    /// # Errors
    /// When the kernel has no IPVS.
    pub fn load_ipvs(&mut self) -> Result<(), &'static str> {
        match self.ipvs {
            FakeIpvs::Loaded => {}
            FakeIpvs::Missing => return Err("this kernel has no IPVS"),
            FakeIpvs::Loadable => {
                self.ipvs = FakeIpvs::Loaded;
                for (sysctl, value) in [
                    (Sysctl::VsConntrack, 0),
                    (Sysctl::VsConnReuseMode, 1),
                    (Sysctl::VsExpireNodestConn, 0),
                    (Sysctl::VsExpireQuiescentTemplate, 0),
                    (Sysctl::VsSloppyTcp, 0),
                    (Sysctl::VsBackupOnly, 0),
                ] {
                    self.state.sysctls.entry(sysctl).or_insert(value);
                }
            }
        }
        Ok(())
    }

    /// Checks whether reads succeed.
    ///
    /// # Errors
    /// When [`Self::is_unreadable`] is set.
    pub const fn readable(&self) -> Result<(), &'static str> {
        if self.is_unreadable {
            Err("injected failure")
        } else {
            Ok(())
        }
    }

    /// Checks whether reads of IPVS succeed.
    ///
    /// # Errors
    /// When [`Self::is_ipvs_unreadable`] is set.
    pub const fn ipvs_readable(&self) -> Result<(), &'static str> {
        if self.is_ipvs_unreadable {
            Err("injected failure of IPVS")
        } else {
            Ok(())
        }
    }

    /// Returns the machine's facts with its present interfaces, addresses and sysctls.
    #[must_use]
    pub fn observe_facts(&self) -> NodeFacts {
        let address = |key: &AddressKey| {
            let network = ipnet::IpNet::new(key.address, key.prefix).ok()?;
            Some(crate::InterfaceAddress {
                interface: key.interface.clone(),
                network,
            })
        };
        let mut interfaces = self.facts.interfaces.clone();
        for (name, link) in &self.state.links {
            let interface = crate::Interface {
                index: u32::try_from(interfaces.len()).unwrap_or(u32::MAX) + 1,
                up: link.up,
                mtu: 1500,
                loopback: false,
                tunnel: true,
                mac: None,
            };
            interfaces.entry(name.clone()).or_insert(interface);
        }
        NodeFacts {
            interfaces,
            addresses: self.state.addresses.keys().filter_map(address).collect(),
            sysctls: self.state.sysctls.clone(),
            gateways: self.gateways(),
            ..self.facts.clone()
        }
    }

    /// Executes a plan as the agent does: a step that depends on a failed one is skipped.
    pub fn execute(&mut self, plan: &Plan) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for (index, step) in plan.steps.iter().enumerate() {
            if outcomes.skips(index, step) {
                continue;
            }
            if let Err(reason) = self.step(step) {
                outcomes.fail(index, step, StepFailure::refused(reason));
            }
        }
        outcomes
    }

    /// Executes one step.
    ///
    /// # Errors
    /// With the kernel's reason when it refuses the step, or when this step is the one to fail.
    pub fn step(&mut self, step: &Step) -> Result<(), &'static str> {
        match &mut self.fails_after {
            Some(0) => {
                self.fails_after = None;
                return Err("injected failure");
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match step {
            Step::Ipvs(step) => self.ipvs(step),
            Step::Network(step) => self.network(step),
            Step::Sysctl(step) => {
                let (sysctl, value) = step.write();
                self.write_sysctl(sysctl, value)
            }
            Step::Masquerade(MasqueradeStep::Set(masquerade)) => {
                self.state.masquerade = Some(masquerade.clone());
                Ok(())
            }
            Step::Masquerade(MasqueradeStep::Remove) => {
                self.state.masquerade = None;
                Ok(())
            }
            Step::Strays(StrayStep::Set(strays)) => {
                self.state.strays = Some(strays.clone());
                Ok(())
            }
            Step::Strays(StrayStep::Remove) => {
                self.state.strays = None;
                Ok(())
            }
            Step::Fou(FouStep::AddPort(port)) => {
                self.state.fou_ports.insert(*port);
                Ok(())
            }
            Step::Fou(FouStep::RemovePort(port)) => {
                self.state.fou_ports.remove(port);
                Ok(())
            }
        }
    }

    /// Adds and removes VIPs as the holder does. The next pass retries those that fail.
    pub fn hold(&mut self, holding: &Holding) {
        for step in holding.changes(&self.state.addresses) {
            let _ = self.step(&Step::Network(step));
        }
    }

    fn network(&mut self, step: &NetworkStep) -> Result<(), &'static str> {
        match step {
            NetworkStep::AddLink { name, kind } => self.add_link(name, *kind),
            NetworkStep::SetLinkUp(name) => {
                self.state.links.get_mut(name).ok_or("no such device")?.up = true;
                Ok(())
            }
            NetworkStep::RemoveLink(name) => {
                self.remove_link(name);
                Ok(())
            }
            NetworkStep::AddAddress { key, config } => self.add_address(key, *config),
            NetworkStep::EditAddress { key, config } => {
                let found = self.state.addresses.get_mut(key);
                found.ok_or("no such address")?.deprecated = config.deprecated;
                Ok(())
            }
            NetworkStep::RemoveAddress(key) => {
                self.state.addresses.remove(key);
                Ok(())
            }
            NetworkStep::AddRoute(route) => self.add_route(route),
            NetworkStep::RemoveRoute(route) => {
                self.state.routes.remove(route);
                Ok(())
            }
            NetworkStep::AddRule(rule) => {
                self.state.rules.insert(*rule);
                Ok(())
            }
            NetworkStep::RemoveRule(rule) => {
                self.state.rules.remove(rule);
                Ok(())
            }
        }
    }

    fn has_interface(&self, name: &InterfaceName) -> bool {
        self.facts.interfaces.contains_key(name) || self.state.links.contains_key(name)
    }

    fn write_sysctl(&mut self, sysctl: &Sysctl, value: i64) -> Result<(), &'static str> {
        if sysctl
            .interface()
            .is_some_and(|interface| !self.has_interface(interface))
        {
            return Err("no such file or directory");
        }
        let changed = self.state.sysctls.insert(sysctl.clone(), value) != Some(value);
        if *sysctl == Sysctl::Ipv4Forward && changed {
            for (other, found) in &mut self.state.sysctls {
                if matches!(other, Sysctl::Forwarding(Some(_))) {
                    *found = value;
                } else if *other == Sysctl::AcceptRedirects(None) {
                    *found = 1 - value;
                }
            }
        }
        Ok(())
    }

    fn add_link(
        &mut self,
        name: &InterfaceName,
        kind: crate::LinkKind,
    ) -> Result<(), &'static str> {
        if self
            .state
            .links
            .get(name)
            .is_some_and(|link| link.kind == kind)
        {
            return Ok(());
        }
        if self.has_interface(name) || self.state.links.values().any(|link| link.kind == kind) {
            return Err("file exists");
        }
        self.state.links.insert(
            name.clone(),
            crate::Link {
                kind,
                up: true,
                owner: Owner::Ours,
            },
        );
        self.state
            .sysctls
            .insert(Sysctl::RpFilter(Some(name.clone())), 1);
        Ok(())
    }

    fn remove_link(&mut self, name: &InterfaceName) {
        self.state.links.remove(name);
        self.state.addresses.retain(|key, _| key.interface != *name);
        self.state
            .sysctls
            .retain(|sysctl, _| sysctl.interface() != Some(name));
    }

    fn add_address(
        &mut self,
        key: &AddressKey,
        config: crate::AddressConfig,
    ) -> Result<(), &'static str> {
        if !self.has_interface(&key.interface) {
            return Err("no such device");
        }
        match self.state.addresses.get(key) {
            Some(found) if found.owner != Owner::Ours => Err("file exists"),
            Some(_) => Ok(()),
            None => {
                self.state.addresses.insert(key.clone(), config);
                Ok(())
            }
        }
    }

    fn start_daemon(&mut self, role: SyncRole, daemon: &SyncDaemon) -> Result<(), &'static str> {
        if self.state.sync_daemons.contains_key(&role) {
            return Err("the daemon runs already");
        }
        if !self.facts.interfaces.contains_key(&daemon.interface) {
            return Err("no such device");
        }
        let mut services = self.state.services.iter();
        if services.any(|(key, service)| service.is_mixed(key.family())) {
            return Err("invalid argument");
        }
        self.state.sync_daemons.insert(role, daemon.clone());
        Ok(())
    }

    fn ipvs(&mut self, step: &IpvsStep) -> Result<(), &'static str> {
        self.load_ipvs()?;
        let services = &mut self.state.services;
        match step {
            IpvsStep::AddService { key, config } => {
                check_scheduler(config)?;
                if services.contains_key(key) {
                    return Err("service already exists");
                }
                let config = (**config).clone();
                let service = Service {
                    config,
                    ..Service::default()
                };
                services.insert(*key, Arc::new(service));
            }
            IpvsStep::EditService { key, config } => {
                check_scheduler(config)?;
                find(services, key)?.config = (**config).clone();
            }
            IpvsStep::RemoveService(key) => drop(services.remove(key)),
            IpvsStep::AddDestination {
                service,
                key,
                destination,
            } => {
                let found = find(services, service)?;
                let is_synced = !self.state.sync_daemons.is_empty();
                check_destination(*service, *key, destination, is_synced)?;
                found.add(*key, *destination);
            }
            IpvsStep::EditDestination {
                service,
                key,
                destination,
            } => {
                let found = find(services, service)?.destinations.get_mut(key);
                *found.ok_or("no such destination")? = *destination;
            }
            IpvsStep::RemoveDestination { service, key } => {
                if let Some(found) = services.get_mut(service) {
                    Arc::make_mut(found).remove(key);
                }
            }
            IpvsStep::SetTimeouts { timeouts, .. } | IpvsStep::RestoreTimeouts(timeouts) => {
                self.state.timeouts = Some(*timeouts);
            }
            IpvsStep::StartDaemon { role, daemon } => self.start_daemon(*role, daemon)?,
            IpvsStep::StopDaemon(role) => drop(self.state.sync_daemons.remove(role)),
        }
        Ok(())
    }
}

fn check_scheduler(config: &ServiceConfig) -> Result<(), &'static str> {
    let known = config.scheduler.name.parse::<SchedulerName>();
    known.map(drop).map_err(|()| "no such scheduler")
}

fn check_destination(
    service: ServiceKey,
    key: DestinationKey,
    destination: &Destination,
    is_synced: bool,
) -> Result<(), &'static str> {
    let is_mixed = Family::of(key.address) != service.family();
    if is_mixed && (is_synced || !matches!(destination.forwarding, Forwarding::Tun(_))) {
        return Err("invalid argument");
    }
    if destination.lower_threshold > destination.upper_threshold {
        return Err("numerical result out of range");
    }
    Ok(())
}

fn find<'a>(services: &'a mut Services, key: &ServiceKey) -> Result<&'a mut Service, &'static str> {
    let service = services.get_mut(key).ok_or("service not defined")?;
    Ok(Arc::make_mut(service))
}

/// What a pass will do.
pub struct Prepared {
    /// The plan, with the problems that were found.
    pub difference: Difference,
    /// The VIPs for the holder.
    pub holding: Holding,
    /// All changes to the kernel, in order.
    pub steps: Vec<Step>,
    /// The ledger that is stored before the first step.
    pub ledger: Ledger,
}

/// Computes what a pass over everything does.
#[must_use]
pub fn prepare(kernel: &FakeKernel, desired: &KernelState, ledger: &Ledger) -> Prepared {
    let (observed, mut ledger) = (&kernel.state, ledger.clone());
    ledger.forget_gone(desired, observed, &Extent::ALL);
    let difference = crate::diff(desired, observed, &ledger, &Extent::ALL);
    let holding = crate::holding(desired, observed, &ledger);
    ledger.intend(&difference.plan, observed);
    ledger.intend_vips(holding.hold.keys());
    Prepared {
        steps: crate::steps_in_order(&difference.plan, &holding, &observed.addresses),
        difference,
        holding,
        ledger,
    }
}

/// Makes a pass over everything as the agent does, including the ledger and the VIPs. Returns the outcomes of the plan.
pub fn pass(kernel: &mut FakeKernel, desired: &KernelState, ledger: &mut Ledger) -> Outcomes {
    let prepared = prepare(kernel, desired, ledger);
    let plan = &prepared.difference.plan;
    *ledger = prepared.ledger;
    kernel.hold(&prepared.holding.before_plan(&kernel.state.addresses));
    let outcomes = kernel.execute(plan);
    ledger.settle(plan, &outcomes);
    kernel.hold(&prepared.holding);
    outcomes
}

//! The model's fake kernel, as an implementation of the agent's `Kernel`.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use lvs_model::{
    KernelState, Needs, Network, NodeFacts, Observation, Outcomes, Part, Plan, RouteAnswers,
    ServiceExtent, ServiceKey, Services, Tables, fake::FakeKernel,
};

use super::{Kernel, KernelError};

/// A fake kernel, shared by the agent, the VIP holder and a test.
#[derive(Clone, Debug)]
pub struct SharedFake(Rc<RefCell<FakeKernel>>);

impl SharedFake {
    /// Shares a fake kernel.
    #[must_use]
    pub fn new(kernel: FakeKernel) -> Self {
        Self(Rc::new(RefCell::new(kernel)))
    }

    /// Borrows the kernel for reading.
    #[must_use]
    pub fn get(&self) -> Ref<'_, FakeKernel> {
        self.0.borrow()
    }

    /// Borrows the kernel for changes that the agent does not make.
    #[must_use]
    pub fn get_mut(&self) -> RefMut<'_, FakeKernel> {
        self.0.borrow_mut()
    }
}

impl Kernel for SharedFake {
    async fn observe_network(&mut self, tables: &Tables) -> Result<Network, KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        let facts = kernel.observe_facts();
        Ok(Network {
            interfaces: facts.interfaces,
            links: kernel.state.links.clone(),
            addresses: kernel.state.addresses.clone(),
            routes: kernel.routes_in(tables),
            rules: kernel.state.rules.clone(),
            interface_addresses: facts.addresses,
            gateways: facts.gateways,
        })
    }

    async fn routes_to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<RouteAnswers, KernelError> {
        let mut kernel = self.get_mut();
        kernel.readable().map_err(KernelError::new)?;
        if kernel.are_routes_unreadable {
            return Err(KernelError::new("injected failure"));
        }
        kernel.asked.clone_from(addresses);
        let addresses = addresses.iter();
        Ok(addresses
            .map(|address| (*address, kernel.route_to(*address)))
            .collect())
    }

    async fn load_ipvs(&mut self) -> Result<(), KernelError> {
        let mut kernel = self.get_mut();
        kernel.ipvs_readable().map_err(KernelError::new)?;
        kernel.load_ipvs().map_err(KernelError::new)
    }

    fn has_ipvs(&self) -> bool {
        self.get().ipvs.is_loaded()
    }

    async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<Observation, KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        let reads = |part: Part| !kernel.unread.contains(&part);
        let asked = [
            (Part::Masquerade, needs.masquerade),
            (Part::FouPorts, needs.fou_ports),
            (Part::Strays, needs.strays),
        ];
        let unread = asked
            .into_iter()
            .filter(|(part, needed)| *needed && !reads(*part));
        let unread = unread.map(|(part, _)| (part, "injected failure".to_owned()));
        let facts = NodeFacts {
            interfaces: network.interfaces,
            addresses: network.interface_addresses,
            routes: Vec::new(),
            gateways: network.gateways,
            ..kernel.observe_facts()
        };
        let state = KernelState {
            sysctls: facts.sysctls.clone(),
            fou_ports: needed(
                needs.fou_ports && reads(Part::FouPorts),
                &kernel.state.fou_ports,
            ),
            links: network.links,
            addresses: network.addresses,
            routes: network.routes,
            rules: network.rules,
            masquerade: needed(
                needs.masquerade && reads(Part::Masquerade),
                &kernel.state.masquerade,
            ),
            strays: needed(needs.strays && reads(Part::Strays), &kernel.state.strays),
            timeouts: needed(needs.ipvs, &kernel.state.timeouts),
            sync_daemons: needed(needs.ipvs, &kernel.state.sync_daemons),
            services: Services::new(),
            routers: BTreeMap::new(),
        };
        Ok(Observation {
            state,
            facts,
            unread: unread.collect(),
        })
    }

    async fn observe_services(
        &mut self,
        extent: &ServiceExtent,
        _: &Services,
    ) -> Result<Services, KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        kernel.ipvs_readable().map_err(KernelError::new)?;
        let has_gap = |key| *extent == ServiceExtent::All && kernel.dump_gaps.contains(key);
        let services = kernel.state.services.iter();
        let covered = services.filter(|(key, _)| extent.covers(key) && !has_gap(key));
        Ok(covered
            .map(|(key, service)| (*key, Arc::clone(service)))
            .collect())
    }

    async fn services_in_use(
        &mut self,
        services: &BTreeSet<ServiceKey>,
    ) -> Result<BTreeSet<ServiceKey>, KernelError> {
        let kernel = self.get();
        kernel.ipvs_readable().map_err(KernelError::new)?;
        let used = services.intersection(&kernel.in_use);
        let used = used.filter(|key| kernel.state.services.contains_key(key));
        Ok(used.copied().collect())
    }

    async fn execute(&mut self, plan: &Plan) -> Outcomes {
        self.get_mut().execute(plan)
    }
}

fn needed<T: Clone + Default>(is_needed: bool, value: &T) -> T {
    if is_needed {
        value.clone()
    } else {
        T::default()
    }
}

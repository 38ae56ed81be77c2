//! The model's fake kernel, as an implementation of the agent's `Kernel`.

use std::{
    cell::{Ref, RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use lvs_model::{
    KernelState, Needs, Network, NodeFacts, NodeRoute, Outcomes, Plan, ServiceExtent, Services,
    fake::FakeKernel,
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
    async fn observe_network(&self) -> Result<Network, KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        let facts = kernel.observe_facts();
        let main_routes: Vec<NodeRoute> = facts.routes.clone();
        Ok(Network {
            interfaces: facts.interfaces,
            links: kernel.state.links.clone(),
            addresses: kernel.state.addresses.clone(),
            routes: kernel.state.routes.clone(),
            rules: kernel.state.rules.clone(),
            main_routes,
            interface_addresses: facts.addresses,
        })
    }

    async fn load_ipvs(&mut self) -> Result<(), KernelError> {
        let mut kernel = self.get_mut();
        kernel.load_ipvs().map_err(KernelError::new)
    }

    fn has_ipvs(&self) -> bool {
        self.get().ipvs.is_loaded()
    }

    async fn observe(
        &mut self,
        network: Network,
        needs: Needs,
    ) -> Result<(KernelState, NodeFacts), KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        let facts = NodeFacts {
            interfaces: network.interfaces,
            addresses: network.interface_addresses,
            routes: network.main_routes,
            ..kernel.observe_facts()
        };
        let state = KernelState {
            sysctls: facts.sysctls.clone(),
            fou_ports: needed(needs.fou_ports, &kernel.state.fou_ports),
            links: network.links,
            addresses: network.addresses,
            routes: network.routes,
            rules: network.rules,
            masquerade: needed(needs.masquerade, &kernel.state.masquerade),
            timeouts: needed(needs.ipvs, &kernel.state.timeouts),
            services: Services::new(),
        };
        Ok((state, facts))
    }

    async fn observe_services(
        &mut self,
        extent: &ServiceExtent,
        _: &Services,
    ) -> Result<Services, KernelError> {
        let kernel = self.get();
        kernel.readable().map_err(KernelError::new)?;
        let services = kernel.state.services.iter();
        let covered = services.filter(|(key, _)| extent.covers(key));
        Ok(covered
            .map(|(key, service)| (*key, Arc::clone(service)))
            .collect())
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

//! Updates: new versions of virtual services that change nothing but their own IPVS services.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Desired, Director, KernelState, NodeFacts, NodeSpec, ObjectName, ServiceKey, VirtualService,
    desired,
};

/// What a machine does and what its kernel must hold, as of the last complete pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The machine's roles.
    pub spec: Arc<NodeSpec>,
    /// The desired state of its kernel.
    pub state: Arc<KernelState>,
}

/// New versions of some virtual services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The roles of the machine for these virtual services alone.
    pub spec: NodeSpec,
    /// Their IPVS services and nothing else.
    pub desired: Desired,
}

impl Baseline {
    /// Computes the update for new versions of virtual services.
    ///
    /// `None` if they can change more than their own IPVS services. They cannot if all of this holds:
    ///
    /// 1. The machine directs each of the virtual services, and is a real server of none.
    /// 2. Nothing but their real servers differs.
    /// 3. No real server has an address or a VIP of this machine.
    /// 4. The rest of their desired state is as before, and they have no problems.
    #[must_use]
    pub fn update(
        &self,
        changed: &BTreeMap<ObjectName, Arc<VirtualService>>,
        facts: &NodeFacts,
    ) -> Option<Update> {
        let (mut before, mut now) = (NodeSpec::default(), NodeSpec::default());
        for (name, service) in changed {
            let director = self.spec.directs.get(name)?;
            if self.spec.serves.contains_key(name) {
                return None;
            }
            let is_small_change = director.service.is_like_but_for_real_servers(service);
            let mut servers = service.real_servers.iter().map(|server| server.address);
            let is_another_machine =
                |server| facts.find_address(server).is_none() && !self.is_vip(server);
            if !is_small_change || !servers.all(is_another_machine) {
                return None;
            }
            let changed = Director {
                service: Arc::clone(service),
                interface: director.interface.clone(),
                candidacy: director.candidacy.clone(),
                keeping: director.keeping,
            };
            before.directs.insert(name.clone(), director.clone());
            now.directs.insert(name.clone(), changed);
        }
        let (_, old_rest) = split(desired(&before, facts));
        let (services, rest) = split(desired(&now, facts));
        let is_update = old_rest == rest && rest.problems.is_empty();
        is_update.then_some(Update {
            spec: now,
            desired: services,
        })
    }

    /// Applies an update: the roles of its virtual services, and their IPVS services.
    pub fn apply(&mut self, directed: &NodeSpec, services: &KernelState) {
        let spec = Arc::make_mut(&mut self.spec);
        for (name, director) in &directed.directs {
            spec.directs.insert(name.clone(), director.clone());
        }
        let state = Arc::make_mut(&mut self.state);
        for (key, service) in &services.services {
            state.services.insert(*key, Arc::clone(service));
        }
    }

    /// Returns whether an address is a VIP of the machine.
    fn is_vip(&self, address: IpAddr) -> bool {
        let first = ServiceKey::first_of(address);
        let next = self.state.services.range(first..).next();
        let is_directed = next.is_some_and(|(key, _)| key.vip() == Some(address));
        let mut served = self.spec.serves.values();
        is_directed || served.any(|role| role.vips.contains(&address))
    }
}

/// Splits a desired state into the IPVS services with their owners, and the rest.
fn split(mut rest: Desired) -> (Desired, Desired) {
    let services = Desired {
        state: KernelState {
            services: std::mem::take(&mut rest.state.services),
            ..KernelState::default()
        },
        owners: rest.owners.split_off_services(),
        problems: Vec::new(),
        absences: Vec::new(),
    };
    (services, rest)
}

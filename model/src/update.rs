//! New versions of some virtual services, from which nothing follows but their own IPVS services.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Desired, Director, KernelState, NodeFacts, NodeSpec, ObjectName, Protocol, ServiceKey,
    VirtualService, desired,
};

/// What a machine does and what its kernel must hold, after the last pass that did all there was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// What it does.
    pub spec: Arc<NodeSpec>,
    /// What its kernel must hold.
    pub state: Arc<KernelState>,
}

/// New versions of some virtual services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// These virtual services, as the machine directs them.
    pub spec: NodeSpec,
    /// Their IPVS services, and nothing else.
    pub desired: Desired,
}

impl Baseline {
    /// Works out what follows from new versions of virtual services; `None` when more than their own IPVS services may.
    ///
    /// 1. The machine directs each of them.
    /// 2. Nothing but the real servers differs.
    /// 3. None of the real servers has an address or a VIP of this machine.
    /// 4. What a virtual service wants of the machine besides its IPVS services is as it was, and nothing is wrong with it.
    #[must_use]
    pub fn update(
        &self,
        changed: &BTreeMap<ObjectName, Arc<VirtualService>>,
        facts: &NodeFacts,
    ) -> Option<Update> {
        let (mut before, mut now) = (NodeSpec::default(), NodeSpec::default());
        for (name, service) in changed {
            let director = self.spec.directs.get(name)?;
            let is_alike = differs_in_real_servers_only(&director.service, service);
            let mut servers = service.real_servers.iter().map(|server| server.address);
            let is_another_machine =
                |server| facts.find_address(server).is_none() && !self.is_vip(server);
            if !is_alike || !servers.all(is_another_machine) {
                return None;
            }
            let changed = Director {
                service: Arc::clone(service),
                interface: director.interface.clone(),
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

    /// Takes over an update: the virtual services as they are directed, and their IPVS services.
    pub fn apply(&mut self, directed: &NodeSpec, services: &KernelState) {
        let spec = Arc::make_mut(&mut self.spec);
        for (name, director) in &directed.directs {
            spec.directs.insert(name.clone(), director.clone());
        }
        let state = Arc::make_mut(&mut self.state);
        for (key, service) in &services.services {
            state.services.insert(*key, service.clone());
        }
    }

    /// Returns whether an address is a VIP of the machine.
    fn is_vip(&self, address: IpAddr) -> bool {
        let first = ServiceKey::Address {
            address,
            protocol: Protocol::Tcp,
            port: 0,
        };
        let next = self.state.services.range(first..).next();
        let is_directed = next.is_some_and(|(key, _)| match key {
            ServiceKey::Address { address: vip, .. } => *vip == address,
            ServiceKey::Fwmark { .. } => false,
        });
        let mut served = self.spec.serves.values();
        is_directed || served.any(|role| role.vips.contains(&address))
    }
}

/// The IPVS services of what is wanted with their owners, and the rest.
fn split(mut wanted: Desired) -> (Desired, Desired) {
    let services = Desired {
        state: KernelState {
            services: std::mem::take(&mut wanted.state.services),
            ..KernelState::default()
        },
        owners: wanted.owners.split_off_services(),
        problems: Vec::new(),
    };
    (services, wanted)
}

fn differs_in_real_servers_only(before: &VirtualService, now: &VirtualService) -> bool {
    let VirtualService {
        created,
        group,
        frontend,
        forwarding,
        nat,
        scheduler,
        persistence,
        one_packet,
        real_servers: _,
    } = now;
    before.created == *created
        && before.group == *group
        && before.frontend == *frontend
        && before.forwarding == *forwarding
        && before.nat == *nat
        && before.scheduler == *scheduler
        && before.persistence == *persistence
        && before.one_packet == *one_packet
}

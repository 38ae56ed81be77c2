//! A change of real servers alone, which concerns their virtual services and nothing else of the machine.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Desired, Director, KernelState, NodeFacts, NodeSpec, ObjectName, Protocol, Service, ServiceKey,
    VirtualService, desired,
};

/// What a machine does and must hold, after all of it was worked out without a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What it does.
    pub spec: Arc<NodeSpec>,
    /// What its kernel must hold.
    pub state: Arc<KernelState>,
}

/// What follows from changed virtual services, when nothing else follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The changed virtual services, as they are directed.
    pub spec: NodeSpec,
    /// Their IPVS services.
    pub services: BTreeMap<ServiceKey, Service>,
}

impl Settled {
    /// Works out what follows from new versions of virtual services; `None` when more than their own IPVS services may.
    ///
    /// 1. The machine directs each of them.
    /// 2. Nothing but the real servers differs.
    /// 3. None of the real servers has an address or a VIP of this machine.
    /// 4. What a virtual service wants of the machine besides its IPVS services is as it was, and nothing is wrong with it.
    #[must_use]
    pub fn part(
        &self,
        changed: &BTreeMap<ObjectName, Arc<VirtualService>>,
        facts: &NodeFacts,
    ) -> Option<Part> {
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
            let direct = |service: &Arc<VirtualService>| Director {
                service: Arc::clone(service),
                interface: director.interface.clone(),
            };
            before
                .directs
                .insert(name.clone(), direct(&director.service));
            now.directs.insert(name.clone(), direct(service));
        }
        let (old, _) = split(desired(&before, facts));
        let (new, services) = split(desired(&now, facts));
        let is_part = old == new && new.problems.is_empty();
        is_part.then_some(Part {
            spec: now,
            services,
        })
    }

    /// Takes over a part.
    pub fn replace(&mut self, part: &Part) {
        let spec = Arc::make_mut(&mut self.spec);
        for (name, director) in &part.spec.directs {
            spec.directs.insert(name.clone(), director.clone());
        }
        let state = Arc::make_mut(&mut self.state);
        for (key, service) in &part.services {
            state.services.insert(*key, service.clone());
        }
    }

    /// Says whether an address is a VIP of the machine's.
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

/// What is wanted without IPVS services, and those.
fn split(mut wanted: Desired) -> (Desired, BTreeMap<ServiceKey, Service>) {
    let services = std::mem::take(&mut wanted.state.services);
    (wanted, services)
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

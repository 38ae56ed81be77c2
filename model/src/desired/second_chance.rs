//! What second chances need: second services, the marks that lead to them, and sysctls of IPVS.

use std::sync::Arc;

use super::builder::Builder;
use crate::{SecondChance, StrayMark, Strays, Sysctl, Target};

impl Builder<'_> {
    /// Adds one second chance.
    pub(super) fn give_second_chance(&mut self, chance: &SecondChance) {
        let name = &chance.owner;
        let key = chance.service_key();
        self.add_owner(name, Target::Service(key));
        self.state
            .services
            .insert(key, Arc::new(chance.servers.clone()));
        self.want_exactly(name, Sysctl::VsSloppyTcp, 1);
        self.want_exactly(name, Sysctl::VsExpireNodestConn, 1);
        if chance.takes_strays {
            self.add_owner(name, Target::Strays);
            let strays = self.state.strays.get_or_insert_with(Strays::default);
            strays.marks.insert(StrayMark {
                service: chance.key,
                mark: chance.mark,
            });
            self.check_listeners_for(chance);
        }
    }

    /// Warns if a program listens on the VIP itself: its socket then seems to have every packet to the port.
    fn check_listeners_for(&mut self, chance: &SecondChance) {
        let crate::ServiceKey::Address {
            address,
            protocol,
            port,
        } = chance.key
        else {
            return;
        };
        let listener = crate::Listener {
            protocol,
            address,
            port,
        };
        let listeners = self.facts.listeners.as_ref();
        if listeners.is_some_and(|listeners| listeners.contains(&listener)) {
            self.warn(
                &chance.owner,
                format!(
                    "the service listens on {address} itself, so connections of other real servers cannot be told from its own \
                     and are lost when the director changes: let it listen on all addresses"
                ),
            );
        }
    }
}

//! When a director may preempt: once its table is complete, and it knows the connections.

use lvs_model::Failover;

use super::*;

/// A director that takes VIPs over from a less preferred one, with a scheduler that needs connection sync, or with `mh`, which does not.
fn director(scheduler: SchedulerName) -> Machine {
    let mut web = VirtualService::clone(&service("192.0.2.100", "192.0.2.11"));
    web.scheduler = Scheduler::new(scheduler, &[]);
    let mut machine = Machine::new(&[("web", web.into())]);
    for group in machine.view.groups.values_mut() {
        group.failover = Some(Failover {
            router_id: 51,
            routers: 1,
            interval: 100,
            preempt_after: Some(5),
            router_priorities: BTreeMap::new(),
            standby: BTreeSet::new(),
            unicast: None,
            keep_seconds: Some(300),
        });
    }
    machine
}

/// After how many seconds the machine preempts.
fn preempts_after(machine: &Machine) -> Option<u32> {
    let routers = &machine.agent.holder.holding.routers;
    routers.values().next().unwrap().candidacy.preempt_after
}

#[tokio::test]
async fn a_director_does_not_preempt_while_its_table_is_incomplete() {
    let mut machine = director(SchedulerName::Mh);
    machine.settle().await;
    assert_eq!(preempts_after(&machine), Some(5));

    let key = *machine.kernel.get().state.services.keys().next().unwrap();
    machine.kernel.get_mut().state.services.remove(&key);
    machine.kernel.get_mut().fails_after = Some(0);
    machine.pass(Scope::Everything).await;
    assert_eq!(preempts_after(&machine), None);

    machine.kernel.get_mut().fails_after = None;
    machine.pass(Scope::Everything).await;
    assert_eq!(preempts_after(&machine), Some(5));
}

#[tokio::test]
async fn a_director_does_not_preempt_while_connection_sync_has_just_been_started() {
    let mut machine = director(SchedulerName::Rr);
    let applied = machine.pass(Scope::Everything).await;
    assert_eq!(preempts_after(&machine), None);
    let next = applied.prepared.next_pass.unwrap();
    assert!(next > Duration::from_secs(50), "{next:?}");

    // The daemons have run while the agent did not.
    machine.restart();
    machine.settle().await;
    assert_eq!(preempts_after(&machine), Some(5));
}

//! The objects that the ledger owns after a plan was executed.

use lvs_model::{
    AddressKey, InterfaceName, IpvsStep, KernelState, Ledger, NetworkStep, Outcomes, Plan,
    Protocol, ServiceKey, Step, StepFailure, Target,
};

#[test]
fn a_refused_creation_is_not_owned_and_an_unanswered_one_is() {
    let key = ServiceKey::Address {
        address: "10.0.0.100".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let step = Step::Ipvs(IpvsStep::AddService {
        key,
        config: Box::default(),
    });
    let plan = Plan {
        steps: vec![step.clone()],
    };
    let mut intended = Ledger::default();
    assert!(intended.intend(&plan, &KernelState::default()));
    let settled = |failure| {
        let mut outcomes = Outcomes::default();
        outcomes.fail(0, &step, failure);
        let mut ledger = intended.clone();
        ledger.settle(&plan, &outcomes);
        ledger
    };

    assert_eq!(settled(StepFailure::refused("exists")), Ledger::default());
    assert_eq!(settled(StepFailure::unknown("no answer")), intended);
    assert_eq!(intended.made, [Target::Service(key)].into());
}

#[test]
fn removing_a_device_forgets_its_addresses() {
    let device: InterfaceName = "lvs-ipip-54a2b1".parse().unwrap();
    let [own, other] = [&device, &"lo".parse().unwrap()]
        .map(|interface| AddressKey::host(interface, "169.254.76.83".parse().unwrap()))
        .map(Target::Address);
    let mut ledger = Ledger {
        made: [Target::Link(device.clone()), own, other.clone()].into(),
        ..Ledger::default()
    };
    let plan = Plan {
        steps: vec![NetworkStep::RemoveLink(device).into()],
    };

    assert!(ledger.settle(&plan, &Outcomes::default()));

    assert_eq!(ledger.made, [other].into());
}

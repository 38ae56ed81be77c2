//! What is owned after a plan was executed.

use lvs_model::{
    AddressKey, InterfaceName, KernelState, Ledger, Outcomes, Plan, Protocol, ServiceKey, Step,
    StepFailure,
};

#[test]
fn what_the_kernel_refused_to_make_is_not_owned_and_what_it_may_have_made_is() {
    let key = ServiceKey::Address {
        address: "10.0.0.100".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let step = Step::AddService {
        key,
        config: Box::default(),
    };
    let plan = Plan {
        steps: vec![step.clone()],
    };
    let intended = Ledger::default().intend(&plan, &KernelState::default());
    let settled = |failure| {
        let mut outcomes = Outcomes::default();
        outcomes.fail(0, &step, failure);
        intended.settle(&plan, &outcomes)
    };

    assert_eq!(settled(StepFailure::refused("exists")), Ledger::default());
    assert_eq!(settled(StepFailure::unknown("no answer")), intended);
    assert_eq!(intended.services, [key].into());
}

#[test]
fn a_device_takes_its_addresses_with_it() {
    let device: InterfaceName = "lvs-ipip-54a2b1".parse().unwrap();
    let [own, other] = [&device, &"lo".parse().unwrap()]
        .map(|interface| AddressKey::host(interface, "169.254.76.83".parse().unwrap()));
    let ledger = Ledger {
        links: [device.clone()].into(),
        addresses: [own, other.clone()].into(),
        ..Ledger::default()
    };
    let plan = Plan {
        steps: vec![Step::RemoveLink(device)],
    };

    let settled = ledger.settle(&plan, &Outcomes::default());

    assert_eq!(settled.links, [].into());
    assert_eq!(settled.addresses, [other].into());
}

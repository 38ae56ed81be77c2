//! Tests of the holder's report.

use lvs_model::{AddressConfig, Owner};

use super::*;

fn key(address: &str) -> AddressKey {
    AddressKey::host(&"eth0".parse().unwrap(), address.parse().unwrap())
}

fn holding(hold: &[&str], release: &[&str]) -> Holding {
    let config = AddressConfig {
        deprecated: false,
        expires: false,
        owner: Owner::Ours,
    };
    Holding {
        hold: hold.iter().map(|vip| (key(vip), config)).collect(),
        release: release.iter().map(|vip| key(vip)).collect(),
        ..Holding::default()
    }
}

fn state<'a>(report: &'a HolderReport, vip: &str) -> Option<&'a VipState> {
    let vip: IpAddr = vip.parse().unwrap();
    report.by_address().get(&vip).copied()
}

#[test]
fn a_new_vip_is_pending_until_it_is_tried() {
    let mut report = HolderReport::default().handed(&holding(&["192.0.2.1"], &[]));
    assert_eq!(state(&report, "192.0.2.1"), Some(&VipState::Pending));
    assert!(!report.is_settled());

    report.set(&key("192.0.2.1"), VipState::Held);
    report = report.handed(&holding(&["192.0.2.1", "192.0.2.2"], &[]));

    assert_eq!(state(&report, "192.0.2.1"), Some(&VipState::Held));
    assert_eq!(state(&report, "192.0.2.2"), Some(&VipState::Pending));
    assert_eq!(state(&report, "192.0.2.3"), None);
}

#[test]
fn a_failed_vip_counts_as_settled_and_is_listed() {
    let mut report = HolderReport::default().handed(&holding(&["192.0.2.1"], &["192.0.2.9"]));
    let failed = VipState::Failed("in use".to_owned());
    assert!(report.set(&key("192.0.2.1"), failed.clone()));
    assert!(!report.set(&key("192.0.2.1"), failed));
    assert!(!report.is_settled(), "192.0.2.9 was not tried");

    report.set_released(&key("192.0.2.9"), Err("refused".to_owned()));
    assert!(report.has_failed(&key("192.0.2.9"), "refused"));
    assert!(!report.has_failed(&key("192.0.2.9"), "no memory"));
    assert!(report.is_settled() && report.is_unreleased(&key("192.0.2.9")));
    assert_eq!(report.failures().collect::<Vec<_>>(), ["in use", "refused"]);

    report.set_released(&key("192.0.2.9"), Ok(()));
    assert!(!report.is_unreleased(&key("192.0.2.9")));
}

#[test]
fn a_vip_that_cannot_move_is_settled_and_stays() {
    let old = AddressKey {
        interface: "eth1".parse().unwrap(),
        ..key("192.0.2.1")
    };
    let moving = Holding {
        moved: [old].into(),
        ..holding(&["192.0.2.1"], &[])
    };
    let mut report = HolderReport::default().handed(&moving);
    assert!(!report.is_settled());

    report.set(
        &key("192.0.2.1"),
        VipState::Failed("address in use".to_owned()),
    );

    assert!(report.is_settled());
    let failures: Vec<String> = report.failures().collect();
    assert_eq!(
        failures,
        ["address in use", "VIP 192.0.2.1 is still on eth1"]
    );
}

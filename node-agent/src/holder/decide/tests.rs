//! Tests of the holder's decisions.

use lvs_model::Owner;

use super::*;

fn key(interface: &str, address: &str) -> AddressKey {
    AddressKey::host(&interface.parse().unwrap(), address.parse().unwrap())
}

fn config(deprecated: bool) -> AddressConfig {
    AddressConfig {
        deprecated,
        expires: false,
        owner: Owner::Ours,
    }
}

#[test]
fn a_missing_vip_is_added_and_a_changed_one_edited() {
    let holding = Holding {
        hold: [
            (key("eth0", "192.0.2.1"), config(false)),
            (key("eth0", "192.0.2.2"), config(false)),
            (key("eth0", "2001:db8::1"), config(true)),
        ]
        .into(),
        ..Holding::default()
    };
    let observed = [
        (key("eth0", "192.0.2.2"), config(false)),
        (key("eth0", "2001:db8::1"), config(false)),
    ];

    let work = decide(&holding, &observed.into());

    assert_eq!(work.add, [(key("eth0", "192.0.2.1"), config(false))].into());
    let edit = NetworkStep::EditAddress {
        key: key("eth0", "2001:db8::1"),
        config: config(true),
    };
    assert_eq!(work.edit, [edit]);
    assert_eq!((work.release, work.moved), (Vec::new(), Vec::new()));
}

#[test]
fn a_vip_that_moves_is_removed_once_it_is_in_its_new_place() {
    let (old, new) = (key("eth0", "192.0.2.1"), key("eth1", "192.0.2.1"));
    let holding = Holding {
        hold: [(new.clone(), config(false))].into(),
        moved: [old.clone()].into(),
        ..Holding::default()
    };
    let before = BTreeMap::from([(old.clone(), config(false))]);
    assert_eq!(decide(&holding, &before).moved, []);

    let after = BTreeMap::from([(old.clone(), config(false)), (new, config(false))]);

    assert_eq!(
        decide(&holding, &after).moved,
        [NetworkStep::RemoveAddress(old)]
    );
}

#[test]
fn a_released_vip_that_is_gone_needs_no_removal() {
    let holding = Holding {
        release: [key("eth0", "192.0.2.1"), key("eth0", "192.0.2.2")].into(),
        ..Holding::default()
    };
    let observed = BTreeMap::from([(key("eth0", "192.0.2.2"), config(false))]);
    let removal = NetworkStep::RemoveAddress(key("eth0", "192.0.2.2"));
    assert_eq!(decide(&holding, &observed).release, [removal]);
}

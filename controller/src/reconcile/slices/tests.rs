//! Tests of how real servers are spread over slices.

use lvs_crd::{BoundServer, DirectorBinding, slice_name};

use super::*;

fn server(number: usize) -> BoundServer {
    BoundServer {
        address: format!(
            "10.{}.{}.{}",
            number / 62500,
            number / 250 % 250,
            number % 250 + 1
        ),
        ports: Vec::new(),
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        forwarding: None,
        service: None,
    }
}

/// Spreads real servers, given the slices of an earlier call.
fn spread_over(servers: Vec<BoundServer>, before: Option<&DesiredBinding>) -> DesiredBinding {
    let binding = ObjectName::new("shop", "web.lvs1").unwrap();
    let whole = DirectorBindingSpec {
        node: "lvs1".to_owned(),
        virtual_service: "web".to_owned(),
        generation: 7,
        director_group: "edge".to_owned(),
        real_servers: servers,
        ..DirectorBindingSpec::default()
    };
    let before = before.iter().flat_map(|before| &before.slices);
    let existing = before.map(|(name, spec)| DirectorBinding::new(name.name(), spec.clone()));
    let existing: Vec<_> = existing.collect();
    let places = Places::new(&whole.real_servers, &Places::observed(existing.iter()));
    let is_sliced = whole.real_servers.len() > MAX_REAL_SERVERS;
    sliced(&binding, whole, Some(&places).filter(|_| is_sliced))
}

/// The slices that differ.
fn differing(one: &DesiredBinding, other: &DesiredBinding) -> usize {
    let differs = |(name, spec): &(&ObjectName, &_)| one.slices.get(*name) != Some(*spec);
    other.slices.iter().filter(differs).count()
}

fn servers_of(binding: &DesiredBinding) -> Vec<BoundServer> {
    let slices = binding
        .slices
        .values()
        .flat_map(|slice| &slice.real_servers);
    let mut all: Vec<_> = slices.cloned().collect();
    all.sort_by(|one, other| one.address.cmp(&other.address));
    all
}

fn sorted(mut servers: Vec<BoundServer>) -> Vec<BoundServer> {
    servers.sort_by(|one, other| one.address.cmp(&other.address));
    servers
}

#[test]
fn few_real_servers_are_in_the_binding_itself() {
    let binding = spread_over((0..500).map(server).collect(), None);
    assert_eq!(binding.first.real_servers.len(), 500);
    assert!(binding.first.slices.is_empty() && binding.slices.is_empty());
}

#[test]
fn ten_thousand_real_servers_are_in_twenty_slices() {
    let servers: Vec<_> = (0..10_000).map(server).collect();
    let binding = spread_over(servers.clone(), None);
    assert_eq!(servers_of(&binding), sorted(servers));
    assert!(binding.first.real_servers.is_empty());
    let name = |number| ObjectName::new("shop", &slice_name("web.lvs1", number)).unwrap();
    for number in 1..=20_usize {
        let spec = &binding.slices[&name(number)];
        let place = spec.slice.as_ref().unwrap();
        assert_eq!(binding.first.slices[number - 1], place.revision);
        assert_eq!(spec.real_servers.len(), 500);
        assert_eq!(spec.director_group, "");
    }
    assert_eq!(binding.slices.len(), 20);
}

#[test]
fn a_change_of_one_real_server_changes_one_slice() {
    let servers: Vec<_> = (0..1200).map(server).collect();
    let before = spread_over(servers.clone(), None);
    assert_eq!(before.slices.len(), 3);

    let mut weighted = servers.clone();
    weighted[700].weight = 0;
    let after = spread_over(weighted, Some(&before));
    assert_eq!(differing(&before, &after), 1);

    let mut fewer = servers.clone();
    fewer.remove(3);
    let after = spread_over(fewer, Some(&before));
    assert_eq!(differing(&before, &after), 1);

    let more = [servers, vec![server(5000)]].concat();
    let after = spread_over(more.clone(), Some(&before));
    assert_eq!(differing(&before, &after), 1);
    assert_eq!(servers_of(&after), sorted(more));
}

#[test]
fn slices_that_are_half_empty_are_spread_anew() {
    let before = spread_over((0..10_000).map(server).collect(), None);
    // One in ten of each slice stays.
    let few: Vec<_> = (0..10_000).step_by(10).map(server).collect();
    let after = spread_over(few.clone(), Some(&before));
    assert_eq!(after.slices.len(), 2);
    assert_eq!(servers_of(&after), sorted(few));
}

//! Tests of pools: which addresses they have, who may have them, and which are free.

use super::*;

fn mk_pool(ranges: &[&str], namespaces: &[&str]) -> Pool {
    let namespaces: BTreeSet<String> = namespaces.iter().map(|&name| name.to_owned()).collect();
    Pool {
        ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        groups: None,
        namespaces: Some(namespaces).filter(|names| !names.is_empty()),
        is_auto_assigned: true,
        avoids_network_addresses: true,
    }
}

fn mk_pools(pools: &[(&str, Pool)]) -> Pools {
    let pools = pools.iter();
    pools
        .map(|(name, pool)| (name.parse().unwrap(), pool.clone()))
        .collect()
}

/// The address that a virtual service of a namespace is given while others are used.
fn given(pools: &Pools, namespace: &str, family: Family, used: &[&str]) -> Result<String, String> {
    let group: GroupName = "edge".parse().unwrap();
    let asker = Asker {
        namespace,
        group: &group,
    };
    let used: BTreeSet<IpAddr> = used.iter().map(|text| text.parse().unwrap()).collect();
    let given = pools.allocate(asker, None, family, |address| used.contains(&address));
    given
        .map(|address| address.to_string())
        .map_err(|refusal| refusal.text(asker))
}

#[test]
fn the_first_free_address_of_the_first_pool_of_the_namespace_is_allocated() {
    let pools = mk_pools(&[
        ("a", mk_pool(&["10.0.0.1"], &["shop"])),
        (
            "b",
            mk_pool(&["10.0.1.0-10.0.1.2", "2001:db8::1-2001:db8::2"], &[]),
        ),
    ]);
    let v4 = |namespace, used: &[&str]| given(&pools, namespace, Family::V4, used);
    assert_eq!(v4("shop", &[]).as_deref(), Ok("10.0.0.1"));
    assert_eq!(v4("shop", &["10.0.0.1"]).as_deref(), Ok("10.0.1.0"));
    assert_eq!(v4("blog", &["10.0.1.0"]).as_deref(), Ok("10.0.1.1"));
    assert_eq!(
        v4("blog", &["10.0.1.0", "10.0.1.1", "10.0.1.2"]).unwrap_err(),
        "no IPv4 address is free for namespace 'blog' and DirectorGroup 'edge': AddressPool b has none left"
    );
    let v6 = given(&pools, "shop", Family::V6, &["2001:db8::1"]);
    assert_eq!(v6.as_deref(), Ok("2001:db8::2"));
}

#[test]
fn the_ends_of_a_network_are_left_out() {
    let mut pool = mk_pool(&["10.0.1.0/30", "10.0.2.0/31", "2001:db8::/126"], &[]);
    let has = |pool: &Pool, address: &str| pool.contains(address.parse().unwrap());
    assert!(!has(&pool, "10.0.1.0") && !has(&pool, "10.0.1.3"));
    assert!(has(&pool, "10.0.1.1") && has(&pool, "10.0.2.0"));
    assert!(!has(&pool, "2001:db8::") && has(&pool, "2001:db8::3"));
    assert_eq!(pool.total(Family::V4), 4);
    assert_eq!(pool.total(Family::V6), 3);
    pool.avoids_network_addresses = false;
    assert!(has(&pool, "10.0.1.0"));
    assert_eq!(pool.total(Family::V4), 6);
}

#[test]
fn a_vip_is_from_a_pool_that_serves_the_namespace_and_the_group() {
    let mut pool = mk_pool(&["10.0.0.0/24"], &["shop"]);
    pool.is_auto_assigned = false;
    pool.groups = Some(["edge".parse().unwrap()].into());
    let pools = mk_pools(&[("public", pool)]);
    let checked = |namespace, group: &str, vip: &str| {
        let group: GroupName = group.parse().unwrap();
        let asker = Asker {
            namespace,
            group: &group,
        };
        let result = pools.check(asker, vip.parse().unwrap());
        result.map_err(|refusal| refusal.text(asker))
    };
    assert_eq!(checked("shop", "edge", "10.0.0.1"), Ok(()));
    assert_eq!(
        checked("shop", "edge", "10.0.1.1").unwrap_err(),
        "must be in an AddressPool that serves namespace 'shop' and DirectorGroup 'edge': '10.0.1.1' is not in public"
    );
    for (namespace, group) in [("blog", "edge"), ("shop", "core")] {
        let refusal = checked(namespace, group, "10.0.0.1").unwrap_err();
        assert!(
            refusal.contains("there is none for '10.0.0.1'"),
            "{refusal}"
        );
    }
    assert_eq!(
        given(&pools, "shop", Family::V4, &[]).unwrap_err(),
        "no AddressPool allocates addresses to namespace 'shop' and DirectorGroup 'edge'"
    );
}

#[test]
fn addresses_that_no_host_can_have_are_not_allocated() {
    let pools = mk_pools(&[(
        "a",
        mk_pool(&["0.0.0.0-0.0.0.1", "ff02::1", "::1-::2"], &[]),
    )]);
    assert!(given(&pools, "shop", Family::V4, &[]).is_err());
    assert_eq!(given(&pools, "shop", Family::V6, &[]).as_deref(), Ok("::2"));
}

#[test]
fn a_range_goes_from_low_to_high_in_one_family() {
    for text in [
        "",
        "x",
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-::1",
        "10.0.0.1-",
        "10.0.0.0/33",
    ] {
        assert!(text.parse::<AddressRange>().is_err(), "{text}");
    }
    let range: AddressRange = "10.0.0.9/24".parse().unwrap();
    assert_eq!(range.to_string(), "10.0.0.0-10.0.0.255");
    assert!(range.contains("10.0.0.255".parse().unwrap()));
    assert!(!range.contains("10.0.1.0".parse().unwrap()));
    let other = |text: &str| range.overlaps(&text.parse().unwrap());
    assert!(other("10.0.0.255-10.0.1.9") && !other("10.0.1.0/24") && !other("::/0"));
}

#[test]
fn a_range_may_reach_the_last_address_there_is() {
    let pool = mk_pool(&["223.255.255.255", "255.255.255.254-255.255.255.255"], &[]);
    let pools = mk_pools(&[("a", pool)]);
    assert!(given(&pools, "shop", Family::V4, &["223.255.255.255"]).is_err());
    let all = mk_pool(&["::/0"], &[]);
    assert_eq!(all.total(Family::V6), u128::MAX - 1);
}

//! Pools of addresses.

use std::collections::{BTreeMap, BTreeSet};

use lvs_model::{AddressRange, Pool, PoolName, Rejection, is_usable_unicast};

use super::findings::Findings;
use crate::{AddressPool, Namespaces};

/// The labels of each namespace.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// Converts an AddressPool of a file.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn address_pool(object: &AddressPool) -> Result<(PoolName, Pool), Vec<Rejection>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let identity = name.parse::<PoolName>();
    let mut findings = match &identity {
        Ok(name) => Findings::of(lvs_model::ObjectRef::AddressPool(name.clone())),
        Err(_) => Findings::of_unnamed(format!("AddressPool {name}")),
    };
    let identity = findings.take("metadata.name", identity);
    let namespaces = object.spec.namespaces.as_ref();
    if namespaces.is_some_and(|namespaces| namespaces.selector.is_some()) {
        let reason =
            "needs Kubernetes: without it, `spec.namespaces.names` must name the namespaces";
        findings.refuse("spec.namespaces.selector", reason);
    }
    super::group::namespaces("spec.namespaces", namespaces, &mut findings);
    let pool = pool(object, &NamespaceLabels::new(), &mut findings);
    match (findings.finish(), identity) {
        (Ok(()), Some(identity)) => Ok((identity, pool)),
        (rejections, _) => Err(rejections.err().unwrap_or_default()),
    }
}

/// Reads an AddressPool of a cluster, whose namespaces have these labels. Addresses with an error are left out; they are
/// returned beside the pool.
#[must_use]
pub fn pool_with_errors(
    object: &AddressPool,
    namespaces: &NamespaceLabels,
) -> (Pool, Vec<Rejection>) {
    let mut findings = Findings::of_unnamed(String::new());
    let pool = pool(object, namespaces, &mut findings);
    (pool, findings.finish().err().unwrap_or_default())
}

fn pool(object: &AddressPool, namespaces: &NamespaceLabels, findings: &mut Findings) -> Pool {
    let spec = &object.spec;
    let mut ranges: Vec<AddressRange> = Vec::with_capacity(spec.addresses.len());
    for (i, text) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let Some(range) = findings.take(&field, text.parse::<AddressRange>()) else {
            continue;
        };
        let (first, last) = range.ends();
        if !is_usable_unicast(first) || !is_usable_unicast(last) {
            findings.refuse(
                field,
                format!("must begin and end with unicast addresses of hosts, not '{range}'"),
            );
            continue;
        }
        match ranges.iter().find(|other| other.overlaps(&range)) {
            Some(other) => findings.refuse(field, format!("must not overlap '{other}'")),
            None => ranges.push(range),
        }
    }
    let groups = spec.director_groups.as_ref();
    Pool {
        ranges,
        groups: groups.map(|groups| groups.iter().filter_map(|name| name.parse().ok()).collect()),
        namespaces: spec
            .namespaces
            .as_ref()
            .map(|set| included(set, namespaces)),
        is_auto_assigned: spec.auto_assign,
        avoids_network_addresses: spec.avoid_network_addresses,
    }
}

/// The names of the namespaces in a set.
fn included(set: &Namespaces, namespaces: &NamespaceLabels) -> BTreeSet<String> {
    let selected = namespaces.iter();
    let selected = selected.filter(|(name, labels)| set.include(name, labels));
    let selected = selected.map(|(name, _)| name.clone());
    set.names.iter().cloned().chain(selected).collect()
}

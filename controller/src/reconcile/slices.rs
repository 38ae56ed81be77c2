//! Spreads many real servers over the slices of a binding.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crd::{
    BindingSlice, BoundServer, DirectorBinding, DirectorBindingSpec, MAX_REAL_SERVERS, MAX_SLICES,
    slice_name, slice_revision,
};
use lvs_model::ObjectName;

/// The desired binding of a director.
pub(super) struct DesiredBinding {
    /// The binding itself.
    pub first: DirectorBindingSpec,
    /// Its slices, by their names.
    pub slices: BTreeMap<ObjectName, DirectorBindingSpec>,
}

/// A real server without what may change in place.
type ServerKey<'a> = (&'a str, &'a [i64]);

/// Moves the real servers of a binding into slices if they are more than one object may have.
///
/// 1. A real server stays in the slice where it is, so that a change of one rewrites one slice and the binding, which then
///    has no real servers itself.
/// 2. Others take the free places, from the first slice on. Empty slices at the end are left out.
/// 3. If the real servers need less than half of the slices, they are spread anew.
pub(super) fn sliced<'a>(
    binding: &ObjectName,
    mut whole: DirectorBindingSpec,
    existing: impl Fn(&ObjectName) -> Option<&'a DirectorBinding>,
) -> DesiredBinding {
    let mut slices = BTreeMap::new();
    if whole.real_servers.len() > MAX_REAL_SERVERS {
        let mut servers = std::mem::take(&mut whole.real_servers);
        servers.sort_by(|one, other| key(one).cmp(&key(other)));
        let places = places(binding, &servers, existing);
        for (number, real_servers) in (1..).zip(spread(servers, &places)) {
            let revision = slice_revision(&real_servers).unwrap_or_default();
            whole.slices.push(revision.clone());
            let spec = DirectorBindingSpec {
                node: whole.node.clone(),
                virtual_service: whole.virtual_service.clone(),
                real_servers,
                slice: Some(BindingSlice {
                    of: binding.name().to_owned(),
                    number,
                    revision,
                }),
                ..DirectorBindingSpec::default()
            };
            slices.extend(
                name_of(binding, usize::try_from(number).unwrap_or(0)).map(|name| (name, spec)),
            );
        }
    }
    DesiredBinding {
        first: whole,
        slices,
    }
}

fn key(server: &BoundServer) -> ServerKey<'_> {
    (&server.address, &server.ports)
}

fn name_of(binding: &ObjectName, number: usize) -> Option<ObjectName> {
    ObjectName::new(binding.namespace(), &slice_name(binding.name(), number)).ok()
}

/// The slice in which each of the real servers is, counted from 0; empty if they are to be spread anew.
fn places<'a>(
    binding: &ObjectName,
    servers: &[BoundServer],
    existing: impl Fn(&ObjectName) -> Option<&'a DirectorBinding>,
) -> BTreeMap<(String, Vec<i64>), usize> {
    let desired: BTreeSet<ServerKey<'_>> = servers.iter().map(key).collect();
    let mut places = BTreeMap::new();
    let mut used = 0;
    for index in 0..MAX_SLICES {
        let found = name_of(binding, index + 1).and_then(|name| existing(&name));
        let found = found.into_iter().flat_map(|slice| &slice.spec.real_servers);
        for server in found.filter(|server| desired.contains(&key(server))) {
            let key = (server.address.clone(), server.ports.clone());
            places.entry(key).or_insert(index);
            used = index + 1;
        }
    }
    if used > 2 * servers.len().div_ceil(MAX_REAL_SERVERS) {
        places.clear();
    }
    places
}

/// Spreads real servers in the order of their keys over slices.
fn spread(
    servers: Vec<BoundServer>,
    places: &BTreeMap<(String, Vec<i64>), usize>,
) -> Vec<Vec<BoundServer>> {
    let mut slices: Vec<Vec<BoundServer>> = Vec::new();
    let mut others = Vec::new();
    for server in servers {
        let place = places.get(&(server.address.clone(), server.ports.clone()));
        match place {
            Some(index) => {
                if slices.len() <= *index {
                    slices.resize_with(index + 1, Vec::new);
                }
                slices
                    .get_mut(*index)
                    .into_iter()
                    .for_each(|slice| slice.push(server.clone()));
            }
            None => others.push(server),
        }
    }
    let mut index = 0;
    for server in others {
        while slices
            .get(index)
            .is_some_and(|slice| slice.len() >= MAX_REAL_SERVERS)
        {
            index += 1;
        }
        match slices.get_mut(index) {
            Some(slice) => slice.push(server),
            None => slices.push(vec![server]),
        }
    }
    for slice in &mut slices {
        slice.sort_by(|one, other| key(one).cmp(&key(other)));
    }
    slices
}

#[cfg(test)]
mod tests;

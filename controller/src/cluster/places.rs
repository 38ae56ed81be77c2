//! Which slice of its bindings each real server of a virtual service is in.

use std::collections::BTreeMap;

use lvs_crd::{BoundServer, DirectorBinding, MAX_REAL_SERVERS, MAX_SLICES};

/// What of a real server does not change in place: its address and its ports.
type ServerKey = (String, Vec<i64>);

/// Which slice of its bindings each real server of a virtual service is in, counted from 0: the same for all directors.
///
/// The places are remembered. What the watch shows lags behind what was written: places that followed it would be written
/// anew for ever, while many slices are in flight.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Places(BTreeMap<ServerKey, usize>);

impl Places {
    /// The places in slices that exist. A real server that several of them have stays in one of those.
    pub(crate) fn observed<'a>(bindings: impl Iterator<Item = &'a DirectorBinding>) -> Self {
        let mut places = Self::default();
        let mut counts = Counts::default();
        for binding in bindings {
            let slice = binding.spec.slice.as_ref();
            let number = slice.and_then(|slice| usize::try_from(slice.number).ok());
            let Some(index) = number.and_then(|number| number.checked_sub(1)) else {
                continue;
            };
            for server in &binding.spec.real_servers {
                if index < MAX_SLICES && !places.0.contains_key(&key(server)) && counts.take(index)
                {
                    places.0.insert(key(server), index);
                }
            }
        }
        places
    }

    /// Gives each real server a place.
    ///
    /// 1. A real server stays in its slice, so that a change of one rewrites one slice.
    /// 2. Others take the free places, from the first slice on.
    /// 3. If the real servers need less than half of the slices, all are spread anew.
    pub(crate) fn new(servers: &[BoundServer], before: &Self) -> Self {
        let stays = |server: &BoundServer| {
            let (key, place) = before.0.get_key_value(&key(server))?;
            Some((key.clone(), *place))
        };
        let mut places = Self(servers.iter().filter_map(stays).collect());
        if places.count() > 2 * servers.len().div_ceil(MAX_REAL_SERVERS) {
            places = Self::default();
        }
        let mut counts = Counts::default();
        for place in places.0.values() {
            counts.take(*place);
        }
        let mut others: Vec<ServerKey> = servers.iter().map(key).collect();
        others.retain(|key| !places.0.contains_key(key));
        others.sort();
        let mut index = 0;
        for server in others {
            while !counts.take(index) {
                index += 1;
            }
            places.0.insert(server, index);
        }
        places
    }

    /// Splits real servers into slices, each in the order of their keys. Empty slices at the end are left out.
    pub(crate) fn slices(&self, servers: Vec<BoundServer>) -> Vec<Vec<BoundServer>> {
        let mut slices = vec![Vec::new(); self.count()];
        for server in servers {
            let slice = self.0.get(&key(&server));
            if let Some(slice) = slice.and_then(|index| slices.get_mut(*index)) {
                slice.push(server);
            }
        }
        for slice in &mut slices {
            slice.sort_by_cached_key(key);
        }
        slices
    }

    /// The number of slices.
    fn count(&self) -> usize {
        self.0.values().max().map_or(0, |last| last + 1)
    }
}

fn key(server: &BoundServer) -> ServerKey {
    (server.address.clone(), server.ports.clone())
}

/// How many places of each slice are taken.
#[derive(Default)]
struct Counts(BTreeMap<usize, usize>);

impl Counts {
    /// Takes a place in a slice. Returns `false` if the slice is full.
    fn take(&mut self, index: usize) -> bool {
        let count = self.0.entry(index).or_default();
        let is_free = *count < MAX_REAL_SERVERS;
        *count += usize::from(is_free);
        is_free
    }
}

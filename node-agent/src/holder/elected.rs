//! Which VIPs this machine has by what it is in its virtual routers.

use std::collections::BTreeSet;

use lvs_model::{AddressKey, Holding, RouterKey};

use super::{moves::Moves, routers::Standings};

/// The VIPs that are added without a probe: those of active routers that know the other directors, and those that move between routers of
/// the group, which the director that has them keeps until they are announced. Where a router has another id than before, the director that
/// has its VIPs is active in it: one that hears none there may be the only one that knows the id.
pub(super) fn unasked(
    standings: &Standings,
    holding: &Holding,
    moves: &Moves,
) -> BTreeSet<AddressKey> {
    let known = standings.active.difference(&standings.alone);
    let mut unasked = vips_of(known, holding);
    let alone = vips_of(&standings.alone, holding).into_iter();
    unasked.extend(alone.filter(|vip| moves.is_moving(vip) && !moves.has_new_id(vip)));
    unasked
}

/// The VIPs of some virtual routers.
pub(super) fn vips_of<'k>(
    routers: impl IntoIterator<Item = &'k RouterKey>,
    holding: &Holding,
) -> BTreeSet<AddressKey> {
    let routers = routers.into_iter();
    let routers = routers.filter_map(|key| holding.routers.get(key));
    routers
        .flat_map(|router| router.vips.iter().cloned())
        .collect()
}

/// The VIPs of the virtual routers that cannot take part, with the reasons. Those that go on with earlier settings do take part.
pub(super) fn vips_of_failed(
    standings: &Standings,
    holding: &Holding,
) -> Vec<(AddressKey, String)> {
    let runs = |key: &RouterKey| standings.active.contains(key) || standings.standby.contains(key);
    let failed = standings.failed.iter().filter(|(key, _)| !runs(key));
    let failed = failed.flat_map(|(router, reason)| {
        let vips = holding.routers.get(router).into_iter();
        let vips = vips.flat_map(|router| &router.vips);
        vips.map(|vip| (vip.clone(), reason.clone()))
    });
    failed.collect()
}

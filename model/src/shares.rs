//! The weights of real servers that come from several backends.

/// The largest weight of a real server.
const MAX_WEIGHT: u128 = 65_535;

/// One backend of a virtual service and its share of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A machine with its weight.
    Machine(u32),
    /// A Service.
    Service {
        /// Its weight, for all of its endpoints together.
        weight: u32,
        /// The number of its endpoints that take new connections.
        endpoints: usize,
    },
}

impl Share {
    /// The weight, and the number of real servers that divide it.
    const fn parts(self) -> (u128, u128) {
        match self {
            Self::Machine(weight) => (weight as u128, 1),
            Self::Service { weight, endpoints } => (weight as u128, endpoints as u128),
        }
    }

    /// Returns whether a real server gets connections by it.
    const fn is_used(self) -> bool {
        let (weight, servers) = self.parts();
        weight > 0 && servers > 0
    }
}

/// Returns the weight of each real server of each backend, in the order of the backends.
///
/// 1. Without a Service, weights are as they are written.
/// 2. Otherwise, backends get connections in the ratio of their weights, however many endpoints they have. So a real server
///    gets the weight of its backend divided by the number of its endpoints that take new connections, and all of these are
///    multiplied to the smallest integers: weight 9 for one endpoint and weight 1 for three become 27, 1, 1 and 1.
/// 3. If the largest would exceed 65535, it becomes 65535; the others are rounded, and are at least 1.
/// 4. A backend with weight 0 gets 0, and so does one without such endpoints.
#[must_use]
pub fn spread(backends: &[Share]) -> Vec<u32> {
    let has_service = backends
        .iter()
        .any(|share| matches!(share, Share::Service { .. }));
    if !has_service {
        let weights = backends.iter().map(|share| share.parts().0);
        return weights.map(bounded).collect();
    }
    exact(backends).unwrap_or_else(|| rounded(backends))
}

/// Rule 2; `None` if a weight would be too large.
fn exact(backends: &[Share]) -> Option<Vec<u32>> {
    let used = || backends.iter().filter(|share| share.is_used());
    let mut factor = 1;
    for share in used() {
        let (weight, servers) = share.parts();
        factor = common_multiple(factor, servers / common_divisor(weight, servers))?;
    }
    let weight = |share: &Share| {
        let (weight, servers) = share.parts();
        if share.is_used() {
            weight * factor / servers
        } else {
            0
        }
    };
    let divisor = used().map(weight).fold(0, common_divisor).max(1);
    let weights = backends.iter().map(|share| weight(share) / divisor);
    let weights: Vec<u128> = weights.collect();
    let is_small = weights.iter().all(|weight| *weight <= MAX_WEIGHT);
    is_small.then(|| weights.into_iter().map(bounded).collect())
}

/// Rule 3.
fn rounded(backends: &[Share]) -> Vec<u32> {
    let used = backends.iter().filter(|share| share.is_used());
    let largest = used.map(|share| share.parts()).max_by(|one, other| {
        let ((weight, servers), (other_weight, other_servers)) = (one, other);
        (weight * other_servers).cmp(&(other_weight * servers))
    });
    let Some((most, divided)) = largest else {
        return vec![0; backends.len()];
    };
    let weights = backends.iter().map(|share| {
        if !share.is_used() {
            return 0;
        }
        let (weight, servers) = share.parts();
        let (numerator, denominator) = (MAX_WEIGHT * weight * divided, servers * most);
        bounded(((2 * numerator + denominator) / (2 * denominator)).max(1))
    });
    weights.collect()
}

fn bounded(weight: u128) -> u32 {
    u32::try_from(weight.min(MAX_WEIGHT)).unwrap_or_default()
}

const fn common_divisor(one: u128, other: u128) -> u128 {
    let (mut one, mut other) = (one, other);
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Returns the least common multiple; `None` if it is larger than any that rule 2 can use.
fn common_multiple(one: u128, other: u128) -> Option<u128> {
    let multiple = one / common_divisor(one, other) * other;
    (multiple <= u128::from(u64::MAX)).then_some(multiple)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn service(weight: u32, endpoints: usize) -> Share {
        Share::Service { weight, endpoints }
    }

    #[test]
    fn weights_of_machines_are_as_written() {
        let machines = [8, 0, 65_535, 4].map(Share::Machine);
        assert_eq!(spread(&machines), [8, 0, 65_535, 4]);
        assert_eq!(spread(&[]), [0; 0]);
    }

    #[test]
    fn ninety_to_ten_holds_for_any_numbers_of_endpoints() {
        for (backends, expected) in [
            ([service(90, 1), service(10, 1)], [9, 1]),
            ([service(9, 3), service(1, 1)], [3, 1]),
            ([service(9, 1), service(1, 3)], [27, 1]),
            ([service(9, 10), service(1, 2)], [9, 5]),
            ([service(9, 7), service(1, 1)], [9, 7]),
            ([service(9, 10_000), service(1, 1)], [9, 10_000]),
            ([service(9, 4), Share::Machine(1)], [9, 4]),
            ([service(9, 0), service(1, 2)], [0, 1]),
            ([service(0, 5), service(1, 2)], [0, 1]),
            ([service(0, 5), service(0, 2)], [0, 0]),
        ] {
            assert_eq!(spread(&backends), expected, "{backends:?}");
        }
    }

    #[test]
    fn the_endpoints_of_a_single_service_get_one() {
        assert_eq!(spread(&[service(100, 17)]), [1]);
        assert_eq!(spread(&[service(0, 17)]), [0]);
    }

    #[test]
    fn a_ratio_beyond_the_largest_weight_comes_as_near_as_weights_can() {
        assert_eq!(spread(&[service(9, 1), service(1, 10_000)]), [65_535, 1]);
        let coprime = [9973, 9967, 9949, 9941].map(|endpoints| service(1, endpoints));
        let weights = spread(&coprime);
        assert_eq!(weights, [65_325, 65_364, 65_482, 65_535]);
    }

    proptest! {
        #[test]
        fn shares_are_kept_within_a_percent(
            backends in prop::collection::vec((1..=100_u32, 1..=50_usize), 1..5),
        ) {
            let shares: Vec<_> = backends.iter().map(|(weight, count)| service(*weight, *count)).collect();
            let weights = spread(&shares);
            let all: u32 = backends.iter().map(|(weight, _)| weight).sum();
            let totals: Vec<f64> = weights.iter().zip(&backends)
                .map(|(weight, (_, count))| f64::from(*weight) * f64::from(u32::try_from(*count).unwrap()))
                .collect();
            let total: f64 = totals.iter().sum();
            for ((weight, _), found) in backends.iter().zip(&totals) {
                let wanted = f64::from(*weight) / f64::from(all);
                prop_assert!((found / total - wanted).abs() < 0.01, "{weights:?}");
            }
            prop_assert!(weights.iter().all(|weight| (1..=65_535).contains(weight)));
        }
    }
}

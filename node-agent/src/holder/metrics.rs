//! Metrics of the virtual routers.

use std::{fmt, sync::Arc};

use lvs_model::RouterKey;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What is counted of the virtual routers. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouterMetrics {
    active: Family<RouterLabels, Gauge>,
    transitions: Family<RouterLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    contested: Gauge,
}

/// A virtual router of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouterLabels {
    interface: Arc<str>,
    family: String,
    router_id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    interface: Arc<str>,
    reason: String,
}

impl RouterLabels {
    fn of(key: &RouterKey) -> Self {
        Self {
            interface: key.interface.as_str().into(),
            family: key.family.to_string(),
            router_id: key.router_id.into(),
        }
    }
}

impl RouterMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "vrrp_active",
            "Whether this machine holds the VIPs of a virtual router",
            self.active.clone(),
        );
        registry.register(
            "vrrp_transitions",
            "How often this machine began or ceased to hold the VIPs of a virtual router",
            self.transitions.clone(),
        );
        registry.register(
            "vrrp_refused_packets",
            "VRRP packets that were malformed, not from the network itself, or from none of the peers",
            self.refused.clone(),
        );
        registry.register(
            "contested_vips",
            "VIPs of this machine for which another machine answers too",
            self.contested.clone(),
        );
    }

    /// Sets how many of the VIPs that this machine holds another one answers for.
    pub(super) fn set_contested(&self, count: usize) {
        self.contested.set(count.try_into().unwrap_or(i64::MAX));
    }

    /// Sets whether this machine holds the VIPs of a router.
    pub(super) fn set_active(&self, key: &RouterKey, is_active: bool) {
        let labels = RouterLabels::of(key);
        let before = self.active.get_or_create(&labels).set(is_active.into());
        if before != i64::from(is_active) {
            self.transitions.get_or_create(&labels).inc();
        }
    }

    /// Removes a router that this machine takes no part in any more.
    pub(super) fn remove(&self, key: &RouterKey) {
        let labels = RouterLabels::of(key);
        self.active.remove(&labels);
        self.transitions.remove(&labels);
    }

    /// Counts a packet that is ignored.
    pub(super) fn refuse(&self, key: &RouterKey, reason: &dyn fmt::Display) {
        let labels = RefusedLabels {
            interface: key.interface.as_str().into(),
            reason: reason.to_string(),
        };
        self.refused.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use lvs_model::Family;
    use lvs_vrrp::ParseErrorKind;
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_router_is_shown_as_long_as_it_exists() {
        let metrics = RouterMetrics::default();
        let mut registry = Registry::with_prefix("lvs_agent");
        metrics.register(&mut registry);
        let key = RouterKey {
            interface: "eth0".parse().unwrap(),
            family: Family::V4,
            router_id: 51,
        };
        for is_active in [false, true, true, false, true] {
            metrics.set_active(&key, is_active);
        }
        metrics.set_contested(2);
        metrics.refuse(&key, &ParseErrorKind::Checksum);
        let shown = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let labels = r#"interface="eth0",family="IPv4",router_id="51""#;
        assert_eq!(
            shown(&registry),
            [
                format!("lvs_agent_vrrp_active{{{labels}}} 1"),
                format!("lvs_agent_vrrp_transitions_total{{{labels}}} 3"),
                r#"lvs_agent_vrrp_refused_packets_total{interface="eth0",reason="checksum"} 1"#
                    .to_owned(),
                "lvs_agent_contested_vips 2".to_owned(),
            ]
        );
        metrics.remove(&key);
        assert_eq!(shown(&registry).len(), 2);
    }
}

//! The CRDs on a real API server: applying them gives no warning, and each CEL rule accepts and refuses.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{ControlPlane, Objects, wait_until};
use serde_json::{Value, json};

#[path = "../../cel-cases/cases.rs"]
mod cases;

use cases::{Case, Cases};

#[test]
fn the_definitions_apply_without_a_warning_and_each_rule_accepts_and_refuses() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crds.yaml");
    let output = control_plane
        .kubectl_command(&control_plane.kubeconfig())?
        .args(["apply", "--server-side", "-f"])
        .arg(crds)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "", "the API server warns");

    let objects = Objects::of(&control_plane.kubeconfig())?;
    for kind in KINDS {
        let definition = format!("{}.lvs-operator.io", kind.plural);
        let definition = control_plane.kubectl(&["get", "crd", &definition, "-o", "json"])?;
        let definition: Value = serde_json::from_str(&definition)?;
        let mut rules = cases::rules_of(&definition);
        rules.retain(|(at, _)| (kind.is_tried)(at));
        kind.try_all(&objects, &rules)
            .with_context(|| kind.name.to_owned())?;
    }
    Ok(())
}

/// Flux applies manifests with the fields that its users set to null.
#[test]
fn a_field_that_is_null_counts_as_absent() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crds.yaml");
    let crds = crds.to_str().context("a path that is no text")?;
    control_plane.kubectl(&["apply", "--server-side", "-f", crds])?;
    let file = std::env::temp_dir().join(format!("lvs-null-{}.yaml", std::process::id()));
    std::fs::write(&file, NULLS)?;
    let path = file.to_str().context("a path that is no text")?;
    let apply = ["apply", "--server-side", "--field-manager=flux", "-f", path];
    let applied = wait_until("the kind to be served", Duration::from_secs(20), || {
        Ok(control_plane.kubectl(&apply).ok())
    });
    if applied.is_err() {
        control_plane.kubectl(&apply)?;
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

/// kubectl reads YAML 1.1, in which `on` is true.
#[test]
fn what_files_refuse_because_of_its_type_the_api_server_refuses_too() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crds.yaml");
    let crds = crds.to_str().context("a path that is no text")?;
    control_plane.kubectl(&["apply", "--server-side", "-f", crds])?;
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("bad-input");
    let group = "apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {name: default}
spec: {nodes: {names: [lvs1]}}";
    let namespace = "apiVersion: v1
kind: Namespace
metadata: {name: shop}";
    control_plane.apply(namespace)?;
    wait_until("the kinds to be served", Duration::from_secs(20), || {
        Ok(control_plane.apply(group).ok())
    })?;
    for (file, complaint) in [
        ("031-port-is-text", "spec.ports[1].port"),
        ("120-port-range", "spec.ports[0].port"),
        ("121-service-name-as-port", "spec.ports[0].port"),
        ("122-number-as-port-entry", "spec.ports"),
        ("123-scheduler-as-text", "spec.scheduler"),
        ("124-netmask-as-prefix-length", "ipv4PrefixLength"),
        ("125-keepalived-words", "unknown field \"spec.lb_kind\""),
        ("128-weight-in-quotes", "spec.backends[0].weight"),
        ("129-name-is-on", "metadata.name"),
    ] {
        let object = std::fs::read_to_string(inputs.join(format!("{file}.yaml")))?;
        let error = control_plane.apply(&object).err();
        let error = error.with_context(|| format!("{file}: not refused"))?;
        let error = format!("{error:#}");
        ensure!(error.contains(complaint), "{file}: {error}");
    }
    Ok(())
}

const NULLS: &str = "
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: nulls, namespace: default}
spec:
  addresses: [192.168.220.100]
  addressPool: null
  ipFamilies: null
  fwmark: null
  ports: [{port: 80, name: null, targetPort: null}]
  forwarding: DR
  tunnel: null
  nat: null
  persistence: {engine: null}
  backends:
  - {address: 192.168.220.132, service: null, port: null, forwarding: null}
---
apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: tunnel, namespace: default}
spec:
  addresses: [192.168.220.101]
  ports: [{port: 80}]
  forwarding: TUN
  tunnel: {type: GRE, port: null}
  persistence: null
  backends: null
---
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {name: nulls}
spec:
  nodes: {names: [lvs1], selector: null}
  interface: null
  gateways: null
  realServers: {cidrs: [192.168.100.0/24], namespaces: {names: [shop], selector: null}}
  fwmarks: [{from: 1, to: 9, namespaces: {names: [shop], selector: null}}]
  failover: {virtualRouterId: null, routers: 2, preemptAfterSeconds: null, priorities: null, standby: null, unicast: null}
  connectionSync: {interface: null, maxMessageBytes: null, multicastGroup: null}
  timeouts: null
---
apiVersion: lvs-operator.io/v1alpha1
kind: DirectorGroup
metadata: {name: plain}
spec:
  nodes: {names: [lvs2]}
  realServers: null
  fwmarks: null
  failover: null
  connectionSync: null
---
apiVersion: lvs-operator.io/v1alpha1
kind: AddressPool
metadata: {name: nulls}
spec:
  addresses: [192.168.230.100]
  directorGroups: null
  namespaces: null
";

/// A kind, and how the spec of the cases becomes its spec.
struct Kind {
    name: &'static str,
    plural: &'static str,
    is_namespaced: bool,
    /// The file of its cases.
    cases: &'static str,
    spec: fn(&Value) -> Value,
    /// Returns the path in its spec of a field of the cases.
    place: fn(&str) -> String,
    /// Returns whether a path in its spec is tried.
    is_tried: fn(&str) -> bool,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "VirtualService",
        plural: "virtualservices",
        is_namespaced: true,
        cases: "virtual-service",
        spec: Value::clone,
        place: str::to_owned,
        is_tried: |_| true,
    },
    Kind {
        name: "DirectorGroup",
        plural: "directorgroups",
        is_namespaced: false,
        cases: "director-group",
        spec: Value::clone,
        place: str::to_owned,
        is_tried: |_| true,
    },
    Kind {
        name: "AddressPool",
        plural: "addresspools",
        is_namespaced: false,
        cases: "address-pool",
        spec: Value::clone,
        place: str::to_owned,
        is_tried: |_| true,
    },
    Kind {
        name: "DirectorBinding",
        plural: "directorbindings",
        is_namespaced: true,
        cases: "virtual-service",
        spec: |service| bound(service, &["scheduler", "persistence", "onePacket"]),
        place: str::to_owned,
        is_tried: |_| true,
    },
    Kind {
        name: "RealServerBinding",
        plural: "realserverbindings",
        is_namespaced: true,
        cases: "virtual-service",
        spec: |service| bound(service, &[]),
        place: str::to_owned,
        is_tried: |at| !at.starts_with(PREVIOUS),
    },
    Kind {
        name: "RealServerBinding",
        plural: "realserverbindings",
        is_namespaced: true,
        cases: "virtual-service",
        spec: previous,
        place: |at| at.replacen("spec", PREVIOUS, 1),
        is_tried: |at| at.starts_with(PREVIOUS),
    },
    Kind {
        name: "LvsNode",
        plural: "lvsnodes",
        is_namespaced: false,
        cases: "director-group",
        spec: membership,
        place: |at| {
            let at = at.replace("spec.connectionSync", "spec.groups[].connectionSync");
            at.replace("spec.failover.unicast", "spec.groups[].failover.unicast")
        },
        is_tried: |_| true,
    },
];

/// The version of a virtual service from before a change.
const PREVIOUS: &str = "spec.previous";

/// Returns an LvsNode's spec with what a group and its membership have in common.
fn membership(group: &Value) -> Value {
    let mut membership = json!({"name": "edge"});
    if let Some(sync) = group.get("connectionSync") {
        membership["connectionSync"] = sync.clone();
    }
    if let Some(unicast) = group.pointer("/failover/unicast") {
        membership["failover"] = json!({
            "virtualRouterId": 51,
            "advertisementMilliseconds": 100,
            "priorities": [100],
            "unicast": unicast,
        });
    }
    json!({"groups": [membership]})
}

/// Returns the fields of a virtual service that a binding has too.
fn bound(service: &Value, more: &[&str]) -> Value {
    let mut bound = json!({"node": "lvs1", "virtualService": "web"});
    let fields = ["addresses", "fwmark", "forwarding", "tunnel", "nat"];
    for field in fields.iter().chain(more) {
        if let Some(value) = service.get(field) {
            bound[field] = value.clone();
        }
    }
    bound
}

/// Returns a RealServerBinding's spec with the fields of a virtual service in its version from before.
fn previous(service: &Value) -> Value {
    let mut previous = json!({
        "since": "2026-01-01T00:00:00Z", "addresses": [], "ports": [], "realServers": [],
    });
    for field in ["forwarding", "tunnel", "scheduler"] {
        if let Some(value) = service.get(field) {
            previous[field] = value.clone();
        }
    }
    json!({"node": "rs1", "virtualService": "web", "previous": previous})
}

impl Kind {
    /// Tries the cases of all rules of the kind; each rule must have one.
    fn try_all(&self, objects: &Objects, rules: &BTreeSet<(String, String)>) -> Result<()> {
        let cases = Cases::of(self.cases);
        let mut object = json!({
            "apiVersion": "lvs-operator.io/v1alpha1",
            "kind": self.name,
            "metadata": {"name": "tried"},
        });
        if self.is_namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        let mut attempt = |changes: &Value| {
            object["spec"] = (self.spec)(&cases.spec_with(changes));
            objects.try_to_create(&object)
        };
        wait_until("the kind to be served", Duration::from_secs(20), || {
            Ok(attempt(&json!({})).ok())
        })?;
        let mut tried = BTreeSet::new();
        for case in &cases.cases {
            let Case { at, message, .. } = case;
            let rule = ((self.place)(at), message.clone());
            if !rules.contains(&rule) {
                continue;
            }
            attempt(&case.accepted).with_context(|| format!("{at}: {message}"))?;

            let error = attempt(&case.refused)
                .err()
                .with_context(|| format!("{at}: {message}: not refused"))?;
            let causes = causes(&error).with_context(|| format!("{at}: {message}: {error:#}"))?;
            assert!(causes.contains(message), "{at}: {message}: {causes:?}");
            tried.insert(rule);
        }
        assert_eq!(&tried, rules, "a rule of {} has no case", self.name);
        println!(
            "{}: {} rules, each accepted and refused",
            self.name,
            tried.len()
        );
        Ok(())
    }
}

/// The messages of a refusal, one for each rule.
fn causes(error: &anyhow::Error) -> Option<BTreeSet<String>> {
    let kube::Error::Api(status) = error.downcast_ref()? else {
        return None;
    };
    let causes = status.details.as_ref()?.causes.iter();
    let messages = causes.map(|cause| {
        let message = cause.message.strip_prefix("Invalid value: ");
        let message = message.unwrap_or(&cause.message);
        // The message of a string quotes the value first.
        let shown = message
            .strip_prefix('"')
            .and_then(|text| text.split_once("\": "));
        shown.map_or(message, |(_, message)| message).to_owned()
    });
    Some(messages.collect())
}

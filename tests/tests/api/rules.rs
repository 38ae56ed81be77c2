//! The CRDs on a real API server: what is applied prints no warning, and each CEL rule lets through and refuses.

#![expect(clippy::indexing_slicing, reason = "the helpers of a test may fail it")]

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{ControlPlane, Objects, wait_until};
use serde::Deserialize;
use serde_json::{Value, json};

/// The rules of one kind, as they stand in `tests/cel-cases`.
#[derive(Deserialize)]
struct Cases {
    spec: Value,
    cases: Vec<Case>,
}

/// A rule by the field that it stands at and its message, with a spec that it lets through and one that it refuses.
#[derive(Deserialize)]
struct Case {
    at: String,
    message: String,
    accepted: Value,
    refused: Value,
}

#[test]
fn the_definitions_are_applied_without_a_warning_and_each_rule_lets_through_and_refuses()
-> Result<()> {
    let control_plane = ControlPlane::start()?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crds.yaml");
    let output = control_plane
        .kubectl_command(&control_plane.kubeconfig())?
        .args(["apply", "--server-side", "-f"])
        .arg(crds)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    assert_eq!(said, "", "the API server warns");

    let objects = Objects::of(&control_plane.kubeconfig())?;
    for kind in KINDS {
        let definition = format!("{}.lvs-operator.io", kind.plural);
        let definition = control_plane.kubectl(&["get", "crd", &definition, "-o", "json"])?;
        let definition: Value = serde_json::from_str(&definition)?;
        let mut rules = BTreeSet::new();
        collect_rules(
            &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            "",
            &mut rules,
        );
        kind.try_all(&objects, &rules)
            .with_context(|| kind.name.to_owned())?;
    }
    Ok(())
}

/// A kind, and how its spec is made of the spec of the cases.
struct Kind {
    name: &'static str,
    plural: &'static str,
    is_namespaced: bool,
    /// The file of its cases.
    cases: &'static str,
    spec: fn(&Value) -> Value,
    /// Where a field of the cases is in it.
    place: fn(&str) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "VirtualService",
        plural: "virtualservices",
        is_namespaced: true,
        cases: "virtual-service",
        spec: Value::clone,
        place: str::to_owned,
    },
    Kind {
        name: "DirectorGroup",
        plural: "directorgroups",
        is_namespaced: false,
        cases: "director-group",
        spec: Value::clone,
        place: str::to_owned,
    },
    Kind {
        name: "DirectorBinding",
        plural: "directorbindings",
        is_namespaced: true,
        cases: "virtual-service",
        spec: |service| json!({"node": "lvs1", "virtualService": "web", "generation": 1, "service": service}),
        place: |field| field.replacen("spec", "spec.service", 1),
    },
    Kind {
        name: "LvsNode",
        plural: "lvsnodes",
        is_namespaced: false,
        cases: "virtual-service",
        spec: served,
        place: |field| {
            let field = field.replacen("spec", "spec.serves[]", 1);
            field.replacen(".backends.endpoints", ".endpoints", 1)
        },
    },
];

/// What a real server must know of a virtual service.
fn served(service: &Value) -> Value {
    let mut served = json!({"namespace": "default", "name": "web", "directorGroup": "default"});
    for field in [
        "addresses",
        "fwmark",
        "ports",
        "forwarding",
        "tunnel",
        "nat",
    ] {
        if let Some(value) = service.get(field) {
            served[field] = value.clone();
        }
    }
    if let Some(endpoints) = service.pointer("/backends/endpoints") {
        served["endpoints"] = endpoints.clone();
    }
    json!({"serves": [served]})
}

/// Every rule of a schema, as path and message.
fn collect_rules(schema: &Value, path: &str, rules: &mut BTreeSet<(String, String)>) {
    let own = schema.get("x-kubernetes-validations").into_iter();
    let own = own.filter_map(Value::as_array).flatten();
    let messages = own.filter_map(|rule| rule.get("message")?.as_str());
    rules.extend(messages.map(|message| (path.to_owned(), message.to_owned())));
    if let Some(items) = schema.get("items") {
        collect_rules(items, &format!("{path}[]"), rules);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let path = [path, name].join(if path.is_empty() { "" } else { "." });
        collect_rules(property, &path, rules);
    }
}

impl Kind {
    /// Tries the cases of those rules that the kind has; there must be one of each.
    fn try_all(&self, objects: &Objects, rules: &BTreeSet<(String, String)>) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = fs::read_to_string(root.join(format!("cel-cases/{}.yaml", self.cases)))?;
        let Cases { spec, cases } = serde_saphyr::from_str(&file)?;
        let mut object = json!({
            "apiVersion": "lvs-operator.io/v1alpha1",
            "kind": self.name,
            "metadata": {"name": "tried"},
        });
        if self.is_namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        let mut attempt = |changes: &Value| {
            object["spec"] = (self.spec)(&merged(spec.clone(), changes));
            objects.try_to_create(&object)
        };
        wait_until("the kind to be served", Duration::from_secs(20), || {
            Ok(attempt(&json!({})).ok())
        })?;
        let mut tried = BTreeSet::new();
        for case in &cases {
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
        // A text is shown before what is wrong with it.
        let shown = message
            .strip_prefix('"')
            .and_then(|text| text.split_once("\": "));
        shown.map_or(message, |(_, message)| message).to_owned()
    });
    Some(messages.collect())
}

/// The spec with the fields of `changes` in place of its own.
fn merged(mut spec: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

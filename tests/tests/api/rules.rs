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
    let tried = try_all(&objects, "VirtualService", "virtual-service")?
        + try_all(&objects, "DirectorGroup", "director-group")?;
    println!("{tried} rules, each accepted and refused");
    Ok(())
}

fn try_all(objects: &Objects, kind: &str, file: &str) -> Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = fs::read_to_string(root.join(format!("cel-cases/{file}.yaml")))?;
    let Cases { spec, cases } = serde_saphyr::from_str(&file)?;
    let mut object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "tried"},
    });
    if kind == "VirtualService" {
        object["metadata"]["namespace"] = "default".into();
    }
    let mut attempt = |changes: &Value| {
        object["spec"] = merged(spec.clone(), changes);
        objects.try_to_create(&object)
    };
    wait_until("the kind to be served", Duration::from_secs(20), || {
        Ok(attempt(&json!({})).ok())
    })?;
    for case in &cases {
        let Case { at, message, .. } = case;
        attempt(&case.accepted).with_context(|| format!("{at}: {message}"))?;

        let error = attempt(&case.refused)
            .err()
            .with_context(|| format!("{at}: {message}: not refused"))?;
        let causes = causes(&error).with_context(|| format!("{at}: {message}: {error:#}"))?;
        assert!(causes.contains(message), "{at}: {message}: {causes:?}");
    }
    Ok(cases.len())
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

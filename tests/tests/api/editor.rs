//! An account with the built-in role `edit` in one namespace, with what the chart adds to that role.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Objects, Operator, wait_until};
use serde_json::{Value, json};

/// The built-in roles, each before those that aggregate it.
const ROLES: [&str; 2] = ["view", "edit"];

/// The name that the API server knows an account by.
pub(crate) fn user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Creates an account with the role `edit` in its namespace, and returns the objects as it sees them.
pub(crate) fn create(operator: &Operator, namespace: &str, name: &str) -> Result<Objects> {
    ROLES
        .iter()
        .try_for_each(|role| aggregate(operator, role))?;
    operator.admin.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }))?;
    operator.admin.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": namespace, "name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
    }))?;
    let control_plane = &operator.control_plane;
    let token = control_plane.kubectl(&["create", "token", name, "--namespace", namespace])?;
    let objects = Objects::of(&control_plane.kubeconfig_for_token(name, token.trim_end())?)?;
    let any = format!("{namespace}/any");
    wait_until("the role to take effect", Duration::from_secs(20), || {
        Ok(objects.find("VirtualService", &any).ok())
    })?;
    Ok(objects)
}

/// Gives a role the rules of the roles that it selects by their labels. In a cluster, the controller manager does it.
fn aggregate(operator: &Operator, role: &str) -> Result<()> {
    let admin = &operator.admin;
    let object = admin.get("ClusterRole", role)?;
    let selectors = object.pointer("/aggregationRule/clusterRoleSelectors");
    let selectors = selectors.and_then(Value::as_array);
    let mut rules = Vec::new();
    for selector in selectors.context("it aggregates no role")? {
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let labels = labels.context("a selector has no labels")?.iter();
        let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
        let selected = admin.list("ClusterRole", &labels.collect::<Vec<_>>().join(","))?;
        let found = selected.iter().filter_map(|role| role["rules"].as_array());
        rules.extend(found.flatten().cloned());
    }
    admin
        .merge("ClusterRole", role, &json!({"rules": rules}))
        .map(drop)
}

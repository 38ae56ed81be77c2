//! Installs, upgrades and uninstalls the chart on a cluster, as an administrator does.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cluster, machines::MACHINES};
use crate::operator::{CHART, NAMESPACE, helm, user};

/// The option of kubectl that limits how long a rollout may take.
const TIMEOUT: &str = "--timeout=300s";

/// The name of the release, and of the chart.
const RELEASE: &str = "lvs-operator";

/// The workloads of a release.
const WORKLOADS: [&str; 2] = [
    "deployment/lvs-operator-controller",
    "daemonset/lvs-operator-agent",
];

/// A tag of the images that were built here. Both tags are on the same images.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tag {
    /// `one`.
    One,
    /// `two`.
    Two,
}

impl Tag {
    fn text(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

impl Cluster {
    /// Installs the chart, waits until all its pods are ready, and creates the LvsNodes of the machines outside the cluster.
    pub fn install(&self) -> Result<()> {
        self.kubectl(&["create", "namespace", NAMESPACE])?;
        let level = "pod-security.kubernetes.io/enforce=privileged";
        self.kubectl(&["label", "namespace", NAMESPACE, level])?;
        let label = ["label", "node", "--all", "lvs-operator.io/agent=true"];
        self.kubectl(&label)?;
        self.helm("install", Tag::One)?;
        self.await_rollout()?;
        self.control_plane.apply(&lvs_nodes()).map(drop)
    }

    /// Upgrades the release to another tag of the images, and waits until all its pods are new and ready.
    pub fn upgrade(&self, tag: Tag) -> Result<()> {
        self.helm("upgrade", tag)?;
        self.await_rollout()
    }

    /// Uninstalls the release, and deletes its namespace.
    pub fn uninstall(&self) -> Result<()> {
        let arguments = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"];
        helm(&self.control_plane, &arguments)?;
        self.kubectl(&["delete", "namespace", NAMESPACE, TIMEOUT])
            .map(drop)
    }

    /// Runs the chart's own tests.
    pub fn test_release(&self) -> Result<()> {
        let arguments = ["test", RELEASE, "--namespace", NAMESPACE];
        helm(&self.control_plane, &arguments).map(drop)
    }

    /// The tag of the agents' image; `None` if there is no release.
    pub fn release(&self) -> Result<Option<Tag>> {
        let image = "jsonpath={.items[*].spec.template.spec.containers[0].image}";
        let image = self.kubectl(&["get", "daemonsets", "--namespace", NAMESPACE, "-o", image])?;
        let is = |tag: &Tag| image.ends_with(&format!(":{}", tag.text()));
        Ok([Tag::One, Tag::Two].into_iter().find(is))
    }

    /// Waits until all pods of the release are up to date and ready.
    pub fn await_rollout(&self) -> Result<()> {
        for workload in WORKLOADS {
            let arguments = ["rollout", "status", workload, "--namespace", NAMESPACE];
            self.kubectl(&[&arguments as &[&str], &[TIMEOUT]].concat())?;
        }
        Ok(())
    }

    fn helm(&self, verb: &str, tag: Tag) -> Result<()> {
        let values = self.directory.path().join("values.json");
        std::fs::write(&values, self.values(tag).to_string())
            .context("could not write the values of the chart")?;
        let values = values.display().to_string();
        let arguments = [
            verb,
            RELEASE,
            CHART,
            "--namespace",
            NAMESPACE,
            "--values",
            &values,
        ];
        helm(&self.control_plane, &arguments).map(drop)
    }

    fn values(&self, tag: Tag) -> Value {
        let image = |name: &str| json!({"repository": format!("lvs-operator.test/{name}"), "tag": tag.text()});
        let machines: Vec<Value> = MACHINES
            .iter()
            .map(|(name, _)| json!({"name": name, "user": user(name)}))
            .collect();
        json!({
            "machines": machines,
            "agent": {"image": image("lvs-agent")},
            "controller": {"image": image("lvs-controller")},
        })
    }
}

/// The LvsNodes of the machines outside the cluster, as an administrator writes them.
fn lvs_nodes() -> String {
    let object = |(name, _): &(&str, u8)| {
        format!(
            "apiVersion: lvs-operator.io/v1alpha1\nkind: LvsNode\nmetadata: {{name: {name}}}\nspec: {{identity: '{}'}}\n---\n",
            user(name)
        )
    };
    MACHINES.iter().map(object).collect()
}

//! The file format of scenarios.

use std::{collections::BTreeMap, path::Path};

use lvs_crd::{convert, manifest};
use lvs_model::{ClusterView, Rejection};
use serde::Deserialize;

use crate::machine::Description;

/// A scenario: machines, and the steps that happen to them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// What the scenario shows.
    pub(crate) title: String,
    /// The machines by their names.
    pub(crate) machines: BTreeMap<String, Description>,
    /// What happens, in order.
    pub(crate) steps: Vec<Act>,
}

/// One step of a scenario: what happens before the next pass of every machine.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// What happens, in words.
    pub(crate) title: String,
    /// The manifests from this step on. `None`: those of the step before.
    pub(crate) manifests: Option<String>,
    /// Edits of the manifests: old text and new text.
    #[serde(default)]
    edit: BTreeMap<String, String>,
    /// How much time has passed since the step before.
    #[serde(default)]
    pub(crate) after_seconds: u64,
    /// Commands of the administrator, by machine.
    #[serde(default)]
    pub(crate) events: Vec<BTreeMap<String, String>>,
}

impl Script {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut script: Self = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut manifests = String::new();
        for act in &mut script.steps {
            if let Some(new) = &act.manifests {
                manifests.clone_from(new);
            }
            for (old, new) in &act.edit {
                assert!(
                    manifests.contains(old),
                    "{}: no '{old}' in '{}'",
                    path.display(),
                    act.title
                );
                manifests = manifests.replace(old, new);
            }
            act.manifests = Some(manifests.clone());
        }
        script.steps.push(Act {
            title: "cleanup".to_owned(),
            manifests: None,
            edit: BTreeMap::new(),
            after_seconds: 0,
            events: Vec::new(),
        });
        script
    }
}

/// The order of the documents, and of the real servers in each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    AsWritten,
    Reversed,
    Shuffled(u64),
}

impl Order {
    fn apply<T>(self, items: &mut [T]) {
        match self {
            Self::AsWritten => {}
            Self::Reversed => items.reverse(),
            Self::Shuffled(mut seed) => {
                for index in (1..items.len()).rev() {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    items.swap(index, usize::try_from(seed >> 33).unwrap() % (index + 1));
                }
            }
        }
    }
}

/// Reads manifests as the agent does.
pub(crate) fn view(manifests: &str, order: Order) -> (ClusterView, Vec<Rejection>) {
    let mut documents: Vec<&str> = manifests.split("---\n").collect();
    order.apply(&mut documents);
    let manifest = manifest::parse("scenario.yaml", documents.join("\n---\n").as_bytes());
    let mut rejections: Vec<Rejection> = manifest
        .rejections
        .into_iter()
        .map(|rejected| rejected.rejection)
        .collect();
    let mut view = ClusterView::default();
    for object in manifest.objects {
        match object.object {
            manifest::Object::VirtualService(object) => match convert::virtual_service(&object) {
                Ok((name, mut service)) => {
                    order.apply(&mut service.real_servers);
                    view.services.insert(name, service.into());
                }
                Err(refused) => rejections.extend(refused),
            },
            manifest::Object::AddressPool(object) => match convert::address_pool(&object) {
                Ok((name, pool)) => view.pools.set(name, Some(pool)),
                Err(refused) => rejections.extend(refused),
            },
            manifest::Object::DirectorGroup(object) => match convert::director_group(&object) {
                Ok((name, group)) => {
                    view.groups.insert(name, group);
                }
                Err(refused) => rejections.extend(refused),
            },
        }
    }
    (view, rejections)
}

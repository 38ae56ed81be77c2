//! The objects of the API, watched; what changes is told one by one.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lvs_crd::{DirectorBinding, DirectorGroup, LvsNode, VirtualService};
use lvs_model::ObjectName;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::cluster::Change;

/// The kinds that are watched.
pub(crate) const KINDS: usize = 7;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Notice {
    /// An object was made, changed or deleted.
    Changed(Change),
    /// All objects of one more kind have been told once.
    Complete(&'static str),
}

/// Watches every kind that the controller reads.
pub(crate) fn watch_all(client: &Client) -> impl Stream<Item = Notice> + Unpin {
    let streams: [BoxStream<'static, Notice>; KINDS] = [
        watch::<VirtualService>(client, |name, object| {
            Some(Change::VirtualService(name.object()?, object))
        }),
        watch::<DirectorGroup>(client, |name, object| {
            Some(Change::DirectorGroup(name.name, object))
        }),
        watch::<Service>(client, |name, object| {
            Some(Change::Service(name.object()?, object.is_some()))
        }),
        watch::<EndpointSlice>(client, |name, object| {
            Some(Change::EndpointSlice(name.object()?, object))
        }),
        watch::<Node>(client, |name, object| Some(Change::Node(name.name, object))),
        watch::<LvsNode>(client, |name, object| {
            Some(Change::LvsNode(name.name, object))
        }),
        watch::<DirectorBinding>(client, |name, object| {
            Some(Change::DirectorBinding(name.object()?, object))
        }),
    ];
    stream::select_all(streams)
}

/// Namespace and name as the API has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    namespace: Option<String>,
    name: String,
}

impl Name {
    fn of(object: &impl ResourceExt) -> Self {
        Self {
            namespace: object.namespace(),
            name: object.name_any(),
        }
    }

    fn object(&self) -> Option<ObjectName> {
        ObjectName::new(self.namespace.as_deref()?, &self.name).ok()
    }
}

type Translate<K> = fn(Name, Option<Arc<K>>) -> Option<Change>;

fn watch<K>(client: &Client, translate: Translate<K>) -> BoxStream<'static, Notice>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().timeout(lvs_runtime::client::WATCH_SECONDS);
    let mut known = Known::<K>::new(translate);
    watcher(Api::<K>::all(client.clone()), config)
        .modify(|object| object.meta_mut().managed_fields = None)
        .default_backoff()
        .flat_map(move |event| match event {
            Ok(event) => stream::iter(known.take(event)),
            Err(error) => {
                let kind = K::kind(&());
                warn!(%kind, error = %lvs_runtime::error::chain(&error), "watching; what is known stays in force");
                stream::iter(Vec::new())
            }
        })
        .boxed()
}

/// Which objects of a kind were told, so that those that a new list does not hold are told to be gone.
struct Known<K> {
    names: BTreeSet<Name>,
    listed: BTreeSet<Name>,
    translate: Translate<K>,
}

impl<K: Resource<DynamicType = ()>> Known<K> {
    const fn new(translate: Translate<K>) -> Self {
        Self {
            names: BTreeSet::new(),
            listed: BTreeSet::new(),
            translate,
        }
    }

    fn take(&mut self, event: Event<K>) -> Vec<Notice> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(Name::of(&object));
                self.apply(object)
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Name> = self.names.difference(&listed).cloned().collect();
                let mut notices: Vec<Notice> = gone
                    .into_iter()
                    .flat_map(|name| self.delete(name))
                    .collect();
                let kind = std::any::type_name::<K>();
                notices.push(Notice::Complete(kind));
                notices
            }
            Event::Apply(object) => self.apply(object),
            Event::Delete(object) => self.delete(Name::of(&object)),
        }
    }

    fn apply(&mut self, object: K) -> Vec<Notice> {
        let name = Name::of(&object);
        self.names.insert(name.clone());
        self.tell(name, Some(Arc::new(object)))
    }

    fn delete(&mut self, name: Name) -> Vec<Notice> {
        self.names.remove(&name);
        self.tell(name, None)
    }

    fn tell(&self, name: Name, object: Option<Arc<K>>) -> Vec<Notice> {
        let change = (self.translate)(name, object);
        change.into_iter().map(Notice::Changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_list_does_not_hold_is_gone_and_not_before_the_list_is_complete() {
        let mut known = Known::<Node>::new(|name, object| Some(Change::Node(name.name, object)));
        let node = |name: &str| Node {
            metadata: kube::core::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            ..Node::default()
        };
        let texts = |notices: Vec<Notice>| -> Vec<String> {
            let text = |notice| match notice {
                Notice::Changed(Change::Node(name, object)) => {
                    format!("{name} {}", object.is_some())
                }
                Notice::Changed(other) => format!("{other:?}"),
                Notice::Complete(_) => "complete".to_owned(),
            };
            notices.into_iter().map(text).collect()
        };
        assert_eq!(texts(known.take(Event::Init)), [""; 0]);
        assert_eq!(texts(known.take(Event::InitApply(node("a")))), ["a true"]);
        assert_eq!(texts(known.take(Event::InitApply(node("b")))), ["b true"]);
        assert_eq!(texts(known.take(Event::InitDone)), ["complete"]);

        assert_eq!(texts(known.take(Event::Init)), [""; 0]);
        assert_eq!(texts(known.take(Event::InitApply(node("b")))), ["b true"]);
        assert_eq!(texts(known.take(Event::InitDone)), ["a false", "complete"]);
    }
}

//! Watches of every kind that the controller reads, as one stream of events. Of each object only what is used stays in memory.

mod agents;
mod event;
mod slim;

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lvs_crd::{
    AddressPool, DirectorBinding, DirectorGroup, LvsNode, RealServerBinding, VirtualService,
    convert::KubeServiceSpec,
};
use lvs_model::ObjectName;
use lvs_runtime::{
    guarded::{Guarded, Undecodable},
    watch::with_pauses,
};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::cluster::Change;
pub(crate) use event::WatchEvent;

/// The number of watches.
pub(crate) const WATCHES: usize = 12;

/// Watches every kind that the controller reads, and the Leases of agents in the namespace.
pub(crate) fn watch_all(
    client: &Client,
    lease_namespace: &str,
) -> impl Stream<Item = WatchEvent> + Unpin {
    let streams: [BoxStream<'static, WatchEvent>; WATCHES] = [
        watch::<VirtualService>(client, slim::metadata, |name, object| {
            Some(Change::VirtualService(name.parse()?, object))
        }),
        watch::<DirectorGroup>(client, slim::metadata, |name, object| {
            Some(Change::DirectorGroup(name.name, object))
        }),
        watch::<AddressPool>(client, slim::metadata, |name, object| {
            Some(Change::AddressPool(name.name.parse().ok()?, object))
        }),
        watch::<PartialObjectMeta<Namespace>>(client, slim::metadata, |name, object| {
            let labels = object.map(|object| object.metadata.labels.clone().unwrap_or_default());
            Some(Change::Namespace(name.name, labels))
        }),
        watch::<Service>(client, slim::service, |name, object| {
            Some(Change::Service(
                name.parse()?,
                object.map(|object| Arc::new(KubeServiceSpec::of(&object))),
            ))
        }),
        watch::<EndpointSlice>(client, slim::endpoint_slice, |name, object| {
            Some(Change::EndpointSlice(name.parse()?, object))
        }),
        watch::<PartialObjectMeta<Node>>(client, slim::metadata, |name, object| {
            Some(Change::Node(name.name.parse().ok()?, object))
        }),
        watch_cordoned(client),
        watch::<LvsNode>(client, slim::metadata, |name, object| {
            Some(Change::LvsNode(name.name.parse().ok()?, object))
        }),
        watch::<DirectorBinding>(client, slim::metadata, |name, object| {
            Some(Change::DirectorBinding(name.parse()?, object))
        }),
        watch::<RealServerBinding>(client, slim::metadata, |name, object| {
            Some(Change::RealServerBinding(name.parse()?, object))
        }),
        agents::watch_agents(client, lease_namespace),
    ];
    stream::select_all(streams)
}

/// Namespace and name as the API server has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RawName {
    namespace: Option<String>,
    name: String,
}

impl RawName {
    fn of(object: &impl ResourceExt) -> Self {
        Self {
            namespace: object.namespace(),
            name: object.name_any(),
        }
    }

    fn parse(&self) -> Option<ObjectName> {
        ObjectName::new(self.namespace.as_deref()?, &self.name).ok()
    }
}

/// Makes a change of an object; `None` if the object is of no use.
type ToChange<K> = fn(RawName, Option<Arc<K>>) -> Option<Change>;

/// The bounds on a kind that can be watched here.
trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

fn watch<K: Kind>(
    client: &Client,
    slim: fn(&mut K),
    to_change: ToChange<K>,
) -> BoxStream<'static, WatchEvent> {
    watch_some(
        client,
        config(),
        std::any::type_name::<K>(),
        slim,
        to_change,
    )
}

/// Watches the nodes that are cordoned. The API server selects them, because their metadata do not say it.
fn watch_cordoned(client: &Client) -> BoxStream<'static, WatchEvent> {
    let config = config().fields("spec.unschedulable=true");
    watch_some::<PartialObjectMeta<Node>>(
        client,
        config,
        "cordoned Node",
        slim::metadata,
        |name, object| Some(Change::Cordoned(name.name.parse().ok()?, object.is_some())),
    )
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(lvs_runtime::client::WATCH_SECONDS)
}

/// Watches the objects that a configuration selects. `what` tells this watch from the others.
fn watch_some<K: Kind>(
    client: &Client,
    config: watcher::Config,
    what: &'static str,
    slim: fn(&mut K),
    to_change: ToChange<K>,
) -> BoxStream<'static, WatchEvent> {
    let mut reflector = Reflector::<K>::new(what, to_change);
    let slim_readable = move |object: &mut Guarded<K>| {
        object.meta_mut().managed_fields = None;
        if let Ok(object) = &mut object.0 {
            slim(object);
        }
    };
    with_pauses(watcher(Api::<Guarded<K>>::all(client.clone()), config).modify(slim_readable))
        .flat_map(move |event| match event {
            Ok(event) => stream::iter(reflector.apply(event)),
            Err(error) => {
                let kind = K::kind(&());
                warn!(%kind, error = %lvs_runtime::error::chain(&error), "watching failed; the objects that were seen last stay in use");
                stream::iter(Vec::new())
            }
        })
        .boxed()
}

/// The names of the objects of a kind, so that those which a new list lacks are reported as deleted. An object that cannot be
/// decoded is as it was last seen.
struct Reflector<K> {
    what: &'static str,
    names: BTreeSet<RawName>,
    /// The names in the list that is being read.
    listed: BTreeSet<RawName>,
    to_change: ToChange<K>,
}

impl<K: Resource<DynamicType = ()>> Reflector<K> {
    const fn new(what: &'static str, to_change: ToChange<K>) -> Self {
        Self {
            what,
            names: BTreeSet::new(),
            listed: BTreeSet::new(),
            to_change,
        }
    }

    fn apply(&mut self, event: Event<Guarded<K>>) -> Vec<WatchEvent> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(RawName::of(&object));
                self.update(object)
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let deleted: Vec<RawName> = self.names.difference(&listed).cloned().collect();
                let deleted = deleted.into_iter().flat_map(|name| self.delete(name));
                let mut events: Vec<WatchEvent> = deleted.collect();
                events.push(WatchEvent::Synced(self.what));
                events
            }
            Event::Apply(object) => self.update(object),
            Event::Delete(object) => self.delete(RawName::of(&object)),
        }
    }

    fn update(&mut self, object: Guarded<K>) -> Vec<WatchEvent> {
        let name = RawName::of(&object);
        match object.0 {
            Ok(object) => {
                self.names.insert(name.clone());
                self.changed(name, Some(Arc::new(object)))
            }
            Err(error) => {
                let kind = K::kind(&());
                warn!(%kind, ?name, %error, "an object cannot be decoded; its last version stays in use");
                let is_new = self.names.insert(name.clone());
                let change = unreadable(&kind, &name, is_new, error);
                change.into_iter().map(WatchEvent::Changed).collect()
            }
        }
    }

    fn delete(&mut self, name: RawName) -> Vec<WatchEvent> {
        self.names.remove(&name);
        self.changed(name, None)
    }

    fn changed(&self, name: RawName, object: Option<Arc<K>>) -> Vec<WatchEvent> {
        let change = (self.to_change)(name, object);
        change.into_iter().map(WatchEvent::Changed).collect()
    }
}

/// Makes the change of an object that cannot be decoded; `None` if nothing follows from that.
fn unreadable(kind: &str, name: &RawName, is_new: bool, error: Undecodable) -> Option<Change> {
    let name = name.parse()?;
    if kind == EndpointSlice::kind(&()) {
        return Some(Change::UnreadableSlice(name, Arc::new(error)));
    }
    let is_new_service = is_new && kind == VirtualService::kind(&());
    is_new_service.then_some(Change::UnreadableService(name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_slice_that_cannot_be_decoded_is_reported_with_its_service() {
        let mut reflector = Reflector::<EndpointSlice>::new("EndpointSlice", |name, object| {
            Some(Change::EndpointSlice(name.parse()?, object))
        });
        let slice = |endpoints: Value| {
            let labels = json!({"kubernetes.io/service-name": "web"});
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "shop", "name": "web-1", "labels": labels},
                "addressType": "IPv4", "endpoints": endpoints,
            });
            serde_json::from_value::<Guarded<EndpointSlice>>(slice).unwrap()
        };
        reflector.apply(Event::Apply(slice(json!([]))));
        let events = reflector.apply(Event::Apply(slice(json!("none"))));
        let [WatchEvent::Changed(Change::UnreadableSlice(name, object))] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(name.to_string(), "shop/web-1");
        let labels = object.metadata.labels.as_ref().unwrap();
        assert_eq!(labels["kubernetes.io/service-name"], "web");
        assert!(object.error.starts_with("invalid type"), "{}", object.error);
    }

    #[test]
    fn an_object_that_a_new_list_lacks_is_deleted_once_the_list_is_complete() {
        let mut reflector = Reflector::<LvsNode>::new("LvsNode", |name, object| {
            Some(Change::LvsNode(name.name.parse().ok()?, object))
        });
        let with_spec = |name: &str, spec: Value| {
            let node = json!({
                "apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
                "metadata": {"name": name}, "spec": spec,
            });
            serde_json::from_value::<Guarded<LvsNode>>(node).unwrap()
        };
        let node = |name: &str| with_spec(name, json!({}));
        let broken = |name: &str| with_spec(name, json!({"groups": 7}));
        let texts = |events: Vec<WatchEvent>| -> Vec<String> {
            let text = |event| match event {
                WatchEvent::Changed(Change::LvsNode(name, object)) => {
                    format!("{name} {}", object.is_some())
                }
                WatchEvent::Changed(other) => format!("{other:?}"),
                WatchEvent::Synced(_) => "synced".to_owned(),
            };
            events.into_iter().map(text).collect()
        };
        assert_eq!(texts(reflector.apply(Event::Init)), [""; 0]);
        assert_eq!(
            texts(reflector.apply(Event::InitApply(node("a")))),
            ["a true"]
        );
        assert_eq!(
            texts(reflector.apply(Event::InitApply(node("b")))),
            ["b true"]
        );
        assert_eq!(texts(reflector.apply(Event::InitDone)), ["synced"]);

        assert_eq!(texts(reflector.apply(Event::Init)), [""; 0]);
        assert_eq!(
            texts(reflector.apply(Event::InitApply(node("b")))),
            ["b true"]
        );
        assert_eq!(
            texts(reflector.apply(Event::InitDone)),
            ["a false", "synced"]
        );

        // One that cannot be decoded stays as it was, also in a list.
        assert_eq!(texts(reflector.apply(Event::Apply(broken("b")))), [""; 0]);
        assert_eq!(texts(reflector.apply(Event::Init)), [""; 0]);
        assert_eq!(
            texts(reflector.apply(Event::InitApply(broken("b")))),
            [""; 0]
        );
        assert_eq!(texts(reflector.apply(Event::InitDone)), ["synced"]);
        assert_eq!(
            texts(reflector.apply(Event::Delete(broken("b")))),
            ["b false"]
        );
    }
}

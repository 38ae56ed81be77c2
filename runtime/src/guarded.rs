//! Objects of which each is decoded by itself, so that one that cannot be decoded affects no other.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::PartialObjectMeta};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

/// An object, or why it cannot be decoded.
///
/// Like [`kube::core::DeserializeGuard`], which makes a tree of every object and decodes a copy of that. Here the JSON text is
/// kept and decoded at once, in half the time. The format must be JSON.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Undecodable>);

/// An object that cannot be decoded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Undecodable {
    /// Why.
    pub error: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
}

impl<'de, K: Resource + for<'a> Deserialize<'a>> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(text.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error,
        };
        let PartialObjectMeta { metadata, .. } =
            serde_json::from_str::<PartialObjectMeta<K>>(text.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(Undecodable {
            error: error.to_string(),
            metadata,
        })))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(undecodable) => &undecodable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(undecodable) => &mut undecodable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    const BAD: &str = r#"{"metadata": {"name": "bad"}, "spec": {"containers": "none"}}"#;
    const GOOD: &str = r#"{"metadata": {"name": "good"}, "spec": {"containers": []}}"#;

    #[test]
    fn a_bad_object_of_a_list_affects_no_other() {
        let list = format!(
            r#"{{"kind": "PodList", "apiVersion": "v1", "metadata": {{}}, "items": [{BAD}, {GOOD}]}}"#
        );
        let list: ObjectList<Guarded<Pod>> = serde_json::from_str(&list).unwrap();
        let [bad, good] = list.items.as_slice() else {
            panic!("{list:?}");
        };
        assert_eq!(bad.meta().name.as_deref(), Some("bad"));
        let error = &bad.0.as_ref().unwrap_err().error;
        assert!(
            error.starts_with("invalid type: string \"none\", expected"),
            "{error}"
        );
        assert_eq!(
            good.0.as_ref().unwrap().metadata.name.as_deref(),
            Some("good")
        );
    }

    #[test]
    fn the_object_of_an_event_is_decoded_by_itself() {
        let event = format!(r#"{{"type": "MODIFIED", "object": {BAD}}}"#);
        let event: WatchEvent<Guarded<Pod>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Modified(object) = event else {
            panic!("{event:?}");
        };
        assert_eq!(object.meta().name.as_deref(), Some("bad"));
    }

    #[test]
    fn an_object_without_metadata_that_can_be_decoded_is_an_error() {
        let text = r#"{"metadata": "none"}"#;
        assert!(serde_json::from_str::<Guarded<Pod>>(text).is_err());
    }
}

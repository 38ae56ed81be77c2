//! Removes from watched objects what the controller does not use. A cluster has many Services, EndpointSlices and Nodes, and
//! most of each is about other things.

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServiceSpec},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;

/// Removes annotations, which may hold a copy of the whole object, and the managed fields.
pub(super) fn metadata(object: &mut impl Resource) {
    let metadata = object.meta_mut();
    metadata.annotations = None;
    metadata.managed_fields = None;
}

/// Reduces a Service to its type, its ports, its selector and its external name.
pub(super) fn service(object: &mut Service) {
    object.metadata = without_labels(&mut object.metadata);
    object.status = None;
    object.spec = object.spec.take().map(|spec| ServiceSpec {
        external_name: spec.external_name,
        ports: spec.ports,
        selector: spec.selector,
        type_: spec.type_,
        ..ServiceSpec::default()
    });
}

/// Reduces an EndpointSlice to the addresses, conditions and kinds of its endpoints, its ports and its Service.
pub(super) fn endpoint_slice(object: &mut EndpointSlice) {
    let labels = object.metadata.labels.take();
    object.metadata = without_labels(&mut object.metadata);
    object.metadata.labels = labels;
    for endpoint in &mut object.endpoints {
        *endpoint = Endpoint {
            addresses: std::mem::take(&mut endpoint.addresses),
            conditions: endpoint.conditions.take(),
            target_ref: endpoint.target_ref.take().map(|target| ObjectReference {
                kind: target.kind,
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        };
    }
    object.endpoints.shrink_to_fit();
}

fn without_labels(metadata: &mut ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        creation_timestamp: metadata.creation_timestamp.take(),
        deletion_timestamp: metadata.deletion_timestamp.take(),
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        resource_version: metadata.resource_version.take(),
        uid: metadata.uid.take(),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn only_what_is_used_of_a_slice_stays() {
        let mut slice: EndpointSlice = from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"a": "b"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "1"}],
                "managedFields": [{"manager": "kubectl"}],
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["10.0.0.11"], "conditions": {"ready": true}, "nodeName": "n1", "zone": "z",
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-abc", "uid": "2"},
            }],
        }))
        .unwrap();
        endpoint_slice(&mut slice);
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.11"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod"}}],
        });
        assert_eq!(to_value(&slice).unwrap(), expected);
    }

    #[test]
    fn only_what_is_used_of_a_service_stays() {
        let mut object: Service = from_value(json!({
            "metadata": {"namespace": "shop", "name": "web", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {
                "type": "ClusterIP", "clusterIP": "10.96.0.7", "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        }))
        .unwrap();
        service(&mut object);
        let expected = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        });
        assert_eq!(to_value(&object).unwrap(), expected);
    }
}

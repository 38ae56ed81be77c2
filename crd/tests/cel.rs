//! The CEL rules of the CRDs, evaluated as an API server does, and the conversion agree.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeSet;

use kube::core::cel::validate_cel_schema;
use lvs_crd::{
    AddressPool, AddressPoolSpec, DirectorGroup, DirectorGroupSpec, VirtualService,
    VirtualServiceSpec, convert, crds,
};
use serde_json::{Value, json};

#[path = "../../tests/cel-cases/cases.rs"]
mod cases;

use cases::{Case, Cases};

#[test]
fn every_rule_of_virtual_services_accepts_and_refuses_as_the_conversion_does() {
    try_all::<VirtualServiceSpec>(&Cases::of("virtual-service"), convert_service);
}

#[test]
fn every_rule_of_director_groups_accepts_and_refuses_as_the_conversion_does() {
    try_all::<DirectorGroupSpec>(&Cases::of("director-group"), convert_group);
}

#[test]
fn every_rule_of_address_pools_accepts_and_refuses_as_the_conversion_does() {
    try_all::<AddressPoolSpec>(&Cases::of("address-pool"), convert_pool);
}

fn try_all<S>(cases: &Cases, convert: fn(&Value) -> Vec<String>)
where
    S: schemars::JsonSchema + serde::Serialize + serde::de::DeserializeOwned,
{
    for case in &cases.cases {
        let Case { at, message, .. } = case;
        let accepted = cases.spec_with(&case.accepted);
        assert_eq!(cel_messages::<S>(&accepted), [""; 0], "{at}: {message}");
        assert_eq!(convert(&accepted), [""; 0], "{at}: {message}");

        let refused = cases.spec_with(&case.refused);
        let messages = cel_messages::<S>(&refused);
        assert!(messages.contains(message), "{at}: {message}: {messages:?}");
        assert!(
            !convert(&refused).is_empty(),
            "{at}: {message}: only CEL refuses {refused}"
        );
    }
}

#[test]
fn every_rule_has_a_case() {
    let cases = ["virtual-service", "director-group", "address-pool"].map(Cases::of);
    for (crd, Cases { cases, .. }) in crds().iter().zip(cases) {
        let rules = cases::rules_of(&serde_json::to_value(crd).unwrap());
        let cases: BTreeSet<_> = cases
            .iter()
            .map(|case| (case.at.clone(), case.message.clone()))
            .collect();
        assert_eq!(rules, cases);
    }
}

/// A rule that refuses everything fails this test.
#[test]
fn cel_and_the_conversion_accept_valid_objects() {
    let cases = Cases::of("virtual-service");
    for spec in [
        json!({}),
        json!({"backends": null}),
        json!({"addresses": ["192.168.220.100", "2001:db8::100"]}),
        json!({"forwarding": "TUN", "backends": [{"address": "2001:db8::11"}]}),
        json!({"addresses": null, "ports": null, "fwmark": 7, "onePacket": true}),
        json!({
            "addresses": null, "ports": null, "fwmark": 7, "forwarding": "NAT",
            "backends": [{"address": "192.168.100.11", "port": 8080}],
        }),
        json!({"forwarding": "NAT", "ports": [{"port": 80}, {"port": 443, "targetPort": 8443}]}),
        json!({"backends": [{"address": "192.168.220.132", "port": 80}]}),
    ] {
        let spec = cases.spec_with(&spec);
        assert_eq!(cel_messages::<VirtualServiceSpec>(&spec), [""; 0], "{spec}");
        assert_eq!(convert_service(&spec), [""; 0], "{spec}");
    }
}

/// Returns the messages of the rules that refuse the spec after the API server has set the
/// defaults.
fn cel_messages<S>(spec: &Value) -> Vec<String>
where
    S: schemars::JsonSchema + serde::Serialize + serde::de::DeserializeOwned,
{
    let spec: S = serde_json::from_value(spec.clone()).unwrap();
    let errors = validate_cel_schema::<S>(&serde_json::to_value(&spec).unwrap(), None);
    let errors = errors
        .err()
        .map(|errors| errors.into_vec())
        .unwrap_or_default();
    errors.into_iter().map(|error| error.message).collect()
}

fn convert_service(spec: &Value) -> Vec<String> {
    let object = VirtualService::new("web", serde_json::from_value(spec.clone()).unwrap());
    texts(convert::virtual_service(&object).err())
}

fn convert_group(spec: &Value) -> Vec<String> {
    let object = DirectorGroup::new("edge", serde_json::from_value(spec.clone()).unwrap());
    texts(convert::director_group(&object).err())
}

fn convert_pool(spec: &Value) -> Vec<String> {
    let object = AddressPool::new("public", serde_json::from_value(spec.clone()).unwrap());
    texts(convert::address_pool(&object).err())
}

fn texts(rejections: Option<Vec<lvs_model::Rejection>>) -> Vec<String> {
    rejections
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

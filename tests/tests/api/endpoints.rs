//! EndpointSlices become real servers.

use anyhow::Result;
use lab::{condition_of, message_of, programmed};
use serde_json::{Value, json};

use crate::shop::directed;

const WEB: &str = "shop/web";
const BINDING: &str = "shop/web.lvs1";

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one sequence, in which each state follows from the one before"
)]
fn the_slices_of_a_service_are_the_real_servers() -> Result<()> {
    let operator = directed()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    let servers = |wanted: &'static str| {
        admin.await_that("DirectorBinding", BINDING, wanted, move |object| {
            real_servers(object) == wanted
        })
    };
    let two = json!(["10.0.0.100", "2001:db8::100"]);
    let nat =
        json!({"addresses": two, "forwarding": "NAT", "ports": [{"name": "http", "port": 80}]});
    admin.apply(&service(&nat))?;
    admin.apply(&kube_service())?;
    servers("")?;

    // An endpoint without conditions is ready. One that is not ready keeps its connections and gets no new ones.
    let silent = endpoint("10.0.0.11", &json!({}));
    let unready = endpoint("10.0.0.12", &json!({"ready": false}));
    admin.apply(&slice("web-1", "IPv4", &[&silent, &unready]))?;
    servers("10.0.0.11:8080=1 10.0.0.12:8080=0")?;

    // An endpoint that is terminating and still serving keeps its connections, as long as others are
    // ready.
    let going = json!({"ready": false, "serving": true, "terminating": true});
    let gone = json!({"ready": false, "serving": false, "terminating": true});
    let leaving = endpoint("10.0.0.12", &going);
    let left = endpoint("10.0.0.13", &gone);
    admin.apply(&slice("web-1", "IPv4", &[&silent, &leaving, &left]))?;
    servers("10.0.0.11:8080=1 10.0.0.12:8080=0 10.0.0.13:8080=0")?;
    admin.apply(&slice(
        "web-1",
        "IPv4",
        &[&endpoint("10.0.0.11", &going), &leaving, &left],
    ))?;
    servers("10.0.0.11:8080=1 10.0.0.12:8080=1 10.0.0.13:8080=0")?;

    // An address in two slices counts once, with its better state. Both families count; host names are left out by themselves.
    admin.apply(&slice(
        "web-2",
        "IPv4",
        &[&endpoint("10.0.0.12", &json!({"ready": true}))],
    ))?;
    servers("10.0.0.11:8080=0 10.0.0.12:8080=1 10.0.0.13:8080=0")?;
    admin.apply(&slice(
        "web-3",
        "IPv6",
        &[&endpoint("2001:db8::11", &json!({}))],
    ))?;
    admin.apply(&slice(
        "web-4",
        "FQDN",
        &[&endpoint("web.example.net", &json!({}))],
    ))?;
    servers("10.0.0.11:8080=0 10.0.0.12:8080=1 10.0.0.13:8080=0 2001:db8::11:8080=1")?;
    let left_out = "1 endpoint is left out: EndpointSlice web-4 holds host names, and a real server is an address";
    let says = |text: &'static str| {
        admin.await_that("VirtualService", WEB, text, move |object| {
            message_of(object, "ResolvedRefs").as_deref() == Some(text)
        })
    };
    says(left_out)?;
    admin.delete("EndpointSlice", "shop/web-4")?;
    says("")?;

    // One slice moves to another Service, and one is deleted.
    let mut moved = slice("web-2", "IPv4", &[&silent]);
    moved["metadata"]["labels"]["kubernetes.io/service-name"] = "other".into();
    admin.apply(&moved)?;
    servers("10.0.0.11:8080=0 10.0.0.12:8080=0 10.0.0.13:8080=0 2001:db8::11:8080=1")?;
    admin.delete("EndpointSlice", "shop/web-1")?;
    servers("2001:db8::11:8080=1")?;

    // A machine of the spec takes precedence over an endpoint with its address.
    let own = json!([{"address": "2001:db8::11", "port": 8080, "weight": 7}, {"service": {"name": "web"}}]);
    let mut both = nat.clone();
    both["backends"] = own;
    admin.apply(&service(&both))?;
    servers("2001:db8::11:8080=1")?;
    admin.delete("EndpointSlice", "shop/web-3")?;
    admin.apply(&service(&nat))?;
    servers("")?;
    let empty = admin.await_that("VirtualService", WEB, "no real server", |object| {
        object.pointer("/status/realServersColumn") == Some(&json!("0/0"))
    })?;
    let resolved = condition_of(&empty, "ResolvedRefs");
    assert_eq!(resolved.as_deref(), Some("True ResolvedRefs"));
    Ok(())
}

#[test]
fn pods_need_masqueraded_nat_and_the_order_of_ports_does_not_matter() -> Result<()> {
    let operator = directed()?;
    let _controller = operator.lead("one")?;
    let admin = &operator.admin;
    let lvs1 = operator.machine("lvs1")?;
    let mut pod = endpoint("10.0.0.11", &json!({}));
    pod["targetRef"] = json!({"kind": "Pod", "name": "web-0", "namespace": "shop"});
    admin.apply(&kube_service())?;
    admin.apply(&slice("web-1", "IPv4", &[&pod]))?;
    let stalled = |changes: &Value, reason: &str| {
        admin.apply(&service(changes))?;
        let wanted = format!("True {reason}");
        admin.await_that("VirtualService", WEB, reason, |object| {
            condition_of(object, "Stalled").as_ref() == Some(&wanted)
        })
    };
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    stalled(
        &json!({"ports": [{"name": "http", "port": 80}]}),
        "PodsNeedNat",
    )?;
    stalled(
        &json!({"ports": ports, "forwarding": "NAT"}),
        "PodsNeedMasquerade",
    )?;
    let served = |ports: Value| -> Result<()> {
        let nat = json!({"ports": ports, "forwarding": "NAT", "nat": {"returnPath": "Masquerade"}});
        let applied = admin.apply(&service(&nat))?;
        admin.await_that("DirectorBinding", BINDING, "this generation's", |object| {
            object.pointer("/spec/generation") == applied.pointer("/metadata/generation")
        })?;
        lvs1.report(BINDING, &programmed())?;
        admin
            .await_that("VirtualService", WEB, "ready", |object| {
                object.pointer("/status/observedGeneration")
                    == applied.pointer("/metadata/generation")
                    && condition_of(object, "Ready").as_deref() == Some("True Ready")
            })
            .map(drop)
    };
    served(ports)?;

    // The API server treats ports as a map, and may change their order.
    let port = |port: u16| json!({"port": port, "targetPort": 8080});
    served(json!([port(80), port(443)]))?;
    served(json!([port(443), port(80)]))?;
    served(json!([port(8443), port(443), port(81), port(80)]))?;
    served(json!([port(80), port(8443), port(82)]))?;
    let uid = admin.get("DirectorBinding", BINDING)?["metadata"]["uid"].clone();
    served(json!([port(82), port(80), port(8443)]))?;
    assert_eq!(
        admin.get("DirectorBinding", BINDING)?["metadata"]["uid"],
        uid
    );
    Ok(())
}

/// A virtual service with the endpoints of a Service; `changes` replace its fields.
fn service(changes: &Value) -> Value {
    let mut spec = json!({
        "addresses": ["10.0.0.100"],
        "backends": [{"service": {"name": "web"}}],
    });
    if let (Some(fields), Some(changes)) = (spec.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    json!({
        "apiVersion": "lvs-operator.io/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": spec,
    })
}

/// A Service without a selector: the test creates its slices.
fn kube_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(name: &str, family: &str, endpoints: &[&Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": name,
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": family,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn endpoint(address: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions})
}

/// Returns the address, port and weight of each real server of a binding.
fn real_servers(binding: &Value) -> String {
    let servers = binding.pointer("/spec/realServers");
    let servers = servers.and_then(Value::as_array).into_iter().flatten();
    let texts = servers.map(|server| {
        let address = server["address"].as_str().unwrap_or_default();
        let weight = server["weight"].as_i64().unwrap_or(1);
        format!(
            "{address}:{}={weight}",
            server.pointer("/ports/0").unwrap_or(&Value::Null)
        )
    });
    if binding.is_null() {
        return "no binding".to_owned();
    }
    texts.collect::<Vec<_>>().join(" ")
}

//! The CEL rules of the CRDs, evaluated as an API server does, and the conversion agree.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeSet;

use kube::core::cel::validate_cel_schema;
use lvs_crd::{
    DirectorGroup, DirectorGroupSpec, VirtualService, VirtualServiceSpec, convert, crds,
};
use serde_json::{Value, json};

/// A rule by the field that it stands at and its message, with a spec that it lets through and one that it refuses.
/// The specs are what differs from [`service`]; null takes a field away.
struct Case {
    at: &'static str,
    message: &'static str,
    accepted: Value,
    refused: Value,
}

#[test]
fn every_rule_of_virtual_services_accepts_and_refuses_as_the_conversion_does() {
    for Case {
        at,
        message,
        accepted,
        refused,
    } in service_cases()
    {
        let accepted = merged(service(), &accepted);
        assert_eq!(
            cel_messages::<VirtualServiceSpec>(&accepted),
            [""; 0],
            "{at}: {message}"
        );
        assert_eq!(convert_service(&accepted), [""; 0], "{at}: {message}");

        let refused = merged(service(), &refused);
        let messages = cel_messages::<VirtualServiceSpec>(&refused);
        assert!(
            messages.iter().any(|found| found == message),
            "{at}: {message}: {messages:?}"
        );
        assert!(
            !convert_service(&refused).is_empty(),
            "{at}: {message}: only CEL refuses {refused}"
        );
    }
}

#[test]
fn every_rule_of_director_groups_accepts_and_refuses_as_the_conversion_does() {
    for Case {
        message,
        accepted,
        refused,
        ..
    } in group_cases()
    {
        assert_eq!(
            cel_messages::<DirectorGroupSpec>(&accepted),
            [""; 0],
            "{message}"
        );
        assert_eq!(convert_group(&accepted), [""; 0], "{message}");

        let messages = cel_messages::<DirectorGroupSpec>(&refused);
        assert!(
            messages.iter().any(|found| found == message),
            "{message}: {messages:?}"
        );
        assert!(
            !convert_group(&refused).is_empty(),
            "{message}: only CEL refuses {refused}"
        );
    }
}

#[test]
fn every_rule_has_a_case() {
    let cases = [service_cases(), group_cases()];
    for (crd, cases) in crds().iter().zip(cases) {
        let crd = serde_json::to_value(crd).unwrap();
        let mut rules = BTreeSet::new();
        collect_rules(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            "",
            &mut rules,
        );
        let cases: BTreeSet<_> = cases
            .iter()
            .map(|case| (case.at.to_owned(), case.message.to_owned()))
            .collect();
        assert_eq!(rules, cases);
    }
}

/// What CEL and the conversion both let through, so that a rule cannot refuse everything unnoticed.
#[test]
fn both_accept_what_can_be_served() {
    for spec in [
        json!({}),
        json!({"backends": null}),
        json!({"addresses": ["192.168.220.100", "2001:db8::100"]}),
        json!({"forwarding": "TUN", "backends": {"endpoints": [{"address": "2001:db8::11"}]}}),
        json!({"addresses": null, "ports": null, "fwmark": 7, "onePacket": true}),
        json!({
            "addresses": null, "ports": null, "fwmark": 7, "forwarding": "NAT",
            "backends": {"endpoints": [{"address": "192.168.100.11", "port": 8080}]},
        }),
        json!({"forwarding": "NAT", "ports": [{"port": 80}, {"port": 443, "targetPort": 8443}]}),
        json!({"backends": {"endpoints": [{"address": "192.168.220.132", "port": 80}]}}),
    ] {
        let spec = merged(service(), &spec);
        assert_eq!(cel_messages::<VirtualServiceSpec>(&spec), [""; 0], "{spec}");
        assert_eq!(convert_service(&spec), [""; 0], "{spec}");
    }
}

fn service() -> Value {
    json!({
        "addresses": ["192.168.220.100"],
        "ports": [{"port": 80}],
        "backends": {"endpoints": [{"address": "192.168.220.132"}, {"address": "192.168.220.133"}]},
    })
}

fn service_cases() -> Vec<Case> {
    let mut cases = frontend_cases();
    cases.extend(forwarding_cases());
    cases.extend(gateway_cases());
    cases.extend(backend_cases());
    cases
}

fn frontend_cases() -> Vec<Case> {
    let udp = json!({"port": 53, "protocol": "UDP"});
    vec![
        Case {
            at: "spec",
            message: "`addresses` must not be set together with `fwmark`",
            accepted: json!({"addresses": ["192.168.220.101"]}),
            refused: json!({"ports": [], "fwmark": 7}),
        },
        Case {
            at: "spec",
            message: "`ports` must hold a port, or `fwmark` must be set",
            accepted: json!({"addresses": [], "ports": [], "fwmark": 7}),
            refused: json!({"ports": []}),
        },
        Case {
            at: "spec",
            message: "`ports` must not be set together with `fwmark`",
            accepted: json!({"ports": [udp]}),
            refused: json!({"addresses": [], "fwmark": 7}),
        },
        Case {
            at: "spec",
            message: "`ports` must not hold a `name` twice",
            accepted: json!({"ports": [{"name": "a", "port": 80}, {"port": 81}, {"port": 82}]}),
            refused: json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
        },
        Case {
            at: "spec.addresses",
            message: "must hold canonical unicast addresses that are not loopback or link-local",
            accepted: json!({"addresses": ["2001:db8::1"], "backends": {}}),
            refused: json!({"addresses": ["2001:DB8::1"], "backends": {}}),
        },
        Case {
            at: "spec.addresses",
            message: "must not hold two addresses of one family",
            accepted: json!({"addresses": ["192.168.220.100", "2001:db8::100"]}),
            refused: json!({"addresses": ["192.168.220.100", "192.168.220.101"]}),
        },
        Case {
            at: "spec",
            message: "`onePacket` must not be set unless all ports are UDP",
            accepted: json!({"onePacket": true, "ports": [udp]}),
            refused: json!({"onePacket": true, "ports": [udp, {"port": 53}]}),
        },
        Case {
            at: "spec",
            message: "`persistence.engine` must not be set unless all ports are UDP",
            accepted: json!({"persistence": {"engine": "sip"}, "ports": [udp]}),
            refused: json!({"persistence": {"engine": "sip"}}),
        },
        Case {
            at: "spec.scheduler",
            message: "`flags` must be empty unless `name` is 'sh' or 'mh'",
            accepted: json!({"scheduler": {"name": "mh", "flags": ["Fallback", "Port"]}}),
            refused: json!({"scheduler": {"name": "dh", "flags": ["Port"]}}),
        },
    ]
}

fn forwarding_cases() -> Vec<Case> {
    let tun = |tunnel: Value| json!({"forwarding": "TUN", "tunnel": tunnel});
    let udp = json!([{"port": 5555, "protocol": "UDP"}]);
    vec![
        Case {
            at: "spec",
            message: "`targetPort` must not differ from `port`: only NAT changes the port",
            accepted: json!({"forwarding": "NAT", "ports": [{"port": 80, "targetPort": 8080}]}),
            refused: json!({"ports": [{"port": 80, "targetPort": 8080}]}),
        },
        Case {
            at: "spec",
            message: "`tunnel` must not be set unless `forwarding` is 'TUN'",
            accepted: tun(json!({})),
            refused: json!({"tunnel": {}}),
        },
        Case {
            at: "spec",
            message: "`tunnel.port` must not be a UDP port of the service",
            accepted: json!({"forwarding": "TUN", "tunnel": {"type": "GUE", "port": 5556}, "ports": udp}),
            refused: json!({"forwarding": "TUN", "tunnel": {"type": "GUE", "port": 5555}, "ports": udp}),
        },
        Case {
            at: "spec.tunnel",
            message: "`port` must be set when `type` is 'GUE'",
            accepted: tun(json!({"type": "GUE", "port": 5555, "checksum": "Remote"})),
            refused: tun(json!({"type": "GUE"})),
        },
        Case {
            at: "spec.tunnel",
            message: "`port` must not be set unless `type` is 'GUE'",
            accepted: tun(json!({"type": "GRE"})),
            refused: tun(json!({"type": "GRE", "port": 5555})),
        },
        Case {
            at: "spec.tunnel",
            message: "`checksum` must not be 'Remote' unless `type` is 'GUE'",
            accepted: tun(json!({"type": "GUE", "port": 5555, "checksum": "Remote"})),
            refused: tun(json!({"type": "GRE", "checksum": "Remote"})),
        },
        Case {
            at: "spec.tunnel",
            message: "`checksum` must be 'None' when `type` is 'IPIP'",
            accepted: tun(json!({"type": "GRE", "checksum": "Outer"})),
            refused: tun(json!({"checksum": "Outer"})),
        },
    ]
}

fn gateway_cases() -> Vec<Case> {
    let nat = |gateways: Value| json!({"forwarding": "NAT", "nat": {"gateways": gateways}});
    vec![
        Case {
            at: "spec",
            message: "`nat` must not be set unless `forwarding` is 'NAT'",
            accepted: json!({"forwarding": "NAT", "nat": {"returnPath": "Masquerade"}}),
            refused: json!({"nat": {"returnPath": "Masquerade"}}),
        },
        Case {
            at: "spec",
            message: "`nat.gateways` must not hold a VIP",
            accepted: nat(json!(["192.168.100.10"])),
            refused: nat(json!(["192.168.220.100"])),
        },
        Case {
            at: "spec",
            message: "`nat.gateways` must not hold an endpoint's address",
            accepted: nat(json!(["192.168.100.10"])),
            refused: nat(json!(["192.168.220.133"])),
        },
        Case {
            at: "spec.nat.gateways",
            message: "must hold canonical unicast addresses that are not loopback or link-local",
            accepted: nat(json!(["192.168.100.10", "2001:db8::10"])),
            refused: nat(json!(["127.0.0.1"])),
        },
        Case {
            at: "spec.nat.gateways",
            message: "must not hold two addresses of one family",
            accepted: nat(json!(["192.168.100.10", "2001:db8::10"])),
            refused: nat(json!(["2001:db8::10", "2001:db8::11"])),
        },
    ]
}

fn backend_cases() -> Vec<Case> {
    let endpoint = |endpoint: Value| json!({"backends": {"endpoints": [endpoint]}});
    let v6 = json!({"endpoints": [{"address": "2001:db8::11"}]});
    let with_port = json!({"endpoints": [{"address": "192.168.220.132", "port": 8080}]});
    vec![
        Case {
            at: "spec",
            message: "`address` of an endpoint must not be a VIP of the service",
            accepted: endpoint(json!({"address": "192.168.220.101"})),
            refused: endpoint(json!({"address": "192.168.220.100"})),
        },
        Case {
            at: "spec",
            message: "`address` of an endpoint must be of a VIP's family: only TUN mixes families",
            accepted: json!({"forwarding": "TUN", "backends": v6}),
            refused: json!({"forwarding": "NAT", "backends": v6}),
        },
        Case {
            at: "spec",
            message: "`port` of an endpoint must not be set when the service has several ports",
            accepted: json!({"forwarding": "NAT", "backends": with_port}),
            refused: json!({
                "forwarding": "NAT", "ports": [{"port": 80}, {"port": 443}], "backends": with_port,
            }),
        },
        Case {
            at: "spec",
            message: "`port` of an endpoint must not differ from the service's port: only NAT changes the port",
            accepted: json!({"ports": [{"port": 8080}], "backends": with_port}),
            refused: json!({"backends": with_port}),
        },
        Case {
            at: "spec.backends.endpoints[].address",
            message: "must be a canonical unicast address that is not loopback or link-local",
            accepted: endpoint(json!({"address": "10.0.0.1"})),
            refused: endpoint(json!({"address": "169.254.0.1"})),
        },
        Case {
            at: "spec.backends.endpoints[]",
            message: "`lowerThreshold` must not be greater than `upperThreshold`",
            accepted: endpoint(
                json!({"address": "10.0.0.1", "upperThreshold": 5, "lowerThreshold": 5}),
            ),
            refused: endpoint(json!({"address": "10.0.0.1", "lowerThreshold": 5})),
        },
    ]
}

fn group_cases() -> Vec<Case> {
    let pool = |addresses: Value| json!({"nodes": {"names": ["lvs1"]}, "pools": [{"name": "public", "addresses": addresses}]});
    vec![
        Case {
            at: "spec.nodes",
            message: "must hold either `names` or a `selector`",
            accepted: json!({"nodes": {"names": ["lvs1"]}}),
            refused: json!({"nodes": {"names": ["lvs1"], "selector": {"matchLabels": {"edge": "yes"}}}}),
        },
        Case {
            at: "spec.pools[].addresses",
            message: "must hold addresses, ranges `first-last` and networks",
            accepted: pool(json!([
                "10.0.0.1",
                "10.0.0.8/29",
                "2001:db8::1-2001:db8::9"
            ])),
            refused: pool(json!(["10.0.0.1-10.0.0.9-10.0.0.10"])),
        },
    ]
}

/// The spec with the fields of `changes` in place of its own.
fn merged(mut spec: Value, changes: &Value) -> Value {
    let fields = spec.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
    spec
}

/// The messages of the rules that refuse the spec, once the API server has filled in the defaults.
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

fn texts(rejections: Option<Vec<lvs_model::Rejection>>) -> Vec<String> {
    rejections
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Every rule of a schema as path and message.
fn collect_rules(schema: &Value, path: &str, rules: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        rules.insert((
            path.to_owned(),
            rule["message"].as_str().unwrap().to_owned(),
        ));
    }
    if !schema["items"].is_null() {
        collect_rules(&schema["items"], &format!("{path}[]"), rules);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect_rules(property, &path, rules);
    }
}

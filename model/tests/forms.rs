//! Stored and printed forms. They must stay stable: other versions of the program read them.
#![expect(clippy::unwrap_used, reason = "values that the test itself writes")]

use std::{collections::BTreeSet, sync::Arc};

use lvs_model::{
    AddressKey, ClusterView, Destination, DestinationKey, DirectorGroup, Family, Forwarding,
    FouPort, Frontend, KernelState, Ledger, Nat, NextHop, Node, ObjectName, Plan, PolicyRule, Port,
    Protocol, RESERVED_MARKS, RealServer, ReplacedSet, Route, RuleSelector, Scheduler,
    SchedulerFlag, SchedulerName, ServerSet, Service, ServiceConfig, ServiceKey, Stamp, Step,
    Sysctl, SysctlRecord, SysctlStep, Target, Timeouts, VirtualService, assign,
};
use serde_json::Value;

#[test]
fn a_ledger_with_every_kind_of_entry_keeps_its_json_form() {
    let record = |before, set| SysctlRecord { before, set };
    let sysctls = every_sysctl()
        .into_iter()
        .map(|sysctl| (sysctl, record(0, Some(1))))
        .chain([(Sysctl::AcceptRedirects(None), record(1, None))]);
    let name = ObjectName::new("shop", "web").unwrap();
    let ledger = Ledger {
        stamp: Stamp {
            boot: "5d0a".to_owned(),
            namespace: 4_026_531_840,
        },
        made: every_kind_of_target().into(),
        timeouts: Some(Timeouts {
            tcp_seconds: 900,
            tcp_fin_seconds: 120,
            udp_seconds: 300,
        }),
        sysctls: sysctls.collect(),
        has_served: true,
        served_at: ["192.168.100.11".parse().unwrap()].into(),
        formerly_served_at: ["192.168.100.12".parse().unwrap()].into(),
        server_sets: vec![server_set()],
        accepted: Arc::new([(name, ["10.0.0.100".parse().unwrap()].into())].into()),
        groups: [("edge".parse().unwrap(), DirectorGroup::default())].into(),
    };

    let json = serde_json::to_string_pretty(&ledger).unwrap();

    assert_eq!(serde_json::from_str::<Ledger>(&json).unwrap(), ledger);
    insta::assert_snapshot!(json);
}

/// Earlier versions stored the set before the last change alone, or null.
#[test]
fn the_earlier_form_of_a_set_of_real_servers_is_read() {
    let now = server_set();
    for (replaced, expected) in [(1, now.replaced.clone()), (0, Vec::new())] {
        let mut earlier = serde_json::to_value(&now).unwrap();
        let fields = earlier.as_object_mut().unwrap();
        let sets = fields.remove("replaced").unwrap();
        let previous = if replaced == 1 {
            sets[0].clone()
        } else {
            Value::Null
        };
        fields.insert("previous".to_owned(), previous);
        let read: ServerSet = serde_json::from_value(earlier).unwrap();
        assert_eq!(read.replaced, expected);
        assert_eq!(read.present, now.present);
    }
}

fn server_set() -> ServerSet {
    let set = |server: &str| {
        let key = DestinationKey {
            address: server.parse().unwrap(),
            port: 80,
        };
        let settings = Destination {
            forwarding: Forwarding::Dr,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        Service {
            config: ServiceConfig {
                scheduler: Scheduler::new(SchedulerName::Mh, &[SchedulerFlag::Port]),
                ..ServiceConfig::default()
            },
            destinations: [(key, settings)].into(),
            ..Service::default()
        }
    };
    ServerSet {
        key: ServiceKey::Address {
            address: "192.0.2.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        },
        present: set("192.0.2.12"),
        replaced: vec![ReplacedSet {
            servers: set("192.0.2.11"),
            mark: (*RESERVED_MARKS.start()).try_into().unwrap(),
            since: 1_790_000_000,
        }],
    }
}

fn every_kind_of_target() -> [Target; 11] {
    let interface = "eth0.100".parse().unwrap();
    let mark = 7.try_into().unwrap();
    let marked = RuleSelector::Fwmark {
        family: Family::V4,
        mark,
    };
    let replies = RuleSelector::Replies {
        source: "10.0.0.11".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 8080,
    };
    let rule = |table, selector| Target::Rule(PolicyRule { table, selector });
    let route = |table, next_hop| Target::Route(Route { table, next_hop });
    let gateway = NextHop::Gateway {
        address: "10.0.0.10".parse().unwrap(),
        interface: "eth0.100".parse().unwrap(),
    };
    [
        Target::Address(AddressKey::host(&interface, "10.0.0.100".parse().unwrap())),
        Target::Link("lvs-ipip-54a2b1".parse().unwrap()),
        Target::FouPort(FouPort {
            family: Family::V6,
            port: 6080,
        }),
        route(7_600_011, gateway),
        route(7_600_000, NextHop::Local { family: Family::V6 }),
        rule(7_600_000, marked),
        rule(7_600_011, replies),
        Target::Masquerade,
        Target::Strays,
        Target::Service(ServiceKey::Address {
            address: "2001:db8::1".parse().unwrap(),
            protocol: Protocol::Sctp,
            port: 3868,
        }),
        Target::Service(ServiceKey::Fwmark {
            mark,
            family: Family::V6,
        }),
    ]
}

#[test]
fn setting_a_sysctl_again_keeps_the_value_found_first() {
    let observed = KernelState::default();
    let set = |previous| Plan {
        steps: vec![Step::Sysctl(SysctlStep::Set {
            sysctl: Sysctl::ArpIgnore(None),
            value: 1,
            previous: Some(previous),
        })],
    };
    let mut ledger = Ledger::default();

    assert!(ledger.intend(&set(0), &observed));
    assert!(!ledger.intend(&set(8), &observed));

    let record = SysctlRecord {
        before: 0,
        set: Some(1),
    };
    assert_eq!(ledger.sysctls[&Sysctl::ArpIgnore(None)], record);
}

#[test]
fn a_ledger_with_unknown_or_missing_content_is_refused() {
    let parse = serde_json::from_str::<Value>;
    let empty = serde_json::to_value(Ledger::default()).unwrap();
    assert!(serde_json::from_value::<Ledger>(empty.clone()).is_ok());
    for missing in ["stamp", "made", "sysctls"] {
        let mut ledger = empty.clone();
        ledger.as_object_mut().unwrap().remove(missing);
        assert!(
            serde_json::from_value::<Ledger>(ledger).is_err(),
            "{missing}"
        );
    }
    for (field, value) in [
        ("tunnels", "[]"),
        ("made", r#"[{"Link": "a/b"}]"#),
        ("sysctls", r#"{"net/x": {"before": 0, "set": 1}}"#),
    ] {
        let mut ledger = empty.clone();
        ledger[field] = parse(value).unwrap();
        assert!(serde_json::from_value::<Ledger>(ledger).is_err(), "{field}");
    }
}

#[test]
fn every_sysctl_parses_back_from_its_path() {
    for sysctl in every_sysctl() {
        assert_eq!(sysctl.path().parse(), Ok(sysctl.clone()));
        assert!(sysctl.to_string().starts_with("net"));
    }
}

#[test]
fn a_service_key_prints_its_protocol_and_socket_or_its_mark() {
    let address = |address: &str, protocol, port| ServiceKey::Address {
        address: address.parse().unwrap(),
        protocol,
        port,
    };
    let mark = ServiceKey::Fwmark {
        mark: 7.try_into().unwrap(),
        family: Family::V6,
    };
    let cases = [
        (
            address("10.0.0.1", Protocol::Tcp, 80).to_string(),
            "TCP 10.0.0.1:80",
        ),
        (
            address("2001:db8::1", Protocol::Udp, 53).to_string(),
            "UDP [2001:db8::1]:53",
        ),
        (mark.to_string(), "fwmark 7 IPv6"),
    ];
    for (text, expected) in cases {
        assert_eq!(text, expected);
    }
}

#[test]
fn the_oldest_service_keeps_a_contested_key_and_one_without_age_counts_as_youngest() {
    let ages = [("a", None), ("b", Some(200)), ("c", Some(100))];
    let mut view = ClusterView::default();
    for (name, created) in ages {
        let name = ObjectName::new("shop", name).unwrap();
        view.services.insert(name, service(created).into());
    }
    let director = Node {
        name: "lvs1".parse().unwrap(),
        addresses: BTreeSet::new(),
        has_served: false,
        networks: BTreeSet::new(),
        absent: BTreeSet::new(),
        has_directed: true,
        accepted: Default::default(),
    };

    let assignment = assign(&view, &director);

    let kept: Vec<String> = assignment
        .spec
        .directs
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(kept, ["shop/c"]);
    let refused: Vec<String> = assignment
        .rejections
        .iter()
        .map(ToString::to_string)
        .collect();
    let reason = "`spec.ports[0].port` must not be in use: TCP 10.0.0.100:80 belongs to VirtualService shop/c";
    assert_eq!(
        refused,
        ["a", "b"].map(|name| format!("VirtualService shop/{name}: {reason}"))
    );
}

fn service(created: Option<i64>) -> VirtualService {
    VirtualService {
        created,
        group: "default".parse().unwrap(),
        frontend: Frontend::Addresses {
            vips: vec!["10.0.0.100".parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
            }],
        },
        forwarding: Forwarding::Nat,
        nat: Nat::default(),
        scheduler: Scheduler::default(),
        persistence: None,
        one_packet: false,
        alone: false,
        previous: Vec::new(),
        real_servers: vec![RealServer {
            address: "10.0.0.11".parse().unwrap(),
            ports: vec![8080].into(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            forwarding: Forwarding::Nat,
            service: None,
        }],
    }
}

fn every_sysctl() -> Vec<Sysctl> {
    let mut all = vec![
        Sysctl::Ipv4Forward,
        Sysctl::Ipv6Forward,
        Sysctl::VsConntrack,
        Sysctl::VsConnReuseMode,
        Sysctl::VsExpireNodestConn,
        Sysctl::VsExpireQuiescentTemplate,
        Sysctl::VsSloppyTcp,
        Sysctl::VsBackupOnly,
    ];
    for interface in [None, Some("eth0.100".parse().unwrap())] {
        all.extend([
            Sysctl::Forwarding(interface.clone()),
            Sysctl::AcceptRedirects(interface.clone()),
            Sysctl::ArpIgnore(interface.clone()),
            Sysctl::ArpAnnounce(interface.clone()),
            Sysctl::RpFilter(interface.clone()),
            Sysctl::SendRedirects(interface),
        ]);
    }
    all
}

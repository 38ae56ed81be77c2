//! Both paths agree: the slow one gives the same object for every document that the fast one reads.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{
    super::{place::SourceFile, separator},
    read_plain, read_yaml,
};

#[test]
fn both_paths_read_a_file_and_its_documents_alike() {
    for folder in ["../examples", "../tests/bad-input"] {
        for text in texts(folder) {
            agree(&text);
            for document in separator::documents(&text) {
                agree(document.text);
            }
        }
    }
}

#[test]
fn every_document_of_the_examples_takes_the_fast_path() {
    for text in texts("../examples") {
        for document in separator::documents(&text) {
            assert!(is_fast(document.text), "{}", document.text);
        }
    }
}

#[test]
fn the_output_of_generators_takes_the_fast_path() {
    for spec in FAST {
        assert!(agree(&service(spec)), "{spec}");
    }
}

#[test]
fn a_document_outside_the_subset_takes_the_slow_path() {
    for spec in SLOW {
        assert!(!agree(&service(spec)), "{spec}");
    }
    for text in [
        "- a: 1\n",
        "  apiVersion: x\n",
        "[]",
        "{}",
        "...\n",
        "%YAML 1.2\n---\na: 1\n",
        "",
        "--- a: 1\n",
    ] {
        assert!(!agree(text), "{text}");
    }
    assert!(!agree(&service("").replace('\n', "\r\n")));
    assert!(!agree(&format!("\u{feff}{}", service(""))));
    assert!(!agree(&service(&format!("  x: {}", "[".repeat(100_000)))));
}

const FAST: [&str; 14] = [
    "",
    "  fwmark: 7\n",
    "  fwmark: ~\n",
    "  fwmark:\n",
    "  fwmark: null # none\n",
    "  addresses:\n  - 10.0.0.1\n  - 2001:db8::1\n",
    "  addresses:\n    - '10.0.0.1'   # one\n\n    # two\n    - \"2001:db8::1\"\n",
    "  addresses: [ 10.0.0.1 , fe80::1 ]\n",
    "  ports:\n  - port: 80\n    name: http\n  -   name: b\n      port: 81\n  forwarding: NAT\n",
    "  ports: [{port: 80}, {port: 81, name: 'b'}]\n",
    "  ports: []\n  backends: []\n",
    "  onePacket: true\n  'directorGroup': edge\n",
    "  backends:\n    - {address: 10.0.0.2, weight: 3}\n    - address: 10.0.0.3\n  nat: {}\n",
    "  tunnel:\n  nat: ~\n  persistence:\n",
];

const SLOW: [&str; 72] = [
    "  fwmark: 0x10\n",
    "  fwmark: 010\n",
    "  fwmark: 1e3\n",
    "  fwmark: 1_000\n",
    "  fwmark: .5\n",
    "  fwmark: +1\n",
    "  fwmark: -1\n",
    "  fwmark: 1.0\n",
    "  fwmark: 0o7\n",
    "  fwmark: 0b1\n",
    "  fwmark: '7'\n",
    "  fwmark: \"7\"\n",
    "  fwmark: Null\n",
    "  fwmark: NULL\n",
    "  fwmark: 99999999999999999999\n",
    "  fwmark: 7 8\n",
    "  fwmark: 7\n    8\n",
    "  fwmark: 7\n  fwmark: 7\n",
    "  fwmark: 7#x\n",
    "  fwmark: &a 7\n",
    "  fwmark: *a\n",
    "  fwmark: !!int 7\n",
    "  fwmark: |\n    7\n",
    "  fwmark: >\n    7\n",
    "  fwmark:7\n",
    "  fwmark :\n    7\n",
    "  fwmark:\n    7\n",
    "  ? fwmark\n  : 7\n",
    "  onePacket: yes\n",
    "  onePacket: True\n",
    "  onePacket: 'true'\n",
    "  onePacket: on\n",
    "  onePacket: 1\n",
    "  directorGroup: no\n",
    "  directorGroup: Y\n",
    "  directorGroup: 7\n",
    "  directorGroup: null\n",
    "  directorGroup: ~x\n",
    "  directorGroup: NaN\n",
    "  directorGroup: .inf\n",
    "  directorGroup: 2001-01-01\n",
    "  directorGroup: a b\n",
    "  directorGroup: a:\n",
    "  directorGroup: a: b\n",
    "  directorGroup: 'it''s'\n",
    "  directorGroup: \"a\\n\"\n",
    "  directorGroup: 'a\n    b'\n",
    "  directorGroup: \"\u{e4}\"\n",
    "  directorGroup: @a\n",
    "  directorGroup: `a`\n",
    "  directorGroup: 1:20\n",
    "  directorGroup: {a: b}\n",
    "  directorGroup: [a]\n",
    "  <<: {}\n",
    "\tfwmark: 7\n",
    "  fwmark:\t7\n",
    "   fwmark: 7\n",
    " fwmark: 7\n",
    "  ports: [[a, TCP, 80, 80]]\n",
    "  ports:\n  - - a\n",
    "  ports:\n  -\n    port: 80\n",
    "  ports: [{port: 80},]\n",
    "  ports: [{port: 80}\n  ]\n",
    "  ports: [port: 80]\n",
    "  ports: {port: 80}\n",
    "  ports: ~\n",
    "  nat: [Masquerade]\n",
    "  tunnel: [GUE, 5555, None]\n",
    "  forwarding: {DR: null}\n",
    "  forwarding:\n    DR:\n",
    "  prots: []\n",
    "  scheduler:\n  - rr\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn services_in_any_style_read_alike(text in written()) {
        prop_assert!(agree(&text), "slow: {}", text);
    }

    #[test]
    fn damaged_services_read_alike(
        text in written(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3, prop::sample::select(BYTES.to_vec())), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        agree(str::from_utf8(&bytes).unwrap());
    }
}

const BYTES: &[u8] = b" \n\t#:-,'\"[]{}~0179aeny.|>&*!?%@\\_<";

/// Generates a service in one of the styles of the subset.
fn written() -> impl Strategy<Value = String> {
    let endpoint = (
        1..255_u8,
        prop::option::of(0..9_u32),
        any::<bool>(),
        any::<bool>(),
    );
    let style = (any::<bool>(), any::<bool>(), 1..5_usize, 0..3_usize);
    let ports = prop::collection::vec((1..65536_u32, any::<bool>()), 0..4);
    (style, ports, prop::collection::vec(endpoint, 0..5)).prop_map(|(style, ports, endpoints)| {
        let (quotes, comments, step, list) = style;
        let quote = |text: &str| if quotes { format!("'{text}'") } else { text.to_owned() };
        let end = if comments { "  # a: [\n\n      # b\n" } else { "\n" };
        let (one, dash) = (" ".repeat(step), " ".repeat(step + list));
        let mut text = format!(
            "---{end}apiVersion: {}{end}kind: VirtualService\nmetadata:\n{one}name: {}{end}spec:{end}{one}addresses: [10.0.0.1]{end}",
            quote("lvs-operator.io/v1alpha1"), quote("web"),
        );
        if !ports.is_empty() {
            text += &format!("{one}ports:{end}");
        }
        for (port, flow) in ports {
            text += &if flow { format!("{dash}- {{port: {port}}}{end}") } else { format!("{dash}- port: {port}{end}{dash}  protocol: UDP\n") };
        }
        if !endpoints.is_empty() {
            text += &format!("{one}backends:{end}");
        }
        for (host, weight, flow, v6) in endpoints {
            let address = if v6 { format!("2001:db8::{host}") } else { format!("10.0.1.{host}") };
            let address = quote(&address);
            let weight = weight.map(|weight| format!("weight: {weight}"));
            text += &if flow {
                let weight = weight.map_or_else(String::new, |weight| format!(", {weight}"));
                format!("{one}{dash}- {{address: {address}{weight} }}{end}")
            } else {
                let weight = weight.map_or_else(String::new, |weight| format!("{one}{dash}  {weight}{end}"));
                format!("{one}{dash}- address: {address}{end}{weight}")
            };
        }
        text
    })
}

/// Checks that both paths agree; returns whether the fast path read the object.
fn agree(text: &str) -> bool {
    let document = separator::Document {
        text,
        number: 1,
        first_line: 1,
    };
    let file = SourceFile {
        origin: "web.yaml",
        has_several: false,
    };
    let Some(fast) = read_plain(text) else {
        return false;
    };
    let slow = read_yaml(&file, &document).map_err(|refusal| refusal.rejections);
    assert_eq!(Ok(fast), slow, "{text}");
    true
}

fn is_fast(text: &str) -> bool {
    read_plain(text).is_some()
}

fn service(spec: &str) -> String {
    format!(
        "apiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata:\n  name: web\nspec:\n  scheduler: {{name: rr}}\n{spec}"
    )
}

fn texts(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_file())
        .map(|path| fs::read(path).unwrap())
        .filter_map(|bytes| String::from_utf8(bytes).ok())
        .collect()
}

/// The API server takes null for every field that may be absent.
#[test]
fn a_field_that_is_null_counts_as_absent() {
    let service = |spec: &str| {
        format!(
            "apiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let group = |spec: &str| {
        format!(
            "apiVersion: lvs-operator.io/v1alpha1\nkind: DirectorGroup\nmetadata: {{name: edge}}\nspec: {spec}\n"
        )
    };
    let read = |text: &str| {
        let manifest = crate::manifest::parse("test.yaml", text.as_bytes());
        assert!(
            manifest.rejections.is_empty(),
            "{text}: {:?}",
            manifest.rejections
        );
        let mut objects = manifest.objects.into_iter();
        objects.next().unwrap().object
    };
    for (with_null, without) in [
        (
            service(
                "{addresses: [192.168.220.100], ports: [{port: 80, protocol: null}], backends: null, scheduler: null, \
                 forwarding: null, onePacket: null, directorGroup: null, persistence: {timeoutSeconds: null}}",
            ),
            service("{addresses: [192.168.220.100], ports: [{port: 80}], persistence: {}}"),
        ),
        (
            service(
                "{addresses: [192.168.220.100], ports: [{port: 80}], backends: [{address: 192.168.220.131, weight: null}, \
                 {address: 192.168.220.132, weight: null, upperThreshold: null}]}",
            ),
            service(
                "{addresses: [192.168.220.100], ports: [{port: 80}], backends: [{address: 192.168.220.131}, \
                 {address: 192.168.220.132}]}",
            ),
        ),
        (
            group(
                "{nodes: {names: [lvs1]}, gateways: null, fwmarks: null, failover: {routers: null, standby: null, \
                 priorities: null, unicast: null, connections: null}, timeouts: {tcpSeconds: null}}",
            ),
            group("{nodes: {names: [lvs1]}, failover: {}, timeouts: {}}"),
        ),
    ] {
        assert_eq!(read(&with_null), read(&without));
    }
}

#[test]
fn a_message_names_the_fault_and_no_null_beside_it() {
    for (spec, field, reason) in [
        (
            "{backends: null, ports: [{port: null}]}",
            "spec.ports[0].port",
            "must be set",
        ),
        (
            "{ports: [{protocol: null, port: 80}], backends: [{weight: null, address: 7}]}",
            "spec.backends[0].address",
            "must be a string: '7' needs quotes",
        ),
        (
            "{scheduler: null, fwmark: many}",
            "spec.fwmark",
            "must be an integer, not 'many'",
        ),
        (
            "{scheduler: null, onePacket: many}",
            "spec.onePacket",
            "must be true or false, not 'many'",
        ),
        (
            "{scheduler: null, forwarding: MASQ, backends: null}",
            "spec.forwarding",
            "must be one of NAT, DR, TUN, not 'MASQ'",
        ),
        (
            "{backends: null, ports: 80}",
            "spec.ports",
            "must be a list, not '80'",
        ),
        (
            "{backends: [null], scheduler: null}",
            "spec.backends[0]",
            "must be a mapping, not null",
        ),
    ] {
        let text = format!(
            "apiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n"
        );
        let refused = crate::manifest::parse("test.yaml", text.as_bytes());
        let found = refused.rejections.iter().map(|refused| {
            let rejection = &refused.rejection;
            (rejection.field.as_str(), rejection.reason.as_str())
        });
        let found: Vec<_> = found.collect();
        assert_eq!(found, [(field, reason)], "{spec}");
    }
}

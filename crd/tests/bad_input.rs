//! Each wrong file of `tests/bad-input` gives exactly the messages in the `.expected` file beside it.
//!
//! `UPDATE_EXPECTED=1 cargo test -p lvs-crd --test bad_input` writes them again; review the diff.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use lvs_crd::{
    convert,
    manifest::{self, Entry, Manifest, Object},
};
use lvs_model::{ClusterView, Node, assign};

#[test]
fn every_wrong_file_gives_the_messages_beside_it() {
    let update = env::var_os("UPDATE_EXPECTED").is_some();
    assert!(
        !(update && env::var_os("CI").is_some()),
        "UPDATE_EXPECTED must be off in CI"
    );
    let files = wrong_files();
    assert!(files.len() >= 45, "only {} files", files.len());
    let mut differences = Vec::new();
    for path in files {
        let messages = messages(&file_name(&path), &fs::read(&path).unwrap());
        assert!(!messages.is_empty(), "{} is not refused", path.display());
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &messages).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != messages {
            differences.push(format!("{}:\n{messages}", expected.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn expected_messages_have_a_file() {
    for path in listing().filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "expected")
    }) {
        assert!(path.with_extension("yaml").exists(), "{}", path.display());
    }
}

#[test]
fn a_hundred_thousand_endpoints_are_one_message() {
    let endpoints: String = (0..100_000)
        .map(|i| {
            format!(
                "    - {{address: 10.{}.{}.{}}}\n",
                1 + i / 65536,
                i / 256 % 256,
                i % 256
            )
        })
        .collect();
    let text = format!("{SERVICE}  backends:\n{endpoints}");
    assert_eq!(
        messages("web.yaml", text.as_bytes()),
        "VirtualService shop/web: `spec.backends` must not hold more than 1000 backends, not '100000'\n"
    );
}

#[test]
fn ten_thousand_ports_are_one_message() {
    let ports: String = (1..=10_000)
        .map(|port| format!("  - {{port: {port}}}\n"))
        .collect();
    let text = format!("{}{ports}", SERVICE.trim_end_matches("  - {port: 80}\n"));
    assert_eq!(
        messages("web.yaml", text.as_bytes()),
        "VirtualService shop/web: `spec.ports` must not hold more than 64 ports, not '10000': a range of ports, or all of them, is served by `fwmark`\n"
    );
}

#[test]
fn a_file_over_the_bound_is_refused_whole() {
    let mut bytes = SERVICE.as_bytes().to_vec();
    bytes.resize(manifest::MAX_BYTES + 1, b'\n');
    assert_eq!(
        messages("web.yaml", &bytes),
        "web.yaml: must not be larger than 64 MiB\n"
    );
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        for text in [
            open.repeat(100_000),
            format!("{}{}", open.repeat(50_000), close.repeat(50_000)),
        ] {
            let manifest =
                manifest::parse("web.yaml", format!("{SERVICE}  x: {text}\n").as_bytes());
            assert_eq!(manifest.objects, []);
            assert!(manifest.unreadable);
        }
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let manifest = manifest::parse("web.yaml", format!("{text}{SERVICE}").as_bytes());
    assert_eq!(manifest.objects, []);
    assert!(manifest.unreadable);
}

const SERVICE: &str = "apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [192.168.220.100]
  ports:
  - {port: 80}
";

/// Returns the lines that the agent would log, one for each rejection.
fn messages(origin: &str, bytes: &[u8]) -> String {
    let Manifest {
        objects,
        rejections,
        ..
    } = manifest::parse(origin, bytes);
    let mut lines: Vec<String> = rejections
        .iter()
        .map(|rejected| rejected.rejection.to_string())
        .collect();
    let mut view = ClusterView::default();
    for Entry { object, .. } in &objects {
        let rejections = match object {
            Object::VirtualService(object) => convert::virtual_service(object)
                .map(|(name, service)| drop(view.services.insert(name, service.into()))),
            Object::AddressPool(object) => {
                convert::address_pool(object).map(|(name, pool)| view.pools.set(name, Some(pool)))
            }
            Object::DirectorGroup(object) => convert::director_group(object)
                .map(|(name, group)| drop(view.groups.insert(name, group))),
        };
        lines.extend(
            rejections
                .err()
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string),
        );
    }
    let director = Node {
        name: "lvs1".parse().unwrap(),
        addresses: ["192.168.220.137".parse().unwrap()].into(),
        has_served: false,
        networks: BTreeSet::new(),
        absent: BTreeSet::new(),
        has_directed: true,
        accepted: Default::default(),
    };
    lines.extend(
        assign(&view, &director)
            .rejections
            .iter()
            .map(ToString::to_string),
    );
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the files that one machine alone can refuse. A missing director shows only with two machines, in the kernel
/// tests.
fn wrong_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = listing()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .filter(|path| file_name(path) != "assign-no-director-named.yaml")
        .collect();
    files.sort();
    files
}

fn listing() -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bad-input");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

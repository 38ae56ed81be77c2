//! Which objects and rejections a file gives, and when a missing object may be deleted.

use lvs_crd::manifest::{self, Manifest};
use lvs_model::ObjectRef;

#[test]
fn a_rejected_object_with_a_name_keeps_its_last_good_version() {
    let manifest = parse(&[&service("web", "  prots: []\n")]);
    assert_eq!(identities(&manifest), ["VirtualService shop/web"]);
    assert!(!manifest.unreadable);
}

#[test]
fn an_object_without_a_name_makes_the_file_unreadable() {
    for document in [
        "",
        "# nothing\n",
        "a: [\n",
        "- 1\n",
        "apiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nspec: {}\n",
        "apiVersion: lvs-operator.io/v1alpha1\nkind: Other\nmetadata: {name: web}\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "kind: ConfigMap\nmetadata: {name: web}\n",
    ] {
        let manifest = parse(&[document]);
        assert_eq!(manifest.rejections.len(), 1, "{document}");
        assert_eq!(manifest.rejections[0].identity, None, "{document}");
        assert!(manifest.unreadable, "{document}");
    }
}

#[test]
fn an_object_of_another_project_leaves_the_file_readable() {
    let manifest = parse(&[
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n",
        &service("web", ""),
    ]);
    assert_eq!((manifest.objects.len(), manifest.rejections.len()), (1, 1));
    assert!(!manifest.unreadable);
}

#[test]
fn a_broken_document_rejects_only_itself() {
    let manifest = parse(&[
        &service("a", ""),
        "spec: {a: [1, 2\n",
        "\t- x: 'y\n",
        &service("b", ""),
    ]);
    assert_eq!(
        names(&manifest),
        ["VirtualService shop/a", "VirtualService shop/b"]
    );
    assert!(manifest.unreadable);
    let places: Vec<_> = manifest
        .rejections
        .iter()
        .map(|r| r.rejection.origin.as_str())
        .collect();
    assert_eq!(
        places,
        [
            "web.yaml, document 2, line 9",
            "web.yaml, document 3, line 11"
        ]
    );
}

#[test]
fn the_output_of_kubectl_get_can_be_read() {
    let text = service("web", "status:\n  conditions: [{type: Ready}]\n").replace(
        "name: web",
        "name: web, uid: '1', resourceVersion: '7', generation: 2, labels: {a: b}, \
         creationTimestamp: '2026-11-01T00:00:00Z', managedFields: [{manager: kubectl}]",
    );
    let manifest = parse(&[&text]);
    assert_eq!(manifest.rejections, []);
    assert_eq!(manifest.objects.len(), 1);
}

#[test]
fn json_line_ends_of_windows_and_a_byte_order_mark_are_read() {
    let json = r#"{"apiVersion": "lvs-operator.io/v1alpha1", "kind": "VirtualService",
        "metadata": {"name": "web"}, "spec": {"addresses": ["192.168.220.100"]}}"#;
    let windows = format!("\u{feff}{}", service("web", "")).replace('\n', "\r\n");
    for text in [json, &windows] {
        let manifest = parse(&[text]);
        assert_eq!(manifest.rejections, []);
        assert_eq!(manifest.objects.len(), 1);
    }
}

#[test]
fn a_field_twice_is_refused() {
    for twice in [
        "  addresses: [192.168.220.101]\n",
        "  fwmark: 7\n  fwmark: 8\n",
    ] {
        let manifest = parse(&[&service("web", twice)]);
        assert_eq!(manifest.objects, []);
        assert!(manifest.rejections[0].rejection.reason.ends_with("twice"));
    }
}

#[test]
fn a_large_file_is_read_in_its_order() {
    let documents: Vec<_> = (0..5000)
        .map(|i| service(&format!("web-{i}"), ""))
        .collect();
    let mut documents: Vec<_> = documents.iter().map(String::as_str).collect();
    documents[4321] = "a: [\n";
    let manifest = parse(&documents);
    assert_eq!(manifest.objects.len(), 4999);
    assert_eq!(names(&manifest)[4998], "VirtualService shop/web-4999");
    assert!(
        manifest.rejections[0]
            .rejection
            .origin
            .starts_with("web.yaml, document 4322, line ")
    );
}

#[test]
fn an_unchanged_document_is_recalled() {
    let [web, api] = [service("web", ""), service("api", "")];
    let first = parse(&[&web, &api]);
    let second = manifest::parse_each(
        "web.yaml",
        [web, service("api", "  fwmark: 7\n")]
            .join("---\n")
            .as_bytes(),
        |digest| {
            let known = first.objects.iter().find(|entry| entry.digest == digest)?;
            Some((known.identity.clone(), "recalled"))
        },
        |_| "read",
    );
    let objects: Vec<_> = second.objects.iter().map(|entry| entry.object).collect();
    assert_eq!(objects, ["recalled", "read"]);
}

fn parse(documents: &[&str]) -> Manifest {
    manifest::parse("web.yaml", documents.join("---\n").as_bytes())
}

fn service(name: &str, more: &str) -> String {
    format!(
        "apiVersion: lvs-operator.io/v1alpha1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  addresses: [192.168.220.100]\n  ports:\n  - port: 80\n{more}"
    )
}

fn names(manifest: &Manifest) -> Vec<String> {
    manifest
        .objects
        .iter()
        .map(|entry| entry.identity.to_string())
        .collect()
}

fn identities(manifest: &Manifest) -> Vec<String> {
    let known = manifest
        .rejections
        .iter()
        .filter_map(|rejected| rejected.identity.as_ref());
    known.map(ObjectRef::to_string).collect()
}

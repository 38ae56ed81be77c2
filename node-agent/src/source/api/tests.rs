//! Tests of the API server as a source: snapshots, updates, and the cached objects.

use std::path::Path;

use kube::runtime::watcher::Event;
use lvs_crd::slice_name;
use lvs_model::ObjectName;
use lvs_runtime::guarded::Guarded;
use serde_json::{Value, json};

use super::*;

fn source() -> ApiSource {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config.clone()).unwrap();
    let namespace = "lvs-system".to_owned();
    let mut source = ApiSource::new(
        "lvs1".parse().unwrap(),
        client,
        LeaseArgs { config, namespace },
    );
    source.served.fill(Vec::new());
    source
}

fn binding(name: &str, generation: i64, port: i64) -> DirectorBinding {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}-lvs1"), "uid": name, "generation": generation},
        "spec": {"node": "lvs1", "virtualService": name, "generation": 7,
            "directorGroup": "edge", "addresses": ["192.168.220.100"], "ports": [{"port": port}]},
    });
    serde_json::from_value(object).unwrap()
}

fn served(name: &str, port: i64) -> RealServerBinding {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "RealServerBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}.lvs1"), "uid": name, "generation": 1},
        "spec": {"node": "lvs1", "virtualService": name, "addresses": ["192.168.220.100"],
            "ports": [{"port": port}], "realServers": [{"address": "192.168.220.12"}]},
    });
    serde_json::from_value(object).unwrap()
}

/// A binding with slices, each with one real server; `weights` are theirs.
fn sliced(generation: i64, weights: &[i64]) -> (DirectorBinding, Vec<DirectorBinding>) {
    let mut first = binding("web", generation, 80);
    let name = first.metadata.name.clone().unwrap();
    let slices = (1..).zip(weights).map(|(number, weight)| {
        let address = format!("10.0.0.{number}");
        let servers = json!([{"address": address, "weight": weight}]);
        let servers: Vec<lvs_crd::BoundServer> = serde_json::from_value(servers).unwrap();
        let revision = lvs_crd::slice_revision(&servers).unwrap();
        first.spec.slices.push(revision.clone());
        let mut slice = binding("web", *weight, 80);
        slice.metadata.name = Some(slice_name(&name, number));
        slice.metadata.uid = Some(format!("slice {number}"));
        slice.spec = lvs_crd::DirectorBindingSpec {
            node: "lvs1".to_owned(),
            virtual_service: "web".to_owned(),
            real_servers: servers,
            slice: Some(lvs_crd::BindingSlice {
                of: name.clone(),
                number: number.try_into().unwrap(),
                revision,
            }),
            ..lvs_crd::DirectorBindingSpec::default()
        };
        slice
    });
    let slices = slices.collect();
    (first, slices)
}

/// The weights of the real servers of `shop/web`.
fn weights(snapshot: &Snapshot) -> Vec<u32> {
    let services = snapshot.view.services.values();
    let servers = services.flat_map(|service| &service.real_servers);
    servers.map(|server| server.weight).collect()
}

/// An object that cannot be decoded.
fn broken<K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned>(
    name: &str,
) -> Guarded<K> {
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"namespace": "shop", "name": name, "uid": "web", "generation": 9},
        "spec": {"node": 7},
    });
    serde_json::from_value(object).unwrap()
}

fn lvs_node(spec: &Value) -> LvsNode {
    let object = json!({"apiVersion": "lvs-operator.io/v1alpha1", "kind": "LvsNode",
        "metadata": {"name": "lvs1"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn ports(snapshot: &Snapshot) -> Vec<(String, u16)> {
    let services = snapshot.view.services.iter();
    services
        .map(|(name, service)| (name.to_string(), service.frontend.ports()[0].port))
        .collect()
}

fn read(source: &mut ApiSource, directory: &Path) -> Result<Changes, ApiError> {
    source.read(&StateDir::lock(directory).unwrap())
}

/// Reads, and returns the snapshot.
fn read_all(source: &mut ApiSource, directory: &Path) -> Snapshot {
    read(source, directory).unwrap();
    source.snapshot().unwrap().clone()
}

fn services(names: &[&str]) -> Changes {
    let names = names
        .iter()
        .map(|name| ObjectName::new("shop", name).unwrap());
    Changes::Services(names.collect())
}

fn web_on(port: u16) -> Vec<(String, u16)> {
    vec![("shop/web".to_owned(), port)]
}

#[tokio::test]
async fn there_is_no_configuration_before_all_lists_are_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.served = Reflector::new("RealServerBindings");
    let waiting = |result| matches!(result, Err(ApiError::NotListed(None)));
    assert!(waiting(read(&mut source, directory.path())));
    source.bindings.fill(vec![binding("web", 1, 80)]);
    assert!(waiting(read(&mut source, directory.path())));
    source.lvs_nodes.fill(Vec::new());
    assert!(waiting(read(&mut source, directory.path())));
    source.served.fill(Vec::new());
    assert_eq!(ports(&read_all(&mut source, directory.path())), web_on(80));
}

#[tokio::test]
async fn a_faulty_binding_keeps_its_last_good_version_over_a_restart_until_it_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = source();
    before.lvs_nodes.fill(Vec::new());
    before
        .bindings
        .fill(vec![binding("web", 1, 80), binding("api", 1, 81)]);
    read(&mut before, directory.path()).unwrap();
    before
        .bindings
        .fill(vec![binding("web", 2, 70000), binding("api", 1, 81)]);
    let snapshot = read_all(&mut before, directory.path());
    assert_eq!(snapshot.rejections.len(), 1);
    assert_eq!(snapshot.view.services.len(), 2);
    before.finish().await;

    let mut after = source();
    after.lvs_nodes.fill(Vec::new());
    after.bindings.fill(vec![binding("web", 2, 70000)]);

    let snapshot = read_all(&mut after, directory.path());

    assert_eq!(ports(&snapshot), web_on(80));
    assert_eq!(snapshot.rejections.len(), 1);
    after.bindings.fill(Vec::new());
    assert_eq!(ports(&read_all(&mut after, directory.path())), []);
}

#[tokio::test]
async fn cached_objects_are_served_until_the_api_server_answers() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = source();
    before.bindings.fill(vec![binding("web", 1, 80)]);
    before.lvs_nodes.fill(Vec::new());
    read(&mut before, directory.path()).unwrap();
    before.finish().await;

    let mut after = source();
    assert_eq!(ports(&read_all(&mut after, directory.path())), web_on(80));
    after.bindings.fill(vec![binding("web", 2, 8080)]);
    assert_eq!(ports(&read_all(&mut after, directory.path())), web_on(80));
    after.lvs_nodes.fill(Vec::new());
    assert_eq!(ports(&read_all(&mut after, directory.path())), web_on(8080));
}

#[tokio::test]
async fn a_lvs_node_that_is_deleted_and_made_anew_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    let groups = json!({"groups": [{"name": "edge", "interface": "eth7"}]});
    source.bindings.fill(vec![binding("web", 1, 80)]);
    source.served.fill(vec![served("api", 81)]);
    source.lvs_nodes.fill(vec![lvs_node(&groups)]);
    let before = read_all(&mut source, directory.path());
    assert_eq!(before.view.services.len(), 2);

    source.lvs_nodes.fill(Vec::new());
    assert_eq!(read_all(&mut source, directory.path()), before);
    let mut anew = lvs_node(&json!({}));
    anew.metadata.generation = Some(1);
    anew.metadata.uid = Some("another".to_owned());
    source.lvs_nodes.fill(vec![anew.clone()]);
    assert_eq!(read_all(&mut source, directory.path()), before);
    let uid = source
        .objects()
        .lvs_node
        .as_ref()
        .unwrap()
        .metadata
        .uid
        .clone();
    assert_eq!(uid.as_deref(), Some("another"), "its status is written");

    anew.metadata.generation = Some(2);
    source.lvs_nodes.fill(vec![anew]);
    let after = read_all(&mut source, directory.path());
    let group = &after.view.groups[&"edge".parse().unwrap()];
    assert_eq!(group.interface, None, "the controller has written it");
}

#[tokio::test]
async fn the_last_complete_set_of_slices_stays_in_force_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = source();
    before.lvs_nodes.fill(Vec::new());
    let (first, slices) = sliced(1, &[1, 1]);
    before.bindings.fill([vec![first], slices].concat());
    assert_eq!(weights(&read_all(&mut before, directory.path())), [1, 1]);

    let (first, slices) = sliced(2, &[2, 3]);
    before.bindings.receive(slices[0].clone());
    assert_eq!(read(&mut before, directory.path()).unwrap(), services(&[]));
    before.bindings.receive(first.clone());
    let waiting = read_all(&mut before, directory.path());
    assert_eq!(weights(&waiting), [1, 1]);
    assert_eq!(waiting.rejections.len(), 1);
    before.finish().await;

    let mut after = source();
    after.lvs_nodes.fill(Vec::new());
    after.bindings.fill(vec![first.clone(), slices[0].clone()]);
    assert_eq!(weights(&read_all(&mut after, directory.path())), [1, 1]);
    after.bindings.receive(slices[1].clone());
    assert_eq!(weights(&read_all(&mut after, directory.path())), [2, 3]);
}

#[tokio::test]
async fn a_changed_slice_updates_its_service_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.lvs_nodes.fill(Vec::new());
    let (first, slices) = sliced(1, &[1, 1]);
    source
        .bindings
        .fill([vec![first, binding("api", 1, 81)], slices].concat());
    read(&mut source, directory.path()).unwrap();

    let (first, slices) = sliced(2, &[1, 2]);
    source.bindings.receive(slices[1].clone());
    source.bindings.receive(first);

    assert_eq!(
        read(&mut source, directory.path()).unwrap(),
        services(&["web"])
    );
    assert_eq!(weights(source.snapshot().unwrap()), [1, 2]);
    source.finish().await;
    let mut cached = self::source();
    assert_eq!(weights(&read_all(&mut cached, directory.path())), [1, 2]);
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_stops_itself_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = source();
    before.lvs_nodes.fill(Vec::new());
    before
        .bindings
        .fill(vec![binding("web", 1, 80), binding("api", 1, 81)]);
    read(&mut before, directory.path()).unwrap();

    before
        .bindings
        .receive_guarded(Event::Apply(broken("web-lvs1")));
    let snapshot = read_all(&mut before, directory.path());
    assert_eq!(snapshot.view.services.len(), 2);
    let [rejection] = snapshot.rejections.as_slice() else {
        panic!("{:?}", snapshot.rejections)
    };
    let text = rejection.to_string();
    let start =
        "DirectorBinding shop/web-lvs1: cannot be decoded, so its last version stays in force: ";
    assert!(text.starts_with(start), "{text}");
    assert_eq!(before.objects().unreadable.len(), 1);
    before.finish().await;

    // After a restart, the list has it again.
    let mut after = source();
    after.lvs_nodes.fill(Vec::new());
    let api = Guarded(Ok(binding("api", 1, 81)));
    after.bindings.fill_guarded(vec![broken("web-lvs1"), api]);
    let snapshot = read_all(&mut after, directory.path());
    assert_eq!(snapshot.view.services.len(), 2);
    assert_eq!(snapshot.rejections.len(), 1);

    after
        .bindings
        .receive_guarded(Event::Delete(broken("web-lvs1")));
    let snapshot = read_all(&mut after, directory.path());
    assert_eq!(snapshot.view.services.len(), 1);
    assert_eq!(snapshot.rejections, []);
}

#[tokio::test]
async fn the_view_names_a_faulty_object_that_has_no_last_version() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.lvs_nodes.fill(Vec::new());
    // As the API server shows a binding that an earlier release has written.
    let mut web = binding("web", 1, 80);
    (web.spec.addresses, web.spec.ports) = (Vec::new(), Vec::new());
    source.bindings.fill(vec![web, binding("api", 1, 81)]);
    let snapshot = read_all(&mut source, directory.path());
    assert_eq!(snapshot.view.services.len(), 1);
    let unreadable: Vec<&String> = snapshot.view.unreadable_objects.iter().collect();
    assert_eq!(unreadable, ["VirtualService shop/web"]);

    source
        .bindings
        .receive_guarded(Event::Apply(Guarded(Ok(binding("web", 2, 80)))));
    let snapshot = read_all(&mut source, directory.path());
    assert_eq!(snapshot.view.services.len(), 2);
    assert!(snapshot.view.unreadable_objects.is_empty());

    source
        .bindings
        .receive_guarded(Event::Apply(broken("web-lvs1")));
    let snapshot = read_all(&mut source, directory.path());
    assert!(snapshot.view.unreadable_objects.is_empty());
    source
        .bindings
        .receive_guarded(Event::Apply(broken("new-lvs1")));
    let snapshot = read_all(&mut source, directory.path());
    let unreadable: Vec<&String> = snapshot.view.unreadable_objects.iter().collect();
    assert_eq!(unreadable, ["DirectorBinding shop/new-lvs1"]);
}

#[tokio::test]
async fn a_binding_with_the_same_generation_is_not_converted_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.lvs_nodes.fill(Vec::new());
    let name = ObjectName::new("shop", "web").unwrap();
    source.bindings.fill(vec![binding("web", 1, 80)]);
    let first = read_all(&mut source, directory.path());
    source
        .bindings
        .fill(vec![binding("api", 1, 81), binding("web", 1, 80)]);
    let second = read_all(&mut source, directory.path());
    assert!(Arc::ptr_eq(
        &first.view.services[&name],
        &second.view.services[&name]
    ));
}

#[tokio::test]
async fn a_newer_version_alone_updates_its_service_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.lvs_nodes.fill(Vec::new());
    source
        .bindings
        .fill(vec![binding("api", 1, 81), binding("web", 1, 80)]);
    assert_eq!(
        read(&mut source, directory.path()).unwrap(),
        Changes::Anything
    );
    assert_eq!(read(&mut source, directory.path()).unwrap(), services(&[]));

    source.bindings.receive(binding("web", 2, 8080));
    assert_eq!(
        read(&mut source, directory.path()).unwrap(),
        services(&["web"])
    );

    let expected = [("shop/api".to_owned(), 81), ("shop/web".to_owned(), 8080)];
    assert_eq!(ports(source.snapshot().unwrap()), expected);
    let updated: Vec<_> = source
        .objects()
        .updated()
        .map(|bound| bound.object.metadata.generation)
        .collect();
    assert_eq!(updated, [Some(2)]);
    source.finish().await;
    let cached = cache::load(&StateDir::lock(directory.path()).unwrap().last_objects());
    let cached = cached.unwrap();
    let generations: Vec<_> = cached
        .bindings
        .iter()
        .map(|object| object.metadata.generation)
        .collect();
    assert_eq!(generations, [Some(1), Some(2)]);
}

#[tokio::test]
async fn a_change_with_further_effects_is_read_in_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source();
    source.lvs_nodes.fill(vec![lvs_node(&json!({}))]);
    source.bindings.fill(vec![binding("web", 1, 80)]);
    read(&mut source, directory.path()).unwrap();
    let elsewhere = {
        let mut object = binding("web", 2, 80);
        object.spec.node = "lvs2".to_owned();
        object
    };
    let another = {
        let mut object = binding("web", 3, 80);
        object.spec.virtual_service = "api".to_owned();
        object
    };
    for object in [
        elsewhere,
        another,
        binding("web", 4, 70000),
        binding("new", 1, 80),
    ] {
        let text = format!("{object:?}");
        source.bindings.receive(object);
        let changes = read(&mut source, directory.path()).unwrap();
        assert_eq!(changes, Changes::Anything, "{text}");
    }
    source.bindings.fill(vec![binding("web", 5, 70000)]);
    read(&mut source, directory.path()).unwrap();
    source.bindings.receive(binding("web", 6, 80));
    assert_eq!(
        read(&mut source, directory.path()).unwrap(),
        Changes::Anything,
        "a good version after a faulty one"
    );
    let mut changed = lvs_node(&json!({}));
    changed.metadata.generation = Some(2);
    source.lvs_nodes.receive(changed);
    assert_eq!(
        read(&mut source, directory.path()).unwrap(),
        Changes::Anything,
        "the LvsNode has changed"
    );
}

/// A source whose API server has definitions of an older revision and nothing else.
async fn source_with_older_definitions() -> ApiSource {
    let definition = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "older", "annotations": {"lvs-operator.io/api-revision": "0"}}});
    let answer = async move || definition.to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    ApiSource::new(
        "lvs1".parse().unwrap(),
        Client::try_from(config.clone()).unwrap(),
        LeaseArgs {
            config,
            namespace: "lvs-system".to_owned(),
        },
    )
}

/// Ignores the events of watches.
#[derive(Clone)]
struct Ignored;

impl ObjectEvents for Ignored {
    fn changed(&self, _: &str, _: Key) {}

    fn listed(&self, _: &str) {}
}

const OUTDATED: &str = "has API revision 0, and this program needs";

#[tokio::test]
async fn with_older_definitions_the_cached_objects_stay_in_force_and_the_reason_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = source();
    before.lvs_nodes.fill(Vec::new());
    before.bindings.fill(vec![binding("web", 1, 80)]);
    read(&mut before, directory.path()).unwrap();
    before.finish().await;

    let mut source = source_with_older_definitions().await;
    source.watch(&Ignored);
    source.changed().await;

    assert_eq!(ports(&read_all(&mut source, directory.path())), web_on(80));
    assert!(source.unfit().unwrap().contains(OUTDATED));
    let error = source.list().await.unwrap_err().to_string();
    assert!(error.contains(OUTDATED), "{error}");
}

#[tokio::test]
async fn a_new_machine_waits_for_newer_definitions() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = source_with_older_definitions().await;
    source.watch(&Ignored);
    source.changed().await;

    let error = read(&mut source, directory.path()).unwrap_err().to_string();
    assert!(error.contains(OUTDATED), "{error}");
}

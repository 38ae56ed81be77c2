//! Tests of the snapshots that the agent reads from the API server's objects.

use std::{collections::BTreeMap, path::Path};

use lvs_model::ObjectName;
use serde_json::{Value, json};

use super::*;

fn cluster() -> Cluster {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Cluster::new("lvs1".parse().unwrap(), Client::try_from(config).unwrap())
}

fn binding(name: &str, generation: i64, port: i64) -> DirectorBinding {
    let object = json!({
        "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
        "metadata": {"namespace": "shop", "name": format!("{name}-lvs1"), "uid": name, "generation": generation},
        "spec": {"node": "lvs1", "virtualService": name, "generation": 7, "service": {
            "directorGroup": "edge", "addresses": ["192.168.220.100"], "ports": [{"port": port}]}},
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

fn read(cluster: &mut Cluster, directory: &Path) -> Result<Snapshot, ClusterError> {
    cluster.read(&StateDir::lock(directory).unwrap())
}

fn of_web(port: u16) -> Vec<(String, u16)> {
    vec![("shop/web".to_owned(), port)]
}

#[tokio::test]
async fn nothing_is_wanted_before_both_lists_are_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    let waiting = |result| matches!(result, Err(ClusterError::NotListed(None)));
    assert!(waiting(read(&mut cluster, directory.path())));
    cluster.bindings.fill(vec![binding("web", 1, 80)]);
    assert!(waiting(read(&mut cluster, directory.path())));
    cluster.lvs_nodes.fill(Vec::new());
    assert_eq!(
        ports(&read(&mut cluster, directory.path()).unwrap()),
        of_web(80)
    );
}

#[tokio::test]
async fn a_faulty_binding_keeps_its_last_good_version_over_a_restart_and_a_deleted_one_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = cluster();
    before.lvs_nodes.fill(Vec::new());
    before
        .bindings
        .fill(vec![binding("web", 1, 80), binding("api", 1, 81)]);
    read(&mut before, directory.path()).unwrap();
    before
        .bindings
        .fill(vec![binding("web", 2, 70000), binding("api", 1, 81)]);
    let snapshot = read(&mut before, directory.path()).unwrap();
    assert_eq!(snapshot.rejections.len(), 1);
    assert_eq!(snapshot.view.services.len(), 2);
    before.finish().await;

    let mut after = cluster();
    after.lvs_nodes.fill(Vec::new());
    after.bindings.fill(vec![binding("web", 2, 70000)]);

    let snapshot = read(&mut after, directory.path()).unwrap();

    assert_eq!(ports(&snapshot), of_web(80));
    assert_eq!(snapshot.rejections.len(), 1);
    after.bindings.fill(Vec::new());
    assert_eq!(ports(&read(&mut after, directory.path()).unwrap()), []);
}

#[tokio::test]
async fn what_was_wanted_last_is_served_until_the_api_server_answers() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = cluster();
    before.bindings.fill(vec![binding("web", 1, 80)]);
    before.lvs_nodes.fill(Vec::new());
    read(&mut before, directory.path()).unwrap();
    before.finish().await;

    let mut after = cluster();
    assert_eq!(
        ports(&read(&mut after, directory.path()).unwrap()),
        of_web(80)
    );
    after.bindings.fill(vec![binding("web", 2, 8080)]);
    assert_eq!(
        ports(&read(&mut after, directory.path()).unwrap()),
        of_web(80)
    );
    after.lvs_nodes.fill(Vec::new());
    assert_eq!(
        ports(&read(&mut after, directory.path()).unwrap()),
        of_web(8080)
    );
}

#[tokio::test]
async fn without_an_lvs_node_what_it_said_last_stays_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    let served = json!({"serves": [{"namespace": "shop", "name": "web", "directorGroup": "edge",
        "addresses": ["192.168.220.100"], "ports": [{"port": 80}], "endpoints": [{"address": "192.168.220.12"}]}]});
    cluster.bindings.fill(Vec::new());
    cluster.lvs_nodes.fill(vec![lvs_node(&served)]);
    read(&mut cluster, directory.path()).unwrap();

    cluster.lvs_nodes.fill(Vec::new());
    let snapshot = read(&mut cluster, directory.path()).unwrap();

    assert_eq!(ports(&snapshot), of_web(80));
    cluster.lvs_nodes.fill(vec![lvs_node(&json!({}))]);
    assert_eq!(ports(&read(&mut cluster, directory.path()).unwrap()), []);
}

#[tokio::test]
async fn a_binding_with_the_same_generation_is_not_converted_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    cluster.lvs_nodes.fill(Vec::new());
    let name = ObjectName::new("shop", "web").unwrap();
    cluster.bindings.fill(vec![binding("web", 1, 80)]);
    let first = read(&mut cluster, directory.path()).unwrap();
    cluster
        .bindings
        .fill(vec![binding("api", 1, 81), binding("web", 1, 80)]);
    let second = read(&mut cluster, directory.path()).unwrap();
    assert!(Arc::ptr_eq(
        &first.view.services[&name],
        &second.view.services[&name]
    ));
}

#[tokio::test]
async fn a_newer_version_alone_is_read_as_a_part() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    cluster.lvs_nodes.fill(Vec::new());
    cluster
        .bindings
        .fill(vec![binding("api", 1, 81), binding("web", 1, 80)]);
    assert_eq!(cluster.read_part(), None, "nothing is in force yet");
    read(&mut cluster, directory.path()).unwrap();
    assert_eq!(cluster.read_part(), Some(BTreeMap::new()));

    cluster.bindings.hear(binding("web", 2, 8080));
    let part = cluster.read_part().unwrap();

    let ports: Vec<_> = part
        .values()
        .map(|service| service.frontend.ports()[0].port)
        .collect();
    assert_eq!(ports, [8080]);
    let name = part.keys().next().unwrap();
    let whole = read(&mut cluster, directory.path()).unwrap();
    assert!(Arc::ptr_eq(&part[name], &whole.view.services[name]));
    assert_eq!(whole.view.services.len(), 2);
    cluster.finish().await;
    let saved = saved::load(&StateDir::lock(directory.path()).unwrap().last_objects());
    let generations: Vec<_> = saved
        .unwrap()
        .bindings
        .iter()
        .map(|object| object.metadata.generation)
        .collect();
    assert_eq!(generations, [Some(1), Some(2)]);
}

#[tokio::test]
async fn what_more_may_follow_from_is_no_part() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = cluster();
    cluster.lvs_nodes.fill(vec![lvs_node(&json!({}))]);
    cluster.bindings.fill(vec![binding("web", 1, 80)]);
    read(&mut cluster, directory.path()).unwrap();
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
        cluster.bindings.hear(object);
        assert_eq!(cluster.read_part(), None, "{text}");
    }
    read(&mut cluster, directory.path()).unwrap();
    cluster.bindings.hear(binding("web", 5, 80));
    assert_eq!(
        cluster.read_part(),
        None,
        "a good version after a faulty one"
    );
    read(&mut cluster, directory.path()).unwrap();
    let mut changed = lvs_node(&json!({}));
    changed.metadata.generation = Some(2);
    cluster.lvs_nodes.hear(changed);
    assert_eq!(cluster.read_part(), None, "the LvsNode has changed");
}

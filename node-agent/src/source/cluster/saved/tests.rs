use std::path::Path;

use serde_json::json;

use super::*;
use crate::state_dir::StateDir;

fn objects(names: &[&str], status: bool) -> SavedObjects {
    let binding = |name: &&str| {
        let mut object = json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
            "metadata": {"namespace": "shop", "name": name, "uid": "u", "generation": 3, "resourceVersion": "17"},
            "spec": {"node": "lvs1", "virtualService": "web", "generation": 7, "service": {}},
        });
        if status {
            object["metadata"]["resourceVersion"] = json!("18");
            object["status"] = json!({"observedGeneration": 3});
        }
        serde_json::from_value(object).unwrap()
    };
    SavedObjects {
        bindings: names.iter().map(binding).collect(),
        lvs_node: None,
    }
}

fn stored(directory: &Path) -> Option<std::time::SystemTime> {
    let metadata = std::fs::metadata(directory.join("objects.json")).ok()?;
    metadata.modified().ok()
}

#[test]
fn what_is_saved_comes_back_in_order_and_without_statuses() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    assert_eq!(load(&state.last_objects()), None);

    save(&state.last_objects(), &objects(&["b", "a"], true), 0);

    let loaded = load(&state.last_objects()).unwrap();
    let names: Vec<_> = loaded.bindings.iter().map(|object| key(object).1).collect();
    assert_eq!(names, [Some("a"), Some("b")]);
    assert_eq!(loaded.bindings[0].status, None);
    assert_eq!(loaded.bindings[0].metadata.generation, Some(3));
}

#[test]
fn a_status_is_no_reason_to_write() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let file = state.last_objects();
    let first = save(&file, &objects(&["a"], false), 0);
    let at = stored(directory.path());
    assert_eq!(save(&file, &objects(&["a"], true), first), first);
    assert_eq!(stored(directory.path()), at);
    assert_ne!(save(&file, &objects(&["a", "b"], true), first), first);
}

#[test]
fn a_torn_file_is_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    state.last_objects().store(b"{\"bindings\": [").unwrap();
    assert_eq!(load(&state.last_objects()), None);
}

#[test]
fn without_the_lock_nothing_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::read_only(directory.path()).unwrap();
    save(&state.last_objects(), &objects(&["a"], false), 0);
    assert_eq!(stored(directory.path()), None);
}

#[tokio::test]
async fn what_was_saved_last_is_on_disk_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let saver = Saver::new(state.last_objects());
    saver.save(objects(&["a"], false));
    saver.save(objects(&["a", "b"], false));
    saver.finish().await;
    assert_eq!(load(&state.last_objects()).unwrap().bindings.len(), 2);
}

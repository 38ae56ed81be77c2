//! Tests of the cache file and of waiting for it.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::state_dir::StateDir;

fn objects(names: &[&str], status: bool) -> CachedObjects {
    let binding = |name: &&str| {
        let mut object = json!({
            "apiVersion": "lvs-operator.io/v1alpha1", "kind": "DirectorBinding",
            "metadata": {"namespace": "shop", "name": name, "uid": "u", "generation": 3, "resourceVersion": "17"},
            "spec": {"node": "lvs1", "virtualService": "web", "generation": 7},
        });
        if status {
            object["metadata"]["resourceVersion"] = json!("18");
            object["status"] = json!({"observedGeneration": 3});
        }
        serde_json::from_value(object).unwrap()
    };
    CachedObjects {
        bindings: names.iter().map(binding).collect(),
        ..CachedObjects::default()
    }
}

fn version(name: &str, generation: i64) -> Arc<DirectorBinding> {
    let mut object = DirectorBinding::clone(&objects(&[name], true).bindings[0]);
    object.metadata.generation = Some(generation);
    Arc::new(object)
}

fn generations(objects: &CachedObjects) -> Vec<(&str, Option<i64>)> {
    let metadata = objects.bindings.iter().map(|object| &object.metadata);
    metadata
        .map(|metadata| (metadata.name.as_deref().unwrap(), metadata.generation))
        .collect()
}

fn save(file: &LastObjects, objects: CachedObjects) -> Disk {
    let mut disk = Disk::new(file.clone(), CachedObjects::default());
    disk.take(CacheChange::Snapshot(objects));
    disk.save();
    disk
}

fn save_version(disk: &mut Disk, version: Arc<DirectorBinding>) {
    disk.take(CacheChange::Versions(vec![version]));
    disk.save();
}

fn text(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("objects.json")).unwrap()
}

#[test]
fn saved_objects_are_loaded_in_order_and_without_statuses() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    assert_eq!(load(&state.last_objects()), None);

    save(&state.last_objects(), objects(&["b", "a"], true));

    let loaded = load(&state.last_objects()).unwrap();
    assert_eq!(generations(&loaded), [("a", Some(3)), ("b", Some(3))]);
    assert_eq!(loaded.bindings[0].status, None);
}

#[test]
fn a_newer_version_is_appended() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let mut disk = save(&state.last_objects(), objects(&["a", "b"], false));
    let whole = text(directory.path());

    save_version(&mut disk, version("b", 4));

    let appended = text(directory.path());
    let addition = appended.strip_prefix(&whole).unwrap();
    assert_eq!(addition.lines().count(), 1);
    let loaded = load(&state.last_objects()).unwrap();
    assert_eq!(generations(&loaded), [("a", Some(3)), ("b", Some(4))]);
}

#[test]
fn the_file_does_not_grow_without_limit() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let mut disk = save(&state.last_objects(), objects(&["a", "b"], false));
    let whole = text(directory.path()).len();
    for generation in 4..100 {
        save_version(&mut disk, version("b", generation));
        assert!(text(directory.path()).len() < 3 * whole);
        let loaded = load(&state.last_objects()).unwrap();
        assert_eq!(generations(&loaded)[1], ("b", Some(generation)));
    }
}

#[test]
fn an_unfinished_line_is_ignored_and_not_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let file = state.last_objects();
    let mut disk = save(&file, objects(&["a", "b"], false));
    save_version(&mut disk, version("b", 4));
    let torn = text(directory.path());
    std::fs::write(
        directory.path().join("objects.json"),
        &torn[..torn.len() - 9],
    )
    .unwrap();

    let known = load(&file).unwrap();
    assert_eq!(generations(&known), [("a", Some(3)), ("b", Some(3))]);
    let mut disk = Disk::new(file.clone(), known);
    save_version(&mut disk, version("a", 5));

    let loaded = load(&file).unwrap();
    assert_eq!(generations(&loaded), [("a", Some(5)), ("b", Some(3))]);
}

#[test]
fn a_changed_status_is_not_saved() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let mut disk = save(&state.last_objects(), objects(&["a"], false));
    let path = directory.path().join("objects.json");
    std::fs::remove_file(&path).unwrap();
    disk.take(CacheChange::Snapshot(objects(&["a"], true)));
    disk.save();
    assert!(!path.exists());
    disk.take(CacheChange::Snapshot(objects(&["a", "b"], true)));
    disk.save();
    assert!(path.exists());
}

#[test]
fn a_version_that_could_not_be_appended_is_in_the_next_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let mut disk = save(&state.last_objects(), objects(&["a", "b"], false));
    std::fs::remove_file(directory.path().join("objects.json")).unwrap();
    save_version(&mut disk, version("a", 4));
    assert_eq!(load(&state.last_objects()), None);
    save_version(&mut disk, version("b", 5));
    let loaded = load(&state.last_objects()).unwrap();
    assert_eq!(generations(&loaded), [("a", Some(4)), ("b", Some(5))]);
}

#[test]
fn an_unfinished_snapshot_is_treated_as_missing() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    state.last_objects().store(b"{\"bindings\": [").unwrap();
    assert_eq!(load(&state.last_objects()), None);
}

#[test]
fn without_the_lock_nothing_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::read_only(directory.path()).unwrap();
    let mut disk = save(&state.last_objects(), objects(&["a"], false));
    save_version(&mut disk, version("a", 4));
    assert!(!directory.path().join("objects.json").exists());
}

#[tokio::test]
async fn queued_changes_are_on_disk_after_finish() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let cache = Cache::new(
        state.last_objects(),
        CachedObjects::default(),
        Arc::default(),
    );
    cache.save(objects(&["a"], false));
    cache.save(objects(&["a", "b"], false));
    cache.save_versions(vec![version("b", 4)]);
    cache.finish().await;
    let loaded = load(&state.last_objects()).unwrap();
    assert_eq!(generations(&loaded), [("a", Some(3)), ("b", Some(4))]);
}

#[tokio::test(start_paused = true)]
async fn changes_queued_before_a_wait_are_on_disk_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path()).unwrap();
    let progress = Arc::new(Progress::default());
    let known = CachedObjects::default();
    let cache = Cache::new(state.last_objects(), known, Arc::clone(&progress));
    for names in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        cache.save(objects(names, false));
        progress.caught_up().await;
        let loaded = load(&state.last_objects()).unwrap();
        assert_eq!(loaded.bindings.len(), names.len());
    }
    cache.save_versions(vec![version("b", 4)]);
    progress.caught_up().await;
    let loaded = load(&state.last_objects()).unwrap();
    assert_eq!(generations(&loaded)[1], ("b", Some(4)));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_disk_that_hangs_ends() {
    let progress = Progress::default();
    progress.sent();
    progress.caught_up().await;
}

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lvs_crd::{DirectorBinding, DirectorBindingSpec, DirectorBindingStatus};

use super::*;

fn binding(name: &str, generation: i64) -> DirectorBinding {
    let service = serde_json::from_value(serde_json::json!({})).unwrap();
    DirectorBinding {
        metadata: ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("{name}-uid")),
            generation: Some(generation),
            ..ObjectMeta::default()
        },
        spec: DirectorBindingSpec {
            node: "lvs1".to_owned(),
            virtual_service: "web".to_owned(),
            generation: 7,
            service,
        },
        status: None,
    }
}

fn names(objects: Vec<Arc<DirectorBinding>>) -> Vec<String> {
    let name = |object: Arc<DirectorBinding>| object.metadata.name.clone().unwrap();
    objects.into_iter().map(name).collect()
}

#[test]
fn a_status_that_comes_back_changes_nothing_that_is_wanted() {
    let (store, mut writer) = store();
    writer.apply_watcher_event(&Event::Apply(binding("a", 1)));
    let mut reported = binding("a", 1);
    reported.status = Some(DirectorBindingStatus::default());
    assert!(!changes_what_is_wanted(&store, &Event::Apply(reported)));
    assert!(changes_what_is_wanted(
        &store,
        &Event::Apply(binding("a", 2))
    ));
    assert!(changes_what_is_wanted(
        &store,
        &Event::Apply(binding("b", 1))
    ));
    assert!(changes_what_is_wanted(
        &store,
        &Event::Delete(binding("a", 1))
    ));
    let mut leaving = binding("a", 1);
    leaving.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert!(changes_what_is_wanted(&store, &Event::Apply(leaving)));
}

#[test]
fn a_list_that_is_under_way_changes_nothing() {
    let mut listed = Listed::<DirectorBinding>::new("DirectorBindings");
    let mut writer = listed.writer.take().unwrap();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitApply(binding("b", 1)));
    assert_eq!(listed.objects(), None);
    writer.apply_watcher_event(&Event::InitApply(binding("a", 1)));
    writer.apply_watcher_event(&Event::InitDone);
    lock(&listed.progress).is_complete = true;
    assert_eq!(names(listed.objects().unwrap()), ["a", "b"]);

    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitApply(binding("b", 1)));
    assert_eq!(names(listed.objects().unwrap()), ["a", "b"]);
    writer.apply_watcher_event(&Event::InitDone);
    assert_eq!(names(listed.objects().unwrap()), ["b"]);
}

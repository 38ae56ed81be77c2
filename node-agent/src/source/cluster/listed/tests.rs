//! Tests of the objects that the agent lists and watches.

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
    assert_eq!(change(&store, &Event::Apply(reported)), Change::Nothing);
    assert_eq!(
        change(&store, &Event::Apply(binding("a", 2))),
        Change::Version
    );
    let mut leaving = binding("a", 2);
    leaving.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    let mut another = binding("a", 2);
    another.metadata.uid = Some("another".to_owned());
    for event in [
        Event::Apply(binding("b", 1)),
        Event::Delete(binding("a", 1)),
        Event::Apply(leaving),
        Event::Apply(another),
        Event::InitDone,
    ] {
        assert_eq!(change(&store, &event), Change::Unknown, "{event:?}");
    }
}

#[test]
fn newer_versions_are_told_one_by_one_and_anything_else_is_not() {
    let mut listed = Listed::<DirectorBinding>::new("DirectorBindings");
    let mut writer = listed.writer.take().unwrap();
    let mut hear = |event: Event<DirectorBinding>| {
        let change = change(&listed.store, &event);
        writer.apply_watcher_event(&event);
        lock(&listed.progress).take(&listed.store, change, &event)
    };
    let versions = || match listed.changes() {
        Changes::Versions(versions) => {
            let versions = versions.into_iter();
            Some(
                versions
                    .map(|((_, name), object)| (name, object.metadata.generation.unwrap()))
                    .collect::<Vec<_>>(),
            )
        }
        Changes::Unknown => None,
    };
    for name in ["a", "b"] {
        hear(Event::InitApply(binding(name, 1)));
    }
    hear(Event::InitDone);
    assert_eq!(versions(), None);
    assert_eq!(versions(), Some(Vec::new()));
    assert!(hear(Event::Apply(binding("a", 2))));
    assert!(hear(Event::Apply(binding("a", 3))));
    assert!(hear(Event::Apply(binding("b", 2))));
    assert!(!hear(Event::Apply(binding("b", 2))));
    let expected = vec![("a".to_owned(), 3), ("b".to_owned(), 2)];
    assert_eq!(versions(), Some(expected));
    hear(Event::Apply(binding("a", 4)));
    hear(Event::Delete(binding("b", 2)));
    hear(Event::Apply(binding("a", 5)));
    assert_eq!(versions(), None);
    hear(Event::Apply(binding("a", 6)));
    assert_eq!(listed.objects().unwrap().len(), 1);
    assert_eq!(versions(), Some(Vec::new()), "all were taken together");
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

//! Tests of the effects of watch events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lvs_crd::{DirectorBinding, DirectorBindingSpec, DirectorBindingStatus};

use super::*;

fn binding(name: &str, generation: i64) -> DirectorBinding {
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
            ..DirectorBindingSpec::default()
        },
        status: None,
    }
}

fn names(objects: Vec<Arc<DirectorBinding>>) -> Vec<String> {
    let name = |object: Arc<DirectorBinding>| object.metadata.name.clone().unwrap();
    objects.into_iter().map(name).collect()
}

#[test]
fn a_changed_status_has_no_effect() {
    let (store, mut writer) = store();
    writer.apply_watcher_event(&Event::Apply(binding("a", 1)));
    let mut reported = binding("a", 1);
    reported.status = Some(DirectorBindingStatus::default());
    assert_eq!(
        effect(&store, &Event::Apply(reported)),
        EventEffect::Nothing
    );
    assert_eq!(
        effect(&store, &Event::Apply(binding("a", 2))),
        EventEffect::Version
    );
    let mut deleting = binding("a", 2);
    deleting.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    let mut another = binding("a", 2);
    another.metadata.uid = Some("another".to_owned());
    for event in [
        Event::Apply(binding("b", 1)),
        Event::Delete(binding("a", 1)),
        Event::Apply(deleting),
        Event::Apply(another),
        Event::InitDone,
    ] {
        assert_eq!(effect(&store, &event), EventEffect::Unknown, "{event:?}");
    }
}

#[test]
fn newer_versions_are_collected_and_any_other_change_makes_them_unknown() {
    let mut reflector = Reflector::<DirectorBinding>::new("DirectorBindings");
    let mut writer = reflector.writer.take().unwrap();
    let mut receive = |event: Event<DirectorBinding>| {
        let effect = effect(&reflector.store, &event);
        writer.apply_watcher_event(&event);
        lock(&reflector.state).take(&reflector.store, effect, &event)
    };
    let versions = || match reflector.changes() {
        ObjectChanges::Versions(versions) => {
            let versions = versions.into_iter();
            Some(
                versions
                    .map(|((_, name), object)| (name, object.metadata.generation.unwrap()))
                    .collect::<Vec<_>>(),
            )
        }
        ObjectChanges::Unknown => None,
    };
    for name in ["a", "b"] {
        receive(Event::InitApply(binding(name, 1)));
    }
    receive(Event::InitDone);
    assert_eq!(versions(), None);
    assert_eq!(versions(), Some(Vec::new()));
    assert!(receive(Event::Apply(binding("a", 2))));
    assert!(receive(Event::Apply(binding("a", 3))));
    assert!(receive(Event::Apply(binding("b", 2))));
    assert!(!receive(Event::Apply(binding("b", 2))));
    let expected = vec![("a".to_owned(), 3), ("b".to_owned(), 2)];
    assert_eq!(versions(), Some(expected));
    receive(Event::Apply(binding("a", 4)));
    receive(Event::Delete(binding("b", 2)));
    receive(Event::Apply(binding("a", 5)));
    assert_eq!(versions(), None);
    receive(Event::Apply(binding("a", 6)));
    assert_eq!(reflector.objects().unwrap().len(), 1);
    assert_eq!(versions(), Some(Vec::new()), "`objects` takes all changes");
}

#[test]
fn an_incomplete_list_changes_nothing() {
    let mut reflector = Reflector::<DirectorBinding>::new("DirectorBindings");
    let mut writer = reflector.writer.take().unwrap();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitApply(binding("b", 1)));
    assert_eq!(reflector.objects(), None);
    writer.apply_watcher_event(&Event::InitApply(binding("a", 1)));
    writer.apply_watcher_event(&Event::InitDone);
    lock(&reflector.state).is_complete = true;
    assert_eq!(names(reflector.objects().unwrap()), ["a", "b"]);

    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitApply(binding("b", 1)));
    assert_eq!(names(reflector.objects().unwrap()), ["a", "b"]);
    writer.apply_watcher_event(&Event::InitDone);
    assert_eq!(names(reflector.objects().unwrap()), ["b"]);
}

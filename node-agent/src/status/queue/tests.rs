//! Tests of the queue of results.

use super::*;

fn result(name: &str, generation: i64) -> BindingResult {
    BindingResult::without_faults(ObjectVersion {
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
        uid: None,
        generation: Some(generation),
    })
}

fn key(name: &str) -> Key {
    (Some("shop".to_owned()), name.to_owned())
}

/// Takes the queued bindings, and returns their names and generations.
fn taken(queue: &StatusQueue) -> Vec<(String, i64)> {
    let bindings = queue.take().bindings.into_iter();
    bindings
        .map(|result| (result.version.name, result.version.generation.unwrap()))
        .collect()
}

fn pairs(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    let owned = expected.iter();
    owned
        .map(|(name, generation)| ((*name).to_owned(), *generation))
        .collect()
}

#[test]
fn a_pass_over_all_objects_queues_all_and_later_events_queue_one() {
    let queue = Arc::new(StatusQueue::default());
    queue.put_all(PassResults {
        bindings: vec![result("a", 1), result("b", 1)],
        ..PassResults::default()
    });
    assert_eq!(taken(&queue), pairs(&[("a", 1), ("b", 1)]));
    assert_eq!(taken(&queue), pairs(&[]));
    queue.put(vec![result("b", 2)]);
    assert_eq!(taken(&queue), pairs(&[("b", 2)]));
    queue.changed("DirectorBinding", key("b"));
    queue.changed("DirectorBinding", key("unknown"));
    assert_eq!(taken(&queue), pairs(&[("b", 2)]));
    queue.listed("DirectorBinding");
    assert_eq!(taken(&queue), pairs(&[("a", 1), ("b", 2)]));
}

#[test]
fn a_binding_that_is_requeued_is_taken_again() {
    let queue = StatusQueue::default();
    queue.put(vec![result("a", 1), result("b", 1)]);
    assert_eq!(taken(&queue).len(), 2);
    queue.requeue(&result("a", 1).version);
    assert_eq!(taken(&queue), pairs(&[("a", 1)]));
}

#[tokio::test]
async fn a_change_queued_before_waiting_is_not_missed() {
    let queue = Arc::new(StatusQueue::default());
    queue.changed("DirectorBinding", key("a"));
    queue.added().await;
}

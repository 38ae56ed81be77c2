//! Tests of the queue of statuses to write.

use lvs_crd::condition::Status;

use super::*;

fn said(name: &str, message: &str) -> (Subject, Verdict) {
    let subject = Subject {
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
        uid: None,
        generation: Some(1),
    };
    let verdict = Verdict::new("Programmed", Status::True, "Programmed", message);
    (subject, verdict)
}

fn key(name: &str) -> Key {
    (Some("shop".to_owned()), name.to_owned())
}

fn of_bindings(told: &Told) -> Vec<(String, String)> {
    let bindings = told.take().bindings.into_iter();
    bindings
        .map(|(subject, verdict)| (subject.name, verdict.message))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = expected.iter();
    owned
        .map(|(name, message)| ((*name).to_owned(), (*message).to_owned()))
        .collect()
}

#[test]
fn all_is_looked_at_after_a_pass_over_everything_and_then_only_what_has_changed() {
    let told = Told::default();
    let bindings = vec![said("a", ""), said("b", "")];
    told.say(Statuses {
        bindings,
        node: None,
    });
    assert_eq!(of_bindings(&told), pairs(&[("a", ""), ("b", "")]));
    assert_eq!(of_bindings(&told), pairs(&[]));
    told.say_of_some(vec![said("b", "new")]);
    assert_eq!(of_bindings(&told), pairs(&[("b", "new")]));
    told.doubt(key("b"));
    told.doubt(key("nobody"));
    assert_eq!(of_bindings(&told), pairs(&[("b", "new")]));
    told.doubt_bindings();
    assert_eq!(of_bindings(&told), pairs(&[("a", ""), ("b", "new")]));
}

#[test]
fn what_could_not_be_written_is_looked_at_again() {
    let told = Told::default();
    told.say_of_some(vec![said("a", ""), said("b", "")]);
    assert_eq!(of_bindings(&told).len(), 2);
    told.put_back(&said("a", "").0);
    assert_eq!(of_bindings(&told), pairs(&[("a", "")]));
}

#[tokio::test]
async fn what_is_said_before_somebody_waits_is_not_missed() {
    let told = Told::default();
    told.doubt(key("a"));
    told.news().await;
}

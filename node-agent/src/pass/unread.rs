//! The problems that follow from parts of the kernel that could not be read.

use std::collections::BTreeSet;

use lvs_model::{NodeSpec, ObjectName, Owners, Part, Problem, Subject};

/// Returns the problems of the virtual services that need a part that could not be read; of the machine if none does. `is_ours`: something
/// of the part is owned, and so it has been there.
pub(super) fn unread(
    part: Part,
    reason: &str,
    is_ours: bool,
    owners: &Owners,
    spec: &NodeSpec,
) -> Vec<Problem> {
    let concerned = owners.iter();
    let concerned = concerned.filter(|(target, _)| Part::of(target) == Some(part));
    let concerned: BTreeSet<_> = concerned.flat_map(|(_, services)| services).collect();
    // Without the marks, other directors would get the packets back that they send to this real server.
    let needs_marks =
        |name: &ObjectName| part == Part::Strays && !is_ours && spec.is_serving_director_of(name);
    let subjects = concerned.into_iter().cloned().map(|name| {
        if needs_marks(&name) {
            Subject::Serving(name)
        } else {
            Subject::Service(name)
        }
    });
    let mut subjects: Vec<Subject> = subjects.collect();
    if subjects.is_empty() {
        subjects.push(Subject::Machine);
    }
    let message = format!("{reason}; what is there stays");
    let problem = |subject| match (part, &subject) {
        // New connections are served without it.
        (Part::Strays, Subject::Service(_) | Subject::Machine | Subject::Target(_)) => {
            Problem::warning(subject, message.clone())
        }
        (Part::Strays, Subject::Serving(_)) | (Part::Masquerade | Part::FouPorts, _) => {
            Problem::error(subject, message.clone())
        }
    };
    subjects.into_iter().map(problem).collect()
}

//! Every state with every input: what is sent and done, the new state, and the next deadline.

use std::fmt::Write;

use super::*;

/// Names of states, with machines that are in them at 10 s.
fn states() -> Vec<(&'static str, Machine)> {
    let preempting = Preemption::After(ms(2_000));
    let backup = |priority, preemption| {
        let mut machine = mk_machine(priority, preemption);
        let _ = machine.handle(at(9_500), Event::Start(Start::Fresh));
        machine
    };
    let active = |priority| {
        let mut machine = mk_machine(priority, preempting);
        let _ = machine.handle(at(9_500), Event::Start(Start::Continue));
        machine
    };
    let after = |mut machine: Machine, event| {
        let _ = machine.handle(at(9_800), event);
        machine
    };
    let link_down = after(mk_machine(100, preempting), Event::Link(Link::Down));
    let mut resuming = mk_machine(100, preempting);
    let _ = resuming.handle(at(9_950), Event::Start(Start::Resume));
    let unfit = after(mk_machine(100, preempting), Event::Fitness(Fitness::Unfit));
    vec![
        ("stopped", mk_machine(100, preempting)),
        ("stopped, owner", mk_machine(255, Preemption::Never)),
        ("stopped, unfit", unfit.clone()),
        ("link down", after(link_down, Event::Start(Start::Fresh))),
        ("listening", backup(100, preempting)),
        (
            "following a preferred one",
            after(backup(100, preempting), hears(200, BELOW)),
        ),
        (
            "following another, no preemption",
            after(backup(100, Preemption::Never), hears(50, BELOW)),
        ),
        (
            "about to preempt",
            after(backup(100, preempting), hears(50, BELOW)),
        ),
        (
            "about to succeed",
            after(backup(100, preempting), hears(0, BELOW)),
        ),
        ("backup, unfit", after(unfit, Event::Start(Start::Fresh))),
        (
            "backup, withdrawn",
            after(backup(100, preempting), Event::HandOver),
        ),
        ("resuming", resuming),
        ("active", active(100)),
        ("active, owner", active(255)),
        ("handing over", after(active(100), Event::HandOver)),
    ]
}

enum Input {
    Event(Event),
    Settings(Config),
    /// The deadline itself, at its time.
    DueDeadline,
    /// The deadline, when nothing was run for ten seconds.
    LateDeadline,
}

fn inputs() -> Vec<(&'static str, Input)> {
    let mut other_router = mk_received(200, BELOW);
    other_router.advertisement.vrid = Vrid::new(52).unwrap();
    let events = [
        ("start", Event::Start(Start::Fresh)),
        ("start, continue", Event::Start(Start::Continue)),
        ("start, resume", Event::Start(Start::Resume)),
        ("stop", Event::Stop),
        ("hand over", Event::HandOver),
        ("take back", Event::TakeBack),
        ("hears 200", hears(200, BELOW)),
        ("hears 100 from above", hears(100, ABOVE)),
        ("hears 100 from below", hears(100, BELOW)),
        ("hears 50", hears(50, ABOVE)),
        ("hears 0", hears(0, BELOW)),
        ("hears 0 of another", hears(0, "192.0.2.40")),
        ("hears itself", hears(200, OWN)),
        ("hears another id", Event::Received(other_router)),
        ("early deadline", Event::Deadline),
        ("unfit", Event::Fitness(Fitness::Unfit)),
        ("fit", Event::Fitness(Fitness::Fit)),
        ("link down", Event::Link(Link::Down)),
        ("link up", Event::Link(Link::Up)),
    ];
    let events = events.map(|(name, event)| (name, Input::Event(event)));
    let others = [
        ("due deadline", Input::DueDeadline),
        ("late deadline", Input::LateDeadline),
        (
            "other settings",
            Input::Settings(mk_config(120, Preemption::Never)),
        ),
    ];
    events.into_iter().chain(others).collect()
}

fn text(action: &Action) -> String {
    match action {
        Action::SendAdvertisement { priority, to: _ } => {
            format!("send {}", priority.map_or(0, Priority::get))
        }
        Action::BecomeActive(reason) => format!("ACTIVE ({reason})"),
        Action::BecomeBackup(reason) => format!("BACKUP ({reason})"),
        Action::Report(Observation::TwoActives { .. }) => "report two actives".to_owned(),
        Action::Report(observation) => format!("report {observation:?}"),
    }
}

fn row(mut machine: Machine, input: Input) -> String {
    let now = at(10_000);
    let (now, actions) = match input {
        Input::Event(event) => (now, machine.handle(now, event)),
        Input::Settings(config) => {
            let config = Config {
                priority: if machine.config().priority.is_owner() {
                    Priority::OWNER
                } else {
                    config.priority
                },
                ..config
            };
            (now, machine.configure(now, config).unwrap())
        }
        Input::DueDeadline => {
            let now = machine.deadline().unwrap_or(now);
            (now, machine.handle(now, Event::Deadline))
        }
        Input::LateDeadline => {
            let now = machine.deadline().unwrap_or(now) + ms(10_000);
            (now, machine.handle(now, Event::Deadline))
        }
    };
    let actions: Vec<String> = actions.iter().map(text).collect();
    let deadline = machine.deadline().map(|deadline| deadline.since(now));
    let deadline = deadline.map_or("-".to_owned(), |deadline| format!("{deadline:?}"));
    let state = format!("{:?}", machine.state());
    format!("{state:<10} | {deadline:<13} | {}", actions.join("; "))
}

#[test]
fn every_state_with_every_input() {
    let mut table = String::new();
    for (state, machine) in states() {
        writeln!(table, "{state}").unwrap();
        for (name, input) in inputs() {
            let row = row(machine.clone(), input);
            writeln!(table, "  {name:<20} | {}", row.trim_end()).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

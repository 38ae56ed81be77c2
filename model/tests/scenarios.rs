//! Runs scenarios: machines, manifests and events in, the text of every plan out.
//!
//! The expected output of `scenarios/NAME.yaml` is `scenarios/NAME.plan`, which a reviewer reads. To write these files:
//! `UPDATE=1 cargo test -p lvs-model --test scenarios`. Every scenario ends with a cleanup, after which each kernel
//! holds exactly what it would hold without the agent.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "scenarios are written by hand, and a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use lvs_model::{
    Assignment, Desired, KernelState, Plan, Problem, Rejection, ServerSet, ServiceKey, Step,
    Sysctl, Target, assign, desired, ending,
    fake::{Prepared, pass, prepare},
    forget, recall, remember,
};

#[path = "support/ipvsadm.rs"]
mod ipvsadm;
#[path = "scenarios/machine.rs"]
mod machine;
#[path = "support/order.rs"]
mod order;
#[path = "support/ownership.rs"]
mod ownership;
#[path = "scenarios/script.rs"]
mod script;

use machine::Machine;
use script::{Order, Script};

#[test]
fn every_plan_matches_its_file() {
    let mut wrong = Vec::new();
    for (path, script) in scripts() {
        let text = Run::new(&script, Order::AsWritten).run(|_, _| {});
        let golden = path.with_extension("plan");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &text).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{} should be:\n{text}", golden.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE=1 writes the files",
        wrong.join("\n")
    );
}

#[test]
fn the_order_of_documents_and_real_servers_matters_to_the_order_of_destinations_alone() {
    for (path, script) in scripts() {
        let text = Run::new(&script, Order::AsWritten).run(|_, _| {});
        let expected = with_sorted_destinations(&text);
        for order in [
            Order::Reversed,
            Order::Shuffled(1),
            Order::Shuffled(2),
            Order::Shuffled(3),
        ] {
            let text = Run::new(&script, order).run(|_, _| {});
            let text = with_sorted_destinations(&text);
            assert_eq!(text, expected, "{order:?} {}", path.display());
        }
    }
}

/// Sorts the steps for destinations that follow each other.
fn with_sorted_destinations(text: &str) -> Vec<&str> {
    let is_of_destination =
        |line: &&str| line.starts_with("ipvsadm -a") || line.starts_with("ipvsadm -e");
    let mut lines: Vec<&str> = text.lines().collect();
    let neighbours =
        lines.chunk_by_mut(|one, other| is_of_destination(one) && is_of_destination(other));
    neighbours.for_each(<[&str]>::sort_unstable);
    lines
}

#[test]
fn after_a_failed_step_the_next_passes_converge() {
    let mut tried = 0;
    for (path, script) in scripts() {
        Run::new(&script, Order::AsWritten).run(|machine, desired| {
            let expected = settled(machine, desired);
            for failing in 0..steps_of(machine, desired).len() {
                let mut machine = machine.clone();
                machine.kernel.fails_after = Some(failing);
                pass(&mut machine.kernel, desired, &mut machine.ledger);
                assert_eq!(machine.kernel.fails_after, None, "the step did not fail");
                let place = format!(
                    "{}, step {failing} of\n{}",
                    path.display(),
                    text(&steps_of(&machine, desired))
                );
                check_between(&machine, &place);
                let machine = settled(&machine, desired);
                assert_eq!(machine.kernel.state, expected.kernel.state, "{place}");
                assert_eq!(machine.ledger, expected.ledger, "{place}");
                tried += 1;
            }
        });
    }
    assert!(tried > 500, "only {tried} failures were tried");
}

#[test]
fn after_a_crash_between_any_two_steps_a_restart_converges() {
    let mut tried = 0;
    for (path, script) in scripts() {
        Run::new(&script, Order::AsWritten).run(|machine, desired| {
            let expected = settled(machine, desired);
            let steps = steps_of(machine, desired);
            let mut crashed = machine.clone();
            crashed.ledger = prepared(machine, desired).ledger;
            for done in 0..=steps.len() {
                let place = format!(
                    "{}, crash after {done} steps of\n{}",
                    path.display(),
                    text(&steps)
                );
                check_between(&crashed, &place);
                check_in_place(machine, &crashed, &expected, &place);
                let restarted = settled(&crashed, desired);
                assert_eq!(restarted.kernel.state, expected.kernel.state, "{place}");
                assert_eq!(restarted.ledger, expected.ledger, "{place}");
                if let Some(step) = steps.get(done) {
                    crashed.kernel.step(step).unwrap();
                }
                tried += 1;
            }
        });
    }
    assert!(tried > 500, "only {tried} crashes were tried");
}

fn scripts() -> Vec<(PathBuf, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
        .into_iter()
        .map(|path| (path.clone(), Script::read(&path)))
        .collect()
}

/// A run of a scenario.
struct Run<'a> {
    script: &'a Script,
    order: Order,
    /// In seconds since 1970.
    now: u64,
    machines: BTreeMap<&'a str, Machine>,
    text: String,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, order: Order) -> Self {
        let machines = script.machines.iter();
        Self {
            script,
            order,
            now: 1_000_000,
            machines: machines
                .map(|(name, description)| (name.as_str(), Machine::boot(description)))
                .collect(),
            text: format!("{}\n", script.title),
        }
    }

    /// Runs the scenario and returns its output. `before_pass` gets each machine before its pass, with its desired
    /// state.
    fn run(mut self, mut before_pass: impl FnMut(&Machine, &KernelState)) -> String {
        for act in &self.script.steps {
            for (machine, command) in act.events.iter().flatten() {
                self.machines
                    .get_mut(machine.as_str())
                    .unwrap()
                    .run(command);
            }
            self.now += act.after_seconds;
            let decisions = self.decide(act.manifests.as_deref());
            writeln!(self.text, "\n== {}", act.title).unwrap();
            for event in act.events.iter().flatten() {
                writeln!(self.text, "({}: {})", event.0, event.1).unwrap();
            }
            for rejection in &decisions.rejections {
                writeln!(self.text, "rejected: {rejection}").unwrap();
            }
            for (name, decision) in decisions.machines {
                let machine = self.machines.get_mut(name).unwrap();
                machine.ledger.has_served = decision.has_served;
                machine.ledger.served_at = decision.served_at.clone();
                machine.ledger.server_sets = decision.server_sets.clone();
                before_pass(machine, &decision.desired.state);
                let (text, problems) = pass_once(machine, &decision.desired, name);
                writeln!(self.text, "\n-- {name}").unwrap();
                self.text.push_str(if text.is_empty() {
                    "nothing to do\n"
                } else {
                    &text
                });
                for problem in decision.problems.iter().chain(&problems) {
                    writeln!(self.text, "{problem}").unwrap();
                }
            }
        }
        for (name, machine) in self.machines {
            assert_eq!(
                machine.kernel.state, machine.twin.state,
                "{name} after the cleanup of '{}'",
                self.script.title
            );
            assert!(machine.ledger.is_empty(), "{name}: {:?}", machine.ledger);
        }
        self.text
    }

    /// Computes the desired state of each machine. Without manifests it is empty.
    fn decide(&self, manifests: Option<&str>) -> Decisions<'a> {
        let mut decisions = Decisions::default();
        let view = manifests.map(|manifests| script::view(manifests, self.order));
        for (name, machine) in &self.machines {
            let facts = machine
                .kernel
                .observe_facts()
                .without_ours(&machine.kernel.state, &machine.ledger);
            let decision = view
                .as_ref()
                .map_or_else(Decision::default, |(view, rejected)| {
                    let node = facts.node(name.parse().unwrap(), &machine.ledger);
                    let Assignment {
                        mut spec,
                        rejections,
                        problems,
                        has_served,
                        served_at,
                        without_group: _,
                        accepted: _,
                    } = assign(view, &node);
                    decisions
                        .rejections
                        .extend(rejected.iter().cloned().chain(rejections));
                    let mut server_sets = machine.ledger.server_sets.clone();
                    let is_own = |address: &IpAddr| node.addresses.contains(address);
                    let in_use = BTreeSet::new();
                    remember(&mut server_sets, &spec.kept, self.now, is_own);
                    forget(&mut server_sets, &spec.kept, &in_use, self.now, is_own);
                    let existing = machine.ledger.second_services().copied();
                    let existing: BTreeSet<ServiceKey> = existing.collect();
                    let ending = ending(&server_sets, &spec.kept, self.now);
                    recall(
                        &mut spec,
                        &server_sets,
                        &(&existing - &ending),
                        self.now,
                        is_own,
                    );
                    let mut desired = desired(&spec, &facts);
                    desired.keep_absent(&machine.kernel.state.services, &machine.ledger);
                    Decision {
                        desired,
                        problems,
                        has_served,
                        served_at,
                        server_sets,
                    }
                });
            decisions.machines.insert(*name, decision);
        }
        decisions
    }
}

#[derive(Default)]
struct Decisions<'a> {
    rejections: BTreeSet<Rejection>,
    machines: BTreeMap<&'a str, Decision>,
}

/// What is decided for one machine. The default is that of a cleanup.
#[derive(Default)]
struct Decision {
    desired: Desired,
    problems: Vec<Problem>,
    has_served: bool,
    served_at: BTreeSet<IpAddr>,
    server_sets: Vec<ServerSet>,
}

fn prepared(machine: &Machine, desired: &KernelState) -> Prepared {
    prepare(&machine.kernel, desired, &machine.ledger)
}

/// Returns all changes that a pass makes on a machine, in order.
fn steps_of(machine: &Machine, desired: &KernelState) -> Vec<Step> {
    prepared(machine, desired).steps
}

fn text(steps: &[Step]) -> String {
    let steps = steps.to_vec();
    Plan { steps }.to_string()
}

/// Makes passes on one machine until nothing is left to do. Returns the steps of the first as text, and the problems.
fn pass_once(machine: &mut Machine, wanted: &Desired, name: &str) -> (String, Vec<Problem>) {
    let desired = &wanted.state;
    let Prepared {
        difference, steps, ..
    } = prepared(machine, desired);
    let text = text(&steps);
    let is_in_order = order::check(&difference.plan, desired);
    assert_eq!(is_in_order, Ok(()), "{name}\n{text}");
    let outcomes = pass(&mut machine.kernel, desired, &mut machine.ledger);
    assert!(outcomes.is_complete(), "{name}: {outcomes:?}\n{text}");
    *machine = settled(machine, desired);
    check_between(machine, name);
    let problems = wanted.problems.iter().cloned();
    (text, problems.chain(difference.problems).collect())
}

/// Returns the machine once there is nothing left to do, which takes at most two passes that do something.
fn settled(machine: &Machine, desired: &KernelState) -> Machine {
    let mut machine = machine.clone();
    for _ in 0..3 {
        let steps = steps_of(&machine, desired);
        let outcomes = pass(&mut machine.kernel, desired, &mut machine.ledger);
        if steps.is_empty() {
            return machine;
        }
        assert!(outcomes.is_complete(), "{outcomes:?}\n{}", text(&steps));
    }
    panic!("does not converge:\n{}", text(&steps_of(&machine, desired)))
}

/// Checks what must hold at every moment: ownership, ARP sysctls for VIPs on lo, no rule without a route.
fn check_between(machine: &Machine, place: &str) {
    let Machine {
        kernel,
        twin,
        ledger,
        ..
    } = machine;
    assert_eq!(
        ownership::check(&kernel.state, &twin.state, ledger),
        Ok(()),
        "{place}"
    );
    let all = |sysctl: Sysctl| kernel.state.sysctls.get(&sysctl).copied().unwrap_or(0);
    let hides =
        matches!(all(Sysctl::ArpIgnore(None)), 1 | 2) && all(Sysctl::ArpAnnounce(None)) == 2;
    for target in ledger.made.iter().filter(|target| kernel.state.has(target)) {
        let is_hidden_vip = matches!(target, Target::Address(key) if key.interface.is_loopback() && key.address.is_ipv4());
        assert!(
            hides || !is_hidden_vip,
            "this host answers ARP requests for {target}: {place}"
        );
    }
    for rule in &kernel.state.rules {
        let leads_somewhere = kernel
            .state
            .routes
            .iter()
            .any(|route| route.table == rule.table);
        assert!(leads_somewhere, "rule without a route: {place}");
    }
}

/// Checks that what exists before and after a pass also exists in between, so that connections are not broken.
fn check_in_place(before: &Machine, between: &Machine, after: &Machine, place: &str) {
    let [before, between, after] = [before, between, after].map(|machine| &machine.kernel.state);
    for (key, service) in &before.services {
        let Some(later) = after.services.get(key) else {
            continue;
        };
        let meanwhile = between.services.get(key);
        assert!(meanwhile.is_some(), "{key} was gone: {place}");
        for destination in service
            .destinations
            .keys()
            .filter(|key| later.destinations.contains_key(key))
        {
            let is_there =
                meanwhile.is_some_and(|service| service.destinations.contains_key(destination));
            assert!(is_there, "{key} -> {destination} was gone: {place}");
        }
    }
    for key in before
        .addresses
        .keys()
        .filter(|key| after.addresses.contains_key(key))
    {
        let is_on_device = key.interface.is_of_tunnel();
        assert!(
            is_on_device || between.addresses.contains_key(key),
            "{key} was gone: {place}"
        );
    }
}

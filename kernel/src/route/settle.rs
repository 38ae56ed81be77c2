//! Sends the requests of network steps, and derives the outcome of each step from the answers.

use std::collections::BTreeSet;

use lvs_model::{Network, NetworkStep, Owner, Route, Tables};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::{
    exchange::{Answer, Exchange, Request, RouteError},
    fib, link,
    observe::observe,
    outcome::{Outcome, Planned, RouteFailure},
    refusal::Refusal,
    step::{Doing, interface, is_removal},
};

/// What an answer means for its step.
enum Verdict {
    Settled(Outcome),
    /// Something exists already. Whether it is what the step makes has to be checked.
    Exists,
}

/// Sends the planned requests, and returns the outcome of each step.
///
/// 1. Removing what does not exist succeeds.
/// 2. Making what exists with the same properties succeeds. `EEXIST` alone does not show that: the kernel also returns
///    it for an address with another prefix, a tunnel with the same local address, or a foreign rule. So the network is
///    read, once for all steps, and of our routes those in the tables of the steps.
/// 3. If our table has another route of ours, the new route replaces it, so that the table is never empty.
pub(super) async fn submit(
    exchange: &Exchange,
    steps: &[&NetworkStep],
    planned: Vec<Planned>,
) -> Result<Vec<Outcome>, RouteError> {
    let mut requests = Vec::with_capacity(planned.len());
    let mut settled = Vec::with_capacity(planned.len());
    for plan in planned {
        match plan {
            Planned::Send(request) => {
                requests.push(request);
                settled.push(None);
            }
            Planned::Settled(outcome) => settled.push(Some(outcome)),
        }
    }
    let mut answers = exchange.submit(&requests).await?.into_iter();
    let mut verdicts = Vec::with_capacity(steps.len());
    for (step, outcome) in steps.iter().zip(settled) {
        verdicts.push(match outcome {
            Some(outcome) => Verdict::Settled(outcome),
            None => classify(step, answers.next().ok_or(RouteError::Closed)?),
        });
    }
    resolve(exchange, steps, verdicts).await
}

fn classify(step: &NetworkStep, answer: Answer) -> Verdict {
    let Err(refusal) = answer else {
        return Verdict::Settled(Ok(()));
    };
    if is_removal(step) && refusal.is_not_found() {
        return Verdict::Settled(Ok(()));
    }
    if !is_removal(step) && refusal.is_already_exists() {
        return Verdict::Exists;
    }
    Verdict::Settled(Err(failure(step, refusal)))
}

fn failure(step: &NetworkStep, refusal: Refusal) -> RouteFailure {
    let doing = Doing(step).to_string();
    match step {
        NetworkStep::AddLink { kind, .. } if refusal.is_unsupported() => RouteFailure::NoTunnels {
            doing,
            kind: kind.as_str(),
            module: link::module(*kind),
        },
        NetworkStep::AddLink { .. }
        | NetworkStep::SetLinkUp(_)
        | NetworkStep::RemoveLink(_)
        | NetworkStep::AddAddress { .. }
        | NetworkStep::EditAddress { .. }
        | NetworkStep::RemoveAddress(_)
        | NetworkStep::AddRoute(_)
        | NetworkStep::RemoveRoute(_)
        | NetworkStep::AddRule(_)
        | NetworkStep::RemoveRule(_) => RouteFailure::Refused { doing, refusal },
    }
}

/// Turns verdicts into outcomes. Reads the network if something exists already.
async fn resolve(
    exchange: &Exchange,
    steps: &[&NetworkStep],
    verdicts: Vec<Verdict>,
) -> Result<Vec<Outcome>, RouteError> {
    let mut network = None;
    let mut outcomes = Vec::with_capacity(verdicts.len());
    for (step, verdict) in steps.iter().zip(verdicts) {
        outcomes.push(match verdict {
            Verdict::Settled(outcome) => outcome,
            Verdict::Exists => {
                let network = match &network {
                    Some(network) => network,
                    None => network.insert(observe(exchange, &tables(steps)).await?.0),
                };
                settle_existing(exchange, step, network).await?
            }
        });
    }
    Ok(outcomes)
}

/// The routing tables of steps: the others, of which one may have a million routes, are not read.
fn tables(steps: &[&NetworkStep]) -> Tables {
    let of_step = |step: &&NetworkStep| match step {
        NetworkStep::AddRoute(route) | NetworkStep::RemoveRoute(route) => Some(route.table),
        NetworkStep::AddRule(rule) | NetworkStep::RemoveRule(rule) => Some(rule.table),
        NetworkStep::AddLink { .. }
        | NetworkStep::SetLinkUp(_)
        | NetworkStep::RemoveLink(_)
        | NetworkStep::AddAddress { .. }
        | NetworkStep::EditAddress { .. }
        | NetworkStep::RemoveAddress(_) => None,
    };
    Tables::Only(steps.iter().filter_map(of_step).collect::<BTreeSet<u32>>())
}

async fn settle_existing(
    exchange: &Exchange,
    step: &NetworkStep,
    network: &Network,
) -> Result<Outcome, RouteError> {
    if is_there(step, network) {
        return Ok(Ok(()));
    }
    let doing = Doing(step).to_string();
    let Some((route, index)) = replaceable(step, network) else {
        return Ok(Err(RouteFailure::Occupied { doing }));
    };
    let replace = Request::new(fib::add(route, index), NLM_F_CREATE | NLM_F_REPLACE);
    let answer = exchange.submit(&[replace]).await?.into_iter().next();
    let answer = answer.ok_or(RouteError::Closed)?;
    Ok(answer
        .map(drop)
        .map_err(|refusal| RouteFailure::Refused { doing, refusal }))
}

/// Returns whether what a step makes exists with the same properties.
fn is_there(step: &NetworkStep, network: &Network) -> bool {
    match step {
        NetworkStep::AddLink { name, kind } => network
            .links
            .get(name)
            .is_some_and(|link| link.kind == *kind),
        // One without our mark was added by another program in the meantime.
        NetworkStep::AddAddress { key, .. } => {
            let found = network.addresses.get(key);
            found.is_some_and(|found| found.owner == Owner::Ours)
        }
        NetworkStep::AddRoute(route) => network.routes.contains(route),
        NetworkStep::AddRule(rule) => network.rules.contains(rule),
        NetworkStep::SetLinkUp(_)
        | NetworkStep::EditAddress { .. }
        | NetworkStep::RemoveLink(_)
        | NetworkStep::RemoveAddress(_)
        | NetworkStep::RemoveRoute(_)
        | NetworkStep::RemoveRule(_) => false,
    }
}

/// Returns the route of a step, with the index of its interface, if its table has another route of ours to the same
/// destination. Else `None`.
fn replaceable<'a>(step: &'a NetworkStep, network: &Network) -> Option<(&'a Route, u32)> {
    let NetworkStep::AddRoute(route) = step else {
        return None;
    };
    let has_its_place =
        |found: &Route| found.table == route.table && found.destination() == route.destination();
    let interface = network.interfaces.get(&interface(step)?)?;
    network
        .routes
        .iter()
        .any(has_its_place)
        .then_some((route, interface.index))
}

#[cfg(test)]
mod tests {
    use lvs_model::{Family, NextHop};

    use super::*;

    #[test]
    fn the_tables_of_the_steps_are_read_and_no_others() {
        let route = NetworkStep::AddRoute(Route {
            table: 76_000,
            next_hop: NextHop::Local { family: Family::V4 },
        });
        let link = NetworkStep::SetLinkUp("eth0".parse().unwrap());

        assert_eq!(tables(&[&link, &route]), Tables::Only([76_000].into()));
        assert_eq!(tables(&[&link]), Tables::Only(BTreeSet::new()));
    }
}

//! Sends changes and decides from the answers, and from a second look at the network, whether each is applied.

use lvs_model::Route;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::{
    change::Change,
    exchange::{Answer, Exchange, Request, RouteError},
    execute::{Outcome, Planned, RouteFailure},
    fib, link,
    observe::{Network, observe},
    refusal::Refusal,
};

/// What an answer means for its change.
enum Verdict {
    Settled(Outcome),
    /// The kernel says that it exists; whether as wanted is to be seen.
    Exists,
}

/// Sends what is to be sent and says what became of each change:
///
/// 1. Removing what is not there is done.
/// 2. Making what is there just so is done. `EEXIST` does not tell: it also means an address with another prefix, a tunnel
///    with the same end, another's rule. So the network is read, once for all of them.
/// 3. A route of ours in the place of another of ours is replaced, so that the table is never empty.
pub(super) async fn submit(
    exchange: &Exchange,
    changes: &[Change<'_>],
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
    let mut verdicts = Vec::with_capacity(changes.len());
    for (change, outcome) in changes.iter().zip(settled) {
        verdicts.push(match outcome {
            Some(outcome) => Verdict::Settled(outcome),
            None => judge(change, answers.next().ok_or(RouteError::Closed)?),
        });
    }
    look_closer(exchange, changes, verdicts).await
}

fn judge(change: &Change<'_>, answer: Answer) -> Verdict {
    let Err(refusal) = answer else {
        return Verdict::Settled(Ok(()));
    };
    if change.is_removal() && refusal.is_not_found() {
        return Verdict::Settled(Ok(()));
    }
    if !change.is_removal() && refusal.is_already_exists() {
        return Verdict::Exists;
    }
    Verdict::Settled(Err(failure(change, refusal)))
}

fn failure(change: &Change<'_>, refusal: Refusal) -> RouteFailure {
    let doing = change.to_string();
    match change {
        Change::MakeLink { kind, .. } if refusal.is_unsupported() => RouteFailure::NoTunnels {
            doing,
            kind: kind.as_str(),
            module: link::module(*kind),
        },
        Change::MakeLink { .. }
        | Change::SetLinkUp(_)
        | Change::RemoveLink(_)
        | Change::AddAddress { .. }
        | Change::EditAddress { .. }
        | Change::RemoveAddress(_)
        | Change::AddRoute(_)
        | Change::RemoveRoute(_)
        | Change::AddRule(_)
        | Change::RemoveRule(_)
        | Change::Misplaced(_) => RouteFailure::Refused { doing, refusal },
    }
}

/// Compares what exists with what is wanted.
async fn look_closer(
    exchange: &Exchange,
    changes: &[Change<'_>],
    verdicts: Vec<Verdict>,
) -> Result<Vec<Outcome>, RouteError> {
    let mut network = None;
    let mut outcomes = Vec::with_capacity(verdicts.len());
    for (change, verdict) in changes.iter().zip(verdicts) {
        outcomes.push(match verdict {
            Verdict::Settled(outcome) => outcome,
            Verdict::Exists => {
                let network = match &network {
                    Some(network) => network,
                    None => network.insert(observe(exchange).await?),
                };
                settle_existing(exchange, change, network).await?
            }
        });
    }
    Ok(outcomes)
}

async fn settle_existing(
    exchange: &Exchange,
    change: &Change<'_>,
    network: &Network,
) -> Result<Outcome, RouteError> {
    if is_there(change, network) {
        return Ok(Ok(()));
    }
    let doing = change.to_string();
    let Some((route, index)) = replaceable(change, network) else {
        return Ok(Err(RouteFailure::Occupied { doing }));
    };
    let replace = Request::new(fib::add(route, index), NLM_F_CREATE | NLM_F_REPLACE);
    let answer = exchange.submit(&[replace]).await?.into_iter().next();
    let answer = answer.ok_or(RouteError::Closed)?;
    Ok(answer
        .map(drop)
        .map_err(|refusal| RouteFailure::Refused { doing, refusal }))
}

/// Says whether what was to be made is there just so.
fn is_there(change: &Change<'_>, network: &Network) -> bool {
    match change {
        Change::MakeLink { name, kind } => network
            .links
            .get(*name)
            .is_some_and(|link| link.kind == *kind),
        Change::AddAddress { key, .. } => network.addresses.contains_key(*key),
        Change::AddRoute(route) => network.routes.contains(*route),
        Change::AddRule(rule) => network.rules.contains(*rule),
        Change::SetLinkUp(_)
        | Change::EditAddress { .. }
        | Change::RemoveLink(_)
        | Change::RemoveAddress(_)
        | Change::RemoveRoute(_)
        | Change::RemoveRule(_)
        | Change::Misplaced(_) => false,
    }
}

/// A route whose place another of ours has.
fn replaceable<'a>(change: &Change<'a>, network: &Network) -> Option<(&'a Route, u32)> {
    let Change::AddRoute(route) = change else {
        return None;
    };
    let in_place =
        |found: &Route| found.table() == route.table() && found.family() == route.family();
    let interface = network.interfaces.get(&change.interface()?)?;
    network
        .routes
        .iter()
        .any(in_place)
        .then_some((route, interface.index))
}

//! Executes the steps that concern links, addresses, routes and rules, in their order.

use std::{collections::BTreeMap, sync::Arc};

use lvs_model::{InterfaceName, Step};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use thiserror::Error;

use super::{
    address,
    change::Change,
    exchange::{Exchange, Request, RouteError},
    fib, link,
    refusal::Refusal,
    rule,
    settle::submit,
};

/// A step that failed. Each says in its text what was being done: "adding 192.0.2.1/32 to eth1".
#[derive(Clone, Debug, Error)]
pub(crate) enum RouteFailure {
    /// The kernel refused it.
    #[error("{doing}")]
    Refused {
        doing: String,
        #[source]
        refusal: Refusal,
    },
    /// What was to be made has a name or place that is taken.
    #[error("{doing}: something that lvs-agent did not make is in its place")]
    Occupied { doing: String },
    /// The interface that it names is not there.
    #[error("{doing}: there is no interface {interface}")]
    NoInterface {
        doing: String,
        interface: InterfaceName,
    },
    /// The kernel has no such tunnels.
    #[error("{doing}: the kernel has no {kind} tunnels: load module {module}")]
    NoTunnels {
        doing: String,
        kind: &'static str,
        module: &'static str,
    },
    /// It is no change of links, addresses, routes or rules.
    #[error("{doing}: not for route netlink")]
    Misplaced { doing: String },
    /// It is not known what became of it.
    #[error("{doing}")]
    Unknown {
        doing: String,
        #[source]
        error: Arc<RouteError>,
    },
}

pub(super) type Outcome = Result<(), RouteFailure>;

/// A change as far as it can be settled without the kernel.
pub(super) enum Planned {
    Send(Request),
    Settled(Outcome),
}

/// Executes steps in their order, consecutive ones of one kind in one send:
///
/// 1. Links are made by themselves, since what follows may need their index.
/// 2. What is removed goes after what is made was looked at: only while the old route of a table is there can it be seen
///    that the new one takes its place.
pub(super) async fn execute(exchange: &Exchange, steps: &[&Step]) -> Vec<Outcome> {
    let changes: Vec<Change<'_>> = steps.iter().map(|step| Change::of(step)).collect();
    let mut outcomes = Vec::with_capacity(changes.len());
    for run in changes.chunk_by(Change::is_like) {
        let done = match run {
            [Change::MakeLink { .. }, ..] => make_links(exchange, run).await,
            run => change(exchange, run).await,
        };
        outcomes.extend(done.unwrap_or_else(|error| unknown(run, error)));
    }
    outcomes
}

fn unknown(changes: &[Change<'_>], error: RouteError) -> Vec<Outcome> {
    let error = Arc::new(error);
    let failure = |change: &Change<'_>| RouteFailure::Unknown {
        doing: change.to_string(),
        error: Arc::clone(&error),
    };
    changes.iter().map(|change| Err(failure(change))).collect()
}

/// Makes tunnel devices. Those that are made, or were there with the same settings, then get our alias and are brought
/// up; not in the same send, since what has the name and is another's must stay as it is.
async fn make_links(
    exchange: &Exchange,
    changes: &[Change<'_>],
) -> Result<Vec<Outcome>, RouteError> {
    let nowhere = BTreeMap::new();
    let creates = changes
        .iter()
        .map(|change| plan(change, &nowhere))
        .collect();
    let made = submit(exchange, changes, creates).await?;
    let finishes = changes.iter().zip(made).map(finish).collect();
    submit(exchange, changes, finishes).await
}

fn finish((change, made): (&Change<'_>, Outcome)) -> Planned {
    match (change, made) {
        (Change::MakeLink { name, .. }, Ok(())) => {
            Planned::Send(Request::new(link::finish(name), 0))
        }
        (_, made) => Planned::Settled(made),
    }
}

/// Executes changes that make no links.
async fn change(exchange: &Exchange, changes: &[Change<'_>]) -> Result<Vec<Outcome>, RouteError> {
    let indexes = read_indexes(exchange, changes).await?;
    let planned = changes
        .iter()
        .map(|change| plan(change, &indexes))
        .collect();
    submit(exchange, changes, planned).await
}

/// Asks for the indexes of the interfaces that changes name. One that is not there is left out.
async fn read_indexes(
    exchange: &Exchange,
    changes: &[Change<'_>],
) -> Result<BTreeMap<InterfaceName, u32>, RouteError> {
    let mut names: Vec<InterfaceName> = changes.iter().filter_map(Change::interface).collect();
    names.sort_unstable();
    names.dedup();
    let questions = names
        .iter()
        .map(|name| Request::new(link::read_one(name), 0));
    let answers = exchange.submit(&questions.collect::<Vec<_>>()).await?;
    let found = names.into_iter().zip(answers).filter_map(|(name, answer)| {
        let frame = answer.ok()?.into_iter().next()?;
        Some((name, link::decode(&frame.payload).ok()?.interface.index))
    });
    Ok(found.collect())
}

/// Translates a change. What is on an interface that is gone is gone too.
fn plan(change: &Change<'_>, indexes: &BTreeMap<InterfaceName, u32>) -> Planned {
    let index = match change.interface() {
        None => 0,
        Some(interface) => match indexes.get(&interface) {
            Some(index) => *index,
            None if change.is_removal() => return Planned::Settled(Ok(())),
            None => {
                let doing = change.to_string();
                return Planned::Settled(Err(RouteFailure::NoInterface { doing, interface }));
            }
        },
    };
    match change {
        Change::MakeLink { name, kind } => match link::create(name, *kind) {
            Some(message) => create(message),
            None => misplaced(change),
        },
        Change::SetLinkUp(name) => edit(link::set_up(name)),
        Change::RemoveLink(name) => edit(link::remove(name)),
        Change::AddAddress { key, config } => create(address::add(key, *config, index)),
        Change::EditAddress { key, config } => Planned::Send(Request::new(
            address::add(key, *config, index),
            NLM_F_REPLACE,
        )),
        Change::RemoveAddress(key) => edit(address::remove(key, index)),
        Change::AddRoute(route) => create(fib::add(route, index)),
        Change::RemoveRoute(route) => edit(fib::remove(route, index)),
        Change::AddRule(rule) => create(rule::add(rule)),
        Change::RemoveRule(rule) => edit(rule::remove(rule)),
        Change::Misplaced(_) => misplaced(change),
    }
}

fn create(message: RouteNetlinkMessage) -> Planned {
    Planned::Send(Request::new(message, NLM_F_CREATE | NLM_F_EXCL))
}

fn edit(message: RouteNetlinkMessage) -> Planned {
    Planned::Send(Request::new(message, 0))
}

fn misplaced(change: &Change<'_>) -> Planned {
    let doing = change.to_string();
    Planned::Settled(Err(RouteFailure::Misplaced { doing }))
}

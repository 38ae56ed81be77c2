//! Executes network steps: decides what is sent for each, and in which order.

use std::{collections::BTreeMap, sync::Arc};

use lvs_model::{InterfaceName, NetworkStep};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;

use super::{
    address,
    exchange::{Exchange, Request, RouteError},
    fib, link,
    outcome::{Outcome, Planned, RouteFailure},
    rule,
    settle::submit,
    step::{Doing, can_be_sent_with, interface, is_removal},
};

/// Executes steps in their order. Consecutive steps are sent together, except in these cases:
///
/// 1. New links are sent separately, since later steps can need their index.
/// 2. Removals are sent after the answers to creations were processed: whether a new route replaces the old one of its
///    table can be seen only while the old one exists.
pub(super) async fn execute(exchange: &Exchange, steps: &[&NetworkStep]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(steps.len());
    for run in steps.chunk_by(can_be_sent_with) {
        let done = match run {
            [NetworkStep::AddLink { .. }, ..] => make_links(exchange, run).await,
            run => change(exchange, run).await,
        };
        outcomes.extend(done.unwrap_or_else(|error| unknown(run, error)));
    }
    outcomes
}

/// Returns the outcomes of steps whose answers were lost.
pub(super) fn unknown(steps: &[&NetworkStep], error: RouteError) -> Vec<Outcome> {
    let error = Arc::new(error);
    let failure = |step: &NetworkStep| RouteFailure::Unknown {
        doing: Doing(step).to_string(),
        error: Arc::clone(&error),
    };
    steps.iter().map(|step| Err(failure(step))).collect()
}

/// Makes tunnel devices. Those that were made, or existed with the same settings, then get our alias and are set up.
///
/// This second change is sent separately, since a foreign device with the name must not be changed.
async fn make_links(
    exchange: &Exchange,
    steps: &[&NetworkStep],
) -> Result<Vec<Outcome>, RouteError> {
    let no_indexes = BTreeMap::new();
    let creates = steps.iter().map(|step| plan(step, &no_indexes)).collect();
    let made = submit(exchange, steps, creates).await?;
    let finishes = steps.iter().zip(made).map(finish).collect();
    submit(exchange, steps, finishes).await
}

fn finish((step, made): (&&NetworkStep, Outcome)) -> Planned {
    match (step, made) {
        (NetworkStep::AddLink { name, .. }, Ok(())) => {
            Planned::Send(Request::new(link::finish(name), 0))
        }
        (_, made) => Planned::Settled(made),
    }
}

/// Executes steps that do not make links.
async fn change(exchange: &Exchange, steps: &[&NetworkStep]) -> Result<Vec<Outcome>, RouteError> {
    let indexes = read_indexes(exchange, steps).await?;
    let planned = steps.iter().map(|step| plan(step, &indexes)).collect();
    submit(exchange, steps, planned).await
}

/// Reads the indexes of the interfaces of steps. An interface that does not exist is left out.
async fn read_indexes(
    exchange: &Exchange,
    steps: &[&NetworkStep],
) -> Result<BTreeMap<InterfaceName, u32>, RouteError> {
    let mut names: Vec<InterfaceName> = steps.iter().filter_map(|step| interface(step)).collect();
    names.sort_unstable();
    names.dedup();
    let requests = names
        .iter()
        .map(|name| Request::new(link::read_one(name), 0));
    let answers = exchange.submit(&requests.collect::<Vec<_>>()).await?;
    let found = names.into_iter().zip(answers).filter_map(|(name, answer)| {
        let frame = answer.ok()?.into_iter().next()?;
        Some((name, link::decode(&frame.payload).ok()?.interface.index))
    });
    Ok(found.collect())
}

/// Translates a step. Removing something from an interface that is gone succeeds.
fn plan(step: &NetworkStep, indexes: &BTreeMap<InterfaceName, u32>) -> Planned {
    let index = match interface(step) {
        None => 0,
        Some(interface) => match indexes.get(&interface) {
            Some(index) => *index,
            None if is_removal(step) => return Planned::Settled(Ok(())),
            None => {
                let doing = Doing(step).to_string();
                return Planned::Settled(Err(RouteFailure::NoInterface { doing, interface }));
            }
        },
    };
    match step {
        NetworkStep::AddLink { name, kind } => match link::create(name, *kind) {
            Some(message) => create(message),
            None => {
                let doing = Doing(step).to_string();
                Planned::Settled(Err(RouteFailure::NotATunnel { doing }))
            }
        },
        NetworkStep::SetLinkUp(name) => edit(link::set_up(name)),
        NetworkStep::RemoveLink(name) => edit(link::remove(name)),
        NetworkStep::AddAddress { key, config } => create(address::add(key, *config, index)),
        NetworkStep::EditAddress { key, config } => Planned::Send(Request::new(
            address::add(key, *config, index),
            NLM_F_REPLACE,
        )),
        NetworkStep::RemoveAddress(key) => edit(address::remove(key, index)),
        NetworkStep::AddRoute(route) => create(fib::add(route, index)),
        NetworkStep::RemoveRoute(route) => edit(fib::remove(route, index)),
        NetworkStep::AddRule(rule) => create(rule::add(rule)),
        NetworkStep::RemoveRule(rule) => edit(rule::remove(rule)),
    }
}

fn create(message: RouteNetlinkMessage) -> Planned {
    Planned::Send(Request::new(message, NLM_F_CREATE | NLM_F_EXCL))
}

fn edit(message: RouteNetlinkMessage) -> Planned {
    Planned::Send(Request::new(message, 0))
}

//! Executes network steps: what is sent for each, in which order.

use std::{collections::BTreeMap, sync::Arc};

use lvs_model::{InterfaceName, NetworkStep};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use thiserror::Error;

use super::{
    address,
    exchange::{Exchange, Request, RouteError},
    fib, link,
    refusal::Refusal,
    rule,
    settle::submit,
    step::{Doing, interface, is_like, is_removal},
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
    /// It is a kind of device that this program never makes.
    #[error("{doing}: this is no tunnel")]
    NoTunnel { doing: String },
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
pub(super) async fn execute(exchange: &Exchange, steps: &[&NetworkStep]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(steps.len());
    for run in steps.chunk_by(is_like) {
        let done = match run {
            [NetworkStep::AddLink { .. }, ..] => make_links(exchange, run).await,
            run => change(exchange, run).await,
        };
        outcomes.extend(done.unwrap_or_else(|error| unknown(run, error)));
    }
    outcomes
}

fn unknown(steps: &[&NetworkStep], error: RouteError) -> Vec<Outcome> {
    let error = Arc::new(error);
    let failure = |step: &NetworkStep| RouteFailure::Unknown {
        doing: Doing(step).to_string(),
        error: Arc::clone(&error),
    };
    steps.iter().map(|step| Err(failure(step))).collect()
}

/// Makes tunnel devices. Those that are made, or were there with the same settings, then get our alias and are brought
/// up; not in the same send, since what has the name and is another's must stay as it is.
async fn make_links(
    exchange: &Exchange,
    steps: &[&NetworkStep],
) -> Result<Vec<Outcome>, RouteError> {
    let nowhere = BTreeMap::new();
    let creates = steps.iter().map(|step| plan(step, &nowhere)).collect();
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

/// Executes changes that make no links.
async fn change(exchange: &Exchange, steps: &[&NetworkStep]) -> Result<Vec<Outcome>, RouteError> {
    let indexes = read_indexes(exchange, steps).await?;
    let planned = steps.iter().map(|step| plan(step, &indexes)).collect();
    submit(exchange, steps, planned).await
}

/// Asks for the indexes of the interfaces that changes name. One that is not there is left out.
async fn read_indexes(
    exchange: &Exchange,
    steps: &[&NetworkStep],
) -> Result<BTreeMap<InterfaceName, u32>, RouteError> {
    let mut names: Vec<InterfaceName> = steps.iter().filter_map(|step| interface(step)).collect();
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
                Planned::Settled(Err(RouteFailure::NoTunnel { doing }))
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

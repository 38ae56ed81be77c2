//! The floor: sends prepared bytes, 500 requests per send, and does nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipvs_netlink::{
    DestinationConfig, DestinationKey, Forwarding, Handle, Name, Protocol, Request, ServiceConfig,
    ServiceKey, wire::IpvsMessage,
};
use lab::Host;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::configurations::{CHANGED_WEIGHT, Load, WEIGHT};

const REQUESTS_A_SEND: usize = 500;

/// Programs the load in the present network namespace; returns the duration of the sends.
pub(super) fn program(load: Load) -> Result<Duration> {
    let family = family()?;
    let sends = prepare(load, family);
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut answer = Vec::with_capacity(1 << 16);
    let started = Instant::now();
    for bytes in &sends {
        socket.send(bytes, 0)?;
        answer.clear();
        socket.recv(&mut answer, 0)?;
        let code = answer.get(16..20).context("a short answer")?;
        ensure!(code == [0; 4], "the kernel refused a request: {code:?}");
    }
    Ok(started.elapsed())
}

/// Returns the bytes of every send. Only its last request asks for an answer.
fn prepare(load: Load, family: u16) -> Vec<Vec<u8>> {
    let requests = requests(load);
    let chunks = requests.chunks(REQUESTS_A_SEND);
    chunks
        .map(|chunk| {
            let mut bytes = Vec::new();
            for (index, request) in chunk.iter().enumerate() {
                let is_last = index + 1 == chunk.len();
                append(
                    &mut bytes,
                    request,
                    family,
                    if is_last { NLM_F_ACK } else { 0 },
                );
            }
            bytes
        })
        .collect()
}

fn append(bytes: &mut Vec<u8>, request: &Request, family: u16, flags: u16) {
    let mut message: GenlMessage<IpvsMessage> = GenlMessage::from_payload(request.to_message());
    message.set_resolved_family_id(family);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let start = bytes.len();
    bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = bytes.get_mut(start..) {
        packet.serialize(room);
    }
}

fn requests(load: Load) -> Vec<Request> {
    let Ok(scheduler) = Name::new("wlc") else {
        return Vec::new();
    };
    let destination = DestinationConfig {
        forwarding: Forwarding::Route,
        weight: WEIGHT,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let mut requests = Vec::with_capacity(load.services * (load.destinations + 1));
    for index in 0..load.services {
        let service = service_key(load, index);
        requests.push(Request::CreateService {
            key: service,
            config: ServiceConfig::new(scheduler),
        });
        for server in 0..load.destinations {
            let key = destination_key(load, index, server);
            requests.push(Request::CreateDestination {
                service,
                key,
                config: destination,
            });
        }
    }
    requests
}

fn service_key(load: Load, index: usize) -> ServiceKey {
    let (address, port) = load.frontend(index);
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address,
        port,
    }
}

fn destination_key(load: Load, service: usize, index: usize) -> DestinationKey {
    DestinationKey {
        address: load.real_server(service, index),
        port: load.frontend(service).1,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn family() -> Result<u16> {
    runtime()?.block_on(async {
        let mut connection = ipvs_netlink::pipeline::Connection::open()?;
        Ok(connection.resolve_family("IPVS").await?)
    })
}

/// Runs a query to IPVS in a machine's namespace.
fn ask<T: Send>(
    host: &Host,
    question: impl AsyncFnOnce(&mut Handle) -> Result<T> + Send,
) -> Result<T> {
    host.in_namespace(|| {
        runtime()?.block_on(async {
            let mut handle = Handle::connect().await?;
            question(&mut handle).await
        })
    })?
}

/// Returns the number of services in a machine's table, from /proc: one read for any number of
/// destinations.
pub(super) fn count_services(host: &Host) -> Result<usize> {
    ask(host, async |handle| Ok(handle.services().await?.len()))
}

/// Returns whether the last service of the load has all of its destinations.
pub(super) fn is_last_full(host: &Host, load: Load) -> Result<bool> {
    let last = service_key(load, load.services - 1);
    ask(host, async |handle| {
        Ok(handle.destinations(&last).await?.len() == load.destinations)
    })
}

/// Returns whether the last destination has its new weight.
pub(super) fn has_changed_weight(host: &Host, load: Load) -> Result<bool> {
    let last = service_key(load, load.services - 1);
    let key = destination_key(load, load.services - 1, load.destinations - 1);
    ask(host, async |handle| {
        let destinations = handle.destinations(&last).await?;
        let Some(found) = destinations.iter().find(|found| found.key == key) else {
            bail!("the last destination is gone");
        };
        Ok(found.config.weight == CHANGED_WEIGHT)
    })
}

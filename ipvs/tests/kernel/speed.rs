//! How fast a table of 10,000 services with 10 destinations each is made and read, beside the
//! least that the kernel needs for it.

use std::time::{Duration, Instant};

use ipvs_netlink::{Handle, Request, pipeline::Connection};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_generic::GenlMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::namespace::{enter_namespace, table};

const PER_SEND: usize = 500;

/// Prints times; a fresh namespace for each, since deleted destinations slow the kernel down.
#[test]
#[ignore = "needs a kernel with IPVS and CAP_NET_ADMIN"]
fn a_large_table_is_made_and_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let requests = table(10_000, 10);

    enter_namespace();
    let family = runtime
        .block_on(async { Connection::open().unwrap().resolve_family("IPVS").await })
        .unwrap();
    println!(
        "floor:    {:?} for {} requests",
        floor(&requests, family),
        requests.len()
    );

    enter_namespace();
    runtime.block_on(async {
        let mut handle = Handle::connect().await.unwrap();
        let start = Instant::now();
        assert_eq!(handle.execute(&requests).await.unwrap(), []);
        println!("execute:  {:?}", start.elapsed());

        for _ in 0..3 {
            let start = Instant::now();
            let services = handle.services().await.unwrap().len();
            println!("services: {:?} for {services}", start.elapsed());

            let start = Instant::now();
            let tables = handle.snapshot().await.unwrap();
            let destinations: usize = tables.iter().map(|table| table.destinations.len()).sum();
            println!(
                "snapshot: {:?} for {} and {destinations}",
                start.elapsed(),
                tables.len()
            );
            assert_eq!(destinations, 100_000);
        }
    });
}

/// Sends the requests, encoded beforehand, on a blocking socket.
fn floor(requests: &[Request], family: u16) -> Duration {
    let mut socket = Socket::new(NETLINK_GENERIC).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    let sends: Vec<_> = requests
        .chunks(PER_SEND)
        .map(|batch| encode(batch, family))
        .collect();

    let start = Instant::now();
    for send in &sends {
        socket.send(send, 0).unwrap();
        let answer = socket.recv_from_full().unwrap().0;
        assert_eq!(answer[16..20], [0; 4], "refused");
    }
    start.elapsed()
}

fn encode(batch: &[Request], family: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, request) in batch.iter().enumerate() {
        let mut payload = GenlMessage::from_payload(request.to_message());
        payload.set_resolved_family_id(family);
        let mut header = NetlinkHeader::default();
        let last = index + 1 == batch.len();
        header.flags = if last {
            NLM_F_REQUEST | NLM_F_ACK
        } else {
            NLM_F_REQUEST
        };
        let mut message = NetlinkMessage::new(header, payload.into());
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    bytes
}

//! Measures how fast a table of 10,000 services with 10 destinations each is created and read, and
//! the time that the kernel alone needs for it.

use std::{
    io::IoSliceMut,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use ipvs_netlink::{
    Handle, Request, ServiceTable,
    pipeline::Connection,
    wire::{IpvsCommand, IpvsMessage},
};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_generic::GenlMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use super::namespace::{enter_namespace, table};

const PER_SEND: usize = 500;

/// Prints times. Each measurement has a fresh namespace, since deleted destinations slow the kernel
/// down.
#[test]
#[ignore = "measures, on a kernel with IPVS: cargo test --release --test kernel -- --ignored --nocapture speed"]
fn a_large_table_is_created_and_read() {
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
            let mut destinations = 0;
            let mut tables = handle.tables().await.unwrap();
            while let Some(table) = tables.next().await.unwrap() {
                destinations += table.destinations.len();
            }
            println!("tables:   {:?} for {destinations}", start.elapsed());

            let start = Instant::now();
            let tables = handle.snapshot().await.unwrap();
            let destinations: usize = tables.iter().map(|table| table.destinations.len()).sum();
            println!(
                "snapshot: {:?} for {} and {destinations}",
                start.elapsed(),
                tables.len()
            );
            assert_eq!(destinations, 100_000);
            println!("its floor: {:?}", dump_floor(&tables, family));
        }
    });
}

/// Sends the requests, encoded beforehand, on a blocking socket.
fn floor(requests: &[Request], family: u16) -> Duration {
    let socket = blocking_socket();
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

/// Dumps the destinations of each service on a blocking socket, with two system calls each, and
/// only looks for the end of the answers.
fn dump_floor(tables: &[ServiceTable], family: u16) -> Duration {
    let socket = blocking_socket();
    let question = |table: &ServiceTable| {
        let key = table.service.key;
        let mut message = Request::DeleteService { key }.to_message();
        message.command = IpvsCommand::GetDest;
        let mut bytes = Vec::new();
        append(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP, family);
        bytes
    };
    let questions: Vec<_> = tables.iter().map(question).collect();
    let mut buffers = [vec![0; 32 << 10], vec![0; 32 << 10]];

    let start = Instant::now();
    for question in &questions {
        socket.send(question, 0).unwrap();
        while !receive_end(&socket, &mut buffers) {}
    }
    start.elapsed()
}

/// Reads at most two datagrams and returns whether the last of them ends a dump.
fn receive_end(socket: &Socket, buffers: &mut [Vec<u8>; 2]) -> bool {
    let mut headers = MultiHeaders::<()>::preallocate(2, None);
    let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
    let received = recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None).unwrap();
    let count = received.count();
    buffers[count - 1][4..6] == NLMSG_DONE.to_ne_bytes()
}

fn blocking_socket() -> Socket {
    let mut socket = Socket::new(NETLINK_GENERIC).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket
}

fn encode(batch: &[Request], family: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, request) in batch.iter().enumerate() {
        let last = index + 1 == batch.len();
        let flags = if last {
            NLM_F_REQUEST | NLM_F_ACK
        } else {
            NLM_F_REQUEST
        };
        append(&mut bytes, request.to_message(), flags, family);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, message: IpvsMessage, flags: u16, family: u16) {
    let mut payload = GenlMessage::from_payload(message);
    payload.set_resolved_family_id(family);
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, payload.into());
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

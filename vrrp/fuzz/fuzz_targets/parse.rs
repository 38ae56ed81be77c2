//! Reads arbitrary packets. What is read is written and read again.
//!
//! An input is a byte of choices (bit 0: IPv6; bit 1: make the checksum right), the hop limit, source and destination, and the
//! payload.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use lvs_vrrp::{HOP_LIMIT, PROTOCOL, Packet, Received, parse};

fuzz_target!(|input: &[u8]| {
    let _ = read(input);
});

fn read(input: &[u8]) -> Option<()> {
    let ([choices, hop_limit], rest) = input.split_first_chunk()?;
    let (source, destination, payload): (IpAddr, IpAddr, &[u8]) = if choices & 1 == 0 {
        let (source, rest) = rest.split_first_chunk::<4>()?;
        let (destination, payload) = rest.split_first_chunk::<4>()?;
        ((*source).into(), (*destination).into(), payload)
    } else {
        let (source, rest) = rest.split_first_chunk::<16>()?;
        let (destination, payload) = rest.split_first_chunk::<16>()?;
        ((*source).into(), (*destination).into(), payload)
    };
    let mut payload = payload.to_vec();
    if choices & 2 != 0 {
        repair(source, destination, &mut payload);
    }
    let packet = Packet {
        source,
        destination,
        hop_limit: *hop_limit,
        payload: &payload,
    };
    if let Ok(received) = packet.parse() {
        assert_eq!(packet.hop_limit, HOP_LIMIT);
        check(&packet, &received);
    }
    if let Ok(received) = parse(&packet, 0) {
        check(&packet, &received);
    }
    Some(())
}

/// Checks that the advertisement can be written and read again, and that the bytes are the same if nothing that is ignored was set.
fn check(packet: &Packet<'_>, received: &Received) {
    let checksum = received.checksum.unwrap_or_default();
    let advertisement = &received.advertisement;
    let written = advertisement
        .encode(packet.source, packet.destination, checksum)
        .expect("families that were read");
    let again = Packet {
        payload: &written,
        ..*packet
    };
    let again = parse(&again, 0).expect("what was written");
    assert_eq!(again.advertisement, *advertisement);

    let reserved = packet.payload[4] & 0xf0;
    // All ones and all zeros are the same number in one's complement.
    let is_negative_zero = packet.payload[6..8] == [0xff, 0xff];
    if reserved == 0 && !is_negative_zero && written.len() == packet.payload.len() {
        assert_eq!(written, packet.payload);
    }
}

/// Makes the checksum right, over IPv4 that of the message alone.
fn repair(source: IpAddr, destination: IpAddr, payload: &mut [u8]) {
    if payload.len() < 8 {
        return;
    }
    payload[6..8].fill(0);
    let count = usize::from(payload[3]);
    let sum = match (source, destination) {
        (IpAddr::V4(_), _) | (_, IpAddr::V4(_)) => {
            let length = payload.len().min(8 + 4 * count);
            words(&payload[..length])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u64::try_from(payload.len()).expect("a length");
            let addresses = words(&source.octets()) + words(&destination.octets());
            words(payload) + addresses + u64::from(PROTOCOL) + length
        }
    };
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    let checksum = !u16::try_from(folded).expect("a folded sum");
    payload[6..8].copy_from_slice(&checksum.to_be_bytes());
}

fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

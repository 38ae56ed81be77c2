//! Byte-exact tests of the messages.

mod captures;
mod roundtrip;

use std::net::Ipv4Addr;

use netlink_packet_core::{DefaultNla, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::*;
use crate::Name;

#[test]
fn answers_of_the_kernel_are_read_and_written_back_byte_for_byte() {
    for (command, capture) in [
        (IpvsCommand::NewService, captures::SERVICE_ANSWER),
        (IpvsCommand::NewService, captures::SERVICE_ANSWER_V6),
        (IpvsCommand::NewService, captures::SERVICE_ANSWER_FWMARK),
        (IpvsCommand::NewDest, captures::DEST_ANSWER),
        (IpvsCommand::NewDest, captures::DEST_ANSWER_TUNNEL),
        (IpvsCommand::NewDaemon, captures::DAEMON_ANSWER),
        (IpvsCommand::SetConfig, captures::CONFIG_ANSWER),
        (IpvsCommand::SetInfo, captures::INFO_ANSWER),
    ] {
        let bytes = bytes(capture);
        let message = parse(&bytes);
        assert_eq!(message.command, command);
        assert_eq!(emit(&message), bytes, "{command}");
    }
}

/// The bytes are equal apart from `NLA_F_NESTED`, which ipvsadm sets, and the kernel and this crate
/// do not.
#[test]
fn requests_of_ipvsadm_are_read_and_written_back_byte_for_byte() {
    for (command, capture) in [
        (IpvsCommand::NewService, captures::NEW_SERVICE_PERSISTENT),
        (IpvsCommand::NewService, captures::NEW_SERVICE_V6),
        (IpvsCommand::NewService, captures::NEW_SERVICE_FWMARK),
        (IpvsCommand::SetService, captures::SET_SERVICE),
        (IpvsCommand::DelService, captures::DEL_SERVICE),
        (IpvsCommand::GetService, captures::GET_SERVICE),
        (IpvsCommand::GetService, captures::GET_SERVICE_ALL),
        (IpvsCommand::NewDest, captures::NEW_DEST),
        (IpvsCommand::NewDest, captures::NEW_DEST_TUNNEL),
        (IpvsCommand::SetDest, captures::SET_DEST),
        (IpvsCommand::DelDest, captures::DEL_DEST),
        (IpvsCommand::GetDest, captures::GET_DEST),
        (IpvsCommand::NewDaemon, captures::NEW_DAEMON),
        (IpvsCommand::DelDaemon, captures::DEL_DAEMON),
        (IpvsCommand::GetDaemon, captures::GET_DAEMON),
        (IpvsCommand::SetConfig, captures::SET_CONFIG),
        (IpvsCommand::GetConfig, captures::GET_CONFIG),
        (IpvsCommand::GetInfo, captures::GET_INFO),
        (IpvsCommand::Zero, captures::ZERO),
        (IpvsCommand::Zero, captures::ZERO_ALL),
        (IpvsCommand::Flush, captures::FLUSH),
    ] {
        let bytes = bytes(capture);
        let message = parse(&bytes);
        assert_eq!(message.command, command);
        assert_eq!(emit(&message), without_nested_flag(&bytes), "{command}");
    }
}

#[test]
fn a_captured_service_has_the_attributes_that_were_given() {
    let message = parse(&bytes(captures::NEW_SERVICE_PERSISTENT));

    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 1, 1, 1]);
    let expected = IpvsAttribute::Service(vec![
        ServiceAttribute::AddressFamily(2),
        ServiceAttribute::Protocol(17),
        ServiceAttribute::Address(address),
        ServiceAttribute::Port(5060),
        ServiceAttribute::Scheduler(Name::new("wlc").unwrap()),
        ServiceAttribute::PersistenceEngine(Name::new("sip").unwrap()),
        ServiceAttribute::Flags(FlagsAndMask {
            flags: 1,
            mask: u32::MAX,
        }),
        ServiceAttribute::Timeout(300),
        ServiceAttribute::Netmask([255, 255, 255, 0]),
    ]);
    assert_eq!(message.attributes, [expected]);
}

#[test]
fn a_captured_daemon_has_the_attributes_that_were_given() {
    let message = parse(&bytes(captures::DAEMON_ANSWER));

    let expected = IpvsAttribute::Daemon(vec![
        DaemonAttribute::State(1),
        DaemonAttribute::Interface(Name::new("dum0").unwrap()),
        DaemonAttribute::SyncId(9),
        DaemonAttribute::MaxLength(1400),
        DaemonAttribute::Port(8850),
        DaemonAttribute::Ttl(2),
        DaemonAttribute::Group(Ipv4Addr::new(224, 0, 0, 90)),
    ]);
    assert_eq!(message.attributes, [expected]);
}

#[test]
fn in_an_information_answer_the_numbers_of_the_first_level_have_other_meanings() {
    let message = parse(&bytes(captures::INFO_ANSWER));

    assert_eq!(
        message.attributes,
        [
            IpvsAttribute::Version(0x0001_0201),
            IpvsAttribute::ConnectionTableSize(4096)
        ]
    );
}

#[test]
fn unknown_attributes_are_kept_with_their_flags() {
    let unknown = DefaultNla::new(0x4000 | 99, vec![1, 2, 3]);
    let message = IpvsMessage {
        command: IpvsCommand::NewDest,
        attributes: vec![
            IpvsAttribute::Destination(vec![DestinationAttribute::Other(unknown.clone())]),
            IpvsAttribute::Other(unknown),
        ],
    };

    assert_eq!(parse(&emit(&message)), message);
}

#[test]
fn a_number_of_the_wrong_width_is_refused_by_name() {
    // A destination with a weight of two bytes.
    let bytes = bytes("05010000" /* header */) //
        .into_iter()
        .chain(bytes("0c000200" /* IPVS_CMD_ATTR_DEST */))
        .chain(bytes("0600040001000000" /* IPVS_DEST_ATTR_WEIGHT */))
        .collect::<Vec<_>>();

    let (header, attributes) = bytes.split_at(4);
    let header = GenlHeader::parse(header).unwrap();
    let error = IpvsMessage::parse_with_param(attributes, header).unwrap_err();
    assert!(
        error.to_string().contains("IPVS_DEST_ATTR_WEIGHT"),
        "{error}"
    );
}

#[test]
fn unknown_commands_are_refused() {
    assert!(IpvsCommand::try_from(0).is_err());
    assert!(IpvsCommand::try_from(18).is_err());
    for number in 1..=17 {
        assert_eq!(u8::from(IpvsCommand::try_from(number).unwrap()), number);
    }
}

/// Returns the bytes of a capture.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn parse(bytes: &[u8]) -> IpvsMessage {
    let (header, attributes) = bytes.split_at(4);
    IpvsMessage::parse_with_param(attributes, GenlHeader::parse(header).unwrap()).unwrap()
}

fn emit(message: &IpvsMessage) -> Vec<u8> {
    let header = GenlHeader {
        cmd: message.command(),
        version: message.version(),
    };
    let mut bytes = vec![0xaa; 4 + message.buffer_len()];
    let (head, attributes) = bytes.split_at_mut(4);
    header.emit(head);
    message.emit(attributes);
    bytes
}

/// Clears `NLA_F_NESTED` of the attributes of the first level.
fn without_nested_flag(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut position = 4;
    while position < bytes.len() {
        bytes[position + 3] &= 0x7f;
        let length = u16::from_ne_bytes([bytes[position], bytes[position + 1]]);
        position += usize::from(length).next_multiple_of(4);
    }
    bytes
}

/// The captured answers, for the tests of the types.
pub(crate) mod answers {
    use super::{bytes, captures};

    /// The value of the only attribute of an answer.
    fn nested(capture: &str) -> Vec<u8> {
        bytes(capture)[8..].to_vec()
    }

    pub(crate) fn services() -> [Vec<u8>; 3] {
        [
            captures::SERVICE_ANSWER,
            captures::SERVICE_ANSWER_V6,
            captures::SERVICE_ANSWER_FWMARK,
        ]
        .map(nested)
    }

    pub(crate) fn destinations() -> [Vec<u8>; 2] {
        [captures::DEST_ANSWER, captures::DEST_ANSWER_TUNNEL].map(nested)
    }

    pub(crate) fn daemon() -> Vec<u8> {
        nested(captures::DAEMON_ANSWER)
    }
}

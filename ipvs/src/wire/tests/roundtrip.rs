//! Every attribute with any value is read back as it was written.

use netlink_packet_core::{Nla, NlaBuffer, Parseable};
use proptest::{collection::vec, prelude::*};

use super::*;

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in message()) {
        prop_assert_eq!(parse(&emit(&message)), message);
    }

    #[test]
    fn a_service_attribute_is_read_as_it_was_written(nla in service()) {
        assert_roundtrip(&nla);
    }

    #[test]
    fn a_destination_attribute_is_read_as_it_was_written(nla in destination()) {
        assert_roundtrip(&nla);
    }

    #[test]
    fn a_daemon_attribute_is_read_as_it_was_written(nla in daemon()) {
        assert_roundtrip(&nla);
    }

    #[test]
    fn a_counter_is_read_as_it_was_written(narrow in stats::<u32>(), wide in stats::<u64>()) {
        assert_roundtrip(&narrow);
        assert_roundtrip(&wide);
    }

    #[test]
    fn reading_any_bytes_does_not_panic(
        command in command(),
        bytes in vec(any::<u8>(), 0..256),
    ) {
        let header = GenlHeader { cmd: command.into(), version: 1 };
        let _ = IpvsMessage::parse_with_param(&bytes, header);
    }
}

fn assert_roundtrip<A>(nla: &A)
where
    A: Nla + std::fmt::Debug + PartialEq + for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    let mut bytes = vec![0xaa; nla.buffer_len()];
    nla.emit(&mut bytes);
    let read = A::parse(&NlaBuffer::new_checked(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(&read, nla);
}

fn message() -> impl Strategy<Value = IpvsMessage> {
    command().prop_flat_map(|command| {
        vec(attribute(command), 0..4).prop_map(move |attributes| IpvsMessage {
            command,
            attributes,
        })
    })
}

fn command() -> impl Strategy<Value = IpvsCommand> {
    (1_u8..=17).prop_map(|number| IpvsCommand::try_from(number).unwrap())
}

fn attribute(command: IpvsCommand) -> BoxedStrategy<IpvsAttribute> {
    if command == IpvsCommand::SetInfo {
        prop_oneof![
            any::<u32>().prop_map(IpvsAttribute::Version),
            any::<u32>().prop_map(IpvsAttribute::ConnectionTableSize),
            unknown().prop_map(IpvsAttribute::Other),
        ]
        .boxed()
    } else {
        prop_oneof![
            vec(service(), 0..12).prop_map(IpvsAttribute::Service),
            vec(destination(), 0..15).prop_map(IpvsAttribute::Destination),
            vec(daemon(), 0..8).prop_map(IpvsAttribute::Daemon),
            any::<u32>().prop_map(IpvsAttribute::TimeoutTcp),
            any::<u32>().prop_map(IpvsAttribute::TimeoutTcpFin),
            any::<u32>().prop_map(IpvsAttribute::TimeoutUdp),
            unknown().prop_map(IpvsAttribute::Other),
        ]
        .boxed()
    }
}

fn service() -> impl Strategy<Value = ServiceAttribute> {
    prop_oneof![
        any::<u16>().prop_map(ServiceAttribute::AddressFamily),
        any::<u16>().prop_map(ServiceAttribute::Protocol),
        any::<[u8; 16]>().prop_map(ServiceAttribute::Address),
        any::<u16>().prop_map(ServiceAttribute::Port),
        any::<u32>().prop_map(ServiceAttribute::Fwmark),
        name().prop_map(ServiceAttribute::Scheduler),
        any::<(u32, u32)>()
            .prop_map(|(flags, mask)| ServiceAttribute::Flags(FlagsAndMask { flags, mask })),
        any::<u32>().prop_map(ServiceAttribute::Timeout),
        any::<[u8; 4]>().prop_map(ServiceAttribute::Netmask),
        vec(stats(), 0..10).prop_map(ServiceAttribute::Stats),
        name().prop_map(ServiceAttribute::PersistenceEngine),
        vec(stats(), 0..10).prop_map(ServiceAttribute::Stats64),
        unknown().prop_map(ServiceAttribute::Other),
    ]
}

fn destination() -> impl Strategy<Value = DestinationAttribute> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(DestinationAttribute::Address),
        any::<u16>().prop_map(DestinationAttribute::Port),
        any::<u32>().prop_map(DestinationAttribute::ForwardingMethod),
        any::<u32>().prop_map(DestinationAttribute::Weight),
        any::<u32>().prop_map(DestinationAttribute::UpperThreshold),
        any::<u32>().prop_map(DestinationAttribute::LowerThreshold),
        any::<u32>().prop_map(DestinationAttribute::ActiveConnections),
        any::<u32>().prop_map(DestinationAttribute::InactiveConnections),
        any::<u32>().prop_map(DestinationAttribute::PersistentConnections),
        vec(stats(), 0..10).prop_map(DestinationAttribute::Stats),
        any::<u16>().prop_map(DestinationAttribute::AddressFamily),
        vec(stats(), 0..10).prop_map(DestinationAttribute::Stats64),
        any::<u8>().prop_map(DestinationAttribute::TunnelType),
        any::<u16>().prop_map(DestinationAttribute::TunnelPort),
        any::<u16>().prop_map(DestinationAttribute::TunnelFlags),
        unknown().prop_map(DestinationAttribute::Other),
    ]
}

fn daemon() -> impl Strategy<Value = DaemonAttribute> {
    prop_oneof![
        any::<u32>().prop_map(DaemonAttribute::State),
        name().prop_map(DaemonAttribute::Interface),
        any::<u32>().prop_map(DaemonAttribute::SyncId),
        any::<u16>().prop_map(DaemonAttribute::MaxLength),
        any::<[u8; 4]>().prop_map(|group| DaemonAttribute::Group(group.into())),
        any::<[u8; 16]>().prop_map(|group| DaemonAttribute::Group6(group.into())),
        any::<u16>().prop_map(DaemonAttribute::Port),
        any::<u8>().prop_map(DaemonAttribute::Ttl),
        unknown().prop_map(DaemonAttribute::Other),
    ]
}

fn stats<N: StatsWidth + Arbitrary + 'static>() -> impl Strategy<Value = StatsAttribute<N>> {
    prop_oneof![
        any::<N>().prop_map(StatsAttribute::Connections),
        any::<N>().prop_map(StatsAttribute::InPackets),
        any::<N>().prop_map(StatsAttribute::OutPackets),
        any::<u64>().prop_map(StatsAttribute::InBytes),
        any::<u64>().prop_map(StatsAttribute::OutBytes),
        any::<N>().prop_map(StatsAttribute::ConnectionRate),
        any::<N>().prop_map(StatsAttribute::InPacketRate),
        any::<N>().prop_map(StatsAttribute::OutPacketRate),
        any::<N>().prop_map(StatsAttribute::InByteRate),
        any::<N>().prop_map(StatsAttribute::OutByteRate),
        unknown().prop_map(StatsAttribute::Other),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9_.-]{1,15}".prop_map(|text| Name::new(&text).unwrap())
}

/// Attributes of a later kernel, with or without a flag.
fn unknown() -> impl Strategy<Value = DefaultNla> {
    let flags = prop_oneof![Just(0), Just(0x8000), Just(0x4000)];
    (flags, 100_u16..0x3fff, vec(any::<u8>(), 0..9))
        .prop_map(|(flags, kind, value)| DefaultNla::new(flags | kind, value))
}

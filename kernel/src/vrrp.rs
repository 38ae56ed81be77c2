//! Sockets for VRRP (RFC 9568): they send and receive the payloads of packets of IP protocol 112 on one interface.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use etherparse::Ipv4HeaderSlice;
use lvs_model::{Family, InterfaceName};
use lvs_vrrp::{GROUP_V4, GROUP_V6, HOP_LIMIT, PROTOCOL};
use nix::{
    cmsg_space,
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    net::if_::if_nametoindex,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt,
        sockopt::{Ipv6RecvPacketInfo, RcvBufForce},
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

/// The size of the receive buffer in bytes: room for the packets of other routers in a flood of forged ones.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How many bytes of a packet are read. The longest advertisement has 255 IPv6 addresses.
const BUFFER: usize = 4200;

/// A packet that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpPacket {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it was sent to: the multicast group, or this machine.
    pub destination: IpAddr,
    /// Its TTL or hop limit.
    pub hop_limit: u8,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

/// A socket for VRRP on one interface, for one address family. It is in the multicast group, and does not hear itself.
pub struct VrrpSocket {
    socket: AsyncFd<Socket>,
    index: u32,
}

impl VrrpSocket {
    /// Opens a socket on an interface. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses.
    #[expect(
        deprecated,
        reason = "the replacement of `AsyncFd::new` is unsafe, for types that do not own their descriptor; this one does"
    )]
    pub fn open(interface: &InterfaceName, family: Family) -> io::Result<Self> {
        let index = if_nametoindex(interface.as_str())?;
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let protocol = Some(Protocol::from(i32::from(PROTOCOL)));
        let socket = Socket::new(domain, Type::RAW.nonblocking(), protocol)?;
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
        match family {
            Family::V4 => {
                socket.set_ttl_v4(HOP_LIMIT.into())?;
                socket.set_multicast_ttl_v4(HOP_LIMIT.into())?;
                socket.set_multicast_loop_v4(false)?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
            }
            Family::V6 => {
                socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_if_v6(index)?;
                socket.join_multicast_v6(&GROUP_V6, index)?;
                socket.set_recv_hoplimit_v6(true)?;
                setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            }
        }
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, index })
    }

    /// Sends a payload from an address of the interface to the multicast group or to a peer. Does not wait: a packet for which there is no
    /// room is lost.
    ///
    /// # Errors
    /// If the kernel does not send it, such as while the interface is down or lacks the address.
    pub fn send(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> io::Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(destination, 0));
        let (v4, v6);
        let source = match source {
            IpAddr::V4(source) => {
                v4 = in_pktinfo {
                    ipi_ifindex: self.index.cast_signed(),
                    ipi_spec_dst: in_addr {
                        s_addr: u32::from_ne_bytes(source.octets()),
                    },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(source) => {
                v6 = in6_pktinfo {
                    ipi6_addr: in6_addr {
                        s6_addr: source.octets(),
                    },
                    ipi6_ifindex: self.index,
                };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let descriptor = self.socket.get_ref().as_raw_fd();
        let payload = [IoSlice::new(payload)];
        sendmsg(
            descriptor,
            &payload,
            &[source],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
        Ok(())
    }

    /// Waits until there is a packet, or an error. Cancel-safe.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket
            .readable()
            .await
            .map(|mut guard| guard.retain_ready())
    }

    /// Returns the next packet without waiting. `None` if there is none.
    ///
    /// # Errors
    /// If the kernel reports an error, such as that the interface is down.
    pub fn take(&self) -> io::Result<Option<VrrpPacket>> {
        loop {
            match self.socket.try_io(Interest::READABLE, read) {
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                packet => return packet,
            }
        }
    }
}

/// Reads a packet. `None` if it is not one: the kernel did not say where it comes from.
fn read(socket: &Socket) -> io::Result<Option<VrrpPacket>> {
    let mut bytes = vec![0; BUFFER];
    let mut control = cmsg_space!(in6_pktinfo, i32);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let (length, sender) = (message.bytes, message.address);
    let (mut destination, mut hop_limit) = (None, None);
    for found in message.cmsgs()? {
        // The other messages were not asked for.
        if let ControlMessageOwned::Ipv6PacketInfo(info) = &found {
            destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
        } else if let ControlMessageOwned::Ipv6HopLimit(limit) = &found {
            hop_limit = u8::try_from(*limit).ok();
        }
    }
    bytes.truncate(length);
    let Some(sender) = sender.and_then(|sender| sender.as_sockaddr_in6().map(|sender| sender.ip()))
    else {
        return Ok(of_v4(&bytes));
    };
    let packet = destination
        .zip(hop_limit)
        .map(|(destination, hop_limit)| VrrpPacket {
            source: sender.into(),
            destination: destination.into(),
            hop_limit,
            payload: bytes,
        });
    Ok(packet)
}

/// Takes an IPv4 packet apart: a raw socket receives its header too.
fn of_v4(bytes: &[u8]) -> Option<VrrpPacket> {
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    Some(VrrpPacket {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        hop_limit: header.ttl(),
        payload: bytes.get(header.slice().len()..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_header_of_an_ipv4_packet_is_taken_off() {
        // Version 4, header of 6 words with an option, TTL 255, protocol 112.
        let mut bytes = vec![0x46, 0xc0, 0, 32, 0, 0, 0, 0, 255, 112, 0, 0];
        bytes.extend([10, 0, 0, 1, 224, 0, 0, 18, 1, 1, 1, 1]);
        bytes.extend(*b"payload!");
        let packet = of_v4(&bytes).unwrap();
        assert_eq!(packet.source, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(packet.destination, GROUP_V4);
        assert_eq!(
            (packet.hop_limit, packet.payload),
            (255, b"payload!".to_vec())
        );
        assert_eq!(of_v4(&bytes[..15]), None);
    }
}

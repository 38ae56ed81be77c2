//! Ethernet interfaces, and sockets that send and receive whole frames on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    time::Duration,
};

use lvs_model::{Family, InterfaceName, MacAddr};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{LinkAddr, bind},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::error::AnnounceError;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ARPHRD_ETHER: u16 = 1;

/// Instructions of classic BPF (linux/filter.h): load a byte, compare, return.
const BPF_LD_B_ABS: u16 = 0x30;
const BPF_JMP_JEQ_K: u16 = 0x15;
const BPF_RET_K: u16 = 0x06;
const BPF_WHOLE_FRAME: u32 = u32::MAX;
/// Offsets in an Ethernet frame: the next header of IPv6, and the type of ICMPv6 after it.
const NEXT_HEADER: u32 = 14 + 6;
const ICMPV6_TYPE: u32 = 14 + 40;
const IPPROTO_ICMPV6: u32 = 58;
/// The offset of the IP header, wherever the data of a socket begin (linux/filter.h), and of the hop limit in an IPv6 header.
const SKF_NET_OFF: u32 = 0xfff0_0000;
const HOP_LIMIT: u32 = 7;
const ND_NEIGHBOR_SOLICIT: u32 = 135;
const ND_NEIGHBOR_ADVERT: u32 = 136;

/// How long to wait before a frame is sent again that the interface's queue had no room for.
const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// How often a frame is sent before a full queue is an error.
const QUEUE_ATTEMPTS: u32 = 100;

/// How many bytes of a frame are read. No frame that claims an address is longer.
const FRAME_BUFFER: usize = 512;

/// Returns the MAC addresses of the interfaces that have a carrier and on which neighbours resolve addresses.
pub(super) fn macs() -> Result<BTreeMap<InterfaceName, MacAddr>, AnnounceError> {
    let all = getifaddrs().map_err(|error| AnnounceError::Interfaces(error.into()))?;
    let with_carrier = all.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_RUNNING));
    let macs = with_carrier.filter_map(|entry| {
        let mac = mac(entry.flags, entry.address?.as_link_addr()?)?;
        Some((entry.interface_name.parse().ok()?, mac))
    });
    Ok(macs.collect())
}

/// Returns the interfaces that are up and have a carrier.
pub(super) fn running() -> Result<BTreeSet<InterfaceName>, AnnounceError> {
    let all = getifaddrs().map_err(|error| AnnounceError::Interfaces(error.into()))?;
    let is_running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let running = all.filter(|entry| entry.flags.contains(is_running));
    Ok(running
        .filter_map(|entry| entry.interface_name.parse().ok())
        .collect())
}

/// Returns the MAC address of an interface. `None` if it is down, is a loopback, is not Ethernet or does not use ARP:
/// neighbours cannot resolve addresses there.
fn mac(flags: InterfaceFlags, link: &LinkAddr) -> Option<MacAddr> {
    let without_arp = InterfaceFlags::IFF_NOARP | InterfaceFlags::IFF_LOOPBACK;
    let uses_arp = flags.contains(InterfaceFlags::IFF_UP) && !flags.intersects(without_arp);
    let mac = link.addr();
    let mac = mac.filter(|_| uses_arp && link.hatype() == ARPHRD_ETHER);
    mac.map(MacAddr)
}

/// An Ethernet interface on which neighbours resolve addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    link: LinkAddr,
    pub(super) mac: MacAddr,
}

impl Port {
    /// Finds an interface. `None` if neighbours cannot resolve addresses there.
    pub(super) fn find(interface: &InterfaceName) -> Result<Option<Self>, AnnounceError> {
        let found = getifaddrs()
            .map_err(|error| AnnounceError::Interfaces(error.into()))?
            .filter(|entry| entry.interface_name == interface.as_str())
            .find_map(|entry| Some((entry.flags, *entry.address?.as_link_addr()?)));
        let Some((flags, link)) = found else {
            return Err(AnnounceError::NoInterface {
                interface: interface.clone(),
            });
        };
        Ok(mac(flags, &link).map(|mac| Self { link, mac }))
    }

    /// Opens a socket that only sends.
    pub(super) fn open_to_send(&self) -> io::Result<FrameSocket> {
        self.open(0, |_| Ok(()))
    }

    /// Opens a socket that sends, and receives only ARP packets (IPv4) or neighbour discovery (IPv6).
    ///
    /// The kernel drops all other frames, so that probing costs little on a busy director.
    pub(super) fn open_to_probe(&self, family: Family) -> io::Result<FrameSocket> {
        let socket = match family {
            Family::V4 => self.open(ETH_P_ARP, |_| Ok(()))?,
            Family::V6 => self.open(ETH_P_IPV6, |socket| {
                socket.attach_filter(&neighbour_discovery())
            })?,
        };
        // Before the bind the socket received frames from every interface: these are discarded.
        while socket.take()?.is_some() {}
        Ok(socket)
    }

    fn open(
        &self,
        ethertype: u16,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<FrameSocket> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol))?;
        prepare(&socket)?;
        bind(socket.as_raw_fd(), &self.link)?;
        frame_socket(socket)
    }
}

/// Opens a socket that receives the neighbour advertisements on an interface, without their IPv6 headers. It sees only what the machine
/// itself receives, so it costs nothing for packets that are forwarded.
pub(super) fn open_for_advertisements(interface: &InterfaceName) -> io::Result<FrameSocket> {
    let socket = Socket::new(
        Domain::IPV6,
        Type::RAW.nonblocking(),
        Some(Protocol::ICMPV6),
    )?;
    socket.attach_filter(&advertisements())?;
    socket.bind_device(Some(interface.as_str().as_bytes()))?;
    frame_socket(socket)
}

/// Returns a filter that accepts neighbour advertisements that no router has passed on (RFC 4861, 7.1.2).
fn advertisements() -> [SockFilter; 6] {
    [
        SockFilter::new(BPF_LD_B_ABS, 0, 0, 0),
        SockFilter::new(BPF_JMP_JEQ_K, 0, 3, ND_NEIGHBOR_ADVERT),
        SockFilter::new(BPF_LD_B_ABS, 0, 0, SKF_NET_OFF + HOP_LIMIT),
        SockFilter::new(BPF_JMP_JEQ_K, 0, 1, 255),
        SockFilter::new(BPF_RET_K, 0, 0, BPF_WHOLE_FRAME),
        SockFilter::new(BPF_RET_K, 0, 0, 0),
    ]
}

#[expect(
    deprecated,
    reason = "the replacement of `AsyncFd::new` is unsafe, for types that do not own their descriptor; this one does"
)]
fn frame_socket(socket: Socket) -> io::Result<FrameSocket> {
    Ok(FrameSocket(AsyncFd::new(socket)?))
}

/// Returns a filter that accepts neighbour solicitations and advertisements.
fn neighbour_discovery() -> [SockFilter; 7] {
    [
        SockFilter::new(BPF_LD_B_ABS, 0, 0, NEXT_HEADER),
        SockFilter::new(BPF_JMP_JEQ_K, 0, 4, IPPROTO_ICMPV6),
        SockFilter::new(BPF_LD_B_ABS, 0, 0, ICMPV6_TYPE),
        SockFilter::new(BPF_JMP_JEQ_K, 1, 0, ND_NEIGHBOR_SOLICIT),
        SockFilter::new(BPF_JMP_JEQ_K, 0, 1, ND_NEIGHBOR_ADVERT),
        SockFilter::new(BPF_RET_K, 0, 0, BPF_WHOLE_FRAME),
        SockFilter::new(BPF_RET_K, 0, 0, 0),
    ]
}

/// A socket for whole frames on one interface.
pub(super) struct FrameSocket(AsyncFd<Socket>);

impl FrameSocket {
    /// Sends frames in order. Waits while the interface's queue is full.
    pub(super) async fn send(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        for frame in frames {
            let mut attempts = 0;
            while let Err(error) = self.send_one(frame).await {
                attempts += 1;
                let is_full = error.raw_os_error() == Some(Errno::ENOBUFS as i32);
                if !is_full || attempts == QUEUE_ATTEMPTS {
                    return Err(error);
                }
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn send_one(&self, frame: &[u8]) -> io::Result<()> {
        let send = |mut socket: &Socket| socket.write(frame).map(drop);
        self.0
            .async_io(Interest::WRITABLE, |socket| send(socket))
            .await
    }

    /// Waits for the next frame, and returns its first bytes.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        self.0.async_io(Interest::READABLE, read).await
    }

    /// Waits until there is a frame, or an error. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        let ready = self.0.readable().await;
        ready.map(|mut guard| guard.retain_ready())
    }

    /// Returns the next frame without waiting, after [`readable`](Self::readable).
    pub(super) fn take_ready(&self) -> io::Result<Vec<u8>> {
        self.0.try_io(Interest::READABLE, read)
    }

    /// Returns the next frame without waiting. `None` if there is none.
    fn take(&self) -> io::Result<Option<Vec<u8>>> {
        match read(self.0.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            frame => frame.map(Some),
        }
    }
}

fn read(mut socket: &Socket) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_BUFFER];
    let length = socket.read(&mut frame)?;
    frame.truncate(length);
    Ok(frame)
}

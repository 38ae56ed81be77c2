//! The packet socket of one interface, with a filter for ARP and neighbour discovery.

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    time::Duration,
};

use lvs_model::{Family, InterfaceName};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{LinkAddr, bind},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{error::AnnounceError, mac::MacAddr};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ARPHRD_ETHER: u16 = 1;

/// Classic BPF (linux/filter.h): load a byte, compare, return.
const BPF_LD_B_ABS: u16 = 0x30;
const BPF_JMP_JEQ_K: u16 = 0x15;
const BPF_RET_K: u16 = 0x06;
const BPF_WHOLE_FRAME: u32 = u32::MAX;
/// Where the next header stands in a frame with IPv6, and the type of ICMPv6 behind it.
const NEXT_HEADER: u32 = 14 + 6;
const ICMPV6_TYPE: u32 = 14 + 40;
const IPPROTO_ICMPV6: u32 = 58;
const ND_NEIGHBOR_SOLICIT: u32 = 135;
const ND_NEIGHBOR_ADVERT: u32 = 136;

/// How long to wait for room in the interface's queue, and how often.
const QUEUE_PAUSE: Duration = Duration::from_millis(1);
const QUEUE_ATTEMPTS: u32 = 100;

/// The longest frame that is looked at: nothing that claims an address is longer.
const FRAME_ROOM: usize = 512;

/// An Ethernet interface on which neighbours ask for addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    link: LinkAddr,
    pub(super) mac: MacAddr,
}

impl Port {
    /// Finds an interface. `None`: neighbours cannot ask there, as it is down, a loopback, or without ARP.
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
        let silent = InterfaceFlags::IFF_NOARP | InterfaceFlags::IFF_LOOPBACK;
        let asks = flags.contains(InterfaceFlags::IFF_UP) && !flags.intersects(silent);
        let mac = link
            .addr()
            .filter(|_| asks && link.hatype() == ARPHRD_ETHER);
        Ok(mac.map(|mac| Self {
            link,
            mac: MacAddr(mac),
        }))
    }

    /// Opens a socket that sends and receives nothing.
    pub(super) fn open_to_send(&self) -> io::Result<FrameSocket> {
        self.open(0, |_| Ok(()))
    }

    /// Opens a socket that also receives what tells who has an address of a family, and nothing else: on a busy director
    /// that is little.
    pub(super) fn open_to_ask(&self, family: Family) -> io::Result<FrameSocket> {
        let socket = match family {
            Family::V4 => self.open(ETH_P_ARP, |_| Ok(()))?,
            Family::V6 => self.open(ETH_P_IPV6, |socket| {
                socket.attach_filter(&neighbour_discovery())
            })?,
        };
        // Between its creation and the bind it has received from every interface.
        while socket.take()?.is_some() {}
        Ok(socket)
    }

    #[expect(
        deprecated,
        reason = "what replaces `AsyncFd::new` is unsafe, for types that do not own their descriptor as this one does"
    )]
    fn open(
        &self,
        ethertype: u16,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<FrameSocket> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol))?;
        prepare(&socket)?;
        bind(socket.as_raw_fd(), &self.link)?;
        Ok(FrameSocket(AsyncFd::new(socket)?))
    }
}

/// Passes neighbour solicitations and advertisements.
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

/// A socket for whole frames of one interface.
pub(super) struct FrameSocket(AsyncFd<Socket>);

impl FrameSocket {
    /// Sends frames in order; waits while the interface's queue is full.
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

    /// Waits for the next frame, and returns the beginning of it.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        self.0.async_io(Interest::READABLE, read).await
    }

    fn take(&self) -> io::Result<Option<Vec<u8>>> {
        match read(self.0.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            frame => frame.map(Some),
        }
    }
}

fn read(mut socket: &Socket) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_ROOM];
    let length = socket.read(&mut frame)?;
    frame.truncate(length);
    Ok(frame)
}

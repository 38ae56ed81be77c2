//! The datagrams that one read of the socket returns.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd,
};

use netlink_packet_core::DecodeError;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use super::frame::{Replies, Reply};

/// The most datagrams of one read. A short dump has two: its objects and its end. The answer to a
/// query before it is a third.
const DATAGRAMS: usize = 4;

/// The size of the longest datagram: the kernel cuts dumps at 32 KiB, and other answers of generic
/// netlink are far shorter. The memory stays untouched until a datagram is received into it.
const DATAGRAM_ROOM: usize = 32 << 10;

/// The datagrams of one read of the socket.
///
/// The kernel builds the next part of a dump, or its end, while the part before is received
/// (`netlink_recvmsg`). So the end of a short dump is already in the socket when the same
/// `recvmmsg` looks for a second datagram.
pub(super) struct Inbox {
    buffers: [Vec<u8>; DATAGRAMS],
    /// How many bytes of each buffer have been received.
    lengths: [usize; DATAGRAMS],
    /// How many buffers hold a datagram.
    count: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; DATAGRAM_ROOM]),
            lengths: [0; DATAGRAMS],
            count: 0,
        }
    }

    /// Replaces the datagrams with those in a socket, as many as fit. The socket must be
    /// non-blocking.
    pub(super) fn fill(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        let Self {
            buffers,
            lengths,
            count,
        } = self;
        *count = 0;
        let mut headers = MultiHeaders::<()>::preallocate(DATAGRAMS, None);
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::empty(),
            None,
        )?;
        for (length, datagram) in lengths.iter_mut().zip(received) {
            *length = datagram.bytes;
            *count += 1;
        }
        Ok(())
    }

    /// Removes the datagrams, and returns the buffer for one that the caller reads without
    /// [`fill`](Self::fill).
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.count = 0;
        let [first, ..] = &mut self.buffers;
        first
    }

    /// Stores the first bytes of that buffer as the datagram that was read.
    pub(super) fn hold(&mut self, length: usize) {
        let [first, ..] = &mut self.lengths;
        *first = length;
        self.count = 1;
    }

    /// Yields the messages of all datagrams, in order.
    pub(super) fn replies(&self) -> impl Iterator<Item = Result<Reply<'_>, DecodeError>> {
        let datagrams = self.buffers.iter().zip(self.lengths).take(self.count);
        datagrams
            .flat_map(|(buffer, length)| Replies::new(buffer.get(..length).unwrap_or_default()))
    }
}

#[cfg(test)]
impl Inbox {
    /// Replaces the datagrams.
    pub(super) fn put(&mut self, datagrams: &[Vec<u8>]) {
        self.count = datagrams.len();
        for (index, datagram) in datagrams.iter().enumerate() {
            self.buffers[index][..datagram.len()].copy_from_slice(datagram);
            self.lengths[index] = datagram.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_read_gives_all_datagrams_in_order() {
        let (mut inbox, from, to) = inbox();
        to.send(&message(1)).unwrap();
        to.send(&[message(2), message(3)].concat()).unwrap();

        inbox.fill(&from).unwrap();

        assert_eq!(sequences(&inbox), [1, 2, 3]);
    }

    #[test]
    fn datagrams_that_do_not_fit_are_left_for_the_next_read() {
        let (mut inbox, from, to) = inbox();
        for sequence in 1..=5 {
            to.send(&message(sequence)).unwrap();
        }

        inbox.fill(&from).unwrap();
        assert_eq!(sequences(&inbox), [1, 2, 3, 4]);

        inbox.fill(&from).unwrap();
        assert_eq!(sequences(&inbox), [5]);
    }

    #[test]
    fn a_read_of_an_empty_socket_removes_the_datagrams_of_the_last_read() {
        let (mut inbox, from, to) = inbox();
        to.send(&message(1)).unwrap();
        inbox.fill(&from).unwrap();

        let error = inbox.fill(&from).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(sequences(&inbox), []);
    }

    #[test]
    fn a_datagram_that_the_caller_reads_replaces_those_read_before() {
        let (mut inbox, from, to) = inbox();
        to.send(&message(1)).unwrap();
        to.send(&message(2)).unwrap();
        inbox.fill(&from).unwrap();

        inbox.room()[..16].copy_from_slice(&message(3));
        inbox.hold(16);

        assert_eq!(sequences(&inbox), [3]);
    }

    fn inbox() -> (Inbox, UnixDatagram, UnixDatagram) {
        let (from, to) = UnixDatagram::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        (Inbox::new(), from, to)
    }

    /// A header without a payload.
    fn message(sequence: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&16_u32.to_ne_bytes());
        bytes[4] = 0x10;
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    fn sequences(inbox: &Inbox) -> Vec<u32> {
        let replies = inbox.replies();
        replies.map(|reply| reply.unwrap().sequence).collect()
    }
}

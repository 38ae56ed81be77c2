//! The socket to the kernel, and the trait by which tests replace it.

use std::io;

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_GENERIC,
};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::inbox::Inbox;

/// The requested size of the receive buffer. The kernel doubles it, to include its own bookkeeping.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Sends datagrams to the kernel and receives them. Tests use a script in its place.
pub(super) trait Datagrams {
    /// Sends one datagram and returns how many bytes were taken.
    async fn send(&mut self, datagram: &[u8]) -> io::Result<usize>;

    /// Waits for a datagram and replaces the datagrams in the inbox with it.
    async fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()>;

    /// Replaces the datagrams in the inbox with the next ones; fails with `WouldBlock` if there are
    /// none.
    fn try_receive(&mut self, inbox: &mut Inbox) -> io::Result<()>;
}

/// A generic netlink socket that is connected to the kernel.
pub(super) struct KernelSocket(TokioSocket);

impl KernelSocket {
    /// Opens the socket and returns it with the size of its receive buffer in bytes.
    pub(super) fn open() -> io::Result<(Self, usize)> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        // A socket that is connected to port 0 receives no datagrams from other processes.
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        // The request is known here, so an error need not contain a copy.
        socket.socket_ref().set_cap_ack(true)?;
        socket.socket_ref().set_ext_ack(true)?;
        // Forcing needs the same capability as IPVS itself. Without it, net.core.rmem_max is the
        // limit, and batches are accordingly smaller.
        setsockopt(socket.socket_ref(), RcvBufForce, &RECEIVE_BUFFER)
            .map_err(io::Error::from)
            .or_else(|_| {
                let wanted = i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX);
                socket.socket_ref().set_rx_buf_sz(wanted)
            })?;
        let size = socket.socket_ref().get_rx_buf_sz()?;
        Ok((Self(socket), size))
    }
}

#[cfg(test)]
impl KernelSocket {
    /// Makes the receive buffer as small as the kernel allows, a handful of answers.
    pub(super) fn shrink_receive_buffer(&self) -> io::Result<()> {
        self.0.socket_ref().set_rx_buf_sz(1_i32)
    }
}

impl Datagrams for KernelSocket {
    async fn send(&mut self, datagram: &[u8]) -> io::Result<usize> {
        AsyncSocketExt::send(&self.0, datagram).await
    }

    async fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        let mut room = inbox.room();
        let size = room.len();
        AsyncSocketExt::recv(&self.0, &mut room).await?;
        let length = size - room.len();
        inbox.hold(length);
        Ok(())
    }

    fn try_receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.fill(self.0.socket_ref())
    }
}

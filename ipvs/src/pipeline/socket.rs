//! The socket to the kernel, and the trait by which tests replace it.

use std::io;

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_GENERIC,
};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

/// What is asked of the kernel; it doubles the number and keeps its own bookkeeping in it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The datagrams that go to the kernel and come from it. Tests put a script in its place.
pub(super) trait Datagrams {
    /// Sends one datagram and returns how many bytes were taken.
    async fn send(&mut self, datagram: &[u8]) -> io::Result<usize>;

    /// Appends the next datagram to the free room of the buffer, waiting for it.
    async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;

    /// Appends the next datagram if there is one, and fails with `WouldBlock` if there is none.
    fn try_receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;
}

/// A generic netlink socket that is connected to the kernel.
pub(super) struct KernelSocket(TokioSocket);

impl KernelSocket {
    /// Opens the socket and returns it with the size of its receive buffer in bytes.
    pub(super) fn open() -> io::Result<(Self, usize)> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        // Connected to port 0, it takes no datagrams from other processes.
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        // The request is known here: an error need not bring it back.
        socket.socket_ref().set_cap_ack(true)?;
        socket.socket_ref().set_ext_ack(true)?;
        // Forcing takes the same capability as IPVS itself. Without it, net.core.rmem_max is the
        // limit, and batches become as much smaller.
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

    async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        AsyncSocketExt::recv(&self.0, buffer).await
    }

    fn try_receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.0.socket_ref().recv(buffer, 0).map(drop)
    }
}

//! Generic netlink with many requests to a send.
//!
//! The kernel works through the messages of one `sendmsg` in order, before the call returns, and
//! answers a message that fails by its sequence number even without `NLM_F_ACK`. So no message of
//! a batch asks for an acknowledgement; one is asked for by an `NLMSG_NOOP` behind them, and when
//! it is read, every refusal in the batch has been read before it. Nothing else is waited for.
//!
//! The acknowledgement of the last message would not do: netlink does not answer a message at all
//! that ends with `EINTR`. Stopping a sync daemon of IPVS in the moment of its start is one; it is
//! done, and nothing says so.
//!
//! A batch is never larger than what the receive buffer can hold if every message is refused.
//! Should answers be lost all the same (`ENOBUFS`), the batch is reported as unknown, what is left
//! in the socket is thrown away, and the connection stays usable.
//!
//! Because the kernel answers inside `sendmsg`, nothing is gained by sending the next batch before
//! the last one's answers are read, nor by more than one socket on one processor.
//!
//! Dumps cannot be batched. A socket carries one at a time (`EBUSY`), and one that has objects ends
//! only while it is read: most families say that they have written something, and are asked for
//! more by `recvmsg`, not inside `sendmsg`. So a short dump takes two system calls: one sends it,
//! and one reads its objects and its end. Questions can travel before it in the same send, and their
//! answers come in the same read.
//!
//! This module knows nothing of IPVS. [`Connection`] is public so that a program that needs a few
//! commands of another family (`fou`, for tunnels) does not need another library for them.

mod connection;
mod error;
mod exchange;
mod frame;
mod inbox;
mod socket;
#[cfg(test)]
mod tests;

pub use self::{
    connection::Connection,
    error::{ConnectionError, Refusal},
};
pub(crate) use self::{
    exchange::{Collect, Lost},
    frame::Encode,
};

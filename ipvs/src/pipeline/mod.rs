//! Generic netlink with many requests in one send.
//!
//! The kernel executes the messages of one `sendmsg` in order, before the call returns. It reports
//! each message that fails, with its sequence number, even without `NLM_F_ACK`. So the messages of
//! a batch request no acknowledgements. An `NLMSG_NOOP` after them, the barrier, requests one; when
//! it is read, every refusal in the batch has been read. Nothing else is waited for.
//!
//! An acknowledgement of the last message would not be enough: netlink does not answer a message
//! that ends with `EINTR`. An example is a request to stop a sync daemon of IPVS that is just
//! starting: it is executed and not answered.
//!
//! A batch is so small that the receive buffer can hold a refusal of every message. If answers are
//! lost nevertheless (`ENOBUFS`), the batch is reported as unknown, the rest of the answers is
//! discarded, and the connection stays usable.
//!
//! Because the kernel answers inside `sendmsg`, it would not be faster to send the next batch
//! before the answers to the last one are read, or to use more than one socket on one processor.
//!
//! Dumps cannot be batched. A socket has at most one running dump (`EBUSY`), and a dump with
//! objects ends only while it is read: `sendmsg` builds the first part, `recvmsg` the others and
//! the end. So a short dump takes two system calls: one sends it, and one reads its objects and its
//! end. Queries can precede it in the same send, and their answers come in the same read.
//!
//! This module is independent of IPVS. [`Connection`] is public so that a program that needs a few
//! commands of another family (`fou`, for tunnels) needs no other library for them.

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

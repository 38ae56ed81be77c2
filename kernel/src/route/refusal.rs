//! The kernel's refusals of requests.

use std::fmt;

use netlink_packet_core::{DoneMessage, ErrorMessage, NLM_F_CAPPED};
use nix::errno::Errno;

use super::attributes::Attributes;

/// The attribute of an extended acknowledgement that holds the kernel's error message.
const NLMSGERR_ATTR_MSG: u16 = 1;

const NLMSG_HDRLEN: usize = 16;

/// The kernel's refusal of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    errno: Errno,
    message: Option<Box<str>>,
}

impl Refusal {
    /// Decodes the answer to a request. `None` if it is an acknowledgement.
    pub(super) fn of(flags: u16, answer: &ErrorMessage) -> Option<Self> {
        let code = answer.code?;
        let request = request_length(flags, &answer.header);
        Some(Self::new(code.get(), answer.header.get(request..)))
    }

    /// Decodes the end of a dump. `None` if the dump succeeded.
    pub(super) fn of_dump(end: &DoneMessage) -> Option<Self> {
        (end.code != 0).then(|| Self::new(end.code, Some(&end.extended_ack)))
    }

    fn new(code: i32, attributes: Option<&[u8]>) -> Self {
        let attributes = Attributes::read(attributes.unwrap_or_default()).ok();
        Self {
            errno: Errno::from_raw(code.saturating_abs()),
            message: attributes.and_then(|found| found.text(NLMSGERR_ATTR_MSG).map(Box::from)),
        }
    }

    /// Returns whether what was to be made exists.
    pub(super) fn is_already_exists(&self) -> bool {
        self.errno == Errno::EEXIST
    }

    /// Returns whether what was to be removed or read does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(
            self.errno,
            Errno::ENODEV | Errno::EADDRNOTAVAIL | Errno::ESRCH | Errno::ENOENT
        )
    }

    /// Returns whether it means that there is no route: none at all, or one that discards packets (`fib_props`,
    /// net/ipv4/fib_semantics.c), or no such address family in this kernel. A request that the kernel cannot parse is refused
    /// with a message.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(
            self.errno,
            Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::EACCES
                | Errno::ESRCH
                | Errno::EOPNOTSUPP
                | Errno::EAFNOSUPPORT
        ) || self.errno == Errno::EINVAL && self.message.is_none()
    }

    /// Returns whether the kernel does not support the kind of object.
    pub(super) fn is_unsupported(&self) -> bool {
        self.errno == Errno::EOPNOTSUPP
    }
}

/// Returns the length of the copy of the request in an answer: its header only, or all of it.
fn request_length(flags: u16, copy: &[u8]) -> usize {
    if flags & NLM_F_CAPPED != 0 {
        return NLMSG_HDRLEN;
    }
    let length = copy
        .first_chunk()
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    usize::try_from(length).map_or(NLMSG_HDRLEN, |length| length.next_multiple_of(4))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno.desc().to_lowercase())?;
        self.message
            .as_ref()
            .map_or(Ok(()), |message| write!(f, " ({message})"))
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, rest: &[u8]) -> ErrorMessage {
        let mut answer = ErrorMessage::default();
        answer.code = std::num::NonZeroI32::new(code);
        answer.header = [24_u32.to_ne_bytes().as_slice(), &[0; 12], rest].concat();
        answer
    }

    #[test]
    fn the_kernels_message_follows_the_error() {
        let message = [&[9, 0, 1, 0], b"late\0\0\0\0".as_slice()].concat();
        let capped = Refusal::of(NLM_F_CAPPED, &answer(-19, &message)).unwrap();
        assert_eq!(capped.to_string(), "no such device (late)");
        let whole = [&[0; 8], message.as_slice()].concat();
        let repeated = Refusal::of(0, &answer(-19, &whole)).unwrap();
        assert_eq!(repeated, capped);
    }

    #[test]
    fn a_route_that_discards_packets_is_no_route_and_a_wrong_request_is_an_error() {
        let refusal = |code, message: &[u8]| Refusal::of(NLM_F_CAPPED, &answer(code, message));
        for code in [-101, -113, -13, -22, -95] {
            assert!(refusal(code, &[]).unwrap().is_unreachable(), "{code}");
        }
        let message = [&[9, 0, 1, 0], b"late\0\0\0\0".as_slice()].concat();
        assert!(!refusal(-22, &message).unwrap().is_unreachable());
        assert!(!refusal(-105, &[]).unwrap().is_unreachable());
    }

    #[test]
    fn an_acknowledgement_is_not_a_refusal() {
        assert_eq!(Refusal::of(0, &answer(0, &[])), None);
        assert_eq!(Refusal::of_dump(&DoneMessage::default()), None);
    }
}

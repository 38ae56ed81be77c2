//! Sends batches of messages and matches each answer to its message.

use std::io;

use netlink_packet_core::{DecodeError, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;

use super::{
    error::{ConnectionError, Refusal},
    frame::{self, Body, Encode},
    inbox::Inbox,
    socket::Datagrams,
};

/// An upper bound of the receive buffer that a small answer occupies, bookkeeping included.
const ANSWER_COST: usize = 2048;

/// The most messages of one send, which take a millisecond or two. More would not be faster, and
/// would keep the thread in the kernel for longer.
const MAX_BATCH: usize = 500;
const MAX_BATCH_BYTES: usize = 96 << 10;

const DUMP_ATTEMPTS: u32 = 4;

/// The number of dumps after which the exchange yields to other tasks, as it does after each batch.
/// They take a millisecond or two as well.
const DUMPS_PER_TURN: u32 = 64;

/// A message of a batch that failed, or may have failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Its position among the messages given.
    pub(crate) index: usize,
    /// The kernel's refusal; `None` if the answer was lost.
    pub(crate) refusal: Option<Refusal>,
}

/// A collection that the objects of a dump are read into.
pub(crate) trait Collect {
    /// Removes all objects, before a dump starts or is tried again.
    fn clear(&mut self);

    /// Adds one object: a generic-netlink header and attributes.
    fn take(&mut self, payload: &[u8]) -> Result<(), DecodeError>;
}

/// Sends messages and matches the answers to them, one exchange after the other.
pub(super) struct Exchange<S> {
    socket: S,
    /// The number of the message sent last.
    sequence: u32,
    outgoing: Vec<u8>,
    incoming: Inbox,
    /// Whether an exchange is running: true from before a send until its last answer is read. If an
    /// exchange finds it true, the exchange before was dropped or failed, and its answers may still
    /// be in the socket.
    unfinished: bool,
    max_batch: usize,
    dumps: u32,
}

/// The messages of one send: the sequence number of the first, and how many come before the last,
/// which is the barrier or a dump.
#[derive(Clone, Copy)]
struct Batch {
    first: u32,
    count: usize,
}

/// The message that a reply answers.
enum ReplySubject {
    /// The message at this position of the batch.
    Message(usize),
    /// The last message: every message before it has been answered.
    Last,
    /// A message of an earlier exchange.
    Stale,
}

impl Batch {
    fn subject(self, sequence: u32) -> ReplySubject {
        match usize::try_from(sequence.wrapping_sub(self.first)) {
            Ok(position) if position < self.count => ReplySubject::Message(position),
            Ok(position) if position == self.count => ReplySubject::Last,
            _ => ReplySubject::Stale,
        }
    }
}

impl<S: Datagrams> Exchange<S> {
    /// Creates exchanges over a socket. `receive_buffer` is the size of its receive buffer in
    /// bytes.
    pub(super) fn new(socket: S, receive_buffer: usize) -> Self {
        Self {
            socket,
            sequence: 0,
            outgoing: Vec::with_capacity(MAX_BATCH_BYTES),
            incoming: Inbox::new(),
            unfinished: false,
            max_batch: (receive_buffer / ANSWER_COST).clamp(1, MAX_BATCH),
            dumps: 0,
        }
    }

    /// Sends all messages, as many as possible at a time, and returns those that failed in the
    /// order of their positions.
    pub(super) async fn submit<M: Encode>(
        &mut self,
        family: u16,
        messages: &[M],
    ) -> Result<Vec<Lost>, ConnectionError> {
        let mut lost = Vec::new();
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = messages.get(sent..) {
            self.begin()?;
            let batch = self.encode_batch(family, rest);
            self.send().await?;
            self.settle(batch, sent, &mut lost).await?;
            sent += batch.count;
            tokio::task::yield_now().await;
        }
        Ok(lost)
    }

    /// Sends one message and returns the objects in the answer.
    pub(super) async fn request<T>(
        &mut self,
        family: u16,
        message: &impl Encode,
        mut decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, ConnectionError> {
        self.begin()?;
        let batch = self.encode_batch(family, &[message]);
        self.send().await?;
        let mut objects = Vec::new();
        let mut refusal = None;
        self.read_batch(batch, |_, body| {
            match body {
                Body::Payload(object) => objects.push(decode(object)?),
                Body::Refused(reason) => refusal = Some(reason),
                Body::Finished => {}
            }
            Ok(())
        })
        .await?;
        refusal.map_or(Ok(objects), |refusal| Err(refusal.into()))
    }

    /// Dumps all objects. A dump that is interrupted, or of which a part is lost, is tried again a
    /// few times. A partial dump is never returned.
    pub(super) async fn dump<T>(
        &mut self,
        family: u16,
        message: &impl Encode,
        decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, ConnectionError> {
        let mut objects = Decoded {
            objects: Vec::new(),
            decode,
        };
        self.dump_into(family, &[], message, &mut objects).await?;
        Ok(objects.objects)
    }

    /// Sends queries and a dump in one send, and collects the answers to both in `objects`. A
    /// failed attempt leaves nothing there.
    ///
    /// If a query is refused, the dump is still read to its end before the refusal is returned.
    pub(super) async fn dump_into<M: Encode>(
        &mut self,
        family: u16,
        questions: &[M],
        dump: &M,
        objects: &mut impl Collect,
    ) -> Result<(), ConnectionError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.try_dump(family, questions, dump, objects).await {
                Err(ConnectionError::Overrun | ConnectionError::DumpInterrupted { .. }) => {}
                Err(ConnectionError::Refused(refusal)) if refusal.is_busy() => self.discard()?,
                answer => return answer,
            }
        }
        Err(ConnectionError::DumpInterrupted {
            attempts: DUMP_ATTEMPTS,
        })
    }

    async fn try_dump<M: Encode>(
        &mut self,
        family: u16,
        questions: &[M],
        dump: &M,
        objects: &mut impl Collect,
    ) -> Result<(), ConnectionError> {
        self.begin()?;
        objects.clear();
        let batch = self.encode_dump(family, questions, dump);
        self.send().await?;
        let result = self.read_dump(batch, objects).await;
        self.dumps = self.dumps.wrapping_add(1);
        if self.dumps.is_multiple_of(DUMPS_PER_TURN) {
            tokio::task::yield_now().await;
        }
        result
    }

    /// Reads the answers to queries and a dump, up to the end of the dump.
    async fn read_dump(
        &mut self,
        batch: Batch,
        objects: &mut impl Collect,
    ) -> Result<(), ConnectionError> {
        let mut refused = None;
        let mut interrupted = false;
        loop {
            self.receive().await?;
            for reply in self.incoming.replies() {
                let reply = reply.map_err(ConnectionError::Unreadable)?;
                let subject = batch.subject(reply.sequence);
                match (subject, reply.body) {
                    (ReplySubject::Stale, _) => continue,
                    (ReplySubject::Message(_) | ReplySubject::Last, Body::Payload(object)) => {
                        objects.take(object).map_err(ConnectionError::Unreadable)?;
                    }
                    (ReplySubject::Message(_), Body::Refused(refusal)) => refused = Some(refusal),
                    (ReplySubject::Message(_), Body::Finished) => {}
                    (ReplySubject::Last, Body::Refused(refusal)) => {
                        self.unfinished = false;
                        return Err(refusal.into());
                    }
                    (ReplySubject::Last, Body::Finished) => {
                        self.unfinished = false;
                        if interrupted || reply.interrupted {
                            return Err(ConnectionError::DumpInterrupted { attempts: 1 });
                        }
                        return refused.map_or(Ok(()), |refusal| Err(refusal.into()));
                    }
                }
                interrupted |= reply.interrupted;
            }
        }
    }

    /// Writes queries and a dump into the send buffer.
    fn encode_dump<M: Encode>(&mut self, family: u16, questions: &[M], dump: &M) -> Batch {
        let first = self.sequence.wrapping_add(1);
        self.outgoing.clear();
        for question in questions {
            let header = (family, NLM_F_REQUEST, self.next_sequence());
            frame::append(&mut self.outgoing, header, question);
        }
        let header = (family, NLM_F_REQUEST | NLM_F_DUMP, self.next_sequence());
        frame::append(&mut self.outgoing, header, dump);
        Batch {
            first,
            count: questions.len(),
        }
    }

    /// Writes the messages of one batch, as many as fit, and a barrier into the send buffer.
    fn encode_batch<M: Encode>(&mut self, family: u16, messages: &[M]) -> Batch {
        let first = self.sequence.wrapping_add(1);
        let mut count = 0;
        self.outgoing.clear();
        for message in messages.iter().take(self.max_batch) {
            let header = (family, NLM_F_REQUEST, self.next_sequence());
            frame::append(&mut self.outgoing, header, message);
            count += 1;
            if self.outgoing.len() >= MAX_BATCH_BYTES {
                break;
            }
        }
        let barrier = self.next_sequence();
        frame::append_barrier(&mut self.outgoing, barrier);
        Batch { first, count }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Reads the answers to a batch. If some were lost or cannot be read, every message without a
    /// known refusal is reported as unknown.
    async fn settle(
        &mut self,
        batch: Batch,
        offset: usize,
        lost: &mut Vec<Lost>,
    ) -> Result<(), ConnectionError> {
        let before = lost.len();
        match self.read_refusals(batch, offset, lost).await {
            Err(ConnectionError::Overrun | ConnectionError::Unreadable(_)) => {
                self.discard()?;
                let refused: Vec<usize> = lost
                    .iter()
                    .skip(before)
                    .map(|message| message.index)
                    .collect();
                let unknown = (offset..offset + batch.count)
                    .filter(|index| refused.binary_search(index).is_err())
                    .map(|index| Lost {
                        index,
                        refusal: None,
                    });
                lost.extend(unknown);
                lost.sort_by_key(|message| message.index);
                Ok(())
            }
            settled => settled,
        }
    }

    async fn read_refusals(
        &mut self,
        batch: Batch,
        offset: usize,
        lost: &mut Vec<Lost>,
    ) -> Result<(), ConnectionError> {
        self.read_batch(batch, |position, body| {
            if let Body::Refused(refusal) = body {
                lost.push(Lost {
                    index: offset + position,
                    refusal: Some(refusal),
                });
            }
            Ok(())
        })
        .await
    }

    /// Passes each answer to a batch to `answer`, with the position of its message, up to the
    /// acknowledgement of the barrier.
    async fn read_batch(
        &mut self,
        batch: Batch,
        mut answer: impl FnMut(usize, Body<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), ConnectionError> {
        loop {
            self.receive().await?;
            for reply in self.incoming.replies() {
                let reply = reply.map_err(ConnectionError::Unreadable)?;
                match batch.subject(reply.sequence) {
                    ReplySubject::Message(position) => {
                        answer(position, reply.body).map_err(ConnectionError::Unreadable)?;
                    }
                    ReplySubject::Last => {
                        self.unfinished = false;
                        return Ok(());
                    }
                    ReplySubject::Stale => {}
                }
            }
        }
    }

    /// Begins an exchange. If the exchange before was not finished, its answers are discarded
    /// first. This also ends its dump, which the kernel would otherwise consider running.
    fn begin(&mut self) -> Result<(), ConnectionError> {
        if self.unfinished {
            self.discard()?;
        }
        self.unfinished = true;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ConnectionError> {
        let sent = self
            .socket
            .send(&self.outgoing)
            .await
            .map_err(ConnectionError::Send)?;
        let length = self.outgoing.len();
        if sent == length {
            Ok(())
        } else {
            Err(ConnectionError::ShortSend { sent, length })
        }
    }

    /// Reads the next datagrams. They have nearly always arrived when the send returns, so the
    /// reactor is involved only if they have not.
    async fn receive(&mut self) -> Result<(), ConnectionError> {
        let result = match self.socket.try_receive(&mut self.incoming) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.receive(&mut self.incoming).await
            }
            result => result,
        };
        result.map_err(|error| {
            if is_overrun(&error) {
                ConnectionError::Overrun
            } else {
                ConnectionError::Receive(error)
            }
        })
    }

    /// Discards everything in the socket.
    fn discard(&mut self) -> Result<(), ConnectionError> {
        loop {
            match self.socket.try_receive(&mut self.incoming) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unfinished = false;
                    return Ok(());
                }
                Err(error) if !is_overrun(&error) => return Err(ConnectionError::Receive(error)),
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Collects objects into a list.
struct Decoded<T, D> {
    objects: Vec<T>,
    decode: D,
}

impl<T, D: FnMut(&[u8]) -> Result<T, DecodeError>> Collect for Decoded<T, D> {
    fn clear(&mut self) {
        self.objects.clear();
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        self.objects.push((self.decode)(payload)?);
        Ok(())
    }
}

#[cfg(test)]
impl<S> Exchange<S> {
    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    pub(super) fn set_sequence(&mut self, sequence: u32) {
        self.sequence = sequence;
    }
}

/// Returns whether the kernel lost answers: the buffer overflowed, or there was no memory to
/// continue a dump. The socket stays usable after either.
fn is_overrun(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOBUFS | Errno::ENOMEM))
}

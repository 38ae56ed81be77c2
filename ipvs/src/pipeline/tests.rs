//! The exchange against a scripted socket: what happens when the kernel's answers do not come as
//! they should.

use std::{collections::VecDeque, io};

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
    NetlinkHeader,
};
use nix::errno::Errno;

use super::{
    error::ConnectionError,
    exchange::{Collect, Exchange, Lost},
    frame::Encode,
    inbox::Inbox,
    socket::Datagrams,
};

const FAMILY: u16 = 28;
const LARGE_BUFFER: usize = 8 << 20;

#[tokio::test]
async fn only_the_barrier_behind_a_batch_requests_an_acknowledgement() {
    let mut exchange = exchange([ack(4)]);

    let lost = exchange
        .submit(FAMILY, &[Text("a"), Text("b"), Text("c")])
        .await
        .unwrap();

    assert_eq!(lost, []);
    let sent = &exchange.socket().sent;
    assert_eq!(sent.len(), 1);
    let expected = [
        (FAMILY, 1, NLM_F_REQUEST),
        (FAMILY, 2, NLM_F_REQUEST),
        (FAMILY, 3, NLM_F_REQUEST),
        (NLMSG_NOOP, 4, NLM_F_REQUEST | NLM_F_ACK),
    ];
    assert_eq!(headers(&sent[0]), expected);
}

#[tokio::test]
async fn refusals_are_matched_to_their_messages() {
    let mut exchange = exchange([refusal(2, Errno::EEXIST), refusal(5, Errno::ESRCH), ack(6)]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 5]).await.unwrap();

    assert_eq!(
        seen(&lost),
        [(1, Some(Errno::EEXIST)), (4, Some(Errno::ESRCH))]
    );
}

#[tokio::test]
async fn a_message_that_the_kernel_never_answers_does_not_block() {
    // A last message that ends with EINTR gives neither refusal nor acknowledgement.
    let mut exchange = exchange([refusal(1, Errno::EEXIST), ack(3)]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 2]).await.unwrap();

    assert_eq!(seen(&lost), [(0, Some(Errno::EEXIST))]);
}

#[tokio::test]
async fn several_answers_in_one_datagram_are_all_read() {
    let both = [refusal(1, Errno::EEXIST).unwrap(), ack(3).unwrap()].concat();
    let mut exchange = exchange([Ok(vec![both.concat()])]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 2]).await.unwrap();

    assert_eq!(seen(&lost), [(0, Some(Errno::EEXIST))]);
}

#[tokio::test]
async fn more_messages_than_a_batch_takes_go_in_several() {
    let mut exchange = exchange([ack(501), refusal(702, Errno::EEXIST), ack(1002), ack(1203)]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 1200]).await.unwrap();

    assert_eq!(seen(&lost), [(700, Some(Errno::EEXIST))]);
    assert_eq!(exchange.socket().sent.len(), 3);
}

#[tokio::test]
async fn a_small_receive_buffer_makes_small_batches() {
    let script = Script::new([ack(5), ack(10), ack(12)]);
    let mut exchange = Exchange::new(script, 4 * 2048);

    let lost = exchange.submit(FAMILY, &[Text("x"); 9]).await.unwrap();

    assert_eq!(lost, []);
    assert_eq!(exchange.socket().sent.len(), 3);
}

#[tokio::test]
async fn nothing_is_sent_for_no_messages() {
    let mut exchange = exchange([]);

    assert_eq!(exchange.submit::<Text>(FAMILY, &[]).await.unwrap(), []);

    assert!(exchange.socket().sent.is_empty());
}

#[tokio::test]
async fn after_lost_answers_every_message_without_a_known_refusal_is_unknown() {
    let mut exchange = exchange([
        refusal(2, Errno::EEXIST),
        overrun(),
        // In the buffer since before the overrun; it looks like the answers after it.
        refusal(3, Errno::EEXIST),
        nothing(),
        ack(7),
    ]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 4]).await.unwrap();
    assert_eq!(
        seen(&lost),
        [(0, None), (1, Some(Errno::EEXIST)), (2, None), (3, None)]
    );

    let lost = exchange.submit(FAMILY, &[Text("y")]).await.unwrap();
    assert_eq!(lost, []);
}

#[tokio::test]
async fn an_overrun_in_one_batch_leaves_the_next_alone() {
    let mut exchange = exchange([overrun(), nothing(), refusal(502, Errno::ENOENT), ack(504)]);

    let lost = exchange.submit(FAMILY, &[Text("x"); 502]).await.unwrap();

    assert_eq!(lost.len(), 501);
    assert!(lost[..500].iter().all(|lost| lost.refusal.is_none()));
    assert_eq!(seen(&lost[500..]), [(500, Some(Errno::ENOENT))]);
}

#[tokio::test]
async fn a_datagram_that_was_cut_short_leaves_the_batch_unknown() {
    let mut short = ack(2).unwrap();
    short[0].truncate(18);
    let mut exchange = exchange([Ok(short), nothing()]);

    let lost = exchange.submit(FAMILY, &[Text("x")]).await.unwrap();

    assert_eq!(seen(&lost), [(0, None)]);
}

#[tokio::test]
async fn answers_to_earlier_messages_are_skipped() {
    let mut exchange = exchange([
        ack(2),
        // The answer to an earlier exchange, which was dropped.
        refusal(1, Errno::EEXIST),
        object(0, "stale"),
        object(3, "fresh"),
        ack(4),
    ]);
    exchange.submit(FAMILY, &[Text("x")]).await.unwrap();

    let objects = exchange.request(FAMILY, &Text("get"), text).await.unwrap();

    assert_eq!(objects, ["fresh"]);
}

#[tokio::test]
async fn the_answers_to_a_dropped_exchange_are_discarded_before_the_next() {
    let mut exchange = exchange([
        nothing(),
        never(),
        // The answers to the dropped exchange.
        object(1, "late"),
        done(1),
        nothing(),
        object(2, "fresh"),
        ack(3),
    ]);
    let dropped = exchange.dump(FAMILY, &Text("dump"), text);
    assert!(poll_once(dropped).await.is_none());

    let objects = exchange.request(FAMILY, &Text("get"), text).await.unwrap();

    assert_eq!(objects, ["fresh"]);
    assert_eq!(exchange.socket().read, 7);
}

#[tokio::test]
async fn a_dump_ends_with_its_done_message() {
    let mut exchange = exchange([object(1, "one"), object(1, "two"), done(1)]);

    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!(objects, ["one", "two"]);
    assert_eq!(
        headers(&exchange.socket().sent[0]),
        [(FAMILY, 1, NLM_F_REQUEST | NLM_F_DUMP)]
    );
}

#[tokio::test]
async fn a_dump_and_its_end_come_in_one_read() {
    let mut exchange = exchange([
        together([object(1, "one"), object(1, "two"), done(1)]),
        together([object(2, "tre"), done(2)]),
    ]);

    let first = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();
    let second = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!((first.len(), second), (2, vec!["tre".to_owned()]));
    assert_eq!(exchange.socket().read, 2);
}

#[tokio::test]
async fn a_dump_of_many_datagrams_takes_as_many_reads_as_it_must() {
    let mut exchange = exchange([
        together([
            object(1, "a"),
            object(1, "b"),
            object(1, "c"),
            object(1, "d"),
        ]),
        together([object(1, "e"), object(1, "f"), done(1)]),
    ]);

    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!(objects.concat(), "abcdef");
}

#[tokio::test]
async fn an_end_that_comes_later_is_waited_for() {
    let mut exchange = exchange([
        together([object(1, "one"), object(1, "two")]),
        nothing(),
        never(),
    ]);

    let dump = exchange.dump(FAMILY, &Text("dump"), text);

    assert!(poll_once(dump).await.is_none());
}

#[tokio::test]
async fn a_query_in_front_of_a_dump_is_answered_before_it() {
    let mut exchange = exchange([together([answer(1, "key"), object(2, "one"), done(2)])]);
    let mut texts = Texts::default();

    exchange
        .dump_into(FAMILY, &[Text("get")], &Text("dump"), &mut texts)
        .await
        .unwrap();

    assert_eq!(texts.0, ["key", "one"]);
    let sent = &exchange.socket().sent;
    let expected = [
        (FAMILY, 1, NLM_F_REQUEST),
        (FAMILY, 2, NLM_F_REQUEST | NLM_F_DUMP),
    ];
    assert_eq!(headers(&sent[0]), expected);
    assert_eq!((sent.len(), exchange.socket().read), (1, 1));
}

#[tokio::test]
async fn a_refused_query_is_returned_after_the_dump_behind_it_is_read() {
    let mut exchange = exchange([
        together([refusal(1, Errno::ESRCH), done(2)]),
        together([object(3, "one"), done(3)]),
    ]);
    let mut texts = Texts::default();

    let error = exchange
        .dump_into(FAMILY, &[Text("get")], &Text("dump"), &mut texts)
        .await
        .unwrap_err();
    let ConnectionError::Refused(refusal) = error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.errno(), Errno::ESRCH);

    // Nothing is left in the socket that would have to be discarded.
    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();
    assert_eq!(objects, ["one"]);
}

#[tokio::test]
async fn an_interrupted_dump_discards_the_answer_before_it_too() {
    let mut exchange = exchange([
        together([
            answer(1, "key1"),
            message(2, FAMILY, NLM_F_MULTIPART | NLM_F_DUMP_INTR, b"old1"),
            done(2),
        ]),
        together([answer(3, "key2"), object(4, "new1"), done(4)]),
    ]);
    let mut texts = Texts::default();

    exchange
        .dump_into(FAMILY, &[Text("get")], &Text("dump"), &mut texts)
        .await
        .unwrap();

    assert_eq!(texts.0, ["key2", "new1"]);
}

#[tokio::test]
async fn a_dump_behind_a_query_is_tried_again_while_another_one_runs() {
    let mut exchange = exchange([
        together([answer(1, "key1"), refusal(2, Errno::EBUSY)]),
        nothing(),
        together([answer(3, "key2"), object(4, "one"), done(4)]),
    ]);
    let mut texts = Texts::default();

    exchange
        .dump_into(FAMILY, &[Text("get")], &Text("dump"), &mut texts)
        .await
        .unwrap();

    assert_eq!(texts.0, ["key2", "one"]);
}

#[tokio::test]
async fn an_interrupted_dump_is_tried_again_and_its_part_discarded() {
    let mut exchange = exchange([
        message(1, FAMILY, NLM_F_MULTIPART | NLM_F_DUMP_INTR, b"old1"),
        done(1),
        object(2, "new1"),
        done(2),
    ]);

    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!(objects, ["new1"]);
}

#[tokio::test]
async fn a_dump_of_which_a_part_was_lost_is_tried_again() {
    let mut exchange = exchange([
        object(1, "one1"),
        overrun(),
        done(1),
        nothing(),
        object(2, "one2"),
        object(2, "two2"),
        done(2),
    ]);

    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!(objects, ["one2", "two2"]);
}

#[tokio::test]
async fn a_dump_is_tried_again_while_another_one_runs() {
    let mut exchange = exchange([
        refusal(1, Errno::EBUSY),
        nothing(),
        object(2, "one"),
        done(2),
    ]);

    let objects = exchange.dump(FAMILY, &Text("dump"), text).await.unwrap();

    assert_eq!(objects, ["one"]);
}

#[tokio::test]
async fn a_dump_is_given_up_after_a_few_attempts() {
    let script = (1..=4).flat_map(|sequence| [refusal(sequence, Errno::EBUSY), nothing()]);
    let mut exchange = Exchange::new(Script::new(script), LARGE_BUFFER);

    let error = exchange
        .dump(FAMILY, &Text("dump"), text)
        .await
        .unwrap_err();

    assert!(
        matches!(error, ConnectionError::DumpInterrupted { attempts: 4 }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_dump_that_ends_with_an_error_is_refused() {
    let code = -(Errno::ENOMEM as i32);
    let mut exchange = exchange([
        object(1, "one"),
        message(1, NLMSG_DONE, NLM_F_MULTIPART, &code.to_ne_bytes()),
    ]);

    let error = exchange
        .dump(FAMILY, &Text("dump"), text)
        .await
        .unwrap_err();

    let ConnectionError::Refused(refusal) = error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.errno(), Errno::ENOMEM);
}

#[tokio::test]
async fn a_lost_answer_to_a_request_is_an_error_and_not_a_second_request() {
    let mut exchange = exchange([overrun(), ack(2), nothing(), ack(4)]);

    let error = exchange
        .request(FAMILY, &Text("set"), text)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectionError::Overrun), "{error:?}");
    assert_eq!(exchange.socket().sent.len(), 1);

    let objects = exchange.request(FAMILY, &Text("set"), text).await.unwrap();
    assert!(objects.is_empty());
}

#[tokio::test]
async fn the_message_of_the_kernel_is_kept() {
    let mut payload = (-(Errno::EINVAL as i32)).to_ne_bytes().to_vec();
    let mut request = [0; 16];
    header(1, FAMILY, NLM_F_REQUEST, 16).emit(&mut request);
    payload.extend(request);
    payload.extend([12, 0, 1, 0]);
    payload.extend(b"no way!\0");
    let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
    let mut exchange = exchange([message(1, NLMSG_ERROR, flags, &payload), ack(2)]);

    let lost = exchange.submit(FAMILY, &[Text("x")]).await.unwrap();

    assert_eq!(lost[0].refusal.as_ref().unwrap().message(), Some("no way!"));
}

#[tokio::test]
async fn a_send_of_which_a_part_was_taken_is_an_error() {
    let mut exchange = exchange([]);
    exchange.socket_mut().takes = Some(7);

    let error = exchange.submit(FAMILY, &[Text("x")]).await.unwrap_err();

    assert!(
        matches!(
            error,
            ConnectionError::ShortSend {
                sent: 7,
                length: 36
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn sequence_numbers_may_wrap() {
    let mut exchange = exchange([
        refusal(u32::MAX, Errno::EEXIST),
        refusal(0, Errno::ESRCH),
        ack(2),
    ]);
    exchange.set_sequence(u32::MAX - 1);

    let lost = exchange.submit(FAMILY, &[Text("x"); 3]).await.unwrap();

    assert_eq!(
        seen(&lost),
        [(0, Some(Errno::EEXIST)), (1, Some(Errno::ESRCH))]
    );
}

/// A payload of four bytes or none.
#[derive(Clone, Copy)]
struct Text(&'static str);

impl Encode for Text {
    fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.0.as_bytes());
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// The answers to a query and a dump.
#[derive(Default)]
struct Texts(Vec<String>);

impl Collect for Texts {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        self.0.push(text(payload)?);
        Ok(())
    }
}

/// The result of one read of the socket: datagrams, mostly one.
type Event = io::Result<Vec<Vec<u8>>>;

/// A socket that returns the events of a script, one for each read.
struct Script {
    events: VecDeque<Event>,
    sent: Vec<Vec<u8>>,
    read: usize,
    takes: Option<usize>,
}

impl Script {
    fn new(events: impl IntoIterator<Item = Event>) -> Self {
        let events = events.into_iter().collect();
        Self {
            events,
            sent: Vec::new(),
            read: 0,
            takes: None,
        }
    }
}

impl Datagrams for Script {
    async fn send(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.sent.push(datagram.to_vec());
        Ok(self.takes.unwrap_or(datagram.len()))
    }

    async fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        match self.try_receive(inbox) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::future::pending().await,
            result => result,
        }
    }

    fn try_receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        self.read += 1;
        let datagrams = self
            .events
            .pop_front()
            .expect("a read that is not in the script")?;
        inbox.put(&datagrams);
        Ok(())
    }
}

fn exchange<const N: usize>(events: [Event; N]) -> Exchange<Script> {
    Exchange::new(Script::new(events), LARGE_BUFFER)
}

fn ack(sequence: u32) -> Event {
    message(sequence, NLMSG_ERROR, NLM_F_CAPPED, &[0; 20])
}

fn refusal(sequence: u32, errno: Errno) -> Event {
    let mut payload = [0; 20];
    payload[..4].copy_from_slice(&(-(errno as i32)).to_ne_bytes());
    message(sequence, NLMSG_ERROR, NLM_F_CAPPED, &payload)
}

/// An answer to a query, which is not part of a dump.
fn answer(sequence: u32, text: &str) -> Event {
    message(sequence, FAMILY, 0, text.as_bytes())
}

fn object(sequence: u32, text: &str) -> Event {
    message(sequence, FAMILY, NLM_F_MULTIPART, text.as_bytes())
}

fn done(sequence: u32) -> Event {
    message(sequence, NLMSG_DONE, NLM_F_MULTIPART, &[0; 4])
}

/// A read that gives the datagrams of several events.
fn together<const N: usize>(events: [Event; N]) -> Event {
    Ok(events.into_iter().flat_map(Result::unwrap).collect())
}

fn overrun() -> Event {
    Err(Errno::ENOBUFS.into())
}

/// A read that finds the socket empty.
fn nothing() -> Event {
    Err(io::ErrorKind::WouldBlock.into())
}

/// A wait that never ends.
fn never() -> Event {
    nothing()
}

fn message(sequence: u32, kind: u16, flags: u16, payload: &[u8]) -> Event {
    let header = header(sequence, kind, flags, 16 + payload.len());
    let mut bytes = vec![0; 16];
    header.emit(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(vec![bytes])
}

fn header(sequence: u32, kind: u16, flags: u16, length: usize) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).unwrap();
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    header
}

/// The type, sequence number and flags of each message of a datagram.
fn headers(mut datagram: &[u8]) -> Vec<(u16, u32, u16)> {
    let mut headers = Vec::new();
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).unwrap();
        headers.push((
            message.message_type(),
            message.sequence_number(),
            message.flags(),
        ));
        datagram = &datagram[message.length() as usize..];
    }
    headers
}

fn seen(lost: &[Lost]) -> Vec<(usize, Option<Errno>)> {
    lost.iter()
        .map(|lost| {
            (
                lost.index,
                lost.refusal.as_ref().map(|refusal| refusal.errno()),
            )
        })
        .collect()
}

fn text(payload: &[u8]) -> Result<String, DecodeError> {
    Ok(String::from_utf8(payload.to_vec())?)
}

/// Polls a future once and drops it; `None` when it waits.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Real sockets, on any Linux: the controller's family needs neither module nor capability.
mod on_the_running_kernel {
    use super::*;
    use crate::pipeline::{Connection, socket::KernelSocket};

    const GENL_ID_CTRL: u16 = 16;

    #[tokio::test]
    async fn the_controller_resolves_itself() {
        let mut connection = Connection::open().unwrap();

        assert_eq!(
            connection.resolve_family("nlctrl").await.unwrap(),
            GENL_ID_CTRL
        );
    }

    #[tokio::test]
    async fn a_family_that_does_not_exist_is_not_found() {
        let mut connection = Connection::open().unwrap();

        let error = connection
            .resolve_family("no-such-family")
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectionError::FamilyNotFound { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_batch_that_is_refused_as_a_whole_loses_no_answer() {
        let (socket, receive_buffer) = KernelSocket::open().unwrap();
        let mut exchange = Exchange::new(socket, receive_buffer);

        let lost = exchange
            .submit(GENL_ID_CTRL, &[UNKNOWN_COMMAND; 2000])
            .await
            .unwrap();

        assert_eq!(lost.len(), 2000);
        assert!(lost.iter().all(|lost| lost.refusal.is_some()));
    }

    #[tokio::test]
    async fn a_receive_buffer_that_overflows_leaves_the_connection_usable() {
        let (socket, _) = KernelSocket::open().unwrap();
        socket.shrink_receive_buffer().unwrap();
        let mut exchange = Exchange::new(socket, LARGE_BUFFER);

        let lost = exchange
            .submit(GENL_ID_CTRL, &[UNKNOWN_COMMAND; 1000])
            .await
            .unwrap();
        assert_eq!(lost.len(), 1000);
        assert!(lost.iter().any(|lost| lost.refusal.is_none()));

        let lost = exchange
            .submit(GENL_ID_CTRL, &[UNKNOWN_COMMAND])
            .await
            .unwrap();
        assert_eq!(seen(&lost), [(0, Some(Errno::EOPNOTSUPP))]);
    }

    #[tokio::test]
    async fn a_short_dump_and_the_answer_before_it_are_read_at_once() {
        let (socket, receive_buffer) = KernelSocket::open().unwrap();
        let mut exchange = Exchange::new(socket, receive_buffer);

        for _ in 0..3 {
            let mut names = Names::default();
            exchange
                .dump_into(GENL_ID_CTRL, &[GET_CONTROLLER], &GET_POLICY, &mut names)
                .await
                .unwrap();
            assert_eq!(names.answers, 1);
            assert!(names.dumped > 0);
        }
    }

    /// `CTRL_CMD_GETFAMILY`, and the number of the controller's own family.
    const GET_CONTROLLER: Text = Text("\u{3}\u{2}\0\0\u{6}\0\u{1}\0\u{10}\0\0\0");

    /// `CTRL_CMD_GETPOLICY` of the same family, which is a dump of a few messages.
    const GET_POLICY: Text = Text("\u{a}\u{2}\0\0\u{6}\0\u{1}\0\u{10}\0\0\0");

    /// The number of answers, and of those that belong to a dump.
    #[derive(Default)]
    struct Names {
        answers: usize,
        dumped: usize,
    }

    impl Collect for Names {
        fn clear(&mut self) {
            *self = Self::default();
        }

        fn take(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
            match payload[0] {
                CTRL_CMD_NEWFAMILY => self.answers += 1,
                _ => self.dumped += 1,
            }
            Ok(())
        }
    }

    const CTRL_CMD_NEWFAMILY: u8 = 1;

    /// A generic-netlink header with a command that the controller does not have.
    const UNKNOWN_COMMAND: Text = Text("\u{7f}\u{2}\0\0");
}

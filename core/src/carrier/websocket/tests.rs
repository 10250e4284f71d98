use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::carrier::http::{Guard, HttpError};
use crate::wire::SHARE_THRESHOLD;

fn client() -> WebSocket {
    let handshake = ClientHandshake {
        host: "127.0.0.1:7".to_owned(),
        target: "/".to_owned(),
        origin: None,
        protocol: Some(SUBPROTOCOL),
    };
    WebSocket::client(handshake, Limits::default(), Rng::from_seed([3; 32]))
}

fn server_with(limits: Limits) -> WebSocket {
    let handshake = ServerHandshake {
        guard: Arc::new(Guard::default()),
        path: "/".into(),
        encrypted: false,
        protocol: Some(SUBPROTOCOL),
    };
    WebSocket::server(handshake, limits)
}

/// What one end sends, with these records.
fn sent(end: &mut WebSocket, records: &[Bytes]) -> Vec<u8> {
    let mut out = OutBuffer::new();
    end.prepare(&mut out);
    for record in records {
        out.put_shared(record.clone());
    }
    end.seal(&mut out);
    drain(&mut out)
}

fn drain(out: &mut OutBuffer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        bytes.extend_from_slice(out.chunk());
        let len = out.chunk().len();
        out.advance(len);
    }
    bytes
}

struct End {
    socket: WebSocket,
    input: BytesMut,
    clean: usize,
}

impl End {
    fn take(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        self.input.extend_from_slice(bytes);
        self.socket
            .handle_input(Timestamp::ZERO, &mut self.input, &mut self.clean)
    }

    fn records(&self) -> &[u8] {
        &self.input[..self.clean]
    }

    fn last_words(&mut self) -> Vec<u8> {
        let mut out = OutBuffer::new();
        self.socket.close(&mut out);
        drain(&mut out)
    }
}

fn end(socket: WebSocket) -> End {
    End {
        socket,
        input: BytesMut::new(),
        clean: 0,
    }
}

fn pair_with(limits: Limits) -> (End, End) {
    let (mut near, mut far) = (end(client()), end(server_with(limits)));
    let request = sent(&mut near.socket, &[]);
    far.take(&request).unwrap();
    let answer = sent(&mut far.socket, &[]);
    near.take(&answer).unwrap();
    assert!(near.socket.is_open() && far.socket.is_open());
    (near, far)
}

fn pair() -> (End, End) {
    pair_with(Limits::default())
}

/// A frame of a client, with a mask.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&key);
    let mut payload = payload.to_vec();
    mask::apply(&mut payload, key, 0);
    bytes.extend_from_slice(&payload);
    bytes
}

#[test]
fn records_pass_both_ways_however_they_are_cut() {
    let small = Bytes::from_static(b"0123456789");
    let large = Bytes::from(vec![9; 3 * SHARE_THRESHOLD + 1]);
    for step in [1, 2, 3, 7, 4096, usize::MAX] {
        let (mut near, mut far) = pair();
        for back in [false, true] {
            let (from, to) = if back {
                (&mut far, &mut near)
            } else {
                (&mut near, &mut far)
            };
            let mut bytes = sent(&mut from.socket, &[small.clone(), large.clone(), small.clone()]);
            bytes.extend(sent(&mut from.socket, std::slice::from_ref(&small)));
            for piece in bytes.chunks(step.min(bytes.len())) {
                to.take(piece).unwrap();
            }
            let expected = [&small[..], &large[..], &small[..], &small[..]].concat();
            assert!(to.records() == expected, "cut by {step}, back {back}");
            assert_eq!(to.input.len(), to.clean, "nothing is left over");
        }
    }
}

#[test]
fn a_server_sends_large_payloads_by_reference() {
    let (_, mut far) = pair();
    let large = Bytes::from(vec![1; SHARE_THRESHOLD]);
    let mut out = OutBuffer::new();
    far.socket.prepare(&mut out);
    out.put_shared(large.clone());
    far.socket.seal(&mut out);
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let count = out.io_slices(&mut slices);
    assert_eq!(
        slices[..count].last().map(|slice| slice.as_ptr()),
        Some(large.as_ptr())
    );
}

#[test]
fn masks_differ_and_are_the_seeds() {
    let record = [Bytes::from_static(b"record")];
    let (mut one, _) = pair();
    let (mut other, _) = pair();
    let (first, second) = (sent(&mut one.socket, &record), sent(&mut one.socket, &record));
    assert_ne!(first, second);
    assert_eq!(first, sent(&mut other.socket, &record));
}

/// RFC 6455 §5.7, less the text: the frames of its examples.
#[test]
fn rfc_examples_are_read() {
    let limits = Limits {
        text: true,
        ..Limits::default()
    };
    let (_, mut far) = pair_with(limits);
    far.take(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
        .unwrap();
    assert_eq!(far.records(), b"Hello");
    // A fragmented message with a ping inside.
    far.take(&frame(0x01, b"Hel")).unwrap();
    far.take(&frame(0x89, b"Hello")).unwrap();
    far.take(&frame(0x80, b"lo")).unwrap();
    assert_eq!(far.records(), b"HelloHello");
    assert!(far.socket.has_output());
    assert_eq!(sent(&mut far.socket, &[]), b"\x8a\x05Hello");
}

#[test]
fn payload_is_joined_in_place_whichever_part_is_longer() {
    let (_, mut far) = pair();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for (index, len) in [5_usize, 300, 1, 0, 70_000, 2, 126, 125].into_iter().enumerate() {
        let payload = vec![index as u8; len];
        bytes.extend(frame(if index == 0 { 0x02 } else { 0x00 }, &payload));
        bytes.extend(frame(0x8a, b"unasked"));
        expected.extend(payload);
    }
    bytes.extend(frame(0x80, b"!"));
    expected.extend(b"!");
    far.take(&bytes).unwrap();
    assert!(far.records() == expected);
}

#[test]
fn what_breaks_the_rules_is_told_by_its_code() {
    let code = |frames: &[Vec<u8>]| {
        let limits = Limits {
            message: 1000,
            frames: 8,
            idle_frames: 20,
            text: false,
        };
        let (_, mut far) = pair_with(limits);
        let result = frames.iter().try_for_each(|bytes| far.take(bytes));
        let Err(CarrierError::WebSocket(violation)) = result else {
            panic!("{frames:?} is taken: {result:?}")
        };
        let last = far.last_words();
        assert_eq!(last[0], 0x88);
        assert_eq!(last[2..4], violation.code.to_be_bytes());
        assert!(far.last_words().is_empty(), "said once");
        violation.code
    };
    assert_eq!(code(&[vec![0x82, 0x01, 0]]), 1002, "unmasked");
    assert_eq!(code(&[vec![0xc2]]), 1002, "a reserved bit");
    assert_eq!(code(&[frame(0x83, b"")]), 1002, "a reserved data opcode");
    assert_eq!(code(&[frame(0x8b, b"")]), 1002, "a reserved control opcode");
    assert_eq!(code(&[vec![0x82, 0xfe, 0, 5, 1, 1, 1, 1]]), 1002, "16 bits for 5");
    assert_eq!(
        code(&[vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 1, 1, 1, 1]]),
        1002,
        "64 bits for 5"
    );
    assert_eq!(
        code(&[vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 5, 1, 1, 1, 1]]),
        1002,
        "2^63"
    );
    assert_eq!(code(&[frame(0x09, b"")]), 1002, "a fragmented ping");
    assert_eq!(code(&[frame(0x89, &[0; 126])]), 1002, "a long ping");
    assert_eq!(code(&[frame(0x80, b"x")]), 1002, "a continuation of nothing");
    assert_eq!(
        code(&[frame(0x02, b"x"), frame(0x82, b"y")]),
        1002,
        "two messages at once"
    );
    assert_eq!(code(&[frame(0x81, b"text")]), 1003, "text");
    assert_eq!(code(&[frame(0x82, &[0; 1001])]), 1009, "a large message");
    assert_eq!(
        code(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 600])]),
        1009,
        "in two frames"
    );
    assert_eq!(code(&[frame(0x88, b"x")]), 1002, "half a code");
    assert_eq!(
        code(&[frame(0x88, &1005_u16.to_be_bytes())]),
        1002,
        "a code not to be sent"
    );
    assert_eq!(
        code(&[frame(0x88, b"\x03\xe8\xff")]),
        1007,
        "a reason that is no text"
    );
    let mut bomb = vec![frame(0x02, b"")];
    bomb.extend(vec![frame(0x00, b""); 8]);
    assert_eq!(code(&bomb), 1008, "many frames, empty ones");
    assert_eq!(code(&vec![frame(0x82, b""); 21]), 1008, "empty messages");
    assert_eq!(code(&vec![frame(0x89, b""); 21]), 1008, "pings");
}

// RFC 6455 §5.5.2 and §5.5.3.
#[test]
fn pings_are_answered_in_order_and_first() {
    let (mut near, mut far) = pair();
    for number in 0..3 {
        far.take(&frame(0x89, &[number])).unwrap();
    }
    assert!(far.socket.has_output());
    let said = sent(&mut far.socket, &[Bytes::from_static(b"record")]);
    assert_eq!(said, b"\x8a\x01\x00\x8a\x01\x01\x8a\x01\x02\x82\x06record");
    assert!(!far.socket.has_output());
    near.take(&said).unwrap();
    assert_eq!(near.records(), b"record");
    // Of many the latest.
    for number in 0..100 {
        far.take(&frame(0x89, &[number])).unwrap();
    }
    let said = sent(&mut far.socket, &[]);
    assert_eq!(said.len(), 16 * 3);
    assert!(said.starts_with(&[0x8a, 1, 84]) && said.ends_with(&[0x8a, 1, 99]));
    // A client's answers are masked.
    near.take(b"\x89\x02hi").unwrap();
    let said = sent(&mut near.socket, &[]);
    assert_eq!((said[0], said[1], said.len()), (0x8a, 0x82, 8));
    far.take(&said).unwrap();
}

#[test]
fn frames_without_data_are_earned_back_with_time() {
    let limits = Limits {
        idle_frames: 10,
        ..Limits::default()
    };
    let (_, mut far) = pair_with(limits);
    let mut now = Timestamp::ZERO;
    let ping = frame(0x89, b"");
    for _ in 0..1000 {
        now += std::time::Duration::from_millis(10);
        far.input.extend_from_slice(&ping);
        far.socket
            .handle_input(now, &mut far.input, &mut far.clean)
            .unwrap();
    }
}

#[test]
fn texts_are_checked_as_they_come() {
    let text = "κόσμε, 👋 done";
    let limits = Limits {
        text: true,
        ..Limits::default()
    };
    for cut in 0..text.len() {
        let (_, mut far) = pair_with(limits);
        far.take(&frame(0x01, &text.as_bytes()[..cut])).unwrap();
        far.take(&frame(0x80, &text.as_bytes()[cut..])).unwrap();
        assert_eq!(far.records(), text.as_bytes());
    }
    for (first, second) in [
        (&b"\xce"[..], &b""[..]),
        (b"ok \xf0\x9f", b"\x91"),
        (b"\xed\xa0", b"\x80"),
        (b"\xff", b""),
        (b"\xce", b"x"),
        (b"\xf4\x90", b"\x80\x80"),
    ] {
        let (_, mut far) = pair_with(limits);
        let result = far
            .take(&frame(0x01, first))
            .and_then(|()| far.take(&frame(0x80, second)));
        let Err(CarrierError::WebSocket(violation)) = result else {
            panic!("{first:?} {second:?} is taken")
        };
        assert_eq!(violation.code, 1007);
    }
}

#[test]
fn closing_is_answered_with_the_same_code() {
    let (mut near, mut far) = pair();
    let goodbye = near.last_words();
    far.take(&goodbye).unwrap();
    assert!(far.socket.is_ended() && far.socket.has_output());
    assert_eq!(sent(&mut far.socket, &[]), b"\x88\x02\x03\xe8");
    assert!(!far.socket.has_output());
    // Nothing is sent, and nothing taken, after that.
    assert_eq!(sent(&mut far.socket, &[Bytes::from_static(b"late")]), b"");
    far.take(&frame(0x82, b"late")).unwrap();
    assert_eq!(far.records(), b"");
}

fn request(change: impl Fn(String) -> String) -> Result<(), CarrierError> {
    let request = String::from_utf8(sent(&mut client(), &[])).unwrap();
    end(server_with(Limits::default())).take(change(request).as_bytes())
}

#[test]
fn requests_that_are_not_ours_are_refused() {
    let status = |change: &dyn Fn(String) -> String| match request(change) {
        Err(CarrierError::Http(error)) => error.answer().0,
        other => panic!("{other:?}"),
    };
    request(|request| request).unwrap();
    let swap = |from: &'static str, to: &'static str| status(&move |text: String| text.replace(from, to));
    assert_eq!(swap("GET", "POST"), 405);
    assert_eq!(swap("HTTP/1.1", "HTTP/1.0"), 400);
    assert_eq!(swap("sheetbend.v1", "chat"), 400);
    assert_eq!(swap("Version: 13", "Version: 8"), 426);
    assert_eq!(swap("Upgrade: websocket", "Upgrade: h2c"), 426);
    assert_eq!(swap("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), 400);
    assert_eq!(
        swap("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5"),
        400
    );
    assert_eq!(swap("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n"), 403);
    assert_eq!(swap("\r\n\r\n", "\r\nHost: other\r\n\r\n"), 400);
    assert_eq!(swap("\r\nUpgrade", "\nUpgrade"), 400);
    // A page of a name that was made to resolve to us.
    let rebound = |text: String| {
        text.replace("Host: 127.0.0.1:7", "Host: evil.example")
            .replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n")
    };
    assert_eq!(status(&rebound), 421);
}

#[test]
fn answers_that_do_not_answer_are_refused() {
    let answered = |change: &dyn Fn(String) -> String| {
        let (mut near, mut far) = (end(client()), end(server_with(Limits::default())));
        far.take(&sent(&mut near.socket, &[])).unwrap();
        let answer = String::from_utf8(sent(&mut far.socket, &[])).unwrap();
        near.take(change(answer).as_bytes())
    };
    answered(&|text| text).unwrap();
    let swap = |from: &'static str, to: &'static str| answered(&move |text: String| text.replace(from, to));
    let not_ours = |result| matches!(result, Err(CarrierError::Http(HttpError::NotWebSocket(_))));
    assert!(not_ours(swap("Accept: ", "Accept: x")));
    assert!(not_ours(swap("sheetbend.v1", "chat")));
    assert!(not_ours(swap("Upgrade: websocket", "Upgrade: h2c")));
    assert!(not_ours(swap(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )));
    let redirected = swap("101 Switching Protocols", "302 Found");
    assert!(matches!(
        redirected,
        Err(CarrierError::Http(HttpError::Status { status: 302, .. }))
    ));
}

#[test]
fn a_head_has_limits() {
    let mut far = end(server_with(Limits::default()));
    let flood = "GET / HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(10_000);
    assert!(matches!(
        far.take(flood.as_bytes()),
        Err(CarrierError::Http(HttpError::TooLarge))
    ));
    let words = far.last_words();
    assert!(words.starts_with(b"HTTP/1.1 431 "));
    let fields = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"X: y\r\n".repeat(101) + "\r\n";
    let mut far = end(server_with(Limits::default()));
    assert!(far.take(fields.as_bytes()).is_err());
}

//! What comes over HTTP: bodies, the forms of downlinks, and exchanges that break, repeat and overtake each other.
//! Heads and bodies are judged beside httparse, which hyper parses with, and hyper's own rules for chunks.

use std::io::IoSlice;

use bolero::check;
use bytes::{Buf, BytesMut};
use sheetbend_core::carrier::http::{
    Action, Asked, BodyDecoder, BodyLength, ClientConfig, ClientPath, ExchangeKey, HeadLimits, HttpError,
    Item, ItemDecoder, Mode, Note, Operation, RequestHead, ServerConfig, ServerPath, Slot, Token, Uploaded,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;
use zeroize::Zeroizing;

/// The body, what is left behind it, and whether it is whole; or that it is malformed.
type Taken = Result<(Vec<u8>, Vec<u8>, bool), ()>;

fn take(length: BodyLength, bytes: &[u8], step: usize) -> Taken {
    let mut decoder = BodyDecoder::new(length);
    let (mut input, mut body) = (BytesMut::new(), BytesMut::new());
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        decoder.decode(&mut input, &mut body).map_err(|_| ())?;
    }
    Ok((body.to_vec(), input.to_vec(), decoder.is_done()))
}

/// Chunks as RFC 9112 §7.1 has them, by the book and slowly: `None` where the body is not whole.
fn by_the_book(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((used, size)) = httparse::parse_chunk_size(bytes).ok()? else {
            return None;
        };
        let line = &bytes[..used];
        bytes = &bytes[used..];
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return bytes.strip_prefix(b"\r\n").map(|rest| (body, rest));
        }
        debug_assert!(line.ends_with(b"\n"));
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// The same body however its bytes came; and what we take, httparse takes for the same.
#[test]
fn chunks() {
    check!().for_each(|bytes: &[u8]| {
        let whole = take(BodyLength::Chunked, bytes, bytes.len().max(1));
        for step in [1, 2, 7] {
            assert_eq!(take(BodyLength::Chunked, bytes, step), whole);
        }
        if let Ok((body, rest, true)) = whole {
            let (theirs, behind) = by_the_book(bytes).expect("another parser refuses what we take");
            assert_eq!((theirs, behind), (body, &rest[..]));
        }
    });
}

/// A request that we take is the request that httparse sees, and its body ends where hyper ends it.
#[test]
fn requests() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(Some((head, len))) = RequestHead::parse(bytes, HeadLimits::default()) else {
            return;
        };
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut theirs = httparse::Request::new(&mut fields);
        assert_eq!(theirs.parse(bytes), Ok(httparse::Status::Complete(len)));
        assert_eq!(theirs.method, Some(head.method.as_str()));
        assert_eq!(theirs.path, Some(head.target.as_str()));
        assert_eq!(theirs.headers.len(), head.headers.iter().count());
        let Ok(length) = head.body_length() else { return };
        // What hyper goes by: the last Transfer-Encoding is chunked, or else one Content-Length of digits.
        let values = |name: &'static str| {
            let named = theirs
                .headers
                .iter()
                .filter(move |field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| {
                std::str::from_utf8(field.value)
                    .expect("we took it for text")
                    .trim()
            })
        };
        let chunked = values("transfer-encoding")
            .next_back()
            .map(|last| last.eq_ignore_ascii_case("chunked"));
        let expected = match (chunked, values("content-length").next()) {
            (Some(true), None) => BodyLength::Chunked,
            (None, Some(length)) => BodyLength::Fixed(length.parse().expect("digits")),
            (None, None) => BodyLength::Fixed(0),
            other => panic!("we took {other:?}"),
        };
        assert_eq!(length, expected);
        let _ = Asked::of(&head).map(|asked| asked.map(|asked| asked.put_target("/", &mut String::new())));
    });
}

/// What a downlink says: items in the same order however its bytes came, and memory within bounds.
fn items(mode: Mode, bytes: &[u8], step: usize) -> (Vec<String>, bool) {
    let mut decoder = ItemDecoder::new(mode);
    let (mut body, mut plain) = (BytesMut::new(), BytesMut::new());
    let mut told: Vec<String> = Vec::new();
    let mut data = Vec::new();
    for piece in bytes.chunks(step) {
        body.extend_from_slice(piece);
        loop {
            match decoder.next(&mut body, &mut plain) {
                Err(_) => return (told, false),
                Ok(None) => break,
                Ok(Some(Item::Data(count))) => {
                    assert!(count > 0 && count <= plain.len() && plain.len() <= bytes.len());
                    data.extend_from_slice(&plain[..count]);
                    plain.advance(count);
                    if let Some(position) = decoder.take_position() {
                        told.push(format!("{position}"));
                    }
                }
                Ok(Some(Item::Note(note))) => told.push(format!("{note:?} after {}", data.len())),
            }
        }
    }
    told.push(format!("{data:?}"));
    (told, true)
}

#[test]
fn blocks() {
    check!().for_each(|bytes: &[u8]| {
        assert_eq!(
            items(Mode::Binary, bytes, bytes.len().max(1)),
            items(Mode::Binary, bytes, 1)
        );
    });
}

#[test]
fn event_streams() {
    check!().for_each(|bytes: &[u8]| {
        let whole = items(Mode::Sse, bytes, bytes.len().max(1));
        assert_eq!(items(Mode::Sse, bytes, 1), whole);
        assert_eq!(items(Mode::Sse, bytes, 3), whole);
    });
}

#[test]
fn lines_of_json() {
    check!().for_each(|bytes: &[u8]| {
        let whole = items(Mode::Ndjson, bytes, bytes.len().max(1));
        assert_eq!(items(Mode::Ndjson, bytes, 1), whole);
    });
}

const TOKEN: Token = Token([7; 16]);

fn key() -> ExchangeKey {
    ExchangeKey::new(Zeroizing::new([9; 32]))
}

/// What a server answers to a client of ours, as bytes: nothing breaks it.
#[test]
fn answers() {
    check!().for_each(|bytes: &[u8]| {
        let mut path = ClientPath::new(ClientConfig::new("h".into(), "/".into()), Timestamp::ZERO);
        let mut now = Timestamp::ZERO;
        path.write(&[IoSlice::new(b"hello")]);
        let mut out = OutBuffer::new();
        path.poll_transmit(now, Slot::Up, &mut out);
        let made = format!("HTTP/1.1 200 OK\r\nSheetbend-Path: {TOKEN}\r\nContent-Length: 0\r\n\r\n");
        path.handle_input(now, Slot::Up, &mut BytesMut::from(made.as_bytes()));
        path.set_key(now, key());
        for piece in bytes.chunks(40) {
            let (choice, piece) = (piece[0], &piece[1..]);
            path.handle_timeout(now);
            while let Some(action) = path.poll_action() {
                if let Action::Connect(slot) = action {
                    path.handle_connected(now, slot);
                }
            }
            for slot in Slot::ALL {
                out.clear();
                path.poll_transmit(now, slot, &mut out);
            }
            let slot = Slot::ALL[usize::from(choice % 4)];
            match choice / 4 % 8 {
                0 => path.handle_closed(now, slot),
                1 => now = path.poll_timeout().unwrap_or(now).max(now),
                2 => {
                    path.write(&[IoSlice::new(piece)]);
                }
                3 => path.end(),
                4 => {
                    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    path.handle_input(now, slot, &mut BytesMut::from(&head[..]));
                }
                _ => path.handle_input(now, slot, &mut BytesMut::from(piece)),
            }
            assert!(path.held() <= bytes.len());
            if path.is_over() {
                assert_eq!(path.poll_timeout(), None);
            }
        }
    });
}

/// A server's path, and the model of what reached its session.
struct Model {
    path: ServerPath,
    now: Timestamp,
    /// What the client says in all, and how much of it the session has.
    sent: Vec<u8>,
    taken: Vec<u8>,
    numbers: [u64; 3],
    written: u64,
}

impl Model {
    fn begin(
        &mut self,
        operation: Operation,
        number: u64,
        from: u64,
        received: u64,
    ) -> Result<(), HttpError> {
        let exchange = key().sign(operation, TOKEN, number, from, received);
        self.path.begin(self.now, &exchange, Mode::Binary, None)
    }

    fn step(&mut self, choice: u8, value: u8) {
        let received = self.taken.len() as u64 + self.path.held() as u64;
        // Near what is known to have come: sometimes before it, sometimes ahead of it.
        let from = received.saturating_sub(u64::from(value % 8)) + u64::from(value > 250);
        let bytes = |from: u64| {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.sent.len());
            self.sent[from..(from + usize::from(value)).min(self.sent.len())].to_vec()
        };
        match choice % 8 {
            0 | 1 => {
                let number = self.numbers[0] + u64::from(value % 3);
                let bytes = bytes(from);
                let begun = self.begin(Operation::Up, number, from, 0);
                assert!(begun.is_ok() || number <= self.numbers[0] || from > received || self.path.is_over());
                if begun.is_ok() {
                    self.numbers[0] = number;
                    // The connection breaks within it, now and then.
                    let cut = if choice & 8 == 0 {
                        bytes.len()
                    } else {
                        bytes.len() / 2
                    };
                    let _ = self.path.take(number, &bytes[..cut]);
                    assert_eq!(self.path.take(number + 1, &bytes), Ok(Uploaded::Replaced));
                    self.path.finish_upload(number, false);
                }
            }
            2 => {
                let number = self.numbers[1] + 1;
                let bytes = bytes(from);
                let turns = choice & 8 != 0;
                let operation = if turns { Operation::Both } else { Operation::Stream };
                if self.begin(operation, number, from, 0).is_ok() {
                    self.numbers[1] = number;
                    let _ = self.path.take_streamed(self.now, number, &bytes);
                    if value % 2 == 1 {
                        let turned = self.path.take_note(self.now, number, Note::Turn);
                        assert_eq!(turned.is_ok(), turns);
                        assert_eq!(self.path.is_turned(number), turns);
                    }
                }
            }
            3 => {
                let number = self.numbers[2] + u64::from(value % 2);
                let position = self.written.saturating_sub(u64::from(value));
                if self.begin(Operation::Down, number, position, position).is_ok() {
                    self.numbers[2] = number;
                }
            }
            4 => {
                let data = vec![value; usize::from(value)];
                self.written += self.path.write(&[IoSlice::new(&data)]) as u64;
            }
            5 => {
                let mut out = OutBuffer::new();
                self.path.poll_down(self.now, self.numbers[2], &mut out);
                self.path.poll_turned(self.now, self.numbers[1], &mut out);
            }
            6 => {
                self.now = self.path.poll_timeout().unwrap_or(self.now).max(self.now);
                self.path.handle_timeout(self.now);
                let mut out = OutBuffer::new();
                let _ = self.path.poll_answer(self.now, self.numbers[2], "", &mut out);
            }
            _ => {
                let waiting = self.path.incoming();
                let count = waiting.len().min(usize::from(value));
                self.taken.extend_from_slice(&waiting.split_to(count));
            }
        }
    }
}

/// Exchanges in any order, broken anywhere and repeated: what the session gets is what the client said, in order
/// and once.
#[test]
fn exchanges() {
    check!().for_each(|bytes: &[u8]| {
        let mut path = ServerPath::new(ServerConfig::default(), TOKEN, Timestamp::ZERO);
        path.set_key(key());
        let mut model = Model {
            path,
            now: Timestamp::ZERO,
            sent: (0..20_000_u32).flat_map(|number| number.to_be_bytes()).collect(),
            taken: Vec::new(),
            numbers: [0; 3],
            written: 0,
        };
        for pair in bytes.chunks_exact(2) {
            model.step(pair[0], pair[1]);
            let waiting = model.path.incoming().to_vec();
            let all = [&model.taken[..], &waiting[..]].concat();
            assert!(model.sent.starts_with(&all), "{} bytes", all.len());
            if model.path.is_over() {
                assert_eq!(model.path.poll_timeout(), None);
            }
        }
    });
}

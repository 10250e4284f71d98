//! What a stranger may send to a port before it is known what is spoken, and what comes over a WebSocket.

use std::sync::Arc;

use bolero::check;
use bytes::BytesMut;
use sheetbend_core::carrier::http::{Guard, HeadLimits, RequestHead, ResponseHead};
use sheetbend_core::carrier::websocket::{
    ClientHandshake, Limits, Message, SUBPROTOCOL, ServerHandshake, WebSocket,
};
use sheetbend_core::carrier::{CarrierError, Sniffed, sniff};
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

const LIMITS: Limits = Limits {
    message: 100_000,
    frames: 50,
    idle_frames: 30,
    text: true,
};

/// What was told by a few bytes is not taken back when more come.
#[test]
fn first_bytes() {
    check!().for_each(|bytes: &[u8]| {
        let mut told = Sniffed::Unclear;
        for end in 0..=bytes.len().min(64) {
            let now = sniff(&bytes[..end]);
            if told != Sniffed::Unclear {
                assert_eq!(now, told, "{:?}", &bytes[..end]);
            }
            told = now;
        }
        assert!(bytes.len() < 24 || told != Sniffed::Unclear);
    });
}

/// A head that is taken ends with the first empty line, is within its limits, and reads the same again however
/// its bytes came.
#[test]
fn heads() {
    check!().for_each(|bytes: &[u8]| {
        let limits = HeadLimits {
            bytes: 600,
            fields: 10,
        };
        let request = RequestHead::parse(bytes, limits);
        if let Ok(Some((head, len))) = &request {
            assert!(*len <= limits.bytes && head.headers.iter().count() <= limits.fields);
            let taken = &bytes[..*len];
            assert!(taken.ends_with(b"\r\n\r\n"));
            assert_eq!(taken.windows(4).filter(|four| four == b"\r\n\r\n").count(), 1);
            assert_eq!(RequestHead::parse(taken, limits), request);
            for (name, value) in head.headers.iter() {
                assert_eq!(name, name.to_ascii_lowercase());
                assert!(!value.contains(['\r', '\n', '\0']));
            }
            for end in 0..*len {
                assert_eq!(RequestHead::parse(&bytes[..end], limits), Ok(None));
            }
        }
        if let Ok(Some((_, len))) = ResponseHead::parse(bytes, limits) {
            assert!(bytes[..len].ends_with(b"\r\n\r\n"));
        }
    });
}

fn server() -> WebSocket {
    WebSocket::server(
        ServerHandshake {
            guard: Arc::new(Guard::default()),
            path: "/".into(),
            encrypted: false,
            protocol: Some(SUBPROTOCOL),
        },
        LIMITS,
    )
}

/// An end of a WebSocket that is open.
struct End {
    machine: WebSocket,
    input: BytesMut,
    clean: usize,
}

impl End {
    fn take(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        self.input.extend_from_slice(bytes);
        self.machine
            .handle_input(Timestamp::ZERO, &mut self.input, &mut self.clean)
    }

    fn say(&mut self) -> Vec<u8> {
        let mut out = OutBuffer::new();
        self.machine.prepare(&mut out);
        self.machine.seal(&mut out);
        drain(&mut out)
    }
}

fn drain(out: &mut OutBuffer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let chunk = out.chunk().to_vec();
        out.advance(chunk.len());
        bytes.extend(chunk);
    }
    bytes
}

fn end(machine: WebSocket) -> End {
    End {
        machine,
        input: BytesMut::new(),
        clean: 0,
    }
}

fn open() -> (End, End) {
    let handshake = ClientHandshake {
        host: "localhost".to_owned(),
        target: "/".to_owned(),
        origin: None,
        protocol: Some(SUBPROTOCOL),
    };
    let mut near = end(WebSocket::client(handshake, LIMITS, Rng::from_seed([1; 32])));
    let mut far = end(server());
    far.take(&near.say()).expect("a good request");
    near.take(&far.say()).expect("a good answer");
    assert!(near.machine.is_open() && far.machine.is_open());
    (near, far)
}

/// A server's answer to any request, and a client's to any answer: one or the other, and nothing is open that was
/// not agreed to.
#[test]
fn handshakes() {
    check!().for_each(|bytes: &[u8]| {
        let mut far = end(server());
        let result = far.take(bytes);
        let mut out = OutBuffer::new();
        far.machine.close(&mut out);
        let words = drain(&mut out);
        match result {
            Ok(()) => {}
            // It agreed, and then frames came that are none.
            Err(CarrierError::WebSocket(_)) => assert!(words.starts_with(b"HTTP/1.1 101 "), "{words:?}"),
            Err(_) => assert!(words.starts_with(b"HTTP/1.1 4"), "{words:?}"),
        }
        assert!(!far.machine.is_open());
    });
}

/// Frames give the same payload, and end the same way, however their bytes are cut; both at a server and at a client.
#[test]
fn frames() {
    check!().for_each(|bytes: &[u8]| {
        let Some((cut, bytes)) = bytes.split_first() else {
            return;
        };
        for server in [true, false] {
            let whole = outcome(server, bytes, bytes.len().max(1));
            let pieces = outcome(server, bytes, usize::from(*cut) % 17 + 1);
            assert_eq!(whole.1, pieces.1);
            // What came before a violation in the same frame is judged with it, or was taken before.
            assert!(whole.1.is_some() || whole == pieces);
            // Nothing comes out that did not go in.
            assert!(whole.0.len() <= bytes.len());
        }
    });
}

/// The payload, the code of the violation, whether the peer has closed, and the last words.
type Told = (Vec<u8>, Option<u16>, bool, Vec<u8>);

fn outcome(server: bool, bytes: &[u8], step: usize) -> Told {
    let (near, far) = open();
    let mut end = if server { far } else { near };
    let mut code = None;
    for piece in bytes.chunks(step) {
        if let Err(error) = end.take(piece) {
            let CarrierError::WebSocket(violation) = error else {
                panic!("{error}")
            };
            code = Some(violation.code);
            break;
        }
    }
    let mut out = OutBuffer::new();
    end.machine.close(&mut out);
    // A client's are masked with what its generator gives; which pings they answer may differ.
    let words = if server { drain(&mut out) } else { Vec::new() };
    (
        end.input[..end.clean].to_vec(),
        code,
        end.machine.is_ended(),
        words,
    )
}

/// What one end says the other hears, whatever is said in which pieces.
#[test]
fn conversations() {
    check!().for_each(|bytes: &[u8]| {
        let (mut near, mut far) = open();
        let mut said = Vec::new();
        for (turn, piece) in bytes.chunks(23).enumerate() {
            let (from, to) = match turn % 2 {
                0 => (&mut near, &mut far),
                _ => (&mut far, &mut near),
            };
            let long = piece.repeat(1 + usize::from(piece[0]) * 8);
            let mut out = OutBuffer::new();
            from.machine.prepare(&mut out);
            out.put_shared(long.clone().into());
            from.machine.seal_as(&mut out, Message::Binary);
            for piece in drain(&mut out).chunks(1 + usize::from(piece[0]) * 16) {
                to.take(piece).expect("what we say ourselves");
            }
            assert!(to.input[..to.clean] == long[..]);
            assert_eq!(to.input.len(), to.clean);
            to.input.clear();
            to.clean = 0;
            said.push(long.len());
        }
        assert_eq!(said.len(), bytes.len().div_ceil(23));
    });
}

//! Handshake messages: no bytes make the decoders panic, and what decodes encodes to the same bytes.

use std::time::Duration;

use bolero::check;
use sheetbend_core::handshake::{
    Confirm, EphemeralSecret, Hello, Join, Joined, Params, PathCount, Reject, RejectCode, Routing, Security,
    SessionId, StreamLimits, VERSION, Welcome,
};
use sheetbend_fuzz::input::Input;

fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// The body of one kind of message; whether it decoded.
fn decode(kind: u8, bytes: &[u8]) -> bool {
    macro_rules! same {
        ($message:ident) => {
            match $message::decode(bytes) {
                Ok(message) => {
                    assert_eq!(body(|out| message.encode(out)), bytes);
                    let _ = format!("{message:?}");
                    true
                }
                Err(error) => {
                    let _ = (error.code(), error.reject_code(), error.to_string());
                    false
                }
            }
        };
    }
    match kind % 6 {
        0 => same!(Hello),
        1 => same!(Welcome),
        2 => same!(Join),
        3 => same!(Joined),
        4 => same!(Confirm),
        _ => same!(Reject),
    }
}

/// PROTOCOL 5, 6: any bytes.
#[test]
fn messages() {
    check!().for_each(|bytes: &[u8]| {
        if let Some((kind, rest)) = bytes.split_first() {
            decode(*kind, rest);
        }
    });
}

/// PROTOCOL 5, 6: what can be said comes back, and with a few bytes changed it is refused or is what would be
/// sent.
#[test]
fn messages_return() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let kind = input.byte() % 6;
        let mut bytes = message(kind, &mut input);
        assert!(decode(kind, &bytes), "what is made is read");
        while !input.is_empty() && !bytes.is_empty() {
            let at = usize::from(input.u16()) % bytes.len();
            match input.byte() % 3 {
                0 => bytes[at] = input.byte(),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, input.byte()),
            }
            decode(kind, &bytes);
        }
    });
}

fn params(input: &mut Input<'_>) -> Params {
    let small = |input: &mut Input<'_>| u64::from(input.u16());
    let mut params = Params {
        max_record: 1200 + input.u16() as u32,
        crc: input.pick(&[None, Some(false), Some(true)]),
        lz4: input.flag(),
        resume_timeout: Duration::from_millis(small(input)),
        heartbeat: Duration::from_millis(1000 + small(input)),
        max_ack_delay: Duration::from_micros(small(input)),
        in_flight: 5000 + small(input),
        max_data: [small(input); 8],
        max_stream_data: [small(input); 8],
        floor: input.pick(&[Security::Plain, Security::Encrypted]),
        max_message: small(input),
        max_datagram: 1200 + input.u16() as u32,
        service: "s".repeat(input.below(255)),
        token: vec![9; input.below(300)],
        ..Params::default()
    };
    params.max_streams = [StreamLimits {
        bi: small(input),
        uni: small(input),
        unordered: small(input),
    }; 8];
    assert_eq!(params.check(), Ok(()));
    params
}

fn message(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let path_id = input.u64() >> (input.byte() & 63);
    let nonce = std::array::from_fn(|_| input.byte());
    let share = EphemeralSecret::from_seed([input.byte(); 32]).share();
    let routing = Routing::new(input.take(usize::from(kind))).expect("short");
    let proof = [input.byte(); 32];
    let counts = (0..input.below(9))
        .map(|path| PathCount {
            path: path as u64,
            lane: 0,
            count: 1 + u64::from(input.u16()),
        })
        .collect();
    match kind {
        0 => {
            let hello = Hello::new(path_id, nonce, share, params(input)).expect("in range");
            body(|out| hello.encode(out))
        }
        1 => {
            let id = SessionId(nonce);
            let welcome =
                Welcome::new(path_id, VERSION, id, routing, share, params(input)).expect("in range");
            body(|out| welcome.encode(out))
        }
        2 => {
            let join = Join {
                session_id: SessionId(nonce),
                routing,
                path_id,
                nonce,
                bound: input.flag(),
                floor: Security::Plain,
                in_flight: 5000,
                live: (0..input.below(9) as u64).collect(),
                proof,
            };
            body(|out| join.encode(out))
        }
        3 => {
            let joined = Joined {
                path_id,
                nonce,
                in_flight: 5000,
                counts,
                proof,
            };
            body(|out| joined.encode(out))
        }
        4 => {
            let confirm = Confirm {
                path_id,
                counts,
                proof,
            };
            body(|out| confirm.encode(out))
        }
        _ => {
            let code = RejectCode::from(u64::from(input.byte()));
            let reject = Reject::new(code, "no").with_address("tcp://there:1");
            body(|out| reject.encode(out))
        }
    }
}

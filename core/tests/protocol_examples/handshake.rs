//! Examples of the handshake, made through the crate and by the words of PROTOCOL 5.3, and of the
//! exchange of PROTOCOL 12.2.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sheetbend_core::handshake::{
    Confirm, EphemeralSecret, Hello, Join, Joined, Params, PathCount, Routing, Security, SessionId,
    SessionKeys, VERSION, Welcome,
};
use sheetbend_core::wire::{
    Frame, HandshakeKind, OutBuffer, RecordBuilder, RecordLimits, StreamId, split_record,
};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Example, written};

const CLIENT_SECRET: [u8; 32] = [0x11; 32];
const SERVER_SECRET: [u8; 32] = [0x22; 32];
const NONCE: [u8; 16] = [0x33; 16];
const SESSION: SessionId = SessionId([0x44; 16]);
const EXPORTER: [u8; 32] = [0x77; 32];

struct Handshake {
    hello: Hello,
    welcome: Welcome,
    keys: SessionKeys,
}

impl Handshake {
    fn new(hello: Params, welcome: Params, routing: &[u8]) -> Handshake {
        let (client, server) = (
            EphemeralSecret::from_seed(CLIENT_SECRET),
            EphemeralSecret::from_seed(SERVER_SECRET),
        );
        let routing = Routing::new(routing).expect("short");
        let hello = Hello::new(0, NONCE, client.share(), hello).expect("good parameters");
        let welcome = Welcome::new(0, VERSION, SESSION, routing, server.share(), welcome);
        let mut welcome = welcome.expect("good parameters");
        let keys = SessionKeys::server(&server, &hello, &welcome).expect("good shares");
        keys.sign_welcome(&mut welcome);
        SessionKeys::client(&client, &hello, &welcome).expect("the client agrees");
        Handshake { hello, welcome, keys }
    }

    /// PROTOCOL 12.3.
    fn example() -> Handshake {
        let hello = Params {
            floor: Security::Encrypted,
            service: "demo".to_owned(),
            ..Params::default()
        };
        let welcome = Params {
            max_record: 32_768,
            resume_timeout: std::time::Duration::from_secs(60),
            floor: Security::Encrypted,
            ..Params::default()
        };
        Handshake::new(hello, welcome, &[1, 2])
    }

    fn confirm(&self, counts: &[PathCount]) -> Confirm {
        let mut confirm = Confirm {
            path_id: 0,
            counts: counts.iter().copied().collect(),
            proof: [0; 32],
        };
        confirm.proof = self.keys.confirm_hello_proof(&confirm);
        confirm
    }

    fn join(&self, bound: bool) -> Join {
        let mut join = Join {
            session_id: SESSION,
            routing: self.welcome.routing().clone(),
            path_id: 8,
            nonce: [0x55; 16],
            bound,
            floor: Security::Encrypted,
            in_flight: 262_144,
            live: [5, 7].into_iter().collect(),
            proof: [0; 32],
        };
        join.proof = self.keys.join_proof(&join, Some(&EXPORTER)).expect("an exporter");
        join
    }

    fn joined(&self) -> Joined {
        let mut joined = Joined {
            path_id: 8,
            nonce: [0x66; 16],
            in_flight: 131_072,
            counts: [count(0, 0, 3), count(300, 1, 1_048_576)].into_iter().collect(),
            proof: [0; 32],
        };
        joined.proof = self.keys.joined_proof(&self.join(true).digest(), &joined);
        joined
    }

    fn confirm_join(&self) -> Confirm {
        let mut confirm = Confirm {
            path_id: 8,
            counts: [count(0, 0, 2)].into_iter().collect(),
            proof: [0; 32],
        };
        let (join, joined) = (self.join(true).digest(), self.joined().digest());
        confirm.proof = self.keys.confirm_join_proof(&join, &joined, &confirm);
        confirm
    }
}

fn count(path: u64, lane: u64, count: u64) -> PathCount {
    PathCount { path, lane, count }
}

fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// Decodes a message and encodes it again.
fn again(kind: &str, bytes: &[u8]) -> Vec<u8> {
    match kind {
        "HELLO" => body(|out| Hello::decode(bytes).expect("a HELLO").encode(out)),
        "WELCOME" => body(|out| Welcome::decode(bytes).expect("a WELCOME").encode(out)),
        "JOIN" => body(|out| Join::decode(bytes).expect("a JOIN").encode(out)),
        "JOINED" => body(|out| Joined::decode(bytes).expect("a JOINED").encode(out)),
        "CONFIRM" => body(|out| Confirm::decode(bytes).expect("a CONFIRM").encode(out)),
        other => panic!("message {other}"),
    }
}

pub(super) fn check_message(example: &Example) {
    let session = Handshake::example();
    let confirm = session.confirm(&[count(0, 0, 1)]);
    let expected = match example.text("name") {
        "hello" => body(|out| session.hello.encode(out)),
        "welcome" => body(|out| session.welcome.encode(out)),
        "confirm-hello" => body(|out| confirm.encode(out)),
        "join" => body(|out| session.join(true).encode(out)),
        "join-unbound" => body(|out| session.join(false).encode(out)),
        "joined" => body(|out| session.joined().encode(out)),
        "confirm-join" => body(|out| session.confirm_join().encode(out)),
        other => panic!("line {}: unknown message {other}", example.line),
    };
    assert_eq!(example.bytes, expected, "line {}", example.line);
    assert_eq!(
        again(example.text("message"), &example.bytes),
        example.bytes,
        "line {}",
        example.line
    );
    if example.text("message") == "JOIN" {
        let join = Join::decode(&example.bytes).expect("a JOIN");
        let exporter = join.bound.then_some(&EXPORTER);
        assert_eq!(session.keys.verify_join(&join, exporter), Ok(()));
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn check_value(example: &Example) {
    let session = Handshake::example();
    let (hello_t, welcome_t) = (session.hello.transcript(), session.welcome.transcript());
    let mut transcript = Sha256::new();
    transcript.update(b"sheetbend/1 transcript");
    for part in [hello_t, welcome_t] {
        transcript.update((part.len() as u32).to_be_bytes());
        transcript.update(part);
    }
    let th = transcript.finalize().to_vec();
    let client = StaticSecret::from(CLIENT_SECRET);
    let server = PublicKey::from(&StaticSecret::from(SERVER_SECRET));
    let dh = client.diffie_hellman(&server).as_bytes().to_vec();
    let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&th), &dh);
    let key = |label: &str| {
        let mut key = vec![0; 32];
        let info = format!("sheetbend/1 {label}");
        hkdf.expand(info.as_bytes(), &mut key).expect("32 bytes");
        assert_eq!(key, hmac(&prk, &[info.as_bytes(), &[1]]), "HKDF by hand");
        key
    };
    let welcome_mac = |path: u64| hmac(&key("welcome"), &[&th, &path.to_be_bytes()]);
    let unproven = |bytes: Vec<u8>| bytes[..bytes.len() - 32].to_vec();
    let join = body(|out| session.join(true).encode(out));
    let unbound = body(|out| session.join(false).encode(out));
    let joined = body(|out| session.joined().encode(out));
    let sha = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    let expected = match example.text("value") {
        "client_share" => PublicKey::from(&client).to_bytes().to_vec(),
        "server_share" => server.to_bytes().to_vec(),
        "dh" => dh.clone(),
        "hello_t" => hello_t.to_vec(),
        "welcome_t" => welcome_t.to_vec(),
        "th" => {
            assert_eq!(&th[..], session.keys.transcript_hash());
            th.clone()
        }
        "prk" => prk.to_vec(),
        "key_seal_client" => session.keys.seal_client().to_vec(),
        "key_seal_server" => session.keys.seal_server().to_vec(),
        "welcome_mac_path_0" => welcome_mac(0),
        "welcome_mac_path_7" => {
            assert_eq!(welcome_mac(7), session.keys.welcome_mac(7));
            welcome_mac(7)
        }
        "confirm_hello_proof" => {
            let confirm = body(|out| session.confirm(&[count(0, 0, 1)]).encode(out));
            hmac(&key("confirm"), &[b"hello", &th, &unproven(confirm)])
        }
        "join_proof" => hmac(&key("join"), &[b"join", &unproven(join), &EXPORTER]),
        "join_unbound_proof" => hmac(&key("join"), &[b"join", &unproven(unbound)]),
        "sha256_join" => sha(&join),
        "joined_proof" => hmac(&key("joined"), &[b"joined", &sha(&join), &unproven(joined)]),
        "sha256_joined" => sha(&joined),
        "confirm_join_proof" => {
            let confirm = unproven(body(|out| session.confirm_join().encode(out)));
            hmac(&key("confirm"), &[b"join", &sha(&join), &sha(&joined), &confirm])
        }
        name => match name.strip_prefix("key_") {
            Some(label) => key(&label.replace('_', " ")),
            None => panic!("line {}: unknown value {name}", example.line),
        },
    };
    assert_eq!(
        example.bytes,
        expected,
        "line {}: {}",
        example.line,
        example.text("value")
    );
}

// ---- the exchange of PROTOCOL 12.2 ----

pub(super) struct Conversation {
    session: Handshake,
}

impl Default for Conversation {
    fn default() -> Conversation {
        Conversation {
            session: Handshake::new(Params::default(), Params::default(), &[]),
        }
    }
}

impl Conversation {
    pub(super) fn check(&self, example: &Example) {
        let (handshake, stream, ack_now) = (
            self.handshake(example.text("step")),
            StreamId::try_from(8).expect("an id"),
            example.text("step") == "request",
        );
        let ack = |count, delay_us| Frame::AckHere { count, delay_us };
        let data = |data| Frame::Stream {
            id: stream,
            offset: None,
            fin: true,
            data,
        };
        let frames = match (example.text("step"), &handshake) {
            (_, Some((kind, body))) => vec![Frame::Handshake { kind: *kind, body }],
            ("request", _) => vec![ack(1, 180), data(b"\x03\x04\x04echohello")],
            ("answer", _) => vec![ack(3, 95), data(b"\x00hello")],
            ("ack", _) => vec![ack(2, 25_000)],
            ("close", _) => vec![Frame::Close {
                code: 0,
                reason: "done",
            }],
            (other, None) => panic!("line {}: unknown step {other}", example.line),
        };
        let mut out = OutBuffer::new();
        let mut builder = RecordBuilder::begin(&mut out, 16_384, true);
        if let Some((last, others)) = frames.split_last() {
            assert!(others.iter().all(|frame| builder.frame(frame)));
            assert!(builder.last_frame(last));
        }
        if ack_now {
            builder.set_ack_now();
        }
        builder.finish();
        assert_eq!(written(&out), example.bytes, "line {}", example.line);
        let (mut input, mut scratch) = (&example.bytes[..], Vec::new());
        let record = split_record(&mut input, &RecordLimits::HANDSHAKE, &mut scratch);
        let record = record.expect("a good record").expect("a whole record");
        assert!(input.is_empty(), "one record in line {}", example.line);
        assert_eq!(record.ack_now, ack_now);
        let decoded: Result<Vec<_>, _> = record.frames().collect();
        assert_eq!(decoded, Ok(frames), "line {}", example.line);
    }

    fn handshake(&self, step: &str) -> Option<(HandshakeKind, Vec<u8>)> {
        Some(match step {
            "hello" => (HandshakeKind::Hello, body(|out| self.session.hello.encode(out))),
            "welcome" => (
                HandshakeKind::Welcome,
                body(|out| self.session.welcome.encode(out)),
            ),
            "confirm" => (
                HandshakeKind::Confirm,
                body(|out| self.session.confirm(&[]).encode(out)),
            ),
            _ => return None,
        })
    }
}

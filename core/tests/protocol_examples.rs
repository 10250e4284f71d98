//! Every example in `docs/PROTOCOL.md` is what this crate writes, and reads. PROTOCOL 12.1.
//!
//! An example is a block that opens with three backquotes, `hex`, and words `key=value`; the bytes follow
//! in hexadecimal. The test builds what the words say, compares the bytes, and decodes them again.

use std::collections::BTreeMap;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sheetbend_core::handshake::{
    Confirm, EphemeralSecret, Hello, Join, Joined, Params, PathCount, Reject, RejectCode, Routing, Security,
    SessionId, SessionKeys, VERSION, Welcome,
};
use sheetbend_core::wire::{
    Addresses, AdvertiseFrame, Class, Compressor, Counts, Frame, HandshakeKind, Kind, LaneCount, OutBuffer,
    PathStatus, RecordBuilder, RecordLimits, Side, StreamId, split_record, varint,
};
use x25519_dalek::{PublicKey, StaticSecret};

const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

/// How many examples the page has, by the first word of their info string.
const EXPECTED: [(&str, usize); 8] = [
    ("frame", 26),
    ("message", 7),
    ("record", 4),
    ("stream", 1),
    ("stream-id", 6),
    ("value", 22),
    ("varint", 9),
    ("wire", 7),
];

struct Example {
    line: usize,
    words: Vec<(&'static str, &'static str)>,
    bytes: Vec<u8>,
}

impl Example {
    fn kind(&self) -> &'static str {
        self.words[0].0
    }

    fn has(&self, key: &str) -> bool {
        self.words.iter().any(|(known, _)| *known == key)
    }

    fn text(&self, key: &str) -> &'static str {
        let found = self.words.iter().find(|(known, _)| *known == key);
        found
            .unwrap_or_else(|| panic!("line {}: no `{key}`", self.line))
            .1
    }

    fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse()
            .unwrap_or_else(|_| panic!("line {}: `{key}={text}`", self.line))
    }

    fn optional(&self, key: &str) -> Option<u64> {
        self.has(key).then(|| self.number(key))
    }

    fn id(&self) -> StreamId {
        StreamId::try_from(self.number("id")).expect("a stream id")
    }

    fn class(&self) -> Class {
        class(self.number("class"))
    }

    /// `text`, or `text*n` for its repetition.
    fn data(&self) -> Vec<u8> {
        let text = self.text("data");
        match text.split_once('*') {
            Some((text, times)) => text.repeat(times.parse().expect("a number")).into_bytes(),
            None => text.as_bytes().to_vec(),
        }
    }
}

fn class(number: u64) -> Class {
    Class::new(u8::try_from(number).expect("a class")).expect("a class")
}

fn kind(name: &str) -> Kind {
    match name {
        "bi" => Kind::Bi,
        "uni" => Kind::Uni,
        "ordered" => Kind::Ordered,
        "unordered" => Kind::Unordered,
        other => panic!("kind {other}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("`{c}` is no hex digit")) as u8)
        .collect();
    assert_eq!(digits.len() % 2, 0, "half a byte in {text}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn examples() -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```hex") else {
            continue;
        };
        let words = info
            .split_whitespace()
            .map(|word| word.split_once('=').unwrap_or((word, "")))
            .collect();
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        found.push(Example {
            line: number + 1,
            words,
            bytes: unhex(&body.concat()),
        });
    }
    found
}

#[test]
fn every_example_is_right() {
    let examples = examples();
    let mut counts = BTreeMap::new();
    let wire = Conversation::default();
    for example in &examples {
        *counts.entry(example.kind()).or_insert(0_usize) += 1;
        match example.kind() {
            "varint" => check_varint(example),
            "stream-id" => check_stream_id(example),
            "frame" => check_frame(example),
            "record" => check_record(example),
            "message" => check_message(example),
            "value" => check_value(example),
            "stream" => check_messages(example),
            "wire" => wire.check(example),
            other => panic!("line {}: unknown example `{other}`", example.line),
        }
    }
    let counts: Vec<_> = counts.into_iter().collect();
    assert_eq!(
        counts, EXPECTED,
        "examples went missing, or new ones are not counted"
    );
}

fn check_varint(example: &Example) {
    let value = example.number("varint");
    let mut bytes = Vec::new();
    varint::put(&mut bytes, value);
    assert_eq!(bytes, example.bytes, "line {}", example.line);
    let mut input = &example.bytes[..];
    assert_eq!(varint::get(&mut input), Ok(value));
    assert!(input.is_empty());
}

fn check_stream_id(example: &Example) {
    let value = example.number("stream-id");
    let side = match example.text("initiator") {
        "client" => Side::Client,
        "server" => Side::Server,
        other => panic!("initiator {other}"),
    };
    let id = StreamId::new(
        side,
        kind(example.text("kind")),
        example.class(),
        example.number("index"),
    );
    assert_eq!(
        id.map(StreamId::value),
        Some(value),
        "line {}: {id:?}",
        example.line
    );
    let mut bytes = Vec::new();
    varint::put(&mut bytes, value);
    assert_eq!(bytes, example.bytes, "line {}", example.line);
}

/// PROTOCOL 5.5: a default that the page does not know would be another protocol.
#[test]
fn the_defaults_of_parameters_are_those_of_the_page() {
    let params = Params::default();
    let each = |values: &[u64]| {
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        format!("{} each", thousands(values[0]))
    };
    let [other, requests, ..] = params.max_streams;
    for (class, limits) in params
        .max_streams
        .iter()
        .enumerate()
        .filter(|(class, _)| *class != 1)
    {
        assert_eq!(*limits, other, "class {class}");
    }
    assert_eq!((requests.uni, requests.unordered), (other.uni, other.unordered));
    let streams = [other.bi, other.uni, other.unordered].map(thousands).join(", ");
    let streams = format!("{streams} each; class 1, kind 0: {}", thousands(requests.bi));
    let expected = [
        ("max_record", thousands(u64::from(params.max_record))),
        ("lz4", u64::from(params.lz4).to_string()),
        (
            "resume_timeout_ms",
            thousands(params.resume_timeout.as_millis() as u64),
        ),
        ("heartbeat_ms", thousands(params.heartbeat.as_millis() as u64)),
        (
            "max_ack_delay_us",
            thousands(params.max_ack_delay.as_micros() as u64),
        ),
        ("in_flight", thousands(params.in_flight)),
        ("max_data", each(&params.max_data)),
        ("max_stream_data", each(&params.max_stream_data)),
        ("max_streams", streams),
        ("floor", params.floor.value().to_string()),
        ("max_message", thousands(params.max_message)),
        ("max_datagram", thousands(u64::from(params.max_datagram))),
    ];
    for (name, default) in expected {
        let cells = PAGE
            .lines()
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
            .find(|cells| cells.len() == 7 && cells[2] == name);
        assert_eq!(cells.map(|cells| cells[4]), Some(default.as_str()), "{name}");
    }
}

/// With commas between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

// ---- frames ----

/// What the words of an example say a frame holds, where it is not borrowed from them.
struct Parts {
    data: Vec<u8>,
    body: Vec<u8>,
    addresses: Vec<&'static str>,
    counts: Vec<LaneCount>,
}

impl Parts {
    fn of(example: &Example) -> Parts {
        let list = |key| match example.has(key) {
            true => example.text(key).split(',').collect::<Vec<_>>(),
            false => Vec::new(),
        };
        let counts = list("counts").into_iter().map(|pair| {
            let (lane, count) = pair.split_once(':').expect("lane:count");
            LaneCount {
                lane: lane.parse().expect("a lane"),
                count: count.parse().expect("a count"),
            }
        });
        Parts {
            data: if example.has("data") {
                example.data()
            } else {
                Vec::new()
            },
            body: if example.has("body") {
                unhex(example.text("body"))
            } else {
                Vec::new()
            },
            counts: counts.collect(),
            addresses: list("addresses"),
        }
    }

    fn frame<'a>(&'a self, example: &Example) -> Frame<'a> {
        let number = |key| example.number(key);
        match example.text("frame") {
            "REJECT" => Frame::Handshake {
                kind: HandshakeKind::Reject,
                body: &self.body,
            },
            "ACK" => Frame::Ack {
                path: number("path"),
                lane: number("lane"),
                count: number("count"),
                delay_us: number("delay_us"),
            },
            "ACK_HERE" => Frame::AckHere {
                count: number("count"),
                delay_us: number("delay_us"),
            },
            "PING" => Frame::Ping { seq: number("seq") },
            "PONG" => Frame::Pong { seq: number("seq") },
            "RESET_STREAM" => Frame::ResetStream {
                id: example.id(),
                code: number("code"),
                final_size: number("final_size"),
            },
            "STOP_SENDING" => Frame::StopSending {
                id: example.id(),
                code: number("code"),
            },
            "MAX_DATA" => Frame::MaxData {
                class: example.class(),
                value: number("value"),
            },
            "MAX_STREAMS" => Frame::MaxStreams {
                class: example.class(),
                kind: kind(example.text("kind")),
                value: number("value"),
            },
            "MAX_STREAM_DATA" => Frame::MaxStreamData {
                id: example.id(),
                value: number("value"),
            },
            "STREAM" => Frame::Stream {
                id: example.id(),
                offset: example.optional("offset"),
                fin: example.has("fin"),
                data: &self.data,
            },
            "DATAGRAM" => Frame::Datagram {
                number: number("number"),
                class: example.optional("class").map(class),
                data: &self.data,
            },
            _ => self.path_frame(example),
        }
    }

    fn path_frame<'a>(&'a self, example: &Example) -> Frame<'a> {
        let number = |key| example.number(key);
        match example.text("frame") {
            "PATH_STATUS" => Frame::PathStatus {
                path: number("path"),
                seq: number("seq"),
                status: [PathStatus::Active, PathStatus::Standby, PathStatus::Leave]
                    [number("status") as usize],
                in_flight: number("in_flight"),
            },
            "ADVERTISE" => Frame::Advertise(AdvertiseFrame {
                seq: number("seq"),
                addresses: Addresses::new(&self.addresses).expect("within limits"),
            }),
            "PATH_ABANDON" => Frame::PathAbandon {
                path: number("path"),
                code: number("code"),
                counts: Counts::new(&self.counts).expect("within limits"),
            },
            "GOAWAY" => Frame::GoAway {
                code: number("code"),
                reason: example.text("reason"),
                address: example.text("address"),
            },
            "CLOSE" => Frame::Close {
                code: number("code"),
                reason: example.text("reason"),
            },
            other => panic!("line {}: unknown frame {other}", example.line),
        }
    }
}

fn encode(frame: &Frame<'_>, last: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if last {
        frame.encode_last(&mut bytes);
    } else {
        frame.encode(&mut bytes);
    }
    bytes
}

fn check_frame(example: &Example) {
    let mut input = &example.bytes[..];
    let decoded = Frame::decode(&mut input);
    assert!(input.is_empty(), "line {}: bytes left over", example.line);
    if example.text("frame") == "EXTENSION" {
        assert_eq!(decoded, Ok(None), "line {}", example.line);
        return;
    }
    let parts = Parts::of(example);
    let frame = parts.frame(example);
    assert_eq!(decoded, Ok(Some(frame)), "line {}", example.line);
    assert_eq!(
        encode(&frame, !example.has("length")),
        example.bytes,
        "line {}",
        example.line
    );
    if let Frame::Handshake { body, .. } = frame {
        check_reject(body);
    }
}

fn check_reject(body: &[u8]) {
    let reject = Reject::decode(body).expect("a REJECT");
    assert_eq!(
        reject,
        Reject::new(RejectCode::REDIRECT, "moved").with_address("b.example:443")
    );
    let mut again = Vec::new();
    reject.encode(&mut again);
    assert_eq!(again, body);
}

// ---- records ----

const LIVE: RecordLimits = RecordLimits {
    max_body: 65_536,
    require_crc: false,
    allow_lz4: true,
};

fn written(out: &OutBuffer) -> &[u8] {
    let bytes = out.chunk();
    assert_eq!(bytes.len(), out.len(), "one piece");
    bytes
}

fn check_record(example: &Example) {
    let how = example.text("record");
    let (crc, lz4) = (how.contains("crc"), how.contains("lz4"));
    let parts = Parts::of(example);
    let frame = parts.frame(example);
    let mut out = OutBuffer::new();
    let mut builder = RecordBuilder::begin(&mut out, 65_536, crc);
    assert!(builder.last_frame(&frame));
    if example.has("ack-now") {
        builder.set_ack_now();
    }
    if lz4 {
        builder.finish_compressed(&mut Compressor::new());
    } else {
        builder.finish();
        assert_eq!(written(&out), example.bytes, "line {}", example.line);
    }
    let limits = RecordLimits {
        require_crc: crc,
        allow_lz4: lz4,
        ..LIVE
    };
    for mut bytes in [&example.bytes[..], written(&out)] {
        let mut scratch = Vec::new();
        let record = split_record(&mut bytes, &limits, &mut scratch).expect("a good record");
        let record = record.expect("a whole record");
        assert!(bytes.is_empty());
        assert_eq!(record.ack_now, example.has("ack-now"));
        assert_eq!(record.compressed, lz4);
        let frames: Result<Vec<_>, _> = record.frames().collect();
        assert_eq!(frames, Ok(vec![frame]), "line {}", example.line);
    }
}

fn check_messages(example: &Example) {
    let mut bytes = Vec::new();
    for message in example.text("messages").split(',') {
        varint::put(&mut bytes, message.len() as u64);
        bytes.extend_from_slice(message.as_bytes());
    }
    assert_eq!(bytes, example.bytes, "line {}", example.line);
}

// ---- the handshake: through the crate, and by the words of PROTOCOL 5.3 ----

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

fn check_message(example: &Example) {
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

fn check_value(example: &Example) {
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

struct Conversation {
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
    fn check(&self, example: &Example) {
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
            ("request", _) => vec![ack(1, 180), data(b"\x04echohello")],
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

//! Every example in `docs/PROTOCOL.md` is what this crate writes, and reads. PROTOCOL 12.1.
//!
//! An example is a block that opens with three backquotes, `hex`, and words `key=value`; the bytes follow
//! in hexadecimal. The test builds what the words say, compares the bytes, and decodes them again.

use std::collections::BTreeMap;

use sheetbend_core::handshake::Params;
use sheetbend_core::wire::{
    Class, Compressor, Kind, OutBuffer, RecordBuilder, RecordLimits, Side, StreamId, split_record, varint,
};

mod calls;
mod frames;
mod handshake;

use calls::{check_answer, check_end, check_items, check_request};
use frames::{Parts, check_frame};
use handshake::{Conversation, check_message, check_value};

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// How many examples the page has, by the first word of their info string.
const EXPECTED: [(&str, usize); 12] = [
    ("answer", 5),
    ("end", 2),
    ("frame", 28),
    ("items", 1),
    ("message", 7),
    ("record", 4),
    ("request", 7),
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
            "request" => check_request(example),
            "answer" => check_answer(example),
            "items" => check_items(example),
            "end" => check_end(example),
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

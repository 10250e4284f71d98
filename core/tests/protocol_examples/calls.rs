//! Examples of calls.

use std::time::Duration;

use bytes::Bytes;
use sheetbend_core::request::{
    Answer, AnswerPart, AnswerReader, CallKind, Code, Executed, Failure, IdempotencyKey, ItemReader, Limits,
    Metadata, Method, Piece, Pushback, Reason, RequestHead, TimeLeft, TraceContext, put_end, put_failure,
    put_item_head, put_success,
};

use super::Example;

/// `key:value` pairs with commas between them.
fn metadata(example: &Example) -> Metadata {
    if !example.has("metadata") {
        return Metadata::new();
    }
    let pairs = example.text("metadata").split(',').map(|pair| {
        let (key, value) = pair.split_once(':').expect("key:value");
        (key, value.as_bytes())
    });
    Metadata::from_entries(pairs).expect("within limits")
}

fn call_kind(example: &Example) -> CallKind {
    match example.has("kind").then(|| example.text("kind")) {
        None => CallKind::Unary,
        Some("server-streaming") => CallKind::ServerStreaming,
        Some("client-streaming") => CallKind::ClientStreaming,
        Some("bidirectional") => CallKind::Bidirectional,
        Some(other) => panic!("line {}: kind {other}", example.line),
    }
}

/// PROTOCOL 11.2.
pub(super) fn check_request(example: &Example) {
    let metadata = metadata(example);
    let index = u32::try_from(example.number("method")).expect("an index");
    let method = match (index, example.has("name")) {
        (0, _) => Method::Named(example.text("name")),
        (index, true) => Method::Define {
            index,
            name: example.text("name"),
        },
        (index, false) => Method::Index(index),
    };
    let head = RequestHead {
        kind: call_kind(example),
        time_left: example
            .optional("time-left")
            .map(|micros| TimeLeft::from_micros(micros).expect("a time")),
        key: example
            .has("key")
            .then(|| IdempotencyKey::new(example.text("key").as_bytes()).expect("a key")),
        trace: example
            .has("trace")
            .then(|| TraceContext::from_traceparent(example.text("trace")).expect("a trace")),
        metadata: metadata.as_block(),
        repeatable: example.has("repeatable"),
        attempt: example.optional("attempt").unwrap_or(0),
        ..RequestHead::unary(method)
    };
    let payload = match example.has("payload") {
        true => example.text("payload").as_bytes(),
        false => b"",
    };
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    assert_eq!(bytes, example.bytes, "line {}", example.line);
    let mut input = &example.bytes[..];
    assert_eq!(
        RequestHead::decode(&mut input),
        Ok(Some(head)),
        "line {}",
        example.line
    );
    assert_eq!(input, payload);
}

fn failure(example: &Example) -> Failure {
    let code = Code::from_value(u32::try_from(example.number("code")).expect("a code"));
    let mut failure = Failure::new(code, example.text("message"));
    if example.has("executed") {
        failure.executed = Executed::No;
    }
    failure.reason = example.optional("reason").map(Reason::from_value);
    if let Some(ms) = example.optional("after") {
        failure.pushback = Pushback::After(Duration::from_millis(ms));
    }
    if example.has("details") {
        failure.details = Bytes::from_static(example.text("details").as_bytes());
    }
    failure
}

/// PROTOCOL 11.4.
pub(super) fn check_answer(example: &Example) {
    let metadata = metadata(example);
    let mut bytes = Vec::new();
    let result = if example.number("code") == 0 {
        put_success(&mut bytes, &metadata);
        bytes.extend_from_slice(example.text("payload").as_bytes());
        Ok(Bytes::from_static(example.text("payload").as_bytes()))
    } else {
        let failure = failure(example);
        put_failure(&mut bytes, &failure, &metadata);
        Err(failure)
    };
    assert_eq!(bytes, example.bytes, "line {}", example.line);
    let answer = Answer::from_whole(Bytes::from(bytes));
    assert_eq!(answer, Ok(Answer { metadata, result }), "line {}", example.line);
}

/// PROTOCOL 11.5.
pub(super) fn check_items(example: &Example) {
    let mut bytes = Vec::new();
    let mut reader = ItemReader::new(100);
    reader.push(Bytes::from(example.bytes.clone()));
    for item in example.text("items").split(',') {
        put_item_head(&mut bytes, item.len());
        bytes.extend_from_slice(item.as_bytes());
        let expected = Piece::Item(Bytes::from_static(item.as_bytes()));
        assert_eq!(reader.next(), Ok(Some(expected)), "line {}", example.line);
    }
    assert_eq!((reader.next(), reader.finish()), (Ok(None), Ok(())));
    assert_eq!(bytes, example.bytes, "line {}", example.line);
}

/// PROTOCOL 11.5.
pub(super) fn check_end(example: &Example) {
    let trailers = metadata(example);
    let result = match example.number("code") {
        0 => Ok(()),
        _ => Err(failure(example)),
    };
    let mut bytes = Vec::new();
    put_end(&mut bytes, result.as_ref().copied(), &trailers);
    assert_eq!(bytes, example.bytes, "line {}", example.line);
    let mut reader = AnswerReader::new(CallKind::ServerStreaming, Limits::default());
    reader.push(Bytes::from_static(&[0]));
    reader.push(Bytes::from(bytes));
    reader.finish();
    assert_eq!(reader.next(), Ok(Some(AnswerPart::Head(Metadata::new()))));
    assert_eq!(reader.next(), Ok(Some(AnswerPart::End { trailers, result })));
}

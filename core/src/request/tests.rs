//! Whole calls, cut into any pieces, and what a bad peer makes of them. PROTOCOL 11.

use bytes::Bytes;

use super::*;

const LIMITS: Limits = Limits {
    max_payload: 1000,
    max_item: 100,
};

/// What a callee makes of a request that comes in pieces of `size`.
fn read_request(
    wire: &[u8],
    size: usize,
    methods: &mut PeerMethods,
) -> Result<(CallHead, Vec<Bytes>), RequestError> {
    let mut reader = RequestReader::new(LIMITS);
    let (mut head, mut parts, mut ended) = (None, Vec::new(), false);
    let mut pieces = wire.chunks(size);
    while !ended {
        match pieces.next() {
            Some(piece) => reader.push(Bytes::copy_from_slice(piece)),
            None => {
                reader.finish();
                ended = true;
            }
        }
        while let Some(part) = reader.next(methods)? {
            match part {
                RequestPart::Head(found) => head = Some(*found),
                RequestPart::Payload(part) | RequestPart::Item(part) => parts.push(part),
                RequestPart::End => {}
            }
        }
    }
    Ok((head.expect("a head"), parts))
}

type Read = (Vec<Bytes>, Metadata, Result<(), Failure>);

/// What a caller makes of an answer that comes in pieces of `size`.
fn read_answer(kind: CallKind, wire: &[u8], size: usize) -> Result<Read, AnswerError> {
    let mut reader = AnswerReader::new(kind, LIMITS);
    let (mut parts, mut end) = (Vec::new(), None);
    let mut pieces = wire.chunks(size);
    loop {
        let piece = pieces.next();
        match piece {
            Some(piece) => reader.push(Bytes::copy_from_slice(piece)),
            None => reader.finish(),
        }
        while let Some(part) = reader.next()? {
            match part {
                AnswerPart::Head(_) => assert!(reader.has_begun()),
                AnswerPart::Payload(part) | AnswerPart::Item(part) => parts.push(part),
                AnswerPart::End { trailers, result } => end = Some((trailers, result)),
            }
        }
        if piece.is_none() {
            let (trailers, result) = end.expect("an end");
            return Ok((parts, trailers, result));
        }
    }
}

fn request(kind: CallKind, parts: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    let method = Method::Define { index: 3, name: "m" };
    RequestHead {
        kind,
        ..RequestHead::unary(method)
    }
    .encode(&mut wire);
    for part in parts {
        if kind.request_items() {
            put_item_head(&mut wire, part.len());
        }
        wire.extend_from_slice(part);
    }
    wire
}

const KINDS: [CallKind; 4] = [
    CallKind::Unary,
    CallKind::ServerStreaming,
    CallKind::ClientStreaming,
    CallKind::Bidirectional,
];

#[test]
fn four_kinds_in_any_pieces() {
    for kind in KINDS {
        let sent: &[&[u8]] = match kind.request_items() {
            true => &[b"one", b"", b"three"],
            false => &[b"payload"],
        };
        let wire = request(kind, sent);
        let mut answer = Vec::new();
        put_success(&mut answer, &Metadata::new());
        let back: &[&[u8]] = match kind.answer_items() {
            true => &[b"a", b"bb", b""],
            false => &[b"answer"],
        };
        for part in back {
            if kind.answer_items() {
                put_item_head(&mut answer, part.len());
            }
            answer.extend_from_slice(part);
        }
        for size in 1..=wire.len() {
            let (head, parts) = read_request(&wire, size, &mut PeerMethods::new()).unwrap();
            assert_eq!(
                (head.kind, head.method, &parts[..]),
                (kind, CalledMethod::Index(3), &owned(sent)[..])
            );
        }
        for size in 1..=answer.len() {
            let (parts, _, result) = read_answer(kind, &answer, size).unwrap();
            assert_eq!((parts, result), (owned(back), Ok(())));
        }
    }
}

fn owned(parts: &[&[u8]]) -> Vec<Bytes> {
    parts.iter().map(|part| Bytes::copy_from_slice(part)).collect()
}

#[test]
fn ends_with_trailers_and_failures() {
    let trailers = Metadata::from_entries([("rows", &b"2"[..])]).unwrap();
    let failure = Failure::new(Code::DataLoss, "lost").with_details(Bytes::from_static(b"why"));
    for result in [Ok(()), Err(failure)] {
        let mut wire = Vec::new();
        put_success(&mut wire, &Metadata::new());
        put_item_head(&mut wire, 4);
        wire.extend_from_slice(b"item");
        put_end(&mut wire, result.as_ref().copied(), &trailers);
        for size in 1..=wire.len() {
            let (parts, found, end) = read_answer(CallKind::ServerStreaming, &wire, size).unwrap();
            assert_eq!((parts.len(), &found, &end), (1, &trailers, &result));
        }
    }
    // A failure instead of an answer, for every kind.
    let refused = Failure::refused(Code::Unavailable, Reason::Draining);
    let mut wire = Vec::new();
    put_failure(&mut wire, &refused, &trailers);
    for kind in KINDS {
        for size in 1..=wire.len() {
            let (parts, found, end) = read_answer(kind, &wire, size).unwrap();
            assert_eq!((parts.len(), &found, end), (0, &trailers, Err(refused.clone())));
        }
    }
}

/// Bad input: answers twice, data after the end, answers that are cut off.
#[test]
fn answers_that_go_on_or_stop_short() {
    let mut twice = Vec::new();
    put_success(&mut twice, &Metadata::new());
    let trailers = Metadata::from_entries([("k", &b"v"[..])]).unwrap();
    put_end(&mut twice, Ok(()), &trailers);
    put_success(&mut twice, &Metadata::new());
    for size in 1..=twice.len() {
        let error = read_answer(CallKind::Bidirectional, &twice, size).unwrap_err();
        assert_eq!(error, AnswerError::AfterEnd);
        assert_eq!(error.classify().category, Category::Protocol);
    }
    let cut: [(&[u8], AnswerError); 4] = [
        (b"", AnswerError::Cut),
        (b"\x80", AnswerError::Cut),
        (b"\x00\x05abc", AnswerError::Item(ItemError::Cut)),
        (b"\x00\x00", AnswerError::Cut),
    ];
    for (wire, expected) in cut {
        assert_eq!(
            read_answer(CallKind::ServerStreaming, wire, 1),
            Err(expected),
            "{wire:?}"
        );
    }
    let endless = vec![0; 1002];
    let error = read_answer(CallKind::Unary, &endless, 100).unwrap_err();
    assert_eq!(error, AnswerError::TooLarge { max: 1000 });
    let long_item = b"\x00\x66";
    let error = read_answer(CallKind::ServerStreaming, long_item, 3).unwrap_err();
    assert_eq!(
        error,
        AnswerError::Item(ItemError::TooLong { len: 101, max: 100 })
    );
    // A failure without an end is not waited for without an end.
    let mut reader = AnswerReader::new(CallKind::Unary, LIMITS);
    reader.push(Bytes::from_static(&[26, 0]));
    reader.push(Bytes::from(vec![0; MAX_MESSAGE + MAX_DETAILS + 100]));
    assert_eq!(reader.next(), Err(AnswerError::DetailsTooLong));
    assert_eq!(
        (reader.next(), reader.held()),
        (Err(AnswerError::DetailsTooLong), 0)
    );
}

/// Bad input: unknown method index, oversized metadata, absurd deadline, items that break their rules. Each
/// is answered by a failure of that call, and the tables stay as they were.
#[test]
fn requests_that_break_the_rules() {
    let mut methods = PeerMethods::new();
    let reason = |wire: &[u8], methods: &mut PeerMethods| {
        let failure = read_request(wire, 1, methods).unwrap_err().failure();
        (failure.reason.expect("the library's own"), failure.executed)
    };
    let no = Executed::No;
    assert_eq!(reason(&[2 << 1], &mut methods), (Reason::UnknownIndex, no));
    assert_eq!(
        reason(&[3, 0x40, 0xc0, 0x40, 0x01], &mut methods),
        (Reason::BadMetadata, no)
    );
    assert_eq!(reason(&[3, 0x48, 0], &mut methods), (Reason::BadDeadline, no));
    assert_eq!(reason(&[3, 0xff], &mut methods), (Reason::MalformedHead, no));
    assert_eq!(reason(&[], &mut methods), (Reason::MalformedHead, no));
    let mut big = request(CallKind::Unary, &[&[7; 1001]]);
    assert_eq!(reason(&big, &mut methods), (Reason::TooLarge, no));
    big.truncate(100);
    assert!(read_request(&big, 7, &mut methods).is_ok());
    // The handler of a streaming call may have begun.
    for (items, expected) in [
        (&b"\x00"[..], Reason::MalformedBody),
        (b"\x05a", Reason::MalformedBody),
        (b"\x80\x01", Reason::MalformedBody),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", Reason::TooLarge),
    ] {
        let mut wire = request(CallKind::ClientStreaming, &[b"first"]);
        wire.extend_from_slice(items);
        assert_eq!(
            reason(&wire, &mut methods),
            (expected, Executed::Yes),
            "{items:?}"
        );
    }
    let other = [7, 4, 1, b'x'];
    assert_eq!(reason(&other, &mut methods), (Reason::MalformedHead, no));
    assert_eq!(methods.name(3), Some("m"));
}

#[test]
fn a_whole_request_is_taken_without_a_copy() {
    let mut methods = PeerMethods::new();
    let mut wire = Vec::new();
    let metadata = Metadata::from_entries([("user", &b"ann"[..])]).unwrap();
    let head = RequestHead {
        key: Some(IdempotencyKey::new(b"key").unwrap()),
        metadata: metadata.as_block(),
        ..RequestHead::unary(Method::Named("once"))
    };
    head.encode(&mut wire);
    wire.extend_from_slice(b"payload");
    let whole = Bytes::from(wire);
    let mut body = whole.clone();
    let head = CallHead::take(&mut body, true, &mut methods).unwrap().unwrap();
    assert_eq!(
        (head.name(&methods), head.key.as_deref()),
        ("once", Some(&b"key"[..]))
    );
    assert_eq!(body.as_ptr(), whole[whole.len() - 7..].as_ptr());
    let mut part = whole.slice(..5);
    assert_eq!(CallHead::take(&mut part, false, &mut methods), Ok(None));
    assert_eq!(CallHead::take(&mut part, true, &mut methods), Err(HeadError::Cut));
}

#[test]
fn any_bytes_of_a_peer() {
    bolero::check!()
        .with_type::<(Vec<u8>, u8, u8)>()
        .for_each(|(wire, size, kind)| {
            let size = usize::from(*size).max(1);
            let whole = read_request(wire, wire.len().max(1), &mut PeerMethods::new());
            let parts = read_request(wire, size, &mut PeerMethods::new());
            assert_eq!(whole.is_ok(), parts.is_ok());
            if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
                assert_eq!(whole, parts);
            }
            let kind = KINDS[usize::from(kind % 4)];
            let whole = read_answer(kind, wire, wire.len().max(1));
            let parts = read_answer(kind, wire, size);
            assert_eq!(whole.is_ok(), parts.is_ok());
            if let (Ok(whole), Ok(parts)) = (whole, parts) {
                assert_eq!(whole, parts);
            }
        });
}

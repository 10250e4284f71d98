//! The codec of calls: no bytes make it panic, what it accepts is what would be sent, and it does not matter in
//! which pieces they come. PROTOCOL 11.

use bolero::check;
use bytes::Bytes;
use sheetbend_core::request::reader::Limits;
use sheetbend_core::request::{
    Answer, AnswerPart, AnswerReader, CallHead, CallKind, MAX_HEAD, MethodTable, PeerMethods, RequestHead,
    RequestPart, RequestReader, put_failure, put_success,
};

const LIMITS: Limits = Limits {
    max_payload: 2000,
    max_item: 500,
};
const KINDS: [CallKind; 4] = [
    CallKind::Unary,
    CallKind::ServerStreaming,
    CallKind::ClientStreaming,
    CallKind::Bidirectional,
];

/// PROTOCOL 11.2.
#[test]
fn heads() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = bytes;
        let mut body = Bytes::copy_from_slice(bytes);
        let taken = CallHead::take(&mut body, false, &mut PeerMethods::new());
        match RequestHead::decode(&mut input) {
            Ok(Some(head)) => {
                let used = bytes.len() - input.len();
                assert!(used <= MAX_HEAD);
                let mut again = Vec::new();
                head.encode(&mut again);
                // An index may carry flags that say nothing; everything else has one form.
                assert_eq!(RequestHead::decode(&mut &again[..]), Ok(Some(head)));
                assert!(again.len() <= used);
                for cut in 0..used {
                    assert_eq!(RequestHead::decode(&mut &bytes[..cut]), Ok(None));
                }
                if let Ok(taken) = taken {
                    assert_eq!(taken.expect("it is there").kind, head.kind);
                    assert_eq!(body, input);
                }
            }
            Ok(None) => {
                assert_eq!((input.len(), taken), (bytes.len(), Ok(None)));
                assert!(bytes.len() < MAX_HEAD);
            }
            Err(error) => {
                assert_eq!(taken, Err(error));
                // The answer to it can be sent and read.
                let mut answer = Vec::new();
                put_failure(&mut answer, &error.failure(), &Default::default());
                let read = Answer::from_whole(answer.into()).expect("an answer");
                assert_eq!(read.result, Err(error.failure()));
            }
        }
    });
}

/// All parts of a request that comes in pieces of `size`, and whether it ended in an error.
fn request(bytes: &[u8], size: usize) -> (Vec<RequestPart>, bool) {
    let (mut reader, mut methods) = (RequestReader::new(LIMITS), PeerMethods::new());
    let mut parts = Vec::new();
    for piece in bytes.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next(&mut methods) {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => break,
                Err(_) => return (parts, true),
            }
        }
        assert!(reader.held() <= MAX_HEAD.max(LIMITS.max_payload) + size);
    }
    reader.finish();
    loop {
        match reader.next(&mut methods) {
            Ok(Some(part)) => parts.push(part),
            Ok(None) => return (parts, false),
            Err(_) => return (parts, true),
        }
    }
}

/// PROTOCOL 11.5, as a callee reads it.
#[test]
fn requests() {
    check!().for_each(|bytes: &[u8]| {
        let (&size, bytes) = bytes.split_first().unwrap_or((&0, &[]));
        let (parts, failed) = request(bytes, usize::from(size).max(1));
        let (whole, whole_failed) = request(bytes, bytes.len().max(1));
        assert_eq!(failed, whole_failed);
        if !failed {
            assert_eq!(parts, whole);
            assert!(matches!(
                parts.last(),
                Some(RequestPart::Payload(_) | RequestPart::End)
            ));
        }
    });
}

/// All parts of an answer that comes in pieces of `size`, and whether it ended in an error.
fn answer(kind: CallKind, bytes: &[u8], size: usize) -> (Vec<AnswerPart>, bool) {
    let mut reader = AnswerReader::new(kind, LIMITS);
    let mut parts = Vec::new();
    for piece in bytes.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next() {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => break,
                Err(_) => return (parts, true),
            }
        }
        assert!(reader.held() <= 40_000 + size);
    }
    reader.finish();
    loop {
        match reader.next() {
            Ok(Some(part)) => parts.push(part),
            Ok(None) => return (parts, false),
            Err(_) => return (parts, true),
        }
    }
}

/// PROTOCOL 11.4 and 11.5, as a caller reads them.
#[test]
fn answers() {
    check!().for_each(|bytes: &[u8]| {
        let (&first, bytes) = bytes.split_first().unwrap_or((&0, &[]));
        let kind = KINDS[usize::from(first & 3)];
        let (parts, failed) = answer(kind, bytes, usize::from(first >> 2).max(1));
        let (whole, whole_failed) = answer(kind, bytes, bytes.len().max(1));
        assert_eq!(failed, whole_failed);
        if failed {
            return;
        }
        assert_eq!(parts, whole);
        assert!(matches!(parts.last(), Some(AnswerPart::End { .. })));
        if kind.answer_items() {
            return;
        }
        // Whole, it is the same.
        let read = Answer::from_whole(Bytes::copy_from_slice(bytes)).expect("it was read in pieces");
        match (&read.result, &parts[..]) {
            (Ok(payload), [AnswerPart::Head(metadata), AnswerPart::Payload(same), _]) => {
                assert_eq!((payload, &read.metadata), (same, metadata));
                let mut again = Vec::new();
                put_success(&mut again, metadata);
                again.extend_from_slice(payload);
                assert_eq!(Answer::from_whole(again.into()), Ok(read));
            }
            (Err(failure), [AnswerPart::End { result, .. }]) => assert_eq!(&Err(failure.clone()), result),
            (result, parts) => panic!("{result:?} where {parts:?} came"),
        }
    });
}

/// PROTOCOL 11.6: whatever is lost, late or overtaken, the callee knows the name of every call that it is sent.
#[test]
fn names() {
    check!().for_each(|bytes: &[u8]| {
        let (mut table, mut peer) = (MethodTable::new(), PeerMethods::new());
        // Heads on their way, with the name that each is of.
        let mut flying: Vec<(Vec<u8>, String)> = Vec::new();
        for &byte in bytes {
            if byte & 0x80 == 0 || flying.is_empty() {
                let name = format!("method {}", byte & 0x0f);
                let mut head = Vec::new();
                let method = table.method(&name).expect("a name");
                RequestHead::unary(method).encode(&mut head);
                flying.push((head, name));
                continue;
            }
            let (head, name) = flying.swap_remove(usize::from(byte & 0x3f) % flying.len());
            let head = RequestHead::decode(&mut &head[..])
                .expect("sound")
                .expect("whole");
            let resolved = peer.resolve(head.method).expect("it knows the name");
            assert_eq!(resolved.name, name);
            // Its answer may be lost.
            if byte & 0x40 == 0
                && let Some(index) = head.method.defines()
            {
                table.handle_answer(index);
            }
        }
        assert!(table.len() <= 16);
    });
}

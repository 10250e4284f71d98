//! What a peer that breaks the rules of calls brings about: a typed error for that call, bounded memory, and a
//! session that goes on. The other end writes its bytes by hand. PROTOCOL 11.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Pair, pair, until};
use bytes::Bytes;
use sheetbend_tokio::core::request::{
    Answer, AnswerError, IdempotencyKey, ItemError, Method, RequestHead, put_item_head, put_success,
};
use sheetbend_tokio::{
    CallCause, CallError, CallKind, CallLimits, Class, Code, Executed, Failure, KeyConfig, Metadata, Reason,
    Router, RouterBuilder, Session,
};
use tokio::sync::Semaphore;

fn router(runs: &Arc<AtomicUsize>) -> RouterBuilder {
    let (unary, streamed) = (runs.clone(), runs.clone());
    Router::builder()
        .unary("echo", move |_, payload| {
            unary.fetch_add(1, Ordering::SeqCst);
            async move { Ok(payload) }
        })
        .client_streaming("sum", move |_, mut items| {
            streamed.fetch_add(1, Ordering::SeqCst);
            async move {
                while items.next().await?.is_some() {}
                Ok(())
            }
        })
}

async fn served(router: RouterBuilder) -> (Pair, Router) {
    let pair = pair("mem").await;
    let router = router.build();
    let (session, serving) = (pair.peer.clone(), router.clone());
    tokio::spawn(async move { serving.serve(session).await });
    (pair, router)
}

/// Sends these bytes as a request; gives what is answered.
async fn ask(client: &Session, bytes: &[u8]) -> Failure {
    let mut stream = client.open_bi(Class::REQUESTS).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let _ = stream.finish();
    let answer = stream.read_to_end(100_000).await.unwrap();
    Answer::from_whole(answer).unwrap().result.unwrap_err()
}

/// A head, and what follows it.
fn request(head: RequestHead<'_>, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

async fn still_fine(client: &Session) {
    assert_eq!(client.request("echo", "still fine").await.unwrap(), "still fine");
}

fn settled(pair: &Pair) -> bool {
    (pair.client.stats().streams, pair.peer.stats().streams) == (0, 0)
}

async fn settle(pair: &Pair) {
    until(&pair.client, || settled(pair)).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_methods() {
    let runs = Arc::default();
    let (pair, _) = served(router(&runs)).await;
    let refused = |failure: &Failure| (failure.code, failure.reason, failure.executed);
    let unknown = ask(
        &pair.client,
        &request(RequestHead::unary(Method::Named("none")), b"x"),
    )
    .await;
    let expected = (Code::Unimplemented, Some(Reason::NoSuchMethod), Executed::No);
    assert_eq!(refused(&unknown), expected);
    // A number that stands for nothing, and one of another kind than is called.
    let index = ask(
        &pair.client,
        &request(RequestHead::unary(Method::Index(700)), b"x"),
    )
    .await;
    assert_eq!(
        (index.reason, index.executed),
        (Some(Reason::UnknownIndex), Executed::No)
    );
    let kind = ask(
        &pair.client,
        &request(RequestHead::unary(Method::Named("sum")), b"x"),
    )
    .await;
    assert_eq!(refused(&kind), expected);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    still_fine(&pair.client).await;
    settle(&pair).await;
}

#[tokio::test(start_paused = true)]
async fn oversized_metadata() {
    let runs = Arc::default();
    let (pair, _) = served(router(&runs)).await;
    // Named echo, metadata of 16,385 bytes: it is refused when its length has come, and not a byte more.
    let head = [1, 0x44, 4, b'e', b'c', b'h', b'o', 0x81, 0x80, 0x01];
    let mut stream = pair.client.open_bi(Class::REQUESTS).await.unwrap();
    let bytes = [&[1, 0x44, 4][..], b"echo", &[0xc0, 0x40, 0x01]].concat();
    assert_eq!(head.len(), bytes.len());
    stream.write_all(&bytes).await.unwrap();
    let answer = stream.read_to_end(100_000).await.unwrap();
    let failure = Answer::from_whole(answer).unwrap().result.unwrap_err();
    assert_eq!(
        (failure.code, failure.reason, failure.executed),
        (Code::ResourceExhausted, Some(Reason::BadMetadata), Executed::No)
    );
    drop(stream);
    // The caller's own is refused before it is sent.
    assert!(pair.client.call("echo").header("big", &[0; 20_000]).is_err());
    assert!(pair.client.call("echo").header("Not A Key", b"").is_err());
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    still_fine(&pair.client).await;
    settle(&pair).await;
}

#[tokio::test(start_paused = true)]
async fn absurd_deadlines() {
    let runs = Arc::default();
    let (pair, _) = served(router(&runs)).await;
    let zero = [&[1, 0x0c, 4][..], b"echo", &[0]].concat();
    let huge = [&[1, 0x0c, 4][..], b"echo", &[0xff; 9]].concat();
    for bytes in [zero, huge] {
        let failure = ask(&pair.client, &bytes).await;
        assert_eq!(
            (failure.code, failure.reason, failure.executed),
            (Code::InvalidArgument, Some(Reason::BadDeadline), Executed::No)
        );
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    // The caller's own: what is past is not sent, what is too far is sent as far as may be.
    let error = pair
        .client
        .call("echo")
        .timeout(Duration::ZERO)
        .unary("")
        .await
        .unwrap_err();
    assert_eq!(error, CallError::NotSent(CallCause::Deadline));
    let call = pair.client.call("echo").timeout(Duration::from_secs(1 << 30));
    assert_eq!(call.unary("x").await.unwrap().payload, "x");
    still_fine(&pair.client).await;
    settle(&pair).await;
}

/// Opens calls and gives each up at once, as fast as it can.
#[tokio::test(start_paused = true)]
async fn rapid_reset() {
    let runs = Arc::default();
    let hang = router(&runs).unary("hang", |_, _| std::future::pending::<Result<(), Failure>>());
    let (pair, router) = served(hang).await;
    let whole = request(RequestHead::unary(Method::Named("hang")), b"x");
    for number in 0..20_000_u32 {
        let mut stream = pair.client.open_bi(Class::REQUESTS).await.unwrap();
        stream
            .write_all(&whole[..whole.len() - (number % 2) as usize])
            .await
            .unwrap();
        match number % 3 {
            0 => stream.finish().unwrap(),
            1 => stream.send().reset(0).unwrap(),
            _ => tokio::task::yield_now().await,
        }
        drop(stream);
        assert!(pair.peer.stats().streams <= 1100, "{:?}", pair.peer.stats());
    }
    still_fine(&pair.client).await;
    settle(&pair).await;
    assert_eq!((router.running(), router.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn cancellation_flood() {
    let runs = Arc::default();
    let (started, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    struct Noted(Arc<AtomicUsize>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (start, end) = (started.clone(), dropped.clone());
    let hang = router(&runs)
        .unary("hang", move |_, _| {
            start.fetch_add(1, Ordering::SeqCst);
            let noted = Noted(end.clone());
            async move {
                std::future::pending::<()>().await;
                drop(noted);
                Ok(())
            }
        })
        .limits(CallLimits {
            max_running: 100,
            max_waiting: 200,
            ..CallLimits::default()
        });
    let (pair, router) = served(hang).await;
    for _ in 0..50 {
        let calls: Vec<_> = (0..500)
            .map(|_| {
                let client = pair.client.clone();
                tokio::spawn(async move { client.request("hang", "x").await })
            })
            .collect();
        pair.client.sleep(Duration::from_millis(2)).await;
        assert!(router.running() <= 100 && router.waiting() <= 200);
        for call in calls {
            call.abort();
        }
    }
    still_fine(&pair.client).await;
    settle(&pair).await;
    assert_eq!((router.running(), router.waiting()), (0, 0));
    assert!(started.load(Ordering::SeqCst) > 0);
    assert_eq!(started.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
}

/// Asks for a mebibyte again and again, and reads none of it.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_answers() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let runs = Arc::default();
    let counted = router(&runs).unary("counted", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(vec![7; 1024 * 1024]) }
    });
    let (pair, _) = served(counted).await;
    let whole = request(RequestHead::unary(Method::Named("counted")), b"x");
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut stream = pair.client.open_bi(Class::REQUESTS).await.unwrap();
        stream.write_all(&whole).await.unwrap();
        stream.finish().unwrap();
        streams.push(stream);
        tokio::task::yield_now().await;
    }
    pair.client.sleep(Duration::from_secs(1)).await;
    let held = made.load(Ordering::SeqCst);
    assert!(
        (65..=130).contains(&held),
        "{held} answers of 1 MiB are made for one who reads none"
    );
    // Once they are given up, the others come, and calls are served again.
    streams.truncate(200);
    pair.client.sleep(Duration::from_secs(1)).await;
    drop(streams);
    still_fine(&pair.client).await;
    settle(&pair).await;
}

#[tokio::test(start_paused = true)]
async fn answers_twice() {
    answered_with(|bytes| {
        put_success(bytes, &Metadata::new());
        put_item_head(bytes, 1);
        bytes.push(b'x');
        // The end, and then another answer.
        bytes.extend_from_slice(&[0, 0]);
        put_success(bytes, &Metadata::new());
        put_item_head(bytes, 1);
        bytes.push(b'y');
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn data_after_the_end() {
    answered_with(|bytes| {
        put_success(bytes, &Metadata::new());
        put_item_head(bytes, 1);
        bytes.extend_from_slice(b"x\0\0more");
    })
    .await;
}

/// A callee that answers a call for items with these bytes, and leaves its stream open.
async fn answered_with(put: impl FnOnce(&mut Vec<u8>)) {
    let pair = pair("mem").await;
    let call = async {
        let call = pair.client.call("list").server_streaming("").await;
        let mut answers = call.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "x");
        for _ in 0..2 {
            assert_eq!(
                answers.next().await,
                Err(CallError::MaybeExecuted(CallCause::Answer(AnswerError::AfterEnd)))
            );
        }
    };
    let answer = async {
        let mut stream = pair.peer.accept_bi(Class::REQUESTS).await.unwrap();
        let mut bytes = Vec::new();
        put(&mut bytes);
        stream.write_all(&bytes).await.unwrap();
        // The caller gives it up: MALFORMED.
        assert_eq!(stream.send().stopped().await, Ok(Some(4)));
    };
    tokio::join!(call, answer);
    settle(&pair).await;
    let serve = crate::common::serve_echo(pair.peer.clone());
    still_fine(&pair.client).await;
    serve.abort();
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none() {
    let pair = pair("mem").await;
    let answers: [(&[u8], AnswerError); 3] = [
        (b"", AnswerError::Cut),
        (&[0xff; 9], AnswerError::Code { value: u64::MAX >> 1 }),
        (&[0x1b], AnswerError::Cut),
    ];
    for (bytes, expected) in answers {
        let answer = async {
            let mut stream = pair.peer.accept_bi(Class::REQUESTS).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.finish().unwrap();
        };
        let (outcome, ()) = tokio::join!(pair.client.request("x", ""), answer);
        let cause = CallCause::Answer(expected);
        assert_eq!(outcome, Err(CallError::MaybeExecuted(cause)));
    }
    // One that is given up says how far it has come, by its code.
    for (code, executed) in [(0, Executed::Maybe), (1, Executed::No), (99, Executed::Maybe)] {
        let answer = async {
            let mut stream = pair.peer.accept_bi(Class::REQUESTS).await.unwrap();
            stream.send().reset(code).unwrap();
        };
        let (outcome, ()) = tokio::join!(pair.client.request("x", ""), answer);
        assert_eq!(outcome.unwrap_err().executed(), executed);
    }
    settle(&pair).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_items() {
    let runs: Arc<AtomicUsize> = Arc::default();
    let (pair, _) = served(router(&runs)).await;
    let head = RequestHead {
        kind: CallKind::ClientStreaming,
        ..RequestHead::unary(Method::Named("sum"))
    };
    let too_long = [&[0xff; 9][..]].concat();
    let cases: [(&[u8], Code, Reason); 3] = [
        (&[9, 1, 2], Code::InvalidArgument, Reason::MalformedBody),
        (&[0], Code::InvalidArgument, Reason::MalformedBody),
        (&too_long, Code::ResourceExhausted, Reason::TooLarge),
    ];
    for (body, code, reason) in cases {
        let failure = ask(&pair.client, &request(head, body)).await;
        assert_eq!((failure.code, failure.reason), (code, Some(reason)), "{body:?}");
    }
    assert_eq!(ItemError::EndMark.failure().reason, Some(Reason::MalformedBody));
    // Cut off in its head.
    let failure = ask(&pair.client, &request(head, b"")[..3]).await;
    assert_eq!(
        (failure.reason, failure.executed),
        (Some(Reason::MalformedHead), Executed::No)
    );
    still_fine(&pair.client).await;
    settle(&pair).await;
}

/// The same key for different requests, and more keys than there is room for, while all of them run.
#[tokio::test(start_paused = true)]
async fn reused_keys() {
    let (gate, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (closed, count) = (gate.clone(), runs.clone());
    let keyed = Router::builder()
        .unary("pay", move |_, payload| {
            count.fetch_add(1, Ordering::SeqCst);
            let gate = closed.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(payload)
            }
        })
        .keys(Some(KeyConfig {
            max_entries: 4,
            max_waiting: 2,
            ..KeyConfig::default()
        }));
    let (pair, _) = served(keyed.unary("echo", |_, payload| async move { Ok(payload) })).await;
    let ask = |key: u8, payload: &'static [u8]| {
        let client = pair.client.clone();
        let bytes = request(
            RequestHead {
                key: Some(IdempotencyKey::new(&[key]).unwrap()),
                ..RequestHead::unary(Method::Named("pay"))
            },
            payload,
        );
        tokio::spawn(async move {
            let mut stream = client.open_bi(Class::REQUESTS).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.finish().unwrap();
            let answer = stream.read_to_end(1000).await.unwrap();
            Answer::from_whole(answer).unwrap().result
        })
    };
    let first: Vec<_> = (0..4).map(|key| ask(key, b"one")).collect();
    while runs.load(Ordering::SeqCst) < 4 {
        pair.client.sleep(Duration::from_millis(1)).await;
    }
    let reason = async |answer: tokio::task::JoinHandle<Result<Bytes, Failure>>| {
        let failure = answer.await.unwrap().unwrap_err();
        assert_eq!(failure.executed, Executed::No);
        failure.reason.unwrap()
    };
    assert_eq!(reason(ask(0, b"two")).await, Reason::KeyReused);
    assert_eq!(reason(ask(9, b"one")).await, Reason::KeysFull);
    let repeats: Vec<_> = (0..2).map(|_| ask(0, b"one")).collect();
    pair.client.sleep(Duration::from_millis(5)).await;
    assert_eq!(reason(ask(0, b"one")).await, Reason::KeysFull);
    gate.add_permits(4);
    for answer in first.into_iter().chain(repeats) {
        assert_eq!(answer.await.unwrap().unwrap(), "one");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    still_fine(&pair.client).await;
    settle(&pair).await;
}

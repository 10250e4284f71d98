//! Calls of all four kinds, and what may be said of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_lock::Semaphore;
use bytes::Bytes;
use sheetbend_runtime::{
    CallError, CallLimits, Code, Executed, Failure, KeyConfig, Metadata, Reason, Reply, Router,
    RouterBuilder, TraceContext,
};

use crate::env::{Env, Pair, until, yield_now};

fn failure(error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) => failure,
        other => panic!("no failure of the callee: {other}"),
    }
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// What the tests call.
fn router() -> RouterBuilder {
    Router::builder()
        .unary("echo", |_, payload| async move { Ok(payload) })
        .unary("later", |_, payload| async move {
            yield_now().await;
            Ok(payload)
        })
        .server_streaming("count", |_, payload, mut out| async move {
            for item in 0..number(&payload) {
                out.send(item.to_string()).await?;
            }
            Ok(())
        })
        .client_streaming("sum", |_, mut items| async move {
            let mut sum = 0;
            while let Some(item) = items.next().await? {
                sum += number(&item);
            }
            Ok(sum.to_string())
        })
        .bidirectional("double", |_, mut items, mut out| async move {
            while let Some(item) = items.next().await? {
                out.send([&item[..], &item[..]].concat()).await?;
            }
            Ok(())
        })
}

/// Two ends, of which the server's serves.
async fn served(env: &Env, kind: &str, router: RouterBuilder) -> (Pair, Router) {
    let pair = env.pair(kind).await;
    let router = router.build();
    let (session, serving) = (pair.peer.clone(), router.clone());
    env.spawn(async move { serving.serve(session).await });
    (pair, router)
}

async fn all_kinds(env: Env, kind: &str) {
    let (pair, _) = served(&env, kind, router()).await;
    let client = &pair.client;
    assert_eq!(client.request("echo", "hello").await.unwrap(), "hello");
    assert_eq!(client.request("later", "hello").await.unwrap(), "hello");
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);
    assert_eq!(client.request("later", large.clone()).await.unwrap(), large);

    for count in [0_u64, 1, 5000] {
        let mut answers = client
            .call("count")
            .server_streaming(count.to_string())
            .await
            .unwrap();
        for item in 0..count {
            assert_eq!(number(&answers.next().await.unwrap().unwrap()), item);
        }
        assert_eq!(answers.next().await, Ok(None));
        assert_eq!(answers.next().await, Ok(None));
    }

    for count in [0_u64, 1, 5000] {
        let mut call = client.call("sum").client_streaming().await.unwrap();
        for item in 0..count {
            call.feed(item.to_string()).await.unwrap();
        }
        let reply = call.finish().await.unwrap();
        assert_eq!(number(&reply.payload), count.saturating_sub(1) * count / 2);
    }

    let (mut out, mut answers) = client.call("double").bidirectional().await.unwrap();
    for len in [0, 1, 3000, 300_000] {
        let item = vec![len as u8; len];
        out.send(item.clone()).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), item.repeat(2));
    }
    out.finish();
    assert_eq!(answers.next().await, Ok(None));
}

pub async fn all_four_kinds_over_tcp(env: Env) {
    all_kinds(env, "tcp").await;
}

pub async fn all_four_kinds_over_a_unix_socket(env: Env) {
    all_kinds(env, "unix").await;
}

pub async fn all_four_kinds_in_memory(env: Env) {
    all_kinds(env, "mem").await;
}

/// An item of a length that tells its number: small ones, some that are not copied, and empty ones.
fn numbered(number: usize) -> Vec<u8> {
    let len = if number.is_multiple_of(97) {
        2048 + number
    } else {
        number % 90
    };
    vec![number as u8; len]
}

pub async fn items_are_fed_from_slices_and_read_where_they_lie(env: Env) {
    const ITEMS: usize = 6000;
    let slices = router()
        .server_streaming("one by one", |_, _, mut out| async move {
            for number in 0..ITEMS {
                out.feed_slice(&numbered(number)).await?;
            }
            Ok(())
        })
        .server_streaming("all", |_, _, mut out| async move {
            out.feed_all((0..ITEMS).map(numbered)).await?;
            Err::<(), _>(Failure::new(Code::DataLoss, "no more"))
        })
        .client_streaming("read", |_, mut items| async move {
            let mut count = 0;
            while let Some(item) = items.next_slice().await? {
                assert_eq!(item, numbered(count));
                count += 1;
            }
            Ok(count.to_string())
        });
    let (pair, _) = served(&env, "mem", slices).await;
    let client = &pair.client;
    for method in ["one by one", "all"] {
        let mut answers = client.call(method).server_streaming("").await.unwrap();
        for number in 0..ITEMS {
            // Both ways to read go together.
            if number % 3 == 0 {
                assert_eq!(answers.next().await.unwrap().unwrap(), numbered(number));
            } else {
                assert_eq!(answers.next_slice().await.unwrap().unwrap(), numbered(number));
            }
        }
        for _ in 0..2 {
            match answers.next_slice().await {
                Ok(end) => assert_eq!((method, end), ("one by one", None)),
                Err(error) => assert_eq!((method, failure(error).code), ("all", Code::DataLoss)),
            }
        }
    }
    let mut call = client.call("read").client_streaming().await.unwrap();
    for number in 0..ITEMS {
        call.feed_slice(&numbered(number)).await.unwrap();
    }
    assert_eq!(call.finish().await.unwrap().payload, ITEMS.to_string());
}

pub async fn what_a_call_says_of_itself_comes_with_it(env: Env) {
    let trace = TraceContext::new([3; 16], [4; 8], 1).unwrap();
    let said = router().unary("tell", move |context, _| async move {
        assert_eq!(context.metadata().value("user"), Some(&b"ann"[..]));
        assert_eq!(context.metadata().value("lang"), Some(&b"en"[..]));
        assert_eq!(context.trace(), Some(trace));
        assert_eq!((context.attempt(), context.is_repeatable()), (2, true));
        let left = context.time_left().expect("a deadline");
        assert!(left > Duration::from_secs(3000) && left <= Duration::from_secs(3600));
        let metadata = Metadata::from_entries([("took", &b"1"[..])]).unwrap();
        Ok(Reply::new(context.method().to_owned()).with_metadata(metadata))
    });
    let (pair, _) = served(&env, "mem", said).await;
    for _ in 0..3 {
        let call = pair.client.call("tell").trace(trace).attempt(2).repeatable();
        let call = call
            .header("user", b"ann")
            .unwrap()
            .header("lang", b"en")
            .unwrap();
        let reply = call.timeout(Duration::from_secs(3600)).unary("x").await.unwrap();
        assert_eq!(
            (reply.payload.as_ref(), reply.metadata.value("took")),
            (&b"tell"[..], Some(&b"1"[..]))
        );
    }
}

/// A handler that stops waiting for an item's turn, as one whose time is over does, has sent it whole or not at all.
pub async fn an_item_that_is_given_up_leaves_nothing_behind(env: Env) {
    let hasty = router().server_streaming("hasty", |_, _, mut out| async move {
        let large = Bytes::from(vec![7; 1 << 20]);
        out.feed(large.clone()).await?;
        let mut given_up = 0;
        for _ in 0..3 {
            let mut feeding = std::pin::pin!(out.feed(large.clone()));
            let taken = std::future::poll_fn(|cx| Poll::Ready(feeding.as_mut().poll(cx).is_ready())).await;
            given_up += u64::from(!taken);
        }
        out.send(given_up.to_string()).await?;
        Ok(())
    });
    let (pair, _) = served(&env, "mem", hasty).await;
    let mut answers = pair.client.call("hasty").server_streaming("").await.unwrap();
    let mut large = 0;
    let given_up = loop {
        let item = answers.next().await.unwrap().unwrap();
        if item.len() < 1 << 20 {
            break number(&item);
        }
        large += 1;
    };
    assert!(given_up > 0, "there was room for all of them at once");
    assert_eq!(large + given_up, 4);
    assert_eq!(answers.next().await, Ok(None));
}

pub async fn items_end_with_trailers_or_a_failure(env: Env) {
    let ends = router()
        .server_streaming("trailed", |_, _, mut out| async move {
            out.set_metadata(&Metadata::from_entries([("rows", &b"2"[..])]).unwrap());
            out.feed("a").await?;
            out.feed("b").await?;
            Ok(Metadata::from_entries([("sum", &b"7"[..])]).unwrap())
        })
        .server_streaming("broken", |_, payload, mut out| async move {
            if payload != "at once" {
                out.send("a").await?;
            }
            Err::<(), _>(Failure::new(Code::DataLoss, "no more"))
        });
    let (pair, _) = served(&env, "mem", ends).await;
    let client = &pair.client;
    let mut answers = client.call("trailed").server_streaming("").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "a");
    assert_eq!(answers.metadata().value("rows"), Some(&b"2"[..]));
    assert_eq!(answers.next().await.unwrap().unwrap(), "b");
    assert_eq!(answers.next().await, Ok(None));
    assert_eq!(answers.trailers().value("sum"), Some(&b"7"[..]));
    for (payload, items) in [("at once", 0), ("after one", 1)] {
        let mut answers = client.call("broken").server_streaming(payload).await.unwrap();
        for _ in 0..items {
            assert_eq!(answers.next().await.unwrap().unwrap(), "a");
        }
        for _ in 0..2 {
            let error = failure(answers.next().await.unwrap_err());
            assert_eq!((error.code, error.executed), (Code::DataLoss, Executed::Yes));
        }
    }
}

pub async fn a_deadline_ends_the_call_at_both_ends(env: Env) {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Noted(Arc<AtomicUsize>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let seen = dropped.clone();
    let (pair, router) = served(
        &env,
        "mem",
        router()
            .unary("hang", move |_, _| {
                let noted = Noted(seen.clone());
                async move {
                    std::future::pending::<()>().await;
                    drop(noted);
                    Ok(())
                }
            })
            .server_streaming("trickle", |_, _, mut out| async move {
                out.send("one").await?;
                std::future::pending::<Result<(), Failure>>().await
            }),
    )
    .await;
    let client = &pair.client;
    let call = client.call("hang").timeout(Duration::from_millis(80));
    let error = call.unary("").await.unwrap_err();
    // Whichever end was first.
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_ne!(error.executed(), Executed::No);
    let call = client.call("trickle").timeout(Duration::from_millis(80));
    let mut answers = call.server_streaming("").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "one");
    assert_eq!(answers.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    let error = client
        .call("echo")
        .deadline(client.now())
        .unary("late")
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (Code::DeadlineExceeded, Executed::No)
    );
    let left = || (dropped.load(Ordering::Relaxed), router.running());
    until(client, || left() == (1, 0)).await;
    assert_eq!(client.request("echo", "still fine").await.unwrap(), "still fine");
}

pub async fn a_call_that_is_dropped_is_dropped_at_the_other_end(env: Env) {
    let entered = Arc::new(Semaphore::new(0));
    let (seen, told) = (entered.clone(), Arc::new(Semaphore::new(0)));
    let (tell, own) = (told.clone(), env.clone());
    let hang = router().unary("hang", move |context, _| {
        let (seen, tell) = (seen.clone(), tell.clone());
        own.spawn(async move {
            context.cancelled().await;
            tell.add_permits(1);
        });
        async move {
            seen.add_permits(1);
            std::future::pending::<Result<(), Failure>>().await
        }
    });
    let (pair, router) = served(&env, "mem", hang).await;
    for _ in 0..3 {
        let client = pair.client.clone();
        let call = env.spawn(async move { client.request("hang", "").await });
        entered.acquire().await.forget();
        until(&pair.client, || router.running() == 1).await;
        call.abort();
        told.acquire().await.forget();
        until(&pair.client, || router.running() == 0).await;
    }
    let mut answers = pair
        .client
        .call("count")
        .server_streaming("1000000")
        .await
        .unwrap();
    assert!(answers.next().await.unwrap().is_some());
    drop(answers);
    until(&pair.client, || router.running() == 0).await;
    let (mut out, answers) = pair.client.call("double").bidirectional().await.unwrap();
    out.send("x").await.unwrap();
    drop((out, answers));
    until(&pair.client, || router.running() == 0).await;
    // Once all of it is acknowledged.
    let streams = || (pair.client.stats().streams, pair.peer.stats().streams);
    until(&pair.client, || streams() == (0, 0)).await;
}

pub async fn a_panic_is_the_failure_of_that_call_alone(env: Env) {
    let panics = router()
        .unary("panic", |_, payload| async move {
            if payload == "later" {
                yield_now().await;
            }
            if !payload.is_empty() {
                panic!("as planned");
            }
            Ok(())
        })
        .unary("at once", |_, payload| {
            assert!(payload.is_empty(), "as planned");
            async { Ok(()) }
        })
        .server_streaming("amid", |_, _, mut out| async move {
            out.send("one").await?;
            if out.send("two").await.is_ok() {
                panic!("as planned");
            }
            Ok(())
        });
    let (pair, router) = served(&env, "mem", panics).await;
    for (method, payload) in [("panic", "now"), ("panic", "later"), ("at once", "x")] {
        let error = failure(pair.client.request(method, payload).await.unwrap_err());
        assert_eq!(
            (error.code, error.reason),
            (Code::Internal, Some(Reason::Panicked)),
            "{method}"
        );
        assert_eq!(error.executed, Executed::Yes);
    }
    let mut answers = pair.client.call("amid").server_streaming("").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "one");
    assert_eq!(answers.next().await.unwrap().unwrap(), "two");
    let error = failure(answers.next().await.unwrap_err());
    assert_eq!(error.reason, Some(Reason::Panicked));
    assert_eq!(pair.client.request("echo", "fine").await.unwrap(), "fine");
    until(&pair.client, || router.running() == 0).await;
}

pub async fn limits_let_so_many_run_and_so_many_wait(env: Env) {
    let (gate, most, now) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (gate_, most_, now_) = (gate.clone(), most.clone(), now.clone());
    let slow = router()
        .unary("slow", move |_, _| {
            let (gate, most, now) = (gate_.clone(), most_.clone(), now_.clone());
            async move {
                most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                gate.acquire().await.forget();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .method_limit("slow", 3)
        .limits(CallLimits {
            max_waiting_per_session: 5,
            ..CallLimits::default()
        });
    let (pair, router) = served(&env, "mem", slow).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = pair.client.clone();
            let refused = refused.clone();
            env.spawn(async move {
                let answer = client.request("slow", "").await;
                refused.fetch_add(usize::from(answer.is_err()), Ordering::SeqCst);
                answer
            })
        })
        .collect();
    // All have come: one that came late would find room, and wait for ever.
    let come = || (router.running(), router.waiting(), refused.load(Ordering::SeqCst));
    until(&pair.client, || come() == (3, 5, 2)).await;
    // Other methods are not held up.
    assert_eq!(pair.client.request("later", "x").await.unwrap(), "x");
    gate.add_permits(8);
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            let error = failure(error);
            assert_eq!(
                (error.reason, error.executed),
                (Some(Reason::Overloaded), Executed::No)
            );
        }
    }
    assert_eq!(
        (refused.load(Ordering::SeqCst), most.load(Ordering::SeqCst)),
        (2, 3)
    );
    until(&pair.client, || (router.running(), router.waiting()) == (0, 0)).await;
}

pub async fn a_key_is_executed_once_and_repeats_get_its_answer(env: Env) {
    let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (runs_, gate_) = (runs.clone(), gate.clone());
    let pay = router().unary("pay", move |_, payload| {
        let (runs, gate) = (runs_.clone(), gate_.clone());
        async move {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.forget();
            match &payload[..] {
                b"panic" => panic!("as planned"),
                b"fail" => Err(Failure::new(Code::Aborted, run.to_string())),
                b"not now" => Err(Failure::refused(Code::Unavailable, Reason::Draining)),
                _ => Ok(run.to_string()),
            }
        }
    });
    let (pair, _) = served(&env, "mem", pay).await;
    let client = &pair.client;
    let pay = async |key: &'static str, payload: &'static str| {
        client.call("pay").key(key).unwrap().unary(payload).await
    };
    // Its caller goes away; it is executed all the same.
    let first = env.spawn({
        let client = client.clone();
        async move { client.call("pay").key("one").unwrap().unary("10").await }
    });
    until(client, || runs.load(Ordering::SeqCst) > 0).await;
    first.abort();
    let (repeat, again, ()) = futures::join!(pay("one", "10"), pay("one", "10"), async {
        for _ in 0..20 {
            yield_now().await;
        }
        gate.add_permits(100);
    });
    assert_eq!(
        (repeat.unwrap().payload, again.unwrap().payload),
        ("0".into(), "0".into())
    );
    let error = failure(pay("one", "11").await.unwrap_err());
    assert_eq!(
        (error.reason, error.executed),
        (Some(Reason::KeyReused), Executed::No)
    );
    assert_eq!(pay("two", "10").await.unwrap().payload, "1");
    for _ in 0..2 {
        let error = failure(pay("three", "fail").await.unwrap_err());
        assert_eq!((error.code, error.message.as_str()), (Code::Aborted, "2"));
        assert_eq!(
            failure(pay("four", "panic").await.unwrap_err()).reason,
            Some(Reason::Panicked)
        );
    }
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    // What says of itself that nothing was done leaves the key free.
    for run in 5..7 {
        assert_eq!(pay("five", "not now").await.unwrap_err().executed(), Executed::No);
        assert_eq!(runs.load(Ordering::SeqCst), run);
    }
    let error = client
        .call("count")
        .key("six")
        .unwrap()
        .server_streaming("3")
        .await;
    let error = failure(error.unwrap().next().await.unwrap_err());
    assert_eq!((error.code, error.executed), (Code::Unimplemented, Executed::No));
}

pub async fn reused_keys_do_not_grow_the_table(env: Env) {
    let (pair, _) = served(
        &env,
        "mem",
        router().keys(Some(KeyConfig {
            max_entries: 8,
            max_entries_per_scope: 8,
            ..KeyConfig::default()
        })),
    )
    .await;
    for number in 0..20_u32 {
        let key = number.to_string();
        for _ in 0..2 {
            let outcome = pair
                .client
                .call("echo")
                .key(key.clone())
                .unwrap()
                .unary("x")
                .await;
            match outcome {
                Ok(reply) => assert!(number < 8 && reply.payload == "x"),
                Err(error) => {
                    let error = failure(error);
                    assert_eq!(
                        (error.reason, error.executed),
                        (Some(Reason::KeysFull), Executed::No)
                    );
                    assert!(number >= 8);
                }
            }
        }
    }
}

pub async fn methods_are_named_once_in_a_session(env: Env) {
    let (pair, _) = served(&env, "mem", router()).await;
    let name = "a method whose name is long enough to be seen in the counters of the session";
    let sent = || {
        pair.client
            .paths()
            .iter()
            .map(|path| path.bytes_sent)
            .sum::<u64>()
    };
    let mut costs = Vec::new();
    for _ in 0..6 {
        let before = sent();
        assert_eq!(
            pair.client.request(name, "").await.unwrap_err().code(),
            Code::Unimplemented
        );
        costs.push(sent() - before);
    }
    assert!(costs[0] > name.len() as u64, "{costs:?}");
    assert!(
        costs[1..].iter().all(|cost| *cost < name.len() as u64),
        "{costs:?}"
    );
}

pub async fn a_drained_session_finishes_its_calls(env: Env) {
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let slow = router().unary("slow", move |_, payload| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.forget();
            Ok(payload)
        }
    });
    let (pair, router) = served(&env, "mem", slow).await;
    let client = pair.client.clone();
    let call = env.spawn(async move { client.request("slow", "x").await });
    until(&pair.client, || router.running() > 0).await;
    pair.server.drain("");
    let error = loop {
        match pair.client.request("echo", "").await {
            Ok(_) => yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.code(), error.executed()),
        (Code::Unavailable, Executed::No)
    );
    open.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap(), "x");
    pair.server.drained().await;
}

//! Calls with a policy: retries, hedges, breakers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Pair, pair};
use sheetbend_tokio::{
    BackoffPolicy, BreakerConfig, BreakerState, BudgetPolicy, CallCause, CallError, Caller, Code, ErrorCode,
    Executed, Failure, HedgeDelay, HedgePolicy, Reason, RetryPolicy, RoundRobin, Router, Session, TargetId,
    runtime,
};

const MS: Duration = Duration::from_millis(1);

/// Fails so many times, as the payload says, before it answers.
fn fails(times: usize, runs: &Arc<AtomicUsize>) -> Router {
    let runs = runs.clone();
    Router::builder()
        .unary("try", move |context, payload| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            assert_eq!(context.attempt(), run as u64);
            async move {
                if run >= times {
                    return Ok(run.to_string());
                }
                match &payload[..] {
                    b"refuse" => Err(Failure::refused(Code::Unavailable, Reason::Overloaded)),
                    b"hang" => std::future::pending().await,
                    _ => Err(Failure::new(Code::Unavailable, "not yet")),
                }
            }
        })
        .build()
}

async fn served(router: &Router) -> Pair {
    let pair = pair("mem").await;
    let (session, router) = (pair.peer.clone(), router.clone());
    tokio::spawn(async move { router.serve(session).await });
    pair
}

fn quick() -> RetryPolicy {
    RetryPolicy {
        backoff: BackoffPolicy::exponential(10 * MS, 100 * MS),
        ..RetryPolicy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_executed_is_sent_again() {
    let runs = Arc::default();
    let pair = served(&fails(3, &runs)).await;
    let caller = Caller::builder(pair.client.clone())
        .retry(quick())
        .build(runtime());
    assert_eq!(caller.call("try").unary("refuse").await.unwrap().payload, "3");
    let stats = caller.stats();
    assert_eq!((stats.calls, stats.attempts, stats.succeeded), (1, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_executed_is_sent_again_only_if_it_may_be() {
    let runs = Arc::default();
    let pair = served(&fails(2, &runs)).await;
    let caller = Caller::builder(pair.client.clone())
        .retry(quick())
        .build(runtime());
    let error = caller.call("try").unary("fail").await.unwrap_err();
    assert_eq!(
        (error.executed(), runs.load(Ordering::SeqCst)),
        (Executed::Yes, 1)
    );
    runs.store(0, Ordering::SeqCst);
    let reply = caller.call("try").repeatable().unary("fail").await;
    assert_eq!(reply.unwrap().payload, "2");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_makes_way_for_another() {
    let runs = Arc::default();
    let pair = served(&fails(2, &runs)).await;
    let policy = RetryPolicy {
        attempt_timeout: Some(200 * MS),
        ..quick()
    };
    let caller = Caller::builder(pair.client.clone())
        .retry(policy)
        .build(runtime());
    let reply = caller.call("try").repeatable().unary("hang").await;
    assert_eq!(reply.unwrap().payload, "2");
    // The whole call has a deadline, too, and the last word is true of all attempts.
    runs.store(0, Ordering::SeqCst);
    let began = pair.client.now();
    let call = caller.call("try").repeatable().timeout(300 * MS);
    let error = call.unary("hang").await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (Code::DeadlineExceeded, Executed::Maybe)
    );
    let took = pair.client.now().since(began);
    assert!((300 * MS..310 * MS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_budget() {
    let runs = Arc::default();
    let pair = served(&fails(1000, &runs)).await;
    let policy = RetryPolicy {
        max_attempts: 100,
        ..quick()
    };
    let caller = Caller::builder(pair.client.clone())
        .retry(policy)
        .budget(BudgetPolicy::strict())
        .build(runtime());
    for _ in 0..50 {
        runs.store(0, Ordering::SeqCst);
        caller.call("try").unary("refuse").await.unwrap_err();
    }
    let attempts = caller.stats().attempts;
    assert!((55..=60).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_is_left_for_another() {
    let (first, second) = (Arc::default(), Arc::default());
    let pairs = [served(&fails(0, &first)).await, served(&fails(1, &second)).await];
    pairs[0].client.close(ErrorCode::NONE, "").await;
    let targets = RoundRobin::new(pairs.iter().map(|pair| pair.client.clone()));
    let caller = Caller::builder(targets).retry(quick()).build(runtime());
    second.store(1, Ordering::SeqCst);
    let reply = caller.call("try").unary("").await;
    assert_eq!(first.load(Ordering::SeqCst), 0);
    // It is the second attempt that comes there: the handler counts from there.
    assert_eq!(reply.unwrap().payload, "1");
    let lonely = Caller::builder(pairs[0].client.clone())
        .retry(quick())
        .build(runtime());
    let error = lonely.call("try").unary("").await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(CallCause::Open(_))), "{error}");
    let none = Caller::builder(RoundRobin::new(Vec::<Session>::new())).build(runtime());
    let error = none.call("try").unary("").await.unwrap_err();
    assert!(
        matches!(error, CallError::NotSent(CallCause::NoConnection(_))),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_hedged_and_the_first_answer_wins() {
    let runs = Arc::default();
    let pair = served(&fails(1, &runs)).await;
    let caller = Caller::builder(pair.client.clone())
        .hedge(HedgePolicy {
            max_attempts: 3,
            delay: HedgeDelay::Fixed(50 * MS),
        })
        .build(runtime());
    let began = pair.client.now();
    let reply = caller.call("try").repeatable().unary("hang").await;
    assert_eq!(
        (reply.unwrap().payload.as_ref(), caller.stats().attempts),
        (&b"1"[..], 2)
    );
    let took = pair.client.now().since(began);
    assert!((50 * MS..60 * MS).contains(&took), "{took:?}");
    // One that is not safe to repeat is not.
    runs.store(0, Ordering::SeqCst);
    let error = caller
        .call("try")
        .timeout(500 * MS)
        .unary("hang")
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), caller.stats().attempts),
        (Code::DeadlineExceeded, 3)
    );
    // All of them hang: the deadline ends them.
    let call = caller.call("never").repeatable().timeout(20 * MS);
    assert_eq!(call.unary("").await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_leaves_a_target_alone_and_tries_it_again() {
    let runs = Arc::default();
    let pair = served(&fails(1_000_000, &runs)).await;
    let caller = Caller::builder(pair.client.clone())
        .retry(RetryPolicy {
            max_attempts: 1,
            ..RetryPolicy::default()
        })
        .breakers(BreakerConfig::default())
        .build(runtime());
    let mut held_back = 0;
    for _ in 0..40 {
        runs.store(0, Ordering::SeqCst);
        let error = caller.call("try").unary("fail").await.unwrap_err();
        held_back += usize::from(error == CallError::NotSent(CallCause::BreakerOpen));
    }
    assert_eq!(held_back, 20);
    assert!(matches!(
        caller.breaker(TargetId(0), "try"),
        BreakerState::Open { .. }
    ));
    assert_eq!(caller.breaker(TargetId(0), "other"), BreakerState::Closed);
    pair.client.sleep(Duration::from_secs(10)).await;
    assert!(matches!(
        caller.breaker(TargetId(0), "try"),
        BreakerState::HalfOpen { .. }
    ));
    for _ in 0..3 {
        runs.store(usize::MAX, Ordering::SeqCst);
        // The handler fails an assertion then, which says nothing against the target.
        let error = caller.call("try").unary("").await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
    }
    assert_eq!(caller.breaker(TargetId(0), "try"), BreakerState::Closed);
}

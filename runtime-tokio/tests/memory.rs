//! What calls under way hold: 10,000 of them on one session, both ends together.

#![allow(clippy::print_stdout)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use common::pair_with;
use sheetbend_tokio::{CallLimits, Class, Config, Router};
use tokio::sync::Semaphore;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CALLS: usize = 10_000;

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_in_flight() {
    let mut config = Config::default();
    config.params.max_streams[Class::REQUESTS.index()].bi = 2 * CALLS as u64;
    let pair = pair_with("mem", config.clone(), config).await;
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let limits = CallLimits {
        max_running_per_session: 2 * CALLS,
        ..CallLimits::default()
    };
    let router = Router::builder()
        .unary("hang", move |_, payload| {
            let gate = closed.clone();
            async move {
                gate.acquire()
                    .await
                    .map_err(|_| payload.clone())
                    .unwrap()
                    .forget();
                Ok(payload)
            }
        })
        .limits(limits)
        .build();
    let (session, serving) = (pair.peer.clone(), router.clone());
    tokio::spawn(async move { serving.serve(session).await });

    let mut calls: Vec<_> = (0..CALLS)
        .map(|_| Box::pin(pair.client.request("hang", &[7; 64][..])))
        .collect();
    let before = HELD.load(Ordering::Relaxed);
    for call in &mut calls {
        let pending = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
        tokio::task::yield_now().await;
    }
    let mut running = 0;
    loop {
        pair.client.sleep(std::time::Duration::from_millis(20)).await;
        if router.running() == running {
            break;
        }
        running = router.running();
    }
    let each = HELD.load(Ordering::Relaxed).saturating_sub(before) / CALLS;
    println!("{running} run, the others wait for credit; {each} bytes for each call, at both ends together");
    assert!(running > 0);
    // Each end may have 2 KiB of it.
    assert!(each <= 4096, "{each} bytes for each call");
    gate.add_permits(CALLS);
    for call in calls {
        assert_eq!(call.await.unwrap(), &[7; 64][..]);
    }
}

//! The pool's handle under a clock that the tests set, item by item.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use super::*;
use crate::bench::{Bench, OnBench};
use crate::mem::{MemSocket, mem_pair};
use crate::rt::Socket;

const MS: Duration = Duration::from_millis(1);

/// What the items of the tests come from, and what became of them.
#[derive(Default)]
struct Factory {
    made: AtomicU64,
    /// Making takes until this is set back.
    stuck: AtomicBool,
    refuses: AtomicBool,
    ill: AtomicBool,
    live: Mutex<BTreeSet<u64>>,
}

struct Numbers(Arc<Factory>);

impl Manage for Numbers {
    type Target = &'static str;
    type Item = u64;

    fn open(&self, target: &&'static str) -> BoxFuture<'static, Result<u64, String>> {
        let (factory, target) = (self.0.clone(), *target);
        Box::pin(async move {
            std::future::poll_fn(|_| match factory.stuck.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            })
            .await;
            if factory.refuses.load(Ordering::Relaxed) {
                return Err(format!("{target} refuses"));
            }
            let number = factory.made.fetch_add(1, Ordering::Relaxed);
            factory.live.lock().insert(number);
            Ok(number)
        })
    }

    fn is_well(&self, item: &u64) -> bool {
        self.0.live.lock().contains(item)
    }

    fn check(&self, _: &Arc<u64>) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(!self.0.ill.load(Ordering::Relaxed)))
    }

    fn close(&self, item: Arc<u64>) {
        self.0.live.lock().remove(&item);
    }
}

type TestPool = Pool<Numbers>;

fn stage(edit: impl FnOnce(&mut PoolConfig)) -> (Arc<Bench>, Arc<Factory>, TestPool) {
    let (bench, factory) = (Arc::new(Bench::default()), Arc::new(Factory::default()));
    let mut config = PoolConfig::default();
    edit(&mut config);
    let runtime = Arc::new(OnBench(bench.clone()));
    let pool = Pool::new(runtime, Numbers(factory.clone()), config);
    bench.run();
    (bench, factory, pool)
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Takes an item that can be had without waiting for time to pass.
fn take(bench: &Bench, pool: &TestPool) -> Pooled<Numbers> {
    let mut take = pool.take("a");
    for _ in 0..3 {
        if let Poll::Ready(taken) = poll(&mut take) {
            return taken.expect("an item");
        }
        bench.run();
    }
    panic!("nothing came: {pool:?}");
}

fn audit(pool: &TestPool) {
    pool.inner().state.lock().audit();
}

#[test]
fn what_is_given_back_is_given_out_again() {
    let (bench, factory, pool) = stage(|_| {});
    let first = *take(&bench, &pool);
    assert_eq!(*take(&bench, &pool), first);
    let (one, two) = (take(&bench, &pool), take(&bench, &pool));
    assert_ne!(*one, *two);
    one.discard();
    drop(two);
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.busy, stats.opened), (1, 0, 2));
    assert_eq!(factory.live.lock().len(), 1, "the discarded one is closed");
    audit(&pool);
}

#[test]
fn one_that_has_ended_is_not_given_out_or_kept() {
    let (bench, factory, pool) = stage(|_| {});
    let first = *take(&bench, &pool);
    factory.live.lock().remove(&first);
    let second = take(&bench, &pool);
    assert_ne!(*second, first);
    factory.live.lock().remove(&*second);
    drop(second);
    assert_eq!(pool.stats().idle, 0);
    audit(&pool);
}

#[test]
fn who_waits_is_served_in_turn_and_the_deadline_holds() {
    let (bench, _, pool) = stage(|config| config.max_per_target = 1);
    let held = take(&bench, &pool);
    let mut early = pool.take_within("a", 50 * MS);
    let mut second = pool.take("a");
    let mut third = pool.take("a");
    assert!(poll(&mut early).is_pending() && poll(&mut second).is_pending() && poll(&mut third).is_pending());
    bench.pass(49 * MS);
    assert!(poll(&mut early).is_pending());
    bench.pass(MS);
    let Poll::Ready(Err(PoolError::TimedOut { last: None })) = poll(&mut early) else {
        panic!("its deadline is over");
    };
    drop(held);
    assert!(poll(&mut third).is_pending(), "the second is before it");
    let Poll::Ready(Ok(item)) = poll(&mut second) else {
        panic!("it is its turn");
    };
    drop(item);
    assert!(poll(&mut third).is_ready());
    drop(third);
    audit(&pool);
}

#[test]
fn dropped_futures_leave_the_line_and_give_back_what_came_meanwhile() {
    let (bench, _, pool) = stage(|config| config.max_per_target = 1);
    let held = take(&bench, &pool);
    let mut gone = pool.take("a");
    let mut granted = pool.take("a");
    let mut last = pool.take("a");
    assert!(poll(&mut gone).is_pending() && poll(&mut granted).is_pending() && poll(&mut last).is_pending());
    drop(gone);
    drop(held);
    assert_eq!((pool.stats().waiting, pool.stats().busy), (1, 1));
    // It has the item, and is dropped before it is polled again.
    drop(granted);
    let Poll::Ready(Ok(item)) = poll(&mut last) else {
        panic!("the item was lost with the future");
    };
    drop(item);
    drop(last);
    assert_eq!(
        (pool.stats().waiting, pool.stats().busy, pool.stats().idle),
        (0, 0, 1)
    );
    audit(&pool);
}

#[test]
fn a_target_that_cannot_be_reached_tells_why_and_is_left_alone_for_a_while() {
    let (bench, factory, pool) = stage(|_| {});
    factory.refuses.store(true, Ordering::Relaxed);
    let mut take = pool.take_within("a", 2000 * MS);
    assert!(poll(&mut take).is_pending());
    for _ in 0..200 {
        bench.pass(10 * MS);
    }
    let Poll::Ready(Err(error)) = poll(&mut take) else {
        panic!("the deadline is over");
    };
    assert_eq!(
        error,
        PoolError::TimedOut {
            last: Some("a refuses".into())
        }
    );
    let failures = pool.stats().open_failures;
    assert!((2..=40).contains(&failures), "{failures} attempts in two seconds");
    audit(&pool);
}

#[test]
fn what_takes_too_long_to_make_is_dropped() {
    let (bench, factory, pool) = stage(|config| config.open_timeout = 100 * MS);
    factory.stuck.store(true, Ordering::Relaxed);
    let mut take = pool.take("a");
    assert!(poll(&mut take).is_pending());
    bench.run();
    let tasks = bench.tasks.lock().len();
    bench.pass(100 * MS);
    assert_eq!(pool.stats().open_failures, 1);
    drop(take);
    bench.run();
    assert!(bench.tasks.lock().len() < tasks, "its task has ended");
    factory.stuck.store(false, Ordering::Relaxed);
    bench.pass(1000 * MS);
    assert!(factory.live.lock().is_empty(), "nobody wants one any more");
    audit(&pool);
}

#[test]
fn idle_items_are_checked_and_go_when_they_are_old() {
    let (bench, factory, pool) = stage(|config| {
        config.check_after = Some(100 * MS);
        config.idle_timeout = 1000 * MS;
    });
    let first = *take(&bench, &pool);
    bench.pass(200 * MS);
    assert_eq!(*take(&bench, &pool), first, "it is well");
    bench.pass(200 * MS);
    factory.ill.store(true, Ordering::Relaxed);
    assert_ne!(*take(&bench, &pool), first, "it is not");
    assert_eq!(pool.stats().failed_checks, 1);
    bench.pass(1000 * MS);
    assert_eq!(pool.stats().idle, 0);
    assert!(factory.live.lock().is_empty());
    audit(&pool);
}

#[test]
fn a_minimum_is_kept_from_the_first_use_on() {
    let (bench, _, pool) = stage(|config| config.min_idle = 3);
    pool.warm(&"a").expect("there is room");
    bench.run();
    assert_eq!(pool.stats().idle, 3);
    take(&bench, &pool).discard();
    bench.run();
    assert_eq!(pool.stats().idle, 3);
    pool.close_target(&"a");
    bench.run();
    assert_eq!(pool.stats().idle, 0);
    audit(&pool);
}

#[test]
fn the_last_handle_closes_all_but_what_is_given_out() {
    let (bench, factory, pool) = stage(|_| {});
    let held = take(&bench, &pool);
    drop(take(&bench, &pool));
    let other = pool.clone();
    let mut waits = pool.take("a");
    drop(other);
    assert!(matches!(poll(&mut waits), Poll::Ready(Ok(_))), "a handle is left");
    drop(waits);
    let inner = Arc::downgrade(pool.inner());
    drop(pool);
    assert_eq!(factory.live.lock().len(), 1, "the one that is given out lives on");
    bench.run();
    assert!(bench.tasks.lock().is_empty(), "no task is left behind");
    drop(held);
    assert!(factory.live.lock().is_empty());
    assert!(inner.upgrade().is_none(), "nothing is left behind");
}

#[test]
fn a_closed_pool_refuses() {
    let (bench, _, pool) = stage(|config| config.max_per_target = 1);
    let held = take(&bench, &pool);
    let mut waits = pool.take("a");
    assert!(poll(&mut waits).is_pending());
    pool.close();
    assert_eq!(
        poll(&mut waits).map(|taken| taken.err()),
        Poll::Ready(Some(PoolError::Closed))
    );
    assert_eq!(
        poll(&mut pool.take("a")).map(|taken| taken.err()),
        Poll::Ready(Some(PoolError::Closed))
    );
    drop(held);
    audit(&pool);
}

#[test]
fn names_of_forgotten_targets_are_not_kept() {
    let (bench, _, pool) = stage(|config| config.idle_timeout = MS);
    for round in 0..1000_u32 {
        let name: &'static str = Box::leak(format!("target {round}").into_boxed_str());
        let mut take = pool.take(name);
        assert!(poll(&mut take).is_pending());
        bench.run();
        assert!(poll(&mut take).is_ready());
        drop(take);
        bench.pass(2 * MS);
    }
    assert!(pool.inner().state.lock().names() <= 200);
    audit(&pool);
}

#[test]
fn a_plain_connection_that_has_something_to_say_is_not_well() {
    let sockets = Sockets::new(Arc::new(OnBench(Arc::default())));
    let boxed = |socket: MemSocket| -> Box<dyn Socket> { Box::new(socket) };
    let (own, peer) = mem_pair("a", 64);
    let own = boxed(own);
    assert!(sockets.is_well(&own));
    peer.try_write_vectored(&[io::IoSlice::new(b"x")])
        .expect("there is room");
    assert!(!sockets.is_well(&own));
    let (own, peer) = mem_pair("b", 64);
    let own = boxed(own);
    drop(peer);
    assert!(!sockets.is_well(&own), "it has ended");
}

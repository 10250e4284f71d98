//! Tests of the pool, driven by its own deadlines.

use super::*;

const MS: Duration = Duration::from_millis(1);
const A: TargetId = TargetId(1);
const B: TargetId = TargetId(2);
const C: TargetId = TargetId(3);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn pool(edit: impl FnOnce(&mut Config)) -> Pool {
    let mut config = Config::default();
    edit(&mut config);
    Pool::new(config, [3; 32], at(0))
}

fn events(pool: &mut Pool) -> Vec<Event> {
    std::iter::from_fn(|| pool.poll_event()).collect()
}

fn take(pool: &mut Pool, ms: u64, target: TargetId) -> Take {
    pool.take(at(ms), target, None).unwrap()
}

/// Takes an item of a target that has to be made, and makes it.
fn take_new(pool: &mut Pool, ms: u64, target: TargetId) -> ItemId {
    let Take::Wait(waiter) = take(pool, ms, target) else {
        panic!("nothing is idle")
    };
    let made = events(pool);
    let Some(Event::Open(_, item)) = made
        .iter()
        .rfind(|event| matches!(event, Event::Open(..)))
        .copied()
    else {
        panic!("{made:?}")
    };
    pool.handle_opened(at(ms), item);
    assert_eq!(events(pool), [Event::Granted(waiter, item)]);
    item
}

/// What must hold at any time.
fn audit(pool: &Pool) {
    let stats = pool.stats();
    let all = stats.idle + stats.busy + stats.opening + stats.checking;
    assert_eq!(all, pool.items.len());
    assert!(all <= pool.config.max_total);
    assert_eq!(pool.idle.len(), stats.idle);
    assert_eq!(
        pool.waiters.len(),
        pool.targets.values().map(|t| t.waiting.len()).sum::<usize>()
    );
    for (id, state) in &pool.targets {
        assert!(state.items() <= pool.config.max_per_target);
        for (waiter, deadline) in &state.waiting {
            assert!(pool.timers.contains(&(*deadline, Timer::Deadline(*waiter))));
        }
        // Nobody waits while something idle could be had, or be made.
        let unserved = state.waiting.len() > state.opening + state.checking;
        if unserved && !pool.closed {
            assert!(state.idle.is_empty(), "{id:?} waits beside idle items");
            let room = pool.items.len() < pool.config.max_total && state.items() < pool.config.max_per_target;
            assert!(
                !room || state.not_before > pool.now,
                "{id:?} waits though there is room"
            );
            if state.items() == 0 && state.not_before <= pool.now {
                assert!(pool.idle.is_empty(), "{id:?} has nothing while others idle");
            }
        }
    }
    let timed = pool
        .items
        .values()
        .filter(|item| item.place != Place::Busy)
        .count();
    assert_eq!(
        pool.items.values().filter(|item| item.timer.is_some()).count(),
        timed
    );
}

#[test]
fn the_item_used_last_is_used_again() {
    let mut pool = pool(|_| ());
    let (one, two) = (take_new(&mut pool, 0, A), take_new(&mut pool, 0, A));
    pool.give_back(at(1), two, Condition::Good);
    pool.give_back(at(2), one, Condition::Good);
    for ms in 3..10 {
        assert_eq!(take(&mut pool, ms, A), Take::Item(one));
        pool.give_back(at(ms), one, Condition::Good);
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.granted, stats.reused, stats.opened, stats.idle),
        (9, 7, 2, 2)
    );
    audit(&pool);
}

#[test]
fn who_waits_is_served_in_the_order_of_arrival() {
    let mut pool = pool(|config| config.max_per_target = 1);
    let item = take_new(&mut pool, 0, A);
    let waiters: Vec<_> = (0..4)
        .map(|_| match take(&mut pool, 1, A) {
            Take::Wait(waiter) => waiter,
            Take::Item(_) => panic!("it is taken"),
        })
        .collect();
    assert!(pool.cancel(at(2), waiters[1]));
    assert!(!pool.cancel(at(2), waiters[1]));
    for waiter in [waiters[0], waiters[2], waiters[3]] {
        pool.give_back(at(3), item, Condition::Good);
        assert_eq!(events(&mut pool), [Event::Granted(waiter, item)]);
    }
    pool.give_back(at(4), item, Condition::Broken);
    pool.give_back(at(4), item, Condition::Good);
    assert_eq!(events(&mut pool), [Event::Close(item)]);
    assert!(pool.targets.is_empty());
}

#[test]
fn deadlines_of_waiters() {
    let mut pool = pool(|config| config.max_per_target = 1);
    let item = take_new(&mut pool, 0, A);
    let Ok(Take::Wait(soon)) = pool.take(at(0), A, Some(at(50))) else {
        panic!("it is taken")
    };
    let Ok(Take::Wait(late)) = pool.take(at(0), A, Some(Timestamp::MAX)) else {
        panic!("it is taken")
    };
    assert_eq!(pool.poll_timeout(), Some((at(50), Timer::Deadline(soon))));
    pool.handle_timeout(at(50));
    assert_eq!(events(&mut pool), [Event::Expired(soon)]);
    assert_eq!(pool.poll_timeout(), Some((at(30_000), Timer::Deadline(late))));
    pool.give_back(at(60), item, Condition::Good);
    assert_eq!(events(&mut pool), [Event::Granted(late, item)]);
    assert_eq!(pool.poll_timeout(), None);
}

#[test]
fn age_idleness_and_the_minimum() {
    let mut pool = pool(|config| {
        config.min_idle = 1;
        config.check_after = None;
    });
    let items = [take_new(&mut pool, 0, A), take_new(&mut pool, 0, A)];
    // One more is made for the minimum.
    let spare = pool.items.iter().find(|(_, item)| item.place == Place::Opening);
    let spare = *spare.expect("a spare one").0;
    pool.handle_opened(at(0), spare);
    for item in items {
        pool.give_back(at(10), item, Condition::Good);
    }
    assert_eq!(pool.stats().idle, 3);
    events(&mut pool);
    pool.handle_timeout(at(300_010));
    assert_eq!((pool.stats().idle, events(&mut pool).len()), (1, 2));
    audit(&pool);
    // What is left grows old, and is replaced.
    while pool.stats().opening == 0 {
        let (due, _) = pool.poll_timeout().expect("a timer");
        assert!(due <= at(3_600_000));
        pool.handle_timeout(due);
    }
    assert!(matches!(
        events(&mut pool)[..],
        [Event::Close(_), Event::Open(A, _)]
    ));
}

#[test]
fn a_check_before_what_was_idle_for_long() {
    let mut pool = pool(|_| ());
    let item = take_new(&mut pool, 0, A);
    pool.give_back(at(0), item, Condition::Good);
    let Take::Wait(waiter) = take(&mut pool, 31_000, A) else {
        panic!("a check first")
    };
    assert_eq!(events(&mut pool), [Event::Check(item)]);
    pool.handle_checked(at(31_001), item, true);
    assert_eq!(events(&mut pool), [Event::Granted(waiter, item)]);
    pool.give_back(at(31_002), item, Condition::Good);

    // One that is not well is replaced; one that says nothing too.
    for silent in [false, true] {
        let now = pool.now + Duration::from_secs(31);
        let Ok(Take::Wait(waiter)) = pool.take(now, A, None) else {
            panic!("a check first")
        };
        let Some(Event::Check(ill)) = pool.poll_event() else {
            panic!("a check")
        };
        if silent {
            assert_eq!(pool.poll_timeout(), Some((now + 2000 * MS, Timer::Check(ill))));
            pool.handle_timeout(now + 2000 * MS);
        } else {
            pool.handle_checked(now, ill, false);
        }
        assert_eq!(pool.poll_event(), Some(Event::Close(ill)));
        let Some(Event::Open(A, fresh)) = pool.poll_event() else {
            panic!("another")
        };
        pool.handle_opened(pool.now, fresh);
        assert_eq!(events(&mut pool), [Event::Granted(waiter, fresh)]);
        pool.give_back(pool.now, fresh, Condition::Good);
    }
    assert_eq!(pool.stats().failed_checks, 2);
    audit(&pool);
}

#[test]
fn what_cannot_be_made_is_tried_again_after_a_backoff() {
    let mut pool = pool(|config| config.max_wait = 100_000 * MS);
    let Take::Wait(waiter) = take(&mut pool, 0, A) else {
        panic!("nothing is there")
    };
    let mut tries = 0;
    let mut expired = false;
    for _ in 0..10_000 {
        match pool.poll_event() {
            Some(Event::Open(A, item)) => {
                tries += 1;
                match tries % 2 {
                    0 => pool.handle_open_failed(pool.now, item),
                    _ => continue, // It hangs.
                }
            }
            Some(Event::Close(_)) => {}
            Some(Event::Expired(id)) => {
                assert_eq!(id, waiter);
                expired = true;
            }
            Some(other) => panic!("{other:?}"),
            None => match pool.poll_timeout() {
                Some((due, _)) => pool.handle_timeout(due),
                None => break,
            },
        }
        audit(&pool);
    }
    assert!(expired && (5..60).contains(&tries), "{tries}");
    assert!(pool.targets.is_empty() && pool.items.is_empty());
}

#[test]
fn a_full_pool_starves_nobody() {
    let mut pool = pool(|config| config.max_total = 2);
    let (one, two) = (take_new(&mut pool, 0, A), take_new(&mut pool, 0, A));
    let Take::Wait(first) = take(&mut pool, 1, B) else {
        panic!("full")
    };
    let Take::Wait(own) = take(&mut pool, 2, A) else {
        panic!("full")
    };
    let Take::Wait(second) = take(&mut pool, 3, C) else {
        panic!("full")
    };
    audit(&pool);
    assert_eq!(events(&mut pool), []);
    pool.give_back(at(4), one, Condition::Good);
    let [Event::Close(closed), Event::Open(B, for_b)] = events(&mut pool)[..] else {
        panic!("B was first")
    };
    assert_eq!(closed, one);
    pool.handle_opened(at(5), for_b);
    assert_eq!(events(&mut pool), [Event::Granted(first, for_b)]);
    pool.give_back(at(6), two, Condition::Good);
    assert_eq!(events(&mut pool), [Event::Granted(own, two)]);
    // B is done: its item is idle for the one instant that C needs to have it closed.
    pool.give_back(at(7), for_b, Condition::Good);
    let [Event::Close(closed), Event::Open(C, for_c)] = events(&mut pool)[..] else {
        panic!("C was next")
    };
    assert_eq!(closed, for_b);
    pool.handle_opened(at(8), for_c);
    assert_eq!(events(&mut pool), [Event::Granted(second, for_c)]);
    // An idle item of another target makes room.
    pool.give_back(at(9), two, Condition::Good);
    let Take::Wait(_) = take(&mut pool, 10, B) else {
        panic!("none of its own")
    };
    assert!(matches!(
        events(&mut pool)[..],
        [Event::Close(_), Event::Open(B, _)]
    ));
    audit(&pool);
}

#[test]
fn limits_and_the_end() {
    let mut pool = pool(|config| {
        config.max_waiting = 2;
        config.max_targets = 2;
        config.max_per_target = 1;
    });
    let item = take_new(&mut pool, 0, A);
    for _ in 0..2 {
        take(&mut pool, 0, A);
    }
    assert_eq!(pool.take(at(0), A, None), Err(TakeError::TooManyWaiting));
    assert_eq!(pool.take(at(0), B, None), Err(TakeError::TooManyWaiting));
    assert_eq!(pool.targets.len(), 1);
    pool.warm(at(0), B).unwrap();
    pool.close(at(1));
    let ends = events(&mut pool);
    assert_eq!(
        ends.iter()
            .filter(|event| matches!(event, Event::Refused(_)))
            .count(),
        2
    );
    assert_eq!(pool.take(at(1), A, None), Err(TakeError::Closed));
    pool.give_back(at(2), item, Condition::Good);
    assert_eq!(events(&mut pool), [Event::Close(item)]);
    assert!(pool.targets.is_empty() && pool.timers.is_empty() && pool.items.is_empty());
}

#[test]
fn any_order_of_use() {
    bolero::check!()
        .with_type::<Vec<(u8, u8, u16)>>()
        .for_each(|steps| {
            let mut pool = pool(|config| {
                config.max_per_target = 3;
                config.max_total = 4;
                config.max_waiting = 8;
                config.max_targets = 3;
                config.idle_timeout = 2000 * MS;
                config.check_after = Some(500 * MS);
                config.max_age = 10_000 * MS;
                config.max_wait = 3000 * MS;
            });
            let (mut now, mut busy, mut opening, mut checking) = (0, Vec::new(), Vec::new(), Vec::new());
            let mut waiting: BTreeMap<WaiterId, Timestamp> = BTreeMap::new();
            for &(what, which, wait) in steps {
                now += u64::from(wait) % 400;
                while pool
                    .poll_timeout()
                    .is_some_and(|(due, timer)| due <= at(now) && timer != Timer::Event)
                {
                    pool.handle_timeout(at(now));
                }
                let pick = |len: usize| usize::from(which) % len.max(1);
                match what % 8 {
                    0..=2 => match pool.take(at(now), TargetId(u64::from(which % 4)), None) {
                        Ok(Take::Item(item)) => busy.push(item),
                        Ok(Take::Wait(waiter)) => drop(waiting.insert(waiter, at(now) + 3000 * MS)),
                        Err(_) => {}
                    },
                    3 if !busy.is_empty() => {
                        let condition = [Condition::Good, Condition::Broken][usize::from(wait % 4 == 0)];
                        pool.give_back(at(now), busy.swap_remove(pick(busy.len())), condition);
                    }
                    4 if !opening.is_empty() => {
                        let item = opening.swap_remove(pick(opening.len()));
                        match wait % 3 {
                            0 => pool.handle_open_failed(at(now), item),
                            _ => pool.handle_opened(at(now), item),
                        }
                    }
                    5 if !checking.is_empty() => {
                        pool.handle_checked(
                            at(now),
                            checking.swap_remove(pick(checking.len())),
                            wait % 3 > 0,
                        );
                    }
                    6 if wait % 5 == 0 => {
                        let lost = pool.items.keys().nth(pick(pool.items.len())).copied();
                        if let Some(lost) = lost {
                            pool.handle_lost(at(now), lost);
                            busy.retain(|item| *item != lost);
                        }
                    }
                    7 => {
                        if let Some((waiter, deadline)) = waiting.pop_first()
                            && !pool.cancel(at(now), waiter)
                        {
                            // Its event is on its way.
                            waiting.insert(waiter, deadline);
                        }
                    }
                    _ => {}
                }
                for event in events(&mut pool) {
                    match event {
                        Event::Open(_, item) => opening.push(item),
                        Event::Check(item) => checking.push(item),
                        Event::Close(item) => {
                            opening.retain(|other| *other != item);
                            checking.retain(|other| *other != item);
                        }
                        Event::Granted(waiter, item) => {
                            assert!(waiting.remove(&waiter).is_some_and(|deadline| deadline > at(now)));
                            busy.push(item);
                        }
                        Event::Expired(waiter) => {
                            assert!(
                                waiting
                                    .remove(&waiter)
                                    .is_some_and(|deadline| deadline <= at(now))
                            );
                        }
                        Event::Refused(_) => panic!("nothing was closed"),
                    }
                }
                assert!(waiting.values().all(|deadline| *deadline > at(now)));
                audit(&pool);
            }
            for item in busy {
                pool.give_back(at(now), item, Condition::Good);
            }
            // Left to itself it empties.
            for _ in 0..10_000 {
                while let Some(event) = pool.poll_event() {
                    if let Event::Granted(_, item) = event {
                        pool.give_back(pool.now, item, Condition::Good);
                    }
                }
                let Some((due, _)) = pool.poll_timeout() else {
                    break;
                };
                pool.handle_timeout(due);
            }
            let left = (&pool.items, &pool.targets, &pool.timers);
            assert!(
                pool.items.is_empty() && pool.targets.is_empty() && pool.waiters.is_empty(),
                "{left:?}"
            );
            assert!(pool.idle.is_empty() && pool.unserved.is_empty() && pool.timers.is_empty());
        });
}

/// What happens in the world of the soak.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Arrive(TargetId),
    Opened(ItemId, bool),
    Checked(ItemId, bool),
    Return(ItemId, bool),
}

/// The gate: 24 hours of steady load with outages, items that break, and slow users. Reuse over 95 %,
/// nobody waits past a deadline, nothing leaks.
#[test]
fn a_day_of_use() {
    const DAY: u64 = 24 * 3600;
    let start = Timestamp::ZERO;
    let mut pool = pool(|config| config.max_total = 20);
    let mut rng = Rng::from_seed([8; 32]);
    let mut agenda: BTreeSet<(Timestamp, u64, Happens)> = BTreeSet::new();
    let mut number = 0;
    let mut plan = |agenda: &mut BTreeSet<_>, at: Timestamp, what: Happens| {
        number += 1;
        agenda.insert((at, number, what));
    };
    for target in 0..4 {
        plan(&mut agenda, start, Happens::Arrive(TargetId(target)));
    }
    // Each target is away for a minute every three hours.
    let down = |target: TargetId, at: Timestamp| {
        let seconds = at.as_nanos() / 1_000_000_000 + target.0 * 2000;
        seconds % 10_800 < 60
    };
    let mut waiting: BTreeMap<WaiterId, Timestamp> = BTreeMap::new();
    let mut of_target: BTreeMap<ItemId, TargetId> = BTreeMap::new();
    let (mut taken, mut longest) = (0_u64, 0);
    let mut now = start;
    loop {
        let due = pool.poll_timeout().map(|(due, _)| due);
        let next = agenda.first().map(|(at, ..)| *at);
        let Some(then) = due.into_iter().chain(next).min() else {
            break;
        };
        now = now.max(then);
        if due.is_some_and(|due| due <= now) {
            pool.handle_timeout(now);
        }
        let mut granted = Vec::new();
        if next.is_some_and(|at| at <= now) {
            match agenda.pop_first().expect("something").2 {
                Happens::Arrive(target) => {
                    taken += 1;
                    let deadline = now + Duration::from_secs(5);
                    match pool.take(now, target, Some(deadline)).expect("within limits") {
                        Take::Item(item) => granted.push(item),
                        Take::Wait(waiter) => drop(waiting.insert(waiter, deadline)),
                    }
                    let gap = Duration::from_secs_f64(-0.8 * (1.0 - rng.unit()).ln());
                    if (now + gap).since(start).as_secs() < DAY {
                        plan(&mut agenda, now + gap, Happens::Arrive(target));
                    }
                }
                Happens::Opened(item, true) => pool.handle_opened(now, item),
                Happens::Opened(item, false) => pool.handle_open_failed(now, item),
                Happens::Checked(item, well) => pool.handle_checked(now, item, well),
                Happens::Return(item, true) => pool.give_back(now, item, Condition::Good),
                Happens::Return(item, false) => pool.give_back(now, item, Condition::Broken),
            }
        }
        while let Some(event) = pool.poll_event() {
            match event {
                Event::Open(target, item) => {
                    of_target.insert(item, target);
                    let up = !down(target, now);
                    plan(&mut agenda, now + 30 * MS, Happens::Opened(item, up));
                }
                Event::Check(item) => {
                    let well = !down(of_target[&item], now);
                    plan(&mut agenda, now + 5 * MS, Happens::Checked(item, well));
                }
                Event::Close(item) => drop(of_target.remove(&item)),
                Event::Granted(waiter, item) => {
                    let deadline = waiting.remove(&waiter).expect("it waited");
                    assert!(now < deadline, "granted after its deadline");
                    granted.push(item);
                }
                Event::Expired(waiter) => {
                    let deadline = waiting.remove(&waiter).expect("it waited");
                    assert_eq!(now, deadline, "told at its deadline");
                }
                Event::Refused(_) => panic!("nothing was closed"),
            }
        }
        for item in granted {
            let well = !down(of_target[&item], now) && rng.below(2000) > 0;
            let takes = Duration::from_secs_f64(-0.2 * (1.0 - rng.unit()).ln());
            plan(&mut agenda, now + takes, Happens::Return(item, well));
        }
        longest = longest.max(pool.items.len());
        if taken.is_multiple_of(1000) {
            audit(&pool);
        }
    }
    let stats = pool.stats();
    let reuse = stats.reused as f64 / stats.granted as f64;
    assert!(reuse > 0.95, "reuse {reuse}: {stats:?}");
    assert!(taken > 400_000 && longest <= 20, "{taken} takes, {longest} items");
    assert_eq!(taken, stats.granted + stats.expired);
    assert!(stats.expired > 0, "the outages were felt");
    assert_eq!(
        (
            stats.idle,
            stats.busy,
            stats.opening,
            stats.waiting,
            stats.targets
        ),
        (0, 0, 0, 0, 0)
    );
    assert!(pool.timers.is_empty() && waiting.is_empty() && agenda.is_empty());
    assert_eq!(stats.opened, stats.closed);
}

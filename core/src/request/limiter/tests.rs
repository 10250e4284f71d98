//! Who runs, who waits, and who is turned away.

use super::*;

fn limiter(edit: impl FnOnce(&mut Config)) -> Limiter {
    let mut config = Config::default();
    edit(&mut config);
    Limiter::new(config, Timestamp::ZERO)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn arrive(limiter: &mut Limiter, session: u64, method: u64) -> CallId {
    match limiter
        .arrive(at(0), SessionId(session), MethodId(method), None)
        .unwrap()
    {
        Admission::Run(id) | Admission::Wait(id) => id,
    }
}

#[test]
fn sessions_take_turns_however_much_one_asks_for() {
    let mut limiter = limiter(|config| config.max_running = 1);
    let first = arrive(&mut limiter, 0, 0);
    let greedy: Vec<_> = (0..10).map(|n| arrive(&mut limiter, 1, n % 3)).collect();
    let modest = arrive(&mut limiter, 2, 0);
    let mut order = Vec::new();
    let mut next = first;
    for _ in 0..11 {
        limiter.finish(at(1), next);
        let Some(Event::Run(id)) = limiter.poll_event() else {
            panic!("one runs")
        };
        order.push(id);
        next = id;
    }
    assert_eq!(order.iter().position(|id| *id == modest), Some(1));
    // Its methods take turns too: 0 1 2 0 1 2 ...
    let own: Vec<_> = order.into_iter().filter(|id| *id != modest).collect();
    assert_eq!(own[..3], greedy[..3]);
    limiter.finish(at(1), next);
    assert!(limiter.sessions.is_empty() && limiter.methods.is_empty() && limiter.calls.is_empty());
}

#[test]
fn a_full_method_holds_up_no_other() {
    let mut limiter = limiter(|_| ());
    limiter.set_method_limit(at(0), MethodId(1), Some(1));
    let slow = arrive(&mut limiter, 1, 1);
    let behind = arrive(&mut limiter, 1, 1);
    assert!(matches!(
        limiter.arrive(at(0), SessionId(1), MethodId(2), None),
        Ok(Admission::Run(_))
    ));
    limiter.finish(at(1), slow);
    assert_eq!(limiter.poll_event(), Some(Event::Run(behind)));
    limiter.finish(at(1), behind);
    limiter.finish(at(1), behind);
    assert_eq!((limiter.running(), limiter.waiting()), (1, 0));
}

#[test]
fn overload_and_deadlines() {
    let mut limiter = limiter(|config| {
        config.max_running = 1;
        config.max_waiting = 3;
        config.max_waiting_per_session = 2;
    });
    arrive(&mut limiter, 1, 1);
    let late = limiter.arrive(at(0), SessionId(1), MethodId(1), Some(at(50)));
    let Ok(Admission::Wait(late)) = late else {
        panic!("it waits")
    };
    let given_up = arrive(&mut limiter, 1, 1);
    let again = |limiter: &mut Limiter, session| limiter.arrive(at(0), SessionId(session), MethodId(1), None);
    assert_eq!(again(&mut limiter, 1), Err(Overload::Session));
    arrive(&mut limiter, 2, 1);
    assert_eq!(again(&mut limiter, 3), Err(Overload::Total));
    assert_eq!(limiter.poll_timeout(), Some(at(50)));
    limiter.handle_timeout(at(50));
    assert_eq!(limiter.poll_event(), Some(Event::Expired(late)));
    limiter.finish(at(51), given_up);
    assert_eq!(
        (limiter.poll_event(), limiter.poll_timeout(), limiter.waiting()),
        (None, None, 1)
    );
    assert_eq!(Overload::Total.failure().executed, super::super::Executed::No);
}

/// A session that is offered slots of two methods, and may run only one call more, leaves the other's to who
/// waits behind it.
#[test]
fn a_slot_that_a_full_session_cannot_take_goes_to_the_next() {
    let mut limiter = limiter(|config| {
        config.max_running = 3;
        config.max_running_per_session = 1;
        config.max_running_per_method = 1;
    });
    let running = [1, 2].map(|method| arrive(&mut limiter, 10 + method, method));
    let third = arrive(&mut limiter, 20, 3);
    let waits = [(1, 1), (1, 2), (2, 2)].map(|(session, method)| arrive(&mut limiter, session, method));
    // There is room in all, yet not for a method that somebody waits for.
    limiter.finish(at(1), third);
    let full = arrive(&mut limiter, 20, 4);
    let ahead = arrive(&mut limiter, 9, 5);
    for id in running {
        limiter.finish(at(2), id);
    }
    limiter.finish(at(3), full);
    for id in [ahead, waits[0], waits[2]] {
        assert_eq!(limiter.poll_event(), Some(Event::Run(id)));
    }
    limiter.finish(at(4), waits[0]);
    assert_eq!(limiter.poll_event(), None, "its method runs elsewhere");
    limiter.finish(at(5), waits[2]);
    assert_eq!(limiter.poll_event(), Some(Event::Run(waits[1])));
}

/// Random arrivals, ends and deadlines: limits hold, no slot stays free while a call waits that may
/// have it, order within a flow is kept, and in the end nothing is left.
#[test]
fn no_slot_is_wasted_and_no_limit_broken() {
    bolero::check!()
        .with_type::<Vec<(u8, u8, u8)>>()
        .for_each(|steps| {
            let mut limiter = limiter(|config| {
                config.max_running = 5;
                config.max_running_per_session = 3;
                config.max_running_per_method = 2;
                config.max_waiting = 30;
                config.max_waiting_per_session = 12;
            });
            let mut calls: BTreeMap<CallId, (u64, u64, bool)> = BTreeMap::new();
            let mut now = 0;
            for &(what, which, wait) in steps {
                now += u64::from(wait % 8);
                let (session, method) = (u64::from(which % 4), u64::from(which / 4 % 4));
                match what % 5 {
                    0..=2 => {
                        let deadline = (what % 2 == 0).then(|| at(now + u64::from(wait)));
                        match limiter.arrive(at(now), SessionId(session), MethodId(method), deadline) {
                            Ok(Admission::Run(id)) => drop(calls.insert(id, (session, method, true))),
                            Ok(Admission::Wait(id)) => drop(calls.insert(id, (session, method, false))),
                            Err(_) => assert!(limiter.waiting() >= 12),
                        }
                    }
                    _ => {
                        let some = calls.keys().nth(usize::from(which) % calls.len().max(1)).copied();
                        if let Some(id) = some {
                            limiter.finish(at(now), id);
                            calls.remove(&id);
                        }
                    }
                }
                if limiter.poll_timeout().is_some_and(|due| due <= at(now)) {
                    limiter.handle_timeout(at(now));
                }
                while let Some(event) = limiter.poll_event() {
                    match event {
                        Event::Run(id) => {
                            let (session, method, _) = calls[&id];
                            let earlier = calls
                                .iter()
                                .any(|(other, call)| *call == (session, method, false) && other.seq < id.seq);
                            assert!(!earlier, "overtaken in its flow");
                            calls.insert(id, (session, method, true));
                        }
                        Event::Expired(id) => {
                            assert_eq!(calls.remove(&id).map(|call| call.2), Some(false))
                        }
                    }
                }
                let running = |f: &dyn Fn(&(u64, u64, bool)) -> bool| {
                    calls.values().filter(|call| call.2 && f(call)).count()
                };
                assert_eq!(limiter.running(), running(&|_| true));
                assert!(limiter.running() <= 5);
                for n in 0..4 {
                    assert!(running(&|call| call.0 == n) <= 3 && running(&|call| call.1 == n) <= 2);
                }
                for call in calls.values().filter(|call| !call.2) {
                    let may = limiter.running() < 5
                        && running(&|other| other.0 == call.0) < 3
                        && running(&|other| other.1 == call.1) < 2;
                    assert!(!may, "a slot is wasted");
                }
            }
            for id in calls.into_keys() {
                limiter.finish(at(now), id);
            }
            while limiter.poll_event().is_some() {}
            assert!(limiter.sessions.is_empty() && limiter.methods.is_empty() && limiter.calls.is_empty());
            assert!(limiter.turns.is_empty() && limiter.deadlines.is_empty());
        });
}

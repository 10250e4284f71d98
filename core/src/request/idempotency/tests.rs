//! Once, and then from memory.

use super::*;

const LIFE: Duration = Duration::from_secs(10);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn table(edit: impl FnOnce(&mut Config)) -> IdempotencyTable {
    let mut config = Config {
        life: LIFE,
        ..Config::default()
    };
    edit(&mut config);
    IdempotencyTable::new(config, at(0))
}

fn digest(n: u8) -> RequestDigest {
    RequestDigest::of("m", &[n])
}

fn begin(table: &mut IdempotencyTable, ms: u64, key: &[u8], n: u8, waiter: u64) -> Begin {
    table.begin(at(ms), Scope(1), key, digest(n), WaiterId(waiter))
}

fn execute(begin: Begin) -> Ticket {
    match begin {
        Begin::Execute(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn once_then_from_memory_until_it_ends() {
    let mut table = table(|_| ());
    let ticket = execute(begin(&mut table, 0, b"k", 1, 0));
    assert_eq!(begin(&mut table, 1, b"k", 1, 7), Begin::Wait);
    assert_eq!(
        begin(&mut table, 1, b"k", 2, 8),
        Begin::Refuse(Refusal::KeyReused)
    );
    assert_eq!(table.poll_timeout(), None, "what is under way never ends by time");
    let answer = Bytes::from_static(b"done");
    table.complete(at(100_000), ticket, answer.clone());
    assert_eq!(table.poll_timeout(), Some(at(100_000)));
    assert_eq!(
        table.poll_event(),
        Some(Event::Replay(WaiterId(7), answer.clone()))
    );
    assert_eq!(
        begin(&mut table, 105_000, b"k", 1, 9),
        Begin::Replay(answer.clone())
    );
    assert_eq!(
        begin(&mut table, 105_000, b"k", 3, 9),
        Begin::Refuse(Refusal::KeyReused)
    );
    table.complete(at(105_000), ticket, Bytes::from_static(b"twice"));
    assert_eq!(begin(&mut table, 105_000, b"k", 1, 9), Begin::Replay(answer));
    assert_eq!(table.poll_timeout(), Some(at(110_000)));
    table.handle_timeout(at(110_000));
    assert_eq!((table.len(), table.bytes(), table.poll_timeout()), (0, 0, None));
    execute(begin(&mut table, 110_000, b"k", 3, 9));
}

#[test]
fn scopes_do_not_meet() {
    let mut table = table(|config| config.max_entries_per_scope = 1);
    execute(begin(&mut table, 0, b"k", 1, 0));
    assert_eq!(begin(&mut table, 0, b"other", 1, 0), Begin::Refuse(Refusal::Full));
    execute(table.begin(at(0), Scope(2), b"k", digest(2), WaiterId(0)));
}

#[test]
fn abandoned_executions_pass_on() {
    let mut table = table(|config| config.max_waiting = 2);
    let first = execute(begin(&mut table, 0, b"k", 1, 0));
    for waiter in [1, 2] {
        assert_eq!(begin(&mut table, 0, b"k", 1, waiter), Begin::Wait);
    }
    assert_eq!(
        begin(&mut table, 0, b"k", 1, 3),
        Begin::Refuse(Refusal::TooManyWaiting)
    );
    table.cancel_wait(WaiterId(1));
    table.abandon(at(1), first);
    let Some(Event::Execute(WaiterId(2), second)) = table.poll_event() else {
        panic!("the next one that waits")
    };
    table.complete(at(1), first, Bytes::from_static(b"late"));
    table.abandon(at(1), second);
    assert_eq!((table.poll_event(), table.len(), table.bytes()), (None, 0, 0));
}

#[test]
fn bounded_in_entries_and_bytes() {
    let mut table = table(|config| {
        config.max_entries = 3;
        config.max_bytes = 3 * ENTRY_BYTES + 100;
        config.max_answer = 60;
    });
    let tickets: Vec<_> = (0..3)
        .map(|n| execute(begin(&mut table, 0, &[n], 1, 0)))
        .collect();
    assert_eq!(begin(&mut table, 0, b"x", 1, 0), Begin::Refuse(Refusal::Full));
    table.complete(at(1), tickets[0], Bytes::from(vec![0; 61]));
    table.complete(at(1), tickets[1], Bytes::from(vec![1; 60]));
    table.complete(at(1), tickets[2], Bytes::from(vec![2; 60]));
    assert_eq!(
        begin(&mut table, 2, &[0], 1, 0),
        Begin::Refuse(Refusal::AnswerForgotten)
    );
    assert_eq!(
        begin(&mut table, 2, &[1], 1, 0),
        Begin::Refuse(Refusal::AnswerForgotten)
    );
    assert_eq!(
        begin(&mut table, 2, &[2], 1, 0),
        Begin::Replay(Bytes::from(vec![2; 60]))
    );
    assert!(table.bytes() <= 3 * ENTRY_BYTES + 100);
    table.handle_timeout(at(20_000));
    assert_eq!(
        (table.len(), table.bytes(), table.kept.len(), table.ends.len()),
        (0, 0, 0, 0)
    );
    for refusal in [Refusal::KeyReused, Refusal::AnswerForgotten, Refusal::Full] {
        let executed = refusal.failure().executed == super::super::Executed::Yes;
        assert_eq!(executed, refusal == Refusal::AnswerForgotten);
    }
}

/// The gate: never two executions of one key within its life, whatever the interleaving; what waits
/// gets a word; nothing leaks.
#[test]
fn never_twice_in_its_life() {
    bolero::check!()
        .with_type::<Vec<(u8, u8, u16)>>()
        .for_each(|steps| {
            let mut table = table(|config| {
                config.max_entries = 6;
                config.max_bytes = 6 * ENTRY_BYTES + 64;
                config.max_answer = 24;
                config.max_waiting = 3;
            });
            let (mut now, mut next_waiter) = (0_u64, 0_u64);
            // The model: for each key its ticket while it runs, or when its life ends.
            let mut running: BTreeMap<Ticket, u8> = BTreeMap::new();
            let mut ends: BTreeMap<u8, u64> = BTreeMap::new();
            let mut waiting: BTreeMap<WaiterId, u8> = BTreeMap::new();
            let start = |key, ticket, now, running: &mut BTreeMap<Ticket, u8>, ends: &BTreeMap<u8, u64>| {
                assert!(ends.get(&key).is_none_or(|end| *end <= now), "executed twice");
                assert!(
                    !running.values().any(|other| *other == key),
                    "executed twice at once"
                );
                running.insert(ticket, key);
            };
            for &(what, which, wait) in steps {
                now += u64::from(wait) % 4000;
                let key = which % 8;
                let some_ticket = running
                    .keys()
                    .nth(usize::from(which) % running.len().max(1))
                    .copied();
                match (what % 6, some_ticket) {
                    (0..=2, _) => {
                        next_waiter += 1;
                        let waiter = WaiterId(next_waiter);
                        match table.begin(at(now), Scope(0), &[key], digest(key), waiter) {
                            Begin::Execute(ticket) => start(key, ticket, now, &mut running, &ends),
                            Begin::Wait => drop(waiting.insert(waiter, key)),
                            Begin::Replay(answer) => assert_eq!(answer.first(), Some(&key)),
                            Begin::Refuse(_) => {}
                        }
                    }
                    (3, Some(ticket)) => {
                        let key = running.remove(&ticket).unwrap();
                        ends.insert(key, now + LIFE.as_millis() as u64);
                        let answer = vec![key; usize::from(wait % 30) + 1];
                        table.complete(at(now), ticket, answer.into());
                    }
                    (4, Some(ticket)) => {
                        running.remove(&ticket);
                        table.abandon(at(now), ticket);
                    }
                    (5, _) => {
                        if let Some((waiter, _)) = waiting.pop_first() {
                            table.cancel_wait(waiter);
                        }
                    }
                    _ => {}
                }
                while let Some(event) = table.poll_event() {
                    match event {
                        Event::Replay(waiter, answer) => {
                            assert_eq!(answer.first().copied(), waiting.remove(&waiter));
                        }
                        Event::Execute(waiter, ticket) => {
                            let key = waiting.remove(&waiter).expect("it waited");
                            start(key, ticket, now, &mut running, &ends);
                        }
                    }
                }
                // Whoever waits waits for one that runs.
                assert!(
                    waiting
                        .values()
                        .all(|key| running.values().any(|other| other == key))
                );
                assert!(table.bytes() <= 6 * ENTRY_BYTES + 64 && table.len() <= 6);
            }
            for ticket in running.into_keys() {
                table.abandon(at(now), ticket);
                while let Some(Event::Execute(_, ticket)) = table.poll_event() {
                    table.abandon(at(now), ticket);
                }
            }
            while let Some(end) = table.poll_timeout() {
                table.handle_timeout(end);
            }
            assert_eq!((table.len(), table.bytes(), table.waiting.len()), (0, 0, 0));
            assert!(table.ids.is_empty() && table.per_scope.is_empty() && table.kept.is_empty());
        });
}

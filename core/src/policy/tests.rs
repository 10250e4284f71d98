//! The gate of the total outage: 10,000 clients, each with its connector, its budget and its calls.

use std::collections::BTreeSet;
use std::time::Duration;

use super::budget::{Budget, BudgetPolicy};
use super::retry::{Event, Marks, Retry, RetryPolicy};
use crate::client::connector::{AttemptId, Config, Connector, Down, Event as ConnectorEvent, Verdict};
use crate::request::{Cause, Classify, Executed};
use crate::rng::Rng;
use crate::time::Timestamp;

const CLIENTS: u32 = 10_000;
const DOWN: u64 = 15;
const UP: u64 = 45;
const END: u64 = 75;
/// The mean time between the calls of a client.
const GAP: f64 = 2.0;

fn second(n: u64) -> Timestamp {
    Timestamp::from_nanos(n * 1_000_000_000)
}

fn is_up(now: Timestamp) -> bool {
    now < second(DOWN) || now >= second(UP)
}

#[derive(Default)]
struct Tally {
    calls: u64,
    retries: u64,
    calls_in_outage: u64,
    retries_in_outage: u64,
    failed: u64,
    failed_late: u64,
    /// Attempts to connect, by tenths of a second.
    attempts: Vec<u32>,
    /// When the last client was back.
    recovered: Timestamp,
}

struct Client {
    connector: Connector,
    path: Option<AttemptId>,
    connecting: Vec<(Timestamp, AttemptId)>,
    next_call: Timestamp,
    calls: Vec<Retry>,
    budget: Budget,
    rng: Rng,
    cut: bool,
}

impl Client {
    fn new(seed: u32) -> Client {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        let mut rng = Rng::from_seed(bytes);
        let first = Timestamp::ZERO + Duration::from_secs_f64(GAP * rng.unit() + 1.0);
        let connector_rng = rng.fork("connector");
        Client {
            connector: Connector::new(Config::new(1), connector_rng, Timestamp::ZERO),
            path: None,
            connecting: Vec::new(),
            next_call: first,
            calls: Vec::new(),
            budget: Budget::new(BudgetPolicy::strict(), Timestamp::ZERO),
            rng,
            cut: false,
        }
    }

    /// One turn; gives when the next is due.
    fn turn(&mut self, now: Timestamp, tally: &mut Tally) -> Timestamp {
        if now >= second(DOWN) && !self.cut {
            self.cut = true;
            if let Some(path) = self.path.take() {
                self.connector.handle_path_worked(path);
                self.connector.handle_path_down(now, path, Down::Failed);
            }
        }
        self.connect(now, tally);
        if now >= self.next_call {
            let gap = Duration::from_secs_f64(-GAP * (1.0 - self.rng.unit()).ln());
            self.next_call = now + gap;
            let deadline = Some(now + Duration::from_secs(5));
            let marks = Marks {
                safe_to_repeat: true,
                deadline,
            };
            self.calls
                .push(Retry::new(RetryPolicy::default(), marks, &mut self.budget, now));
        }
        self.call(now, tally);
        let mut next = self.next_call;
        if !self.cut {
            next = next.min(second(DOWN));
        }
        let timers = self
            .calls
            .iter()
            .filter_map(Retry::poll_timeout)
            .map(|(at, _)| at);
        let done = self.connecting.iter().map(|(at, _)| *at);
        timers
            .chain(done)
            .chain(self.connector.poll_timeout())
            .fold(next, Timestamp::min)
    }

    fn connect(&mut self, now: Timestamp, tally: &mut Tally) {
        while let Some(at) = self.connecting.iter().position(|(at, _)| *at <= now) {
            let (_, id) = self.connecting.remove(at);
            if !is_up(now) {
                self.connector.handle_connect_failed(now, id);
            } else if self.connector.handle_path_up(now, id) == Verdict::Keep {
                self.path = Some(id);
                tally.recovered = tally.recovered.max(now);
            }
        }
        self.connector.handle_timeout(now);
        while let Some(attempt) = self.connector.poll_connect(now) {
            let slot = (now.as_nanos() / 100_000_000) as usize;
            tally.attempts[slot] += 1;
            let takes = Duration::from_millis(if is_up(now) { 10 } else { 2 });
            self.connecting.push((now + takes, attempt.attempt_id));
        }
        while let Some(event) = self.connector.poll_event() {
            if let ConnectorEvent::GiveUp(attempt) = event {
                self.connecting.retain(|(_, id)| *id != attempt.attempt_id);
            }
        }
    }

    fn call(&mut self, now: Timestamp, tally: &mut Tally) {
        let Client {
            calls,
            budget,
            rng,
            path,
            ..
        } = self;
        calls.retain_mut(|call| {
            call.handle_timeout(now);
            while let Some(event) = call.poll_event() {
                match event {
                    Event::Start(attempt) => {
                        let (one, in_outage) = match attempt.number {
                            0 => (&mut tally.calls, &mut tally.calls_in_outage),
                            _ => (&mut tally.retries, &mut tally.retries_in_outage),
                        };
                        *one += 1;
                        *in_outage += u64::from(!is_up(now));
                        if path.is_some() {
                            call.handle_success(budget);
                        } else {
                            let error = Cause::NoConnection("down").classify();
                            call.handle_failure(now, Executed::No, error, budget, rng);
                        }
                    }
                    Event::Cancel => panic!("nothing takes long here"),
                    Event::GiveUp(_) => {
                        tally.failed += 1;
                        tally.failed_late += u64::from(now >= second(UP + 20));
                        return false;
                    }
                }
            }
            call.poll_timeout().is_some()
        });
    }
}

/// NUMBERS: retries at most 20 % above the calls, attempts to reconnect in the worst 100 ms at most twice the
/// mean over the recovery, and everything recovers.
#[test]
fn ten_thousand_clients_after_an_outage() {
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let mut agenda: BTreeSet<(Timestamp, u32)> = (0..CLIENTS).map(|n| (Timestamp::ZERO, n)).collect();
    let mut tally = Tally {
        attempts: vec![0; (END * 10 + 10) as usize],
        ..Tally::default()
    };
    let (mut last, mut stuck) = (Timestamp::ZERO, 0);
    while let Some((now, number)) = agenda.pop_first() {
        if now >= second(END) {
            break;
        }
        stuck = if now > last { 0 } else { stuck + 1 };
        last = now;
        assert!(stuck < 100 * CLIENTS, "no progress at {now:?}");
        let next = clients[number as usize].turn(now, &mut tally);
        agenda.insert((next, number));
    }
    assert!(
        clients.iter().all(|client| client.path.is_some()),
        "everybody is back"
    );
    assert_eq!(tally.failed_late, 0, "and every call succeeds");

    let share = |retries: u64, calls: u64| retries as f64 / calls as f64;
    let total = share(tally.retries, tally.calls);
    let in_outage = share(tally.retries_in_outage, tally.calls_in_outage);
    let recovered = (tally.recovered.as_nanos() / 100_000_000) as usize;
    let recovery = &tally.attempts[UP as usize * 10..=recovered];
    let mean = f64::from(recovery.iter().sum::<u32>()) / recovery.len() as f64;
    let worst = f64::from(recovery.iter().copied().max().unwrap_or(0));
    let report = format!(
        "calls {}, retries {} ({:.1} %; in the outage {:.1} %), failed {}; recovery {:.1} s, attempts per 100 ms: \
         mean {mean:.0}, worst {worst:.0} ({:.2} x)",
        tally.calls,
        tally.retries,
        total * 100.0,
        in_outage * 100.0,
        tally.failed,
        recovery.len() as f64 / 10.0,
        worst / mean,
    );
    assert!(total <= 0.2 && in_outage <= 0.2, "{report}");
    assert!(worst <= 2.0 * mean, "{report}");
    // Shown by `--nocapture`.
    #[allow(clippy::print_stdout)]
    {
        println!("{report}");
    }
}

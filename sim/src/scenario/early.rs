//! Sessions that begin in the first flight of a connection of QUIC, by a ticket of one before. PROTOCOL 14.8.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Client, Config, EarlyStart, ErrorCode, Session};

use super::service::{self, PORT};
use super::stage::{Check, Ledger, ensure, failure, ms, world};
use super::work::body;
use super::{Outcome, Scenario, Setup, scenario};
use crate::failure::FailureKind;
use crate::fault::Fault;
use crate::host::Host;
use crate::net::{LinkConfig, Middlebox};
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "quic-early",
        "a server that is known answers after one round trip over QUIC, and after two where it is not",
        known,
    ),
    scenario(
        "quic-early-lossy",
        "sessions begin one after another in first flights of which one packet in ten is lost",
        lossy,
    ),
    scenario(
        "quic-early-restart",
        "a server begins anew between two sessions, and takes no first flight of before",
        restarted,
    ),
    scenario(
        "quic-early-blocked",
        "first flights go into a network that lets no UDP pass any more",
        blocked,
    ),
];

/// One way.
const DELAY: Duration = ms(20);
const ROUND_TRIP: Duration = ms(40);
/// What packets take to be made and told of, beside their way.
const SLACK: Duration = ms(4);

/// A session's first calls.
struct Begun {
    at: Timestamp,
    early: Option<EarlyStart>,
    /// How long the answer took to what may be done twice.
    repeatable: Duration,
    /// The same of what may not.
    once: Duration,
}

#[derive(Default)]
struct Book {
    begun: Vec<Begun>,
    wrong: Vec<String>,
    done: bool,
}

fn client(host: &Host, schemes: &[&str]) -> Client {
    let config = Config {
        early_data: true,
        ..Config::default()
    };
    let mut builder = Client::builder().config(config).keep_trying(true);
    for scheme in schemes {
        let address = format!("{scheme}://server:{PORT}");
        builder = builder.endpoint(address).expect("a good address");
    }
    builder.build(host.runtime()).expect("it has endpoints")
}

/// Begins a session with a call that may be done twice and one that may not.
async fn begin(host: &Host, client: &Client, number: u64) -> Result<(Begun, Session), String> {
    let session = client.start_connecting();
    let at = host.world_now();
    let call = |number: u64, repeatable: bool| {
        let (host, session) = (host.clone(), session.clone());
        async move {
            let call = session.call("echo");
            let call = if repeatable { call.repeatable() } else { call };
            let answer = call.unary(body(number, 300)).await;
            answer.map_err(|error| format!("call {number}: {error}"))?;
            Ok::<_, String>(host.world_now().since(at))
        }
    };
    let mut calls = [
        Box::pin(call(2 * number + 1, false)),
        Box::pin(call(2 * number, true)),
    ];
    let mut answers = [None, None];
    poll_fn(|cx| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(came) = call.as_mut().poll(cx)
            {
                *answer = Some(came);
            }
        }
        match answers.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    let [once, repeatable] = answers.map(|answer| answer.unwrap_or_else(|| Err("no answer".to_owned())));
    let (once, repeatable) = (once?, repeatable?);
    let early = session
        .paths()
        .iter()
        .find(|path| path.transport == "quic")
        .map(|path| path.early);
    let begun = Begun {
        at,
        early,
        repeatable,
        once,
    };
    Ok((begun, session))
}

/// Begins so many sessions, one after another.
async fn begin_all(host: Host, schemes: &'static [&'static str], count: u64, book: Arc<Mutex<Book>>) {
    let client = client(&host, schemes);
    for number in 0..count {
        match begin(&host, &client, number).await {
            Ok((begun, session)) => {
                book.lock().begun.push(begun);
                // A crashed server says no goodbye.
                session.close(ErrorCode::NONE, "done").await;
            }
            Err(words) => book.lock().wrong.push(words),
        }
        host.sleep(ms(500)).await;
    }
    book.lock().done = true;
}

struct Play {
    schemes: &'static [&'static str],
    sessions: u64,
    link: LinkConfig,
    faults: Vec<(Duration, Fault)>,
}

impl Default for Play {
    fn default() -> Play {
        Play {
            schemes: &["quic"],
            sessions: 6,
            link: LinkConfig::with_delay(DELAY),
            faults: Vec::new(),
        }
    }
}

/// Every call of every session is answered, and executed once.
fn play(setup: &Setup, play: Play, check: impl FnOnce(&[Begun]) -> Check) -> Outcome {
    let mut world = world(setup);
    world.network("wifi", play.link);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let told = ledger.clone();
    world.boot("server", &["wifi"], move |host| {
        service::serve(host, Config::default(), Duration::ZERO, told.clone())
    });
    let client = world.host("client", &["wifi"]);
    for (at, fault) in play.faults {
        world.fault_at(at, fault);
    }
    let book = Arc::new(Mutex::new(Book::default()));
    let task = begin_all(client.clone(), play.schemes, play.sessions, book.clone());
    world.spawn(&client, task);
    let seen = book.clone();
    let over = move |_: &World| seen.lock().done;
    let result = world
        .run_while_not(Duration::from_secs(300), over)
        .and_then(|ended| {
            let fails = |kind, words: String| Err(failure(&world, kind, "client", words));
            let book = book.lock();
            if !ended {
                return fails(
                    FailureKind::Liveness,
                    format!("{} sessions began", book.begun.len()),
                );
            }
            if let Some(words) = book.wrong.iter().chain(&ledger.lock().wrong).next() {
                return fails(FailureKind::Safety, words.clone());
            }
            for number in 0..2 * play.sessions {
                let times = ledger.lock().executed.get(&number).copied().unwrap_or(0);
                if times != 1 {
                    let words = format!("call {number} was executed {times} times");
                    return fails(FailureKind::Safety, words);
                }
            }
            check(&book.begun).or_else(|words| fails(FailureKind::Invariant, words))
        });
    Outcome::of(world, result)
}

/// Between so many round trips, and not much more.
fn takes(what: &str, took: Duration, round_trips: u32) -> Check {
    let least = ROUND_TRIP * round_trips;
    ensure!(
        took >= least && took <= least + SLACK,
        "{what} took {took:?} instead of {round_trips} round trips of {ROUND_TRIP:?}"
    );
    Ok(())
}

fn known(setup: &Setup) -> Outcome {
    play(setup, Play::default(), |begun| {
        let (first, others) = begun.split_first().ok_or("no session")?;
        ensure!(first.early == Some(EarlyStart::No), "{:?}", first.early);
        takes("the first call there ever", first.repeatable, 2)?;
        takes("the first that is not repeatable", first.once, 3)?;
        for other in others {
            ensure!(other.early == Some(EarlyStart::Taken), "{:?}", other.early);
            takes("a first call", other.repeatable, 1)?;
            takes("one that is not repeatable", other.once, 2)?;
        }
        Ok(())
    })
}

fn lossy(setup: &Setup) -> Outcome {
    let lossy = Play {
        sessions: 40,
        link: LinkConfig::with_delay(DELAY).loss(0.1),
        ..Play::default()
    };
    play(setup, lossy, |begun| {
        let taken = begun
            .iter()
            .filter(|begun| begun.early == Some(EarlyStart::Taken));
        let taken = taken.count();
        ensure!(taken >= 20, "{taken} first flights were taken");
        // Which is lost is sent again after a second at the most, as nothing is known of the round trip.
        let slowest = begun
            .iter()
            .map(|begun| begun.repeatable)
            .max()
            .unwrap_or_default();
        ensure!(slowest < ms(8000), "a first call took {slowest:?}");
        Ok(())
    })
}

fn restarted(setup: &Setup) -> Outcome {
    let host = || "server".to_owned();
    let restarting = Play {
        faults: vec![
            (ms(800), Fault::Crash { host: host() }),
            (ms(820), Fault::Restart { host: host() }),
        ],
        ..Play::default()
    };
    play(setup, restarting, |begun| {
        let refused = |begun: &&Begun| begun.early == Some(EarlyStart::Refused);
        let again = begun.iter().filter(refused).count();
        ensure!(again == 1, "{again} first flights were refused");
        for begun in begun.iter().filter(refused) {
            takes("what went again", begun.repeatable, 2)?;
        }
        let last = begun.last().and_then(|begun| begun.early);
        ensure!(last == Some(EarlyStart::Taken), "{last:?}");
        Ok(())
    })
}

fn blocked(setup: &Setup) -> Outcome {
    let firewall = Middlebox {
        block_udp: true,
        ..Middlebox::default()
    };
    let blocking = Play {
        schemes: &["quic", "tls"],
        faults: vec![(
            ms(1500),
            Fault::Middlebox {
                host: "client".into(),
                network: "wifi".into(),
                config: Some(firewall),
            },
        )],
        ..Play::default()
    };
    play(setup, blocking, |begun| {
        let before = begun
            .iter()
            .filter(|begun| begun.early == Some(EarlyStart::Taken));
        ensure!(before.count() >= 1, "nothing began early before");
        for begun in begun {
            let (at, took) = (begun.at, begun.repeatable);
            ensure!(took < ms(1000), "a first call took {took:?} at {at:?}");
        }
        Ok(())
    })
}

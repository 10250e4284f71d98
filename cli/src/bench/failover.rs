//! How long a session's receiver hears nothing when the path in use fails and another, of another transport, is warm:
//! every ordered pair of transports, on real sockets through proxies that break them.

use crate::args::BenchArgs;
use crate::demo::gap::GapMeter;
use crate::demo::sequence::SequenceChecker;
use crate::demo::world::{proxy_for, url_over};
use crate::failure::Failure;
use crate::output;
use crate::proxy::{Proxy, ProxyHandle};
use crate::url;
use bytes::Bytes;
use serde::Serialize;
use sheetbend_tokio::core::session::PathState;
use sheetbend_tokio::{Class, Client, Delivery, ErrorCode, Pin, Server, Session, Trust, runtime};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The transports, each as `--only` names it.
pub const TRANSPORTS: [&str; 11] = [
    "tcp", "tls", "ws", "wss", "unix", "quic", "wt", "binary", "sse", "ndjson", "poll",
];
/// Messages a second: a silence of a millisecond shows.
const PER_MILLISECOND: u64 = 2;
/// How long messages flow over two warm paths before one is broken.
const WARM: Duration = Duration::from_millis(60);
/// A silence that begins so long after the fault is not of its making.
const WINDOW: Duration = Duration::from_millis(250);
/// How long it may take until both paths are up, and until all messages are there.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);

/// How a path fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Reset: both ends are told.
    Hard,
    /// Swallowed: nobody is told.
    Silent,
}

/// One pair, broken again and again.
#[derive(Debug, Serialize)]
struct Cell {
    from: &'static str,
    to: &'static str,
    kind: Kind,
    rounds: usize,
    median_gap_ms: f64,
    max_gap_ms: f64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    matrix: Vec<Cell>,
    seconds: f64,
}

fn trouble(error: impl Display) -> Failure {
    Failure::failed(format!("the measurement failed: {error}"))
}

/// Measures and prints.
///
/// # Errors
/// A transport that there is not, a session that cannot be made, or something lost, doubled or reordered.
pub async fn run(args: &BenchArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let chosen = chosen(&args.only)?;
    let ground = Ground::new(&chosen).await?;
    let mut matrix = Vec::new();
    for (from, to) in pairs(&chosen) {
        for kind in [Kind::Hard, Kind::Silent] {
            let cell = ground.measure(from, to, kind, args.rounds).await?;
            match args.json {
                false => output::line(&line(&cell))?,
                // Whoever waits for the object, for most of an hour if it is of all pairs, sees how far it is.
                true if std::io::stderr().is_terminal() => output::aside(&line(&cell)),
                true => {}
            }
            matrix.push(cell);
        }
    }
    let mishaps: u64 = matrix
        .iter()
        .map(|cell| cell.lost + cell.duplicated + cell.reordered)
        .sum();
    let ok = mishaps == 0;
    if args.json {
        let seconds = (start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        let text = serde_json::to_string(&Outcome { ok, matrix, seconds });
        output::line(&text.map_err(trouble)?)?;
    }
    match ok {
        true => Ok(()),
        false => Err(Failure::failed("something was lost, doubled or reordered")),
    }
}

/// The transports that were asked for; all if none was.
fn chosen(only: &[String]) -> Result<Vec<&'static str>, Failure> {
    let known = |name: &String| {
        let found = TRANSPORTS.into_iter().find(|known| *known == name.as_str());
        let what = || {
            format!(
                "--only: there is no `{name}`; known are {}",
                TRANSPORTS.join(", ")
            )
        };
        found.ok_or_else(|| Failure::usage(what()))
    };
    let only: Vec<&'static str> = only.iter().map(known).collect::<Result<_, _>>()?;
    if only.is_empty() {
        return Ok(TRANSPORTS.to_vec());
    }
    let distinct: BTreeSet<&str> = only.iter().copied().collect();
    match distinct.len() {
        1 => Err(Failure::usage("--only: a change needs two transports")),
        _ => Ok(TRANSPORTS
            .into_iter()
            .filter(|known| distinct.contains(known))
            .collect()),
    }
}

fn pairs(of: &[&'static str]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = of
        .iter()
        .flat_map(move |from| of.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from != to)
}

fn line(cell: &Cell) -> String {
    let kind = match cell.kind {
        Kind::Hard => "hard",
        Kind::Silent => "silent",
    };
    format!(
        "{:<7} to {:<7} {kind:<7} median {:>7.1} ms, longest {:>7.1} ms of {} rounds; {} lost, {} doubled, {} reordered",
        cell.from,
        cell.to,
        cell.median_gap_ms,
        cell.max_gap_ms,
        cell.rounds,
        cell.lost,
        cell.duplicated,
        cell.reordered
    )
}

/// A server, and a proxy before it for each transport.
struct Ground {
    server: Server,
    pins: Vec<Pin>,
    ways: Vec<(&'static str, Proxy)>,
    _folder: TempDir,
}

impl Ground {
    async fn new(transports: &[&'static str]) -> Result<Ground, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("sheetbend-")
            .tempdir()
            .map_err(trouble)?;
        let socket = |name: &str| format!("unix://{}", folder.path().join(name).display());
        let tls = url::self_signed(std::iter::empty())?;
        let pins = tls.pin().into_iter().collect();
        let server = Server::builder()
            .tls(tls)
            .listen("tcp://127.0.0.1:0")
            .and_then(|server| server.listen(socket("server.sock")))
            .map_err(trouble)?;
        let server = server.bind(runtime()).await.map_err(trouble)?;
        let mut ways = Vec::new();
        for transport in transports {
            let proxy = proxy_for(transport, &server, &socket("proxy.sock")).await?;
            ways.push((*transport, proxy));
        }
        Ok(Ground {
            server,
            pins,
            ways,
            _folder: folder,
        })
    }

    fn way(&self, transport: &str) -> Result<(ProxyHandle, String), Failure> {
        let way = self.ways.iter().find(|(own, _)| *own == transport);
        let (_, proxy) = way.ok_or_else(|| trouble(format!("there is no proxy for {transport}")))?;
        let proxy = proxy.handle();
        let url = url_over(transport, proxy.address());
        Ok((proxy, url))
    }

    async fn measure(
        &self,
        from: &'static str,
        to: &'static str,
        kind: Kind,
        rounds: usize,
    ) -> Result<Cell, Failure> {
        let ((breaks, first), (_, second)) = (self.way(from)?, self.way(to)?);
        let mut gaps = Vec::new();
        let mut cell = Cell {
            from,
            to,
            kind,
            rounds,
            median_gap_ms: 0.0,
            max_gap_ms: 0.0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
        };
        for _ in 0..rounds {
            let round = self.round(&breaks, (&first, &second), kind).await;
            breaks.heal();
            let (gap, counts) = round.map_err(|failure| trouble(format!("{from} to {to}: {failure}")))?;
            gaps.push(gap);
            cell.lost += counts.lost;
            cell.duplicated += counts.duplicated;
            cell.reordered += counts.reordered;
        }
        gaps.sort_unstable();
        let millis = |gap: Option<&Duration>| {
            let gap = gap.copied().unwrap_or_default();
            (gap.as_secs_f64() * 1e4).round() / 10.0
        };
        // Of an even number the upper one: no figure is made better than a round that was seen.
        cell.median_gap_ms = millis(gaps.get(gaps.len() / 2));
        cell.max_gap_ms = millis(gaps.last());
        Ok(cell)
    }

    /// A session over both, the first of which is broken.
    async fn round(
        &self,
        breaks: &ProxyHandle,
        urls: (&str, &str),
        kind: Kind,
    ) -> Result<(Duration, crate::demo::report::Messages), Failure> {
        let client = Client::builder()
            .trust(Trust::Pins(self.pins.clone()))
            .standby_paths(2)
            .endpoint(urls.0)
            .and_then(|client| client.endpoint(urls.1))
            .map_err(trouble)?;
        let (client, peer) = tokio::join!(client.connect(runtime()), self.server.accept());
        let client = client.map_err(trouble)?;
        let peer = peer.ok_or_else(|| trouble("the server stopped"))?;
        warm(&client, urls).await?;
        let flow = Arc::new(Flow::new());
        let sending = tokio::spawn(flow.clone().send(client.clone()));
        let taking = tokio::spawn(flow.clone().take(peer));
        sleep(WARM).await;
        let fault = flow.seen().gaps.fault(flow.now());
        match kind {
            Kind::Hard => {
                breaks.reset();
            }
            Kind::Silent => breaks.stall(true),
        }
        sleep(WINDOW).await;
        // It may be silent still.
        let whole = async {
            while flow.delivered()
                < flow
                    .sent
                    .load(Ordering::Relaxed)
                    .saturating_sub(20 * PER_MILLISECOND)
            {
                sleep(LOOK).await;
            }
            flow.stop.store(true, Ordering::Relaxed);
            let _ = sending.await;
            while flow.delivered() < flow.sent.load(Ordering::Relaxed) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(PATIENCE, whole).await;
        let (sent, now) = (flow.sent.load(Ordering::Relaxed), flow.now());
        let (gap, counts) = {
            let mut seen = flow.seen();
            let settled = seen.gaps.settled().or_else(|| seen.gaps.finish(now));
            let gap = settled.filter(|(id, _)| *id == fault).map(|(_, gap)| gap);
            (gap, seen.sequence.finish(sent))
        };
        flow.stop.store(true, Ordering::Relaxed);
        taking.abort();
        let _ = timeout(Duration::from_secs(1), client.close(ErrorCode::NONE, "measured")).await;
        let gap = gap.ok_or_else(|| trouble("the gap was not measured"))?;
        Ok((gap, counts))
    }
}

/// Waits until the first path carries the data and the second is warm.
async fn warm(client: &Session, urls: (&str, &str)) -> Result<(), Failure> {
    let both = async {
        loop {
            let paths = client.paths();
            let is = |url: &str, state| paths.iter().any(|path| *path.name == *url && path.state == state);
            if is(urls.0, PathState::Active) && is(urls.1, PathState::Standby) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    let late = |_| trouble(format!("{} and {} do not both come up", urls.0, urls.1));
    timeout(PATIENCE, both).await.map_err(late)
}

/// What the receiver has seen.
struct Seen {
    gaps: GapMeter,
    sequence: SequenceChecker,
}

/// Numbered messages from client to server.
struct Flow {
    origin: Instant,
    seen: Mutex<Seen>,
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Flow {
    fn new() -> Flow {
        Flow {
            origin: Instant::now(),
            seen: Mutex::new(Seen {
                gaps: GapMeter::new(WINDOW),
                sequence: SequenceChecker::new(),
            }),
            sent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delivered(&self) -> u64 {
        self.seen().sequence.delivered()
    }

    async fn send(self: Arc<Self>, client: Session) {
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let start = ticks.tick().await;
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let due = ticks.tick().await.duration_since(start).as_millis() as u64 * PER_MILLISECOND;
            while number < due {
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                let sent = client.send_message(Class::EVENTS, Delivery::Ordered, payload);
                if sent.await.is_err() {
                    return;
                }
                number += 1;
                self.sent.store(number, Ordering::Relaxed);
            }
        }
    }

    async fn take(self: Arc<Self>, peer: Session) {
        while let Ok(message) = peer.recv_message(Class::EVENTS).await {
            let number = message
                .payload
                .first_chunk::<8>()
                .map(|bytes| u64::from_be_bytes(*bytes));
            let now = self.now();
            let mut seen = self.seen();
            seen.gaps.arrival(now);
            seen.sequence.arrival(number.unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordered_pair_is_there_once() {
        let all: BTreeSet<_> = pairs(&TRANSPORTS).collect();
        assert_eq!(all.len(), 11 * 10);
        assert_eq!(pairs(&TRANSPORTS).count(), 11 * 10);
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let only = |names: &[&str]| chosen(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(only(&[]).ok().map(|all| all.len()), Some(11));
        assert_eq!(only(&["ws", "tcp", "ws"]).ok(), Some(vec!["tcp", "ws"]));
        assert!(only(&["tcp"]).is_err());
        assert!(only(&["tcp", "carrier-pigeon"]).is_err());
    }

    #[tokio::test]
    async fn both_ways_of_failing_lose_nothing() {
        let ground = Ground::new(&["tcp", "ws"]).await.expect("a ground");
        for kind in [Kind::Hard, Kind::Silent] {
            let cell = ground.measure("tcp", "ws", kind, 2).await.expect("measured");
            assert_eq!(
                (cell.lost, cell.duplicated, cell.reordered),
                (0, 0, 0),
                "{cell:?}"
            );
            assert!(
                cell.max_gap_ms >= cell.median_gap_ms && cell.median_gap_ms > 0.0,
                "{cell:?}"
            );
        }
    }
}

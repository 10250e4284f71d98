//! What one path is worth: its round trip, and what goes over it.

use bytes::Bytes;
use serde::Serialize;
use sheetbend_tokio::Session;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Bytes of one echo that tells the throughput.
const LOAD: usize = 256 * 1024;
/// Echoes under way at a time.
const UNDER_WAY: usize = 4;
/// Small echoes that tell the round trip.
const ROUNDS: usize = 20;

/// The figures of one transport.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// The median round trip of a small call, or else the path's own estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_ms: Option<f64>,
    /// The shortest round trip that the path has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_min_ms: Option<f64>,
    /// Bytes a second there and back at the same time, where the server has the method 'echo'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throughput_bytes_per_s: Option<f64>,
}

/// Measures for about `each`, or for as long as the first echo takes, at most `patience`.
pub(super) async fn measure(session: &Session, each: Duration, patience: Duration) -> Figures {
    let mut figures = Figures::default();
    let echoed = timeout(patience, round_trips(session, each)).await.ok().flatten();
    if echoed.is_some() {
        let loaded = timeout(patience, throughput(session, each)).await;
        figures.throughput_bytes_per_s = loaded.ok().flatten();
    }
    let stats = session.paths().into_iter().next();
    let estimate = stats.as_ref().and_then(|path| path.rtt);
    let shortest = stats.as_ref().and_then(|path| path.rtt_min);
    figures.rtt_ms = echoed.or(estimate).map(super::millis);
    figures.rtt_min_ms = shortest.map(super::millis);
    figures
}

/// The median of as many small echoes as there is time for, one at least; `None` where the server does not answer
/// them.
async fn round_trips(session: &Session, each: Duration) -> Option<Duration> {
    let mut took = Vec::with_capacity(ROUNDS);
    let begun = Instant::now();
    while took.is_empty() || (took.len() < ROUNDS && begun.elapsed() < each) {
        let start = Instant::now();
        session.request("echo", "probe").await.ok()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

/// Asks for echoes until the time is up; what has begun by then counts, with the time that it takes.
async fn throughput(session: &Session, each: Duration) -> Option<f64> {
    let payload = Bytes::from(vec![0x5a; LOAD]);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (session, payload) = (session.clone(), payload.clone());
        tasks.spawn(async move {
            let mut bytes = 0;
            while bytes == 0 || start.elapsed() < each {
                bytes += session.request("echo", payload.clone()).await.ok()?.len();
            }
            Some(bytes)
        });
    }
    let mut total = 0;
    while let Some(done) = tasks.join_next().await {
        total += done.ok().flatten()?;
    }
    Some(total as f64 / start.elapsed().as_secs_f64())
}

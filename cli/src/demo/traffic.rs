//! What goes through the session: requests, messages and a byte stream, each checked where it arrives.

use super::pattern::{self, PatternChecker};
use super::report::{Requests, Stream};
use super::watch::Watch;
use super::world::World;
use bytes::{Buf, Bytes};
use sheetbend_tokio::{Class, Delivery, Session};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Messages sent a second.
const MESSAGES_PER_SECOND: u64 = 5_000;
/// The length of a message and of a request, in bytes.
const PAYLOAD_BYTES: usize = 64;
/// Requests in flight.
const CALLERS: u64 = 128;
/// How long the server takes for a request: from this up to twice this.
const WORK: Duration = Duration::from_millis(40);
/// Bytes of the stream written at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The time between them.
const CHUNK_EVERY: Duration = Duration::from_millis(5);

/// The traffic and its counters.
pub(super) struct Traffic {
    watch: Arc<Watch>,
    stop: AtomicBool,
    requests_sent: AtomicU64,
    requests_answered: AtomicU64,
    executions: Mutex<Executions>,
    messages_sent: AtomicU64,
    stream_sent: AtomicU64,
    pattern: Mutex<PatternChecker>,
    stream_ended: AtomicBool,
}

/// What the server has run.
#[derive(Default)]
struct Executions {
    seen: BTreeSet<u64>,
    repeated: u64,
}

impl Traffic {
    /// Starts everything; the senders are the first tasks, the receivers the second.
    pub(super) fn start(world: &World, watch: Arc<Watch>) -> (Arc<Traffic>, JoinSet<()>, JoinSet<()>) {
        let traffic = Arc::new(Traffic {
            watch,
            stop: AtomicBool::new(false),
            requests_sent: AtomicU64::new(0),
            requests_answered: AtomicU64::new(0),
            executions: Mutex::default(),
            messages_sent: AtomicU64::new(0),
            stream_sent: AtomicU64::new(0),
            pattern: Mutex::default(),
            stream_ended: AtomicBool::new(false),
        });
        let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
        let (client, peer) = (&world.client, &world.peer);
        for _ in 0..CALLERS {
            senders.spawn(traffic.clone().call(client.clone()));
        }
        senders.spawn(traffic.clone().send_messages(client.clone()));
        senders.spawn(traffic.clone().send_stream(client.clone()));
        receivers.spawn(traffic.clone().answer(peer.clone()));
        receivers.spawn(traffic.clone().take_messages(peer.clone()));
        receivers.spawn(traffic.clone().take_stream(peer.clone()));
        (traffic, senders, receivers)
    }

    /// Lets the senders come to an end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether everything that was sent has arrived.
    pub(super) fn is_settled(&self) -> bool {
        let requests = self.requests();
        requests.answered == requests.sent
            && self.watch.delivered() >= self.messages_sent()
            && self.stream_ended.load(Ordering::Relaxed)
    }

    /// Messages sent.
    pub(super) fn messages_sent(&self) -> u64 {
        self.messages_sent.load(Ordering::Relaxed)
    }

    /// Bytes written to the stream.
    pub(super) fn stream_sent(&self) -> u64 {
        self.stream_sent.load(Ordering::Relaxed)
    }

    /// Bytes of the stream that arrived, and whether one of them was wrong.
    pub(super) fn stream_arrived(&self) -> (u64, bool) {
        let pattern = self.pattern();
        (pattern.bytes(), pattern.first_wrong().is_some())
    }

    /// The stream, judged.
    pub(super) fn stream(&self) -> Stream {
        let pattern = self.pattern();
        Stream {
            bytes: pattern.bytes(),
            intact: pattern.intact(self.stream_sent()) && self.stream_ended.load(Ordering::Relaxed),
        }
    }

    /// The requests; what is not answered counts as lost.
    pub(super) fn requests(&self) -> Requests {
        let answered = self.requests_answered.load(Ordering::Relaxed);
        let sent = self.requests_sent.load(Ordering::Relaxed);
        Requests {
            sent,
            answered,
            lost: sent - answered,
            duplicated: self.executions().repeated,
        }
    }

    fn pattern(&self) -> MutexGuard<'_, PatternChecker> {
        self.pattern.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn executions(&self) -> MutexGuard<'_, Executions> {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn call(self: Arc<Self>, client: Session) {
        while !self.is_stopped() {
            let number = self.requests_sent.fetch_add(1, Ordering::Relaxed);
            match client.request("count", payload(number)).await {
                Ok(answer) if answer == payload(!number) => {
                    self.requests_answered.fetch_add(1, Ordering::Relaxed);
                }
                // A wrong answer is none.
                Ok(_) => {}
                // The session has ended; what was sent stays unanswered.
                Err(_) => return,
            }
        }
    }

    async fn answer(self: Arc<Self>, peer: Session) {
        while let Ok(request) = peer.accept_request().await {
            let number = read_number(request.payload());
            {
                let mut executions = self.executions();
                if !executions.seen.insert(number) {
                    executions.repeated += 1;
                }
            }
            // Most requests are under way when their path is broken.
            let work = WORK + WORK * (number % 16) as u32 / 16;
            tokio::spawn(async move {
                sleep(work).await;
                request.respond(payload(!number));
            });
        }
    }

    async fn send_messages(self: Arc<Self>, client: Session) {
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let start = ticks.tick().await;
        let mut number = 0;
        while !self.is_stopped() {
            let due =
                ticks.tick().await.duration_since(start).as_millis() as u64 * MESSAGES_PER_SECOND / 1000;
            while number < due && !self.is_stopped() {
                let sending = client.send_message(Class::EVENTS, Delivery::Ordered, payload(number));
                if sending.await.is_err() {
                    return;
                }
                number += 1;
                self.messages_sent.store(number, Ordering::Relaxed);
            }
        }
    }

    async fn take_messages(self: Arc<Self>, peer: Session) {
        while let Ok(message) = peer.recv_message(Class::EVENTS).await {
            self.watch.arrival(read_number(&message.payload));
        }
    }

    async fn send_stream(self: Arc<Self>, client: Session) {
        let Ok(mut stream) = client.open_uni(Class::BULK).await else {
            return;
        };
        let mut ticks = interval(CHUNK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut offset = 0;
        while !self.is_stopped() {
            ticks.tick().await;
            let mut chunk = vec![0; CHUNK_BYTES];
            pattern::fill(offset, &mut chunk);
            if stream.write_chunk(chunk).await.is_err() {
                return;
            }
            offset += CHUNK_BYTES as u64;
            self.stream_sent.store(offset, Ordering::Relaxed);
        }
        let _ = stream.finish();
        let _ = stream.acknowledged().await;
    }

    async fn take_stream(self: Arc<Self>, peer: Session) {
        let Ok(mut stream) = peer.accept_uni(Class::BULK).await else {
            return;
        };
        while let Ok(chunk) = stream.read_chunk(CHUNK_BYTES * 4).await {
            match chunk {
                Some(chunk) => self.pattern().received(&chunk),
                None => return self.stream_ended.store(true, Ordering::Relaxed),
            }
        }
    }
}

/// A number and what follows from it, so that a payload is known by its number.
fn payload(number: u64) -> Bytes {
    let mut data = vec![0; PAYLOAD_BYTES];
    pattern::fill(number.wrapping_mul(64), &mut data);
    data[..8].copy_from_slice(&number.to_be_bytes());
    data.into()
}

/// The number of a payload; one that no payload has if it is not what its number says.
fn read_number(data: &Bytes) -> u64 {
    if data.len() != PAYLOAD_BYTES {
        return u64::MAX;
    }
    let number = data.clone().get_u64();
    if payload(number) == data { number } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_number_or_that_it_is_damaged() {
        for number in [0, 1, 77, u64::MAX / 3, u64::MAX - 1] {
            let whole = payload(number);
            assert_eq!(read_number(&whole), number);
            let mut damaged = whole.to_vec();
            damaged[40] ^= 1;
            assert_eq!(read_number(&damaged.into()), u64::MAX);
        }
        assert_eq!(read_number(&Bytes::new()), u64::MAX);
    }
}

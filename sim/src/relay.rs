//! Middleboxes that end TCP: proxies that hold back, go mute, throttle, limit and cut.
//!
//! A relay is a program like any other, on a host of its own: [`World::relay`]. What it does to connections is
//! data, and may be changed while they stand: [`Fault::Relay`](crate::Fault::Relay).

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use sheetbend_core::carrier::http::{BodyDecoder, HeadLimits, RequestHead, ResponseHead};
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{Socket, Timer};

use crate::host::Host;
use crate::net::{SimSocket, TcpStream};
use crate::world::World;

/// Bytes that wait in a relay, per connection and direction, unless it holds more back by its setting.
const BUFFER: usize = 64 << 10;
/// Bytes of a message that a relay holds until it is whole.
const WHOLE_BUFFER: usize = 4 << 20;
/// A throttled relay passes on what its rate allows in this time.
const SLICE: Duration = Duration::from_millis(5);

/// What a relay does to the connections through it. The default passes everything on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayConfig {
    /// Holds bytes back until there are so many; 0 holds nothing back.
    pub hold_bytes: usize,
    /// Passes on what is held back for so long though it is less; zero is never.
    pub hold_for: Duration,
    /// Passes on so many bytes of what the server says, and then nothing more; the connection stays open. 0 mutes
    /// it from the first byte.
    pub mute_after: Option<u64>,
    /// Bits per second, for each connection and direction; 0 is without bound.
    pub rate: u64,
    /// Connections at a time; further ones are closed at once. 0 is without bound.
    pub max_connections: usize,
    /// Closes a connection after this time without a byte; zero is never.
    pub idle: Duration,
    /// Closes a connection this long after it was made; zero is never.
    pub cut_after: Duration,
    /// Whether it closes connections by a reset rather than in order.
    pub reset: bool,
    /// Passes requests and responses of HTTP on when they are whole, as proxies do that buffer.
    pub whole_messages: bool,
    /// Leads further connections there, to a host and its port.
    pub divert: Option<(String, u16)>,
}

/// What a relay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RelayStats {
    /// Connections that stand.
    pub open: usize,
    /// Connections that it took.
    pub taken: u64,
    /// Connections that it closed at once, being at its limit.
    pub refused: u64,
    /// Connections that it closed for being idle.
    pub idled: u64,
    /// Connections that it closed for being old.
    pub cut: u64,
    /// Bytes passed on, both directions together.
    pub bytes: u64,
}

/// What a host knows of the relay on it.
#[derive(Default)]
pub(crate) struct RelayState {
    pub(crate) config: RelayConfig,
    pub(crate) stats: RelayStats,
    wakers: Vec<Waker>,
}

impl RelayState {
    /// Changes it; who is to look again is told.
    pub(crate) fn set(&mut self, config: RelayConfig) -> Vec<Waker> {
        self.config = config;
        std::mem::take(&mut self.wakers)
    }

    /// The host has crashed.
    pub(crate) fn forget(&mut self) {
        self.stats.open = 0;
        self.wakers.clear();
    }
}

impl World {
    /// Makes a host that relays every TCP connection to `port` on to a port of another host.
    pub fn relay(
        &mut self,
        name: &str,
        networks: &[&str],
        port: u16,
        to: (&str, u16),
        config: RelayConfig,
    ) -> Host {
        let to = (to.0.to_owned(), to.1);
        let host = self.boot(name, networks, move |host| relay(host, port, to.clone()));
        host.relay(|state| state.config = config);
        host
    }

    /// What the relay on a host has done.
    pub fn relay_stats(&self, host: &Host) -> RelayStats {
        host.relay(|state| state.stats)
    }
}

impl Host {
    pub(crate) fn relay<R>(&self, f: impl FnOnce(&mut RelayState) -> R) -> R {
        self.shared
            .with(|state| f(&mut state.hosts[self.id.index()].relay))
    }
}

/// The program of a relay.
async fn relay(host: Host, port: u16, to: (String, u16)) {
    let Ok(listener) = host.listen_tcp(port) else {
        return;
    };
    while let Ok(client) = listener.accept().await {
        if !take(&host) {
            client.into_socket().reset();
            continue;
        }
        let divert = host.relay(|state| state.config.divert.clone());
        let (own, to) = (host.clone(), divert.unwrap_or_else(|| to.clone()));
        host.spawn(async move {
            match own.connect_tcp(&to.0, to.1).await {
                Ok(server) => serve(&own, client, server).await,
                Err(_) => client.into_socket().reset(),
            }
            own.relay(|state| state.stats.open = state.stats.open.saturating_sub(1));
        });
    }
}

/// Counts one more connection, unless the relay is at its limit.
fn take(host: &Host) -> bool {
    host.relay(|state| {
        let config = &state.config;
        let full = config.max_connections > 0 && state.stats.open >= config.max_connections;
        state.stats.refused += u64::from(full);
        state.stats.taken += u64::from(!full);
        state.stats.open += usize::from(!full);
        !full
    })
}

/// Passes on between two connections, as the relay on the host is set.
pub(crate) async fn serve_to(host: &Host, client: TcpStream, server: TcpStream) {
    if !take(host) {
        client.into_socket().reset();
        server.into_socket().reset();
        return;
    }
    serve(host, client, server).await;
    host.relay(|state| state.stats.open = state.stats.open.saturating_sub(1));
}

/// One direction of a connection through a relay.
#[derive(Default)]
struct Way {
    waiting: BytesMut,
    /// When the first of them came.
    since: Timestamp,
    /// Bytes passed on.
    passed: u64,
    /// The rate allows nothing before.
    free_at: Timestamp,
    ended: bool,
    shut: bool,
    /// Whether the server speaks here.
    responses: bool,
}

/// Bytes of the whole messages of HTTP at the front.
fn whole_messages(bytes: &[u8], responses: bool) -> usize {
    let mut whole = 0;
    loop {
        let rest = &bytes[whole..];
        let limits = HeadLimits::default();
        let head = match responses {
            true => ResponseHead::parse(rest, limits)
                .and_then(|head| head.map(|(head, len)| Ok((head.body_length()?, len))).transpose()),
            false => RequestHead::parse(rest, limits)
                .and_then(|head| head.map(|(head, len)| Ok((head.body_length()?, len))).transpose()),
        };
        let Ok(Some((length, head))) = head else {
            return whole;
        };
        let mut body = BytesMut::from(&rest[head..]);
        let before = body.len();
        let mut decoder = BodyDecoder::new(length);
        if decoder.decode(&mut body, &mut BytesMut::new()).is_err() || !decoder.is_done() {
            return whole;
        }
        whole += head + before - body.len();
    }
}

/// When to look again.
struct Deadline(Timestamp);

impl Deadline {
    fn at(&mut self, at: Timestamp) {
        self.0 = self.0.min(at);
    }
}

impl Way {
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        now: Timestamp,
        from: &SimSocket,
        room: usize,
    ) -> io::Result<()> {
        while !self.ended && self.waiting.len() < room && from.poll_readable(cx)?.is_ready() {
            let before = self.waiting.len();
            self.waiting.reserve(room - before);
            match from.try_read(&mut self.waiting) {
                Ok(0) => self.ended = true,
                Ok(_) if before == 0 => self.since = now,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many bytes of what waits may go on.
    fn allowance(
        &self,
        now: Timestamp,
        config: &RelayConfig,
        mute: Option<u64>,
        next: &mut Deadline,
    ) -> usize {
        let mut most = self.waiting.len();
        if config.whole_messages && !self.ended {
            most = whole_messages(&self.waiting, self.responses);
        }
        if most < config.hold_bytes && !self.ended {
            let patience = self.since + config.hold_for;
            if config.hold_for.is_zero() || now < patience {
                if !config.hold_for.is_zero() && most > 0 {
                    next.at(patience);
                }
                return 0;
            }
        }
        if let Some(mute) = mute {
            let left = mute.saturating_sub(self.passed);
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if config.rate > 0 && most > 0 {
            if now < self.free_at {
                next.at(self.free_at);
                return 0;
            }
            let slice = u128::from(config.rate) * SLICE.as_nanos() / 8_000_000_000;
            most = most.min(usize::try_from(slice).unwrap_or(usize::MAX).max(1));
        }
        most
    }

    /// Passes on what may go; tells how much it was.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        now: Timestamp,
        ends: (&SimSocket, &SimSocket),
        config: &RelayConfig,
        mute: Option<u64>,
        next: &mut Deadline,
    ) -> io::Result<usize> {
        let (from, to) = ends;
        let before = self.passed;
        loop {
            let room = if config.whole_messages {
                WHOLE_BUFFER
            } else {
                BUFFER
            };
            self.take(cx, now, from, room.max(config.hold_bytes))?;
            let most = self.allowance(now, config, mute, next);
            if most == 0 || to.poll_writable(cx)?.is_pending() {
                break;
            }
            match to.try_write_vectored(&[IoSlice::new(&self.waiting[..most])]) {
                Ok(count) => {
                    self.waiting.advance(count);
                    self.since = now;
                    self.passed += count as u64;
                    if config.rate > 0 {
                        let nanos = count as u128 * 8_000_000_000 / u128::from(config.rate);
                        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                        self.free_at = now + took;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let muted = mute.is_some_and(|mute| self.passed >= mute);
        if self.ended && self.waiting.is_empty() && !muted && !std::mem::replace(&mut self.shut, true) {
            to.shutdown()?;
        }
        Ok((self.passed - before) as usize)
    }
}

/// Why a connection through a relay is over.
enum End {
    Done,
    Idle,
    Cut,
    Failed,
}

/// A connection through a relay.
struct Passing<'a> {
    host: &'a Host,
    client: SimSocket,
    server: SimSocket,
    up: Way,
    down: Way,
    opened: Timestamp,
    last: Timestamp,
    timer: Box<dyn Timer>,
}

impl Passing<'_> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = self.host.now();
        let config = self.host.relay(|state| {
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            state.config.clone()
        });
        let mut next = Deadline(Timestamp::MAX);
        let (client, server) = (&self.client, &self.server);
        let up = self.up.pass(cx, now, (client, server), &config, None, &mut next);
        let down = self
            .down
            .pass(cx, now, (server, client), &config, config.mute_after, &mut next);
        let (Ok(up), Ok(down)) = (up, down) else {
            return Poll::Ready(End::Failed);
        };
        if up + down > 0 {
            self.last = now;
            self.host.relay(|state| state.stats.bytes += (up + down) as u64);
        }
        if self.up.shut && self.down.shut {
            return Poll::Ready(End::Done);
        }
        for (limit, since, end) in [
            (config.cut_after, self.opened, End::Cut),
            (config.idle, self.last, End::Idle),
        ] {
            if !limit.is_zero() {
                if now >= since + limit {
                    return Poll::Ready(end);
                }
                next.at(since + limit);
            }
        }
        self.timer.reset(next.0);
        match self.timer.poll_expired(cx) {
            Poll::Ready(()) => self.turn(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn serve(host: &Host, client: TcpStream, server: TcpStream) {
    let now = host.now();
    let mut passing = Passing {
        host,
        client: client.into_socket(),
        server: server.into_socket(),
        up: Way::default(),
        down: Way {
            responses: true,
            ..Way::default()
        },
        opened: now,
        last: now,
        timer: host.runtime().timer(Timestamp::MAX),
    };
    let end = poll_fn(|cx| passing.turn(cx)).await;
    let reset = host.relay(|state| {
        state.stats.idled += u64::from(matches!(end, End::Idle));
        state.stats.cut += u64::from(matches!(end, End::Cut));
        state.config.reset
    });
    let Passing { client, server, .. } = passing;
    if matches!(end, End::Failed) || (reset && !matches!(end, End::Done)) {
        client.reset();
        server.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::net::LinkConfig;

    const MILLI: Duration = Duration::from_millis(1);
    const KB: usize = 1000;

    /// A client that asks one byte at a time and is answered `answer` bytes, through a relay: when each answer was
    /// whole, counted from its question, and how the connection ended.
    fn ask(
        config: RelayConfig,
        questions: usize,
        answer: usize,
        pause: Duration,
    ) -> (Vec<Duration>, World, Host) {
        let mut world = World::new(1);
        world.network("lan", LinkConfig::with_delay(MILLI));
        world.boot("server", &["lan"], move |host| async move {
            let listener = host.listen_tcp(80).unwrap();
            while let Ok(mut stream) = listener.accept().await {
                host.spawn(async move {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte).await {
                        if stream.write_all(&vec![byte[0]; answer]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let relay = world.relay("proxy", &["lan"], 8080, ("server", 80), config);
        let client = world.host("client", &["lan"]);
        let host = client.clone();
        let took = world.spawn(&client, async move {
            let mut stream = host.connect_tcp("proxy", 8080).await.unwrap();
            let mut took = Vec::new();
            for number in 0..questions {
                let asked = host.world_now();
                let mut got = vec![0; answer];
                if stream.write_all(&[number as u8]).await.is_err()
                    || stream.read_exact(&mut got).await.is_err()
                {
                    break;
                }
                assert_eq!(got, vec![number as u8; answer]);
                took.push(host.world_now().since(asked));
                host.sleep(pause).await;
            }
            took
        });
        let ended = world
            .run_while_not(Duration::from_secs(20), |_| took.is_done())
            .unwrap();
        let took = if ended { took.take().unwrap() } else { Vec::new() };
        (took, world, relay)
    }

    #[test]
    fn passes_on() {
        let (took, world, relay) = ask(RelayConfig::default(), 10, 100 * KB, MILLI);
        assert_eq!(took.len(), 10);
        assert!(took[9] < 20 * MILLI, "{took:?}");
        assert_eq!(world.relay_stats(&relay).bytes, 10 * (1 + 100 * KB as u64));
    }

    #[test]
    fn holds_back() {
        let config = RelayConfig {
            hold_bytes: 4096,
            hold_for: 200 * MILLI,
            ..RelayConfig::default()
        };
        let (took, ..) = ask(config, 3, 10, MILLI);
        assert!(
            took.iter().all(|took| (400 * MILLI..410 * MILLI).contains(took)),
            "{took:?}"
        );
    }

    #[test]
    fn throttles() {
        let config = RelayConfig {
            rate: 800_000,
            ..RelayConfig::default()
        };
        let (took, ..) = ask(config, 2, 100 * KB, MILLI);
        assert!(
            took.iter().all(|took| (980 * MILLI..1020 * MILLI).contains(took)),
            "{took:?}"
        );
    }

    #[test]
    fn goes_mute_and_speaks_again() {
        let config = RelayConfig {
            mute_after: Some(2500),
            ..RelayConfig::default()
        };
        let (took, mut world, relay) = ask(config, 5, KB, MILLI);
        assert!(took.is_empty(), "the third answer never ends");
        assert_eq!(world.relay_stats(&relay).bytes, 3 + 2500);
        assert_eq!(world.relay_stats(&relay).open, 1);
        world.apply(&Fault::Relay {
            host: "proxy".into(),
            config: RelayConfig::default(),
        });
        world.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(world.relay_stats(&relay).bytes, 5 * (1 + KB as u64));
    }

    #[test]
    fn kills_what_is_idle_and_cuts_what_is_old() {
        let idle = RelayConfig {
            idle: 100 * MILLI,
            reset: true,
            ..RelayConfig::default()
        };
        let (took, world, relay) = ask(idle, 5, KB, 150 * MILLI);
        assert_eq!((took.len(), world.relay_stats(&relay).idled), (1, 1));
        let cut = RelayConfig {
            cut_after: 100 * MILLI,
            ..RelayConfig::default()
        };
        let (took, world, relay) = ask(cut, 50, KB, 10 * MILLI);
        assert!((5..10).contains(&took.len()), "{took:?}");
        let stats = world.relay_stats(&relay);
        assert_eq!((stats.cut, stats.open), (1, 0));
    }

    #[test]
    fn refuses_beyond_its_limit() {
        let config = RelayConfig {
            max_connections: 2,
            ..RelayConfig::default()
        };
        let (took, mut world, relay) = ask(config, 1, KB, MILLI);
        assert_eq!(took.len(), 1);
        let late = world.host("late", &["lan"]);
        let host = late.clone();
        let ends = world.spawn(&late, async move {
            let mut streams = Vec::new();
            for _ in 0..4 {
                streams.push(host.connect_tcp("proxy", 8080).await.unwrap());
            }
            host.sleep(10 * MILLI).await;
            let mut alive = 0;
            for stream in &mut streams {
                alive += usize::from(stream.write_all(&[1]).await.is_ok());
            }
            alive
        });
        world.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(ends.take(), Some(2));
        assert_eq!(world.relay_stats(&relay).refused, 2);
    }
}

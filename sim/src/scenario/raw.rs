//! Plain TCP and UDP beside a session: what shows a fault by itself.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sheetbend_core::time::Timestamp;

use super::service::{DISCARD, ECHO, pattern};
use super::stage::moment;
use crate::host::Host;
use crate::world::{Join, World};

/// What a ping has seen: when it asked, and how long the answer took.
#[derive(Default)]
pub(super) struct Pings {
    pub(super) answers: Vec<(Timestamp, Duration)>,
    /// How the connection failed.
    pub(super) error: Option<(Timestamp, io::ErrorKind)>,
    /// Answers that were not what had been asked.
    pub(super) changed: u32,
}

impl Pings {
    /// The longest answer to what was asked in that time.
    pub(super) fn slowest(&self, from: Duration, to: Duration) -> Duration {
        let asked = |at: &Timestamp| *at >= moment(from) && *at < moment(to);
        let taken = self.answers.iter().filter(|(at, _)| asked(at));
        taken.map(|(_, took)| *took).max().unwrap_or_default()
    }
}

/// What a task beside the session keeps while it runs: it may never end.
pub(super) type Seen<T> = Arc<Mutex<T>>;

/// Asks by TCP, one question of `size` bytes after another, until `until`.
pub(super) fn ping(
    world: &mut World,
    host: &Host,
    name: &str,
    size: usize,
    every: Duration,
    until: Duration,
) -> Seen<Pings> {
    let seen = Seen::<Pings>::default();
    let (host, name, told) = (host.clone(), name.to_owned(), seen.clone());
    world.spawn(&host.clone(), async move {
        let outcome = ask(&host, &name, size, every, until, &told).await;
        if let Err(error) = outcome {
            told.lock().error = Some((host.world_now(), error.kind()));
        }
    });
    seen
}

async fn ask(
    host: &Host,
    name: &str,
    size: usize,
    every: Duration,
    until: Duration,
    told: &Seen<Pings>,
) -> io::Result<()> {
    let mut stream = host.connect_tcp(name, ECHO).await?;
    let mut answer = vec![0; size];
    for number in 0_u64.. {
        let asked = host.world_now();
        if asked >= moment(until) {
            break;
        }
        let question: Vec<u8> = (number..number + size as u64).map(pattern).collect();
        stream.write_all(&question).await?;
        stream.read_exact(&mut answer).await?;
        {
            let mut told = told.lock();
            told.changed += u32::from(answer != question);
            told.answers.push((asked, host.world_now().since(asked)));
        }
        host.sleep(every).await;
    }
    Ok(())
}

/// Writes so many bytes to the port that throws them away, from `at` on; when, and how many in all.
pub(super) fn flood(
    world: &mut World,
    host: &Host,
    name: &str,
    at: Duration,
    bytes: usize,
) -> Seen<Vec<(Timestamp, usize)>> {
    let seen = Seen::<Vec<(Timestamp, usize)>>::default();
    let (host, name, told) = (host.clone(), name.to_owned(), seen.clone());
    world.spawn(&host.clone(), async move {
        host.sleep(at).await;
        let Ok(mut stream) = host.connect_tcp(&name, DISCARD).await else {
            return;
        };
        let mut written = 0;
        while written < bytes {
            let piece = vec![0; (bytes - written).min(8 << 10)];
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            written += piece.len();
            told.lock().push((host.world_now(), written));
        }
    });
    seen
}

/// Tries to connect: how it failed, if it did, and how long that took.
pub(super) fn knock(
    world: &mut World,
    host: &Host,
    at: Duration,
    name: &str,
    port: u16,
) -> Join<(Option<io::ErrorKind>, Duration)> {
    let (own, name) = (host.clone(), name.to_owned());
    world.spawn(host, async move {
        own.sleep(at).await;
        let asked = own.world_now();
        let outcome = own.connect_tcp(&name, port).await;
        let took = own.world_now().since(asked);
        (outcome.err().map(|error| error.kind()), took)
    })
}

/// What came of a series of datagrams: the number of each, its length and the port it came from.
pub(super) type Arrived = Seen<Vec<(u64, usize, u16)>>;

/// Sends numbered datagrams of `size` bytes to a port of the server, from `at` on.
pub(super) fn datagrams(
    world: &mut World,
    ends: (&Host, &Host),
    name: &str,
    at: Duration,
    (count, size, every): (u64, usize, Duration),
) -> Arrived {
    const PORT: u16 = 5000;
    let seen = Arrived::default();
    let (from, to) = (ends.0.clone(), ends.1.clone());
    let told = seen.clone();
    world.spawn(&to.clone(), async move {
        let Ok(socket) = to.bind_udp(PORT) else { return };
        while let Ok((data, source)) = socket.recv_from().await {
            let number = data
                .first_chunk::<8>()
                .map_or(u64::MAX, |id| u64::from_be_bytes(*id));
            told.lock().push((number, data.len(), source.port()));
        }
    });
    let name = name.to_owned();
    world.spawn(&from.clone(), async move {
        from.sleep(at).await;
        let (Ok(socket), Some(to)) = (from.bind_udp(0), address(&from, &name, PORT)) else {
            return;
        };
        for number in 0..count {
            let _ = socket.send_to(&super::work::body(number, size), to);
            from.sleep(every).await;
        }
    });
    seen
}

fn address(host: &Host, name: &str, port: u16) -> Option<SocketAddrV4> {
    match host.resolve(name, port).ok()?.first()? {
        SocketAddr::V4(address) => Some(*address),
        SocketAddr::V6(_) => None,
    }
}

/// Round trips of datagrams, asked `every` so often until `until`.
pub(super) fn ping_udp(
    world: &mut World,
    host: &Host,
    name: &str,
    every: Duration,
    until: Duration,
) -> Seen<Pings> {
    let seen = Seen::<Pings>::default();
    let (host, name, told) = (host.clone(), name.to_owned(), seen.clone());
    world.spawn(&host.clone(), async move {
        let (Ok(socket), Some(to)) = (host.bind_udp(0), address(&host, &name, ECHO)) else {
            return;
        };
        let socket = Arc::new(socket);
        let (own, reader, told) = (host.clone(), socket.clone(), told.clone());
        host.spawn(async move {
            while let Ok((data, _)) = reader.recv_from().await {
                let Some(sent) = data.first_chunk::<8>() else {
                    continue;
                };
                let sent = Timestamp::from_nanos(u64::from_be_bytes(*sent));
                told.lock().answers.push((sent, own.world_now().since(sent)));
            }
        });
        while host.world_now() < moment(until) {
            let now = host.world_now().as_nanos().to_be_bytes();
            let _ = socket.send_to(&now, to);
            host.sleep(every).await;
        }
    });
    seen
}

//! A pair of sessions, and what can be measured with it.

use crate::failure::Failure;
use crate::url;
use bytes::Bytes;
use sheetbend_tokio::{Class, Client, Delivery, ErrorCode, Server, Session, Trust, runtime};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Bytes in a request, an answer and a message.
const SMALL: usize = 64;
/// Bytes in a write to the stream.
const WRITE: usize = 64 * 1024;
/// Times kept for the percentiles.
const MAX_TIMES: usize = 1 << 20;

/// A client and a server in this process.
pub(super) struct Pair {
    client: Session,
    peer: Session,
    _server: Server,
    _folder: TempDir,
}

/// What came of requests.
pub(super) struct Requests {
    pub(super) per_second: f64,
    pub(super) median: Duration,
    /// The 99th percentile.
    pub(super) slow: Duration,
}

fn trouble(error: impl Display) -> Failure {
    Failure::failed(format!("the measurement failed: {error}"))
}

impl Pair {
    /// A pair over one transport; the server echoes requests.
    ///
    /// # Errors
    /// No socket, or no session.
    pub(super) async fn connect(transport: &str) -> Result<Pair, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("sheetbend-")
            .tempdir()
            .map_err(trouble)?;
        let address = match transport {
            "tcp" | "tls" | "ws" | "wss" | "quic" | "wt" => format!("{transport}://127.0.0.1:0"),
            "unix" => format!("unix://{}/bench.sock", folder.path().display()),
            _ => "mem://bench".to_owned(),
        };
        let tls = url::self_signed(std::iter::empty())?;
        let pins = tls.pin().into_iter().collect();
        let server = Server::builder().listen(address).map_err(trouble)?.tls(tls);
        let server = server.bind(runtime()).await.map_err(trouble)?;
        let client = Client::builder()
            .trust(Trust::Pins(pins))
            .endpoint(&server.addresses()[0])
            .map_err(trouble)?;
        let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
        let peer = peer.ok_or_else(|| trouble("the server stopped"))?;
        let echo = peer.clone();
        tokio::spawn(async move {
            while let Ok(mut request) = echo.accept_request().await {
                let payload = request.take_payload();
                request.respond(payload);
            }
        });
        Ok(Pair {
            client: client.map_err(trouble)?,
            peer,
            _server: server,
            _folder: folder,
        })
    }

    /// The client's end.
    pub(super) fn client(&self) -> &Session {
        &self.client
    }

    /// One stream, as fast as it goes, in bytes per second.
    ///
    /// # Errors
    /// The session failed.
    pub(super) async fn bulk(&self, time: Duration) -> Result<f64, Failure> {
        let peer = self.peer.clone();
        let reading = tokio::spawn(async move {
            let mut stream = peer.accept_uni(Class::BULK).await.map_err(trouble)?;
            let mut bytes = 0_u64;
            while let Some(chunk) = stream.read_chunk(usize::MAX).await.map_err(trouble)? {
                bytes += chunk.len() as u64;
            }
            Ok::<_, Failure>(bytes)
        });
        let mut stream = self.client.open_uni(Class::BULK).await.map_err(trouble)?;
        let data = vec![7; WRITE];
        let start = Instant::now();
        while start.elapsed() < time {
            stream.write_all(&data).await.map_err(trouble)?;
        }
        stream.finish().map_err(trouble)?;
        let bytes = reading.await.map_err(trouble)??;
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    }

    /// Ordered messages, as fast as they go, in messages per second.
    ///
    /// # Errors
    /// The session failed.
    pub(super) async fn messages(&self, time: Duration) -> Result<f64, Failure> {
        let (sent, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (peer, expected, ended) = (self.peer.clone(), sent.clone(), over.clone());
        let reading = tokio::spawn(async move {
            let mut count = 0;
            loop {
                peer.recv_message(Class::EVENTS).await.map_err(trouble)?;
                count += 1;
                // The last one is sent after the flag is up.
                if ended.load(Ordering::Acquire) && count == expected.load(Ordering::Acquire) {
                    return Ok::<_, Failure>(count);
                }
            }
        });
        let payload = Bytes::from_static(&[7; SMALL]);
        let send = || {
            self.client
                .send_message(Class::EVENTS, Delivery::Ordered, payload.clone())
        };
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < time {
            send().await.map_err(trouble)?;
            count += 1;
        }
        sent.store(count + 1, Ordering::Release);
        over.store(true, Ordering::Release);
        send().await.map_err(trouble)?;
        let arrived = reading.await.map_err(trouble)??;
        Ok(arrived as f64 / start.elapsed().as_secs_f64())
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let _ = timeout(Duration::from_secs(1), self.client.close(ErrorCode::NONE, "")).await;
    }
}

/// Requests, so many at a time, for a while.
///
/// # Errors
/// The session failed.
pub(super) async fn requests(
    client: &Session,
    in_flight: usize,
    time: Duration,
) -> Result<Requests, Failure> {
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let client = client.clone();
        callers.spawn(async move {
            let payload = Bytes::from_static(&[7; SMALL]);
            let (mut times, mut count) = (Vec::new(), 0_u64);
            while start.elapsed() < time {
                let asked = Instant::now();
                client.request("echo", payload.clone()).await?;
                count += 1;
                if times.len() < MAX_TIMES {
                    times.push(asked.elapsed());
                }
            }
            Ok::<_, sheetbend_tokio::CallError>((times, count))
        });
    }
    let (mut times, mut total) = (Vec::new(), 0);
    while let Some(caller) = callers.join_next().await {
        let (own, count) = caller.map_err(trouble)?.map_err(trouble)?;
        times.extend(own);
        total += count;
    }
    let per_second = total as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Ok(Requests {
        per_second,
        median: at(50),
        slow: at(99),
    })
}

//! sheetbend itself: a session at its default settings over one path on loopback: TCP, or what is over TCP; on tokio, or
//! on smol.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt;
use sheetbend_tokio::{Class, ClientBuilder, Router, Runtime, Server, ServerTls, Session, Trust};

use super::bulk::payload;
use super::case::Test;
use super::items::{Receiver, Source, item};
use super::large::spawn_large_callers;
use super::load::{ECHO_BYTES, Load};
use super::on_smol::{self, Threads};
use super::peer::{Keep, Peer, Starting, absent};
use super::rpc::{Client, Small, call_and_wait};
use super::rps::spawn_callers;
use super::rtt::echo_in_turn;
use super::streams::{Arrivals, WRITE_BYTES};

/// The key in the report.
pub(crate) const KEY: &str = "ours";

/// sheetbend over one path of the scheme.
pub(crate) struct Ours {
    key: &'static str,
    scheme: &'static str,
    /// Everything runs on smol, the load's tasks included.
    on_smol: bool,
}

const fn over(key: &'static str, scheme: &'static str) -> Ours {
    Ours {
        key,
        scheme,
        on_smol: false,
    }
}

/// sheetbend over TCP: the one that the report compares the others with.
pub(crate) const TCP: Ours = over(KEY, "tcp");

/// The same without tokio.
pub(crate) const SMOL: Ours = Ours {
    key: "ours-smol",
    scheme: "tcp",
    on_smol: true,
};

/// sheetbend over the transports that others are measured over, too.
pub(crate) const OVER: [Ours; 6] = [
    over("ours-ws", "ws"),
    over("ours-tls", "tls"),
    over("ours-http", "http?mode=binary"),
    over("ours-sse", "http?mode=sse"),
    over("ours-quic", "quic"),
    over("ours-wt", "wt"),
];

impl Peer for Ours {
    fn key(&self) -> &'static str {
        self.key
    }

    fn variants(&self, test: Test) -> Vec<String> {
        let what = match test {
            Test::Items => "items passed as slices",
            Test::Rtt | Test::Rps | Test::Large => "a request each, one task answers",
            Test::Bulk | Test::Streams => "chunks passed by reference",
            Test::Idle | Test::Pending => "heartbeats on",
            Test::Sim => return vec!["links with one fixed delay, Linux TCP defaults".into()],
        };
        let crc = match self.scheme {
            "tls" | "quic" | "wt" => "no CRC inside TLS",
            _ => "CRC on",
        };
        let settings = format!("defaults, {crc}, {what}");
        if self.on_smol {
            return Threads::ALL
                .map(|(_, threads)| format!("{settings}; {threads}"))
                .into();
        }
        vec![settings]
    }

    fn rtt<'a>(&'a self, variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = self.pair(variant, load).await?;
            load.spawn_far(answer(server));
            echo_in_turn(Small(Requests(client)), load);
            Ok(Some(keep))
        })
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = self.pair(variant, load).await?;
            load.spawn_far(answer(server));
            spawn_callers((0..in_flight).map(|_| Small(Requests(client.clone()))), load);
            Ok(Some(keep))
        })
    }

    fn large<'a>(&'a self, variant: usize, bytes: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = self.pair(variant, load).await?;
            load.spawn_far(answer(server));
            spawn_large_callers((0..in_flight).map(|_| Requests(client.clone())), bytes, load);
            Ok(Some(keep))
        })
    }

    fn items<'a>(&'a self, variant: usize, source: Source, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = self.pair(variant, load).await?;
            let router = Router::builder().server_streaming("items", move |_, _, mut out| async move {
                match source {
                    Source::Task => {
                        for serial in 0.. {
                            out.feed_slice(&item(serial)).await?;
                        }
                    }
                    Source::AtHand => out.feed_all((0..).map(item)).await?,
                }
                Ok(())
            });
            let router = router.build();
            load.spawn_far(async move {
                router.serve(server).await;
                Ok(())
            });
            let mut receiver = Receiver::new(load.counter());
            load.spawn(async move {
                let call = client.call("items").server_streaming("").await;
                let mut items = call.map_err(io::Error::other)?;
                while let Some(item) = items.next_slice().await.map_err(io::Error::other)? {
                    receiver.received(item)?;
                }
                Err(io::ErrorKind::UnexpectedEof.into())
            });
            Ok(Some(keep))
        })
    }

    fn pending<'a>(&'a self, _variant: usize, calls: usize) -> Starting<'a> {
        if self.on_smol {
            return absent();
        }
        Box::pin(async move {
            let (arrivals, load) = (Arrivals::new(), Load::default());
            let (client, server, keep) = self.pair(0, &load).await?;
            let told = arrivals.clone();
            load.spawn(async move {
                let mut held = Vec::new();
                while let Ok(request) = server.accept_request().await {
                    held.push(request);
                    told.one_arrived();
                }
                Ok(())
            });
            call_and_wait(Requests(client), calls, arrivals, load).await?;
            Ok(Some(keep))
        })
    }

    fn bulk<'a>(&'a self, variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = self.pair(variant, load).await?;
            let mut sender = client.open_uni(Class::BULK).await.map_err(io::Error::other)?;
            let chunk = Bytes::from(payload(write_bytes));
            let counter = load.counter();
            load.spawn(async move {
                loop {
                    sender
                        .write_chunk(chunk.clone())
                        .await
                        .map_err(io::Error::other)?;
                }
            });
            load.spawn_far(async move {
                let mut receiver = server.accept_uni(Class::BULK).await.map_err(io::Error::other)?;
                while let Some(chunk) = receiver.read_chunk(usize::MAX).await.map_err(io::Error::other)? {
                    counter.add(chunk.len() as u64);
                }
                Ok(())
            });
            Ok(Some(keep))
        })
    }

    fn streams<'a>(&'a self, _variant: usize, count: usize, bytes: usize, load: &'a Load) -> Starting<'a> {
        if self.on_smol {
            return absent();
        }
        Box::pin(async move {
            let (client, server, keep) = self.pair(0, load).await?;
            let arrivals = Arrivals::new();
            let (counter, arrived) = (load.counter(), arrivals.clone());
            load.spawn(async move {
                loop {
                    let mut stream = server.accept_uni(Class::BULK).await.map_err(io::Error::other)?;
                    let (counter, arrived) = (counter.clone(), arrived.clone());
                    tokio::spawn(async move {
                        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX).await {
                            counter.add(chunk.len() as u64);
                        }
                        arrived.one_arrived();
                    });
                }
            });
            let chunk = Bytes::from(payload(WRITE_BYTES));
            let stopping = load.clone();
            load.spawn(async move {
                while !stopping.stopped() {
                    for _ in 0..count {
                        let mut stream = client.open_uni(Class::BULK).await.map_err(io::Error::other)?;
                        let chunk = chunk.clone();
                        tokio::spawn(async move {
                            let mut left = bytes;
                            while left > 0 {
                                let part = chunk.slice(..left.min(chunk.len()));
                                left -= part.len();
                                if stream.write_chunk(part).await.is_err() {
                                    return;
                                }
                            }
                            let _ = stream.finish();
                        });
                    }
                    arrivals.wait_for(count).await;
                }
                Ok(())
            });
            Ok(Some(keep))
        })
    }

    fn simulate(&self, net: super::sim::Net) -> Option<Box<dyn super::sim::Simulation>> {
        (self.key == KEY).then(|| super::sim::ours(net))
    }

    fn idle<'a>(&'a self, _variant: usize, sessions: usize) -> Starting<'a> {
        if self.on_smol {
            return absent();
        }
        Box::pin(async move {
            let runtime = sheetbend_tokio::runtime();
            let (server, connect) = self.bind(runtime.clone()).await?;
            let mut kept = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let client = connect
                    .clone()
                    .connect(runtime.clone())
                    .await
                    .map_err(io::Error::other)?;
                let accepted = server.accept().await.ok_or_else(gone)?;
                // The task waits for requests as a server's would, for as long as the session lives.
                tokio::spawn(answer(accepted));
                Requests(client.clone())
                    .call(Bytes::from_static(&[7; ECHO_BYTES]))
                    .await?;
                kept.push(client);
            }
            Ok(Some(Box::new((server, kept)) as Keep))
        })
    }
}

fn gone() -> io::Error {
    io::Error::other("the server stopped")
}

impl Ours {
    /// A server, and how to reach it.
    async fn bind(&self, runtime: Arc<dyn Runtime>) -> io::Result<(Server, ClientBuilder)> {
        let chain = include_bytes!("../../../core/tests/certs/server.pem");
        let key = include_bytes!("../../../core/tests/certs/server.key");
        let tls = ServerTls::from_pem(chain, key).map_err(io::Error::other)?;
        let trust = Trust::Pins(tls.pin().into_iter().collect());
        let (scheme, query) = self.scheme.split_once('?').unwrap_or((self.scheme, ""));
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("/?{query}")
        };
        let server = Server::builder().listen(format!("{scheme}://127.0.0.1:0{query}"));
        let server = server.map_err(io::Error::other)?.tls(tls);
        let server = server.bind(runtime).await.map_err(io::Error::other)?;
        let client = sheetbend_tokio::Client::builder().endpoint(&server.addresses()[0]);
        Ok((server, client.map_err(io::Error::other)?.trust(trust)))
    }

    async fn pair(&self, variant: usize, load: &Load) -> io::Result<(Session, Session, Keep)> {
        let (threads, _) = Threads::ALL[variant % Threads::ALL.len()];
        let smol = self.on_smol.then(|| on_smol::start(load, threads)).transpose()?;
        let [near, far] = match &smol {
            Some(workers) => workers.runtimes(),
            None => [sheetbend_tokio::runtime(), sheetbend_tokio::runtime()],
        };
        let (server, client) = self.bind(far).await?;
        let client = client.connect(near).await.map_err(io::Error::other)?;
        let accepted = server.accept().await.ok_or_else(gone)?;
        let keep = Box::new((server, client.clone(), accepted.clone(), smol));
        Ok((client, accepted, keep))
    }
}

/// Answers every request with its payload, in one task.
async fn answer(session: Session) -> io::Result<()> {
    while let Ok(mut request) = session.accept_request().await {
        let payload = request.take_payload();
        request.respond(payload);
    }
    Ok(())
}

/// A caller of the session.
#[derive(Clone)]
struct Requests(Session);

impl Client for Requests {
    fn call(&mut self, payload: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send {
        self.0.request("echo", payload).map_err(io::Error::other)
    }
}

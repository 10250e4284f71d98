//! `quinn`: QUIC streams, one a request, over one connection on loopback UDP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version::TLS13};

use super::bulk::payload;
use super::case::Test;
use super::load::{ECHO_BYTES, Load};
use super::peer::{Keep, Peer, Starting};
use super::rpc::{Client, Small};
use super::rps::spawn_callers;
use super::rtt::echo_in_turn;
use super::streams::{Arrivals, WRITE_BYTES};

/// See the [module](self).
pub(crate) struct Quinn;

/// Streams that may be open at a time: every variant has enough for its load. The windows are quinn's, or wide enough
/// never to be in the way.
const VARIANTS: [(&str, Option<u32>); 2] = [("default windows", None), ("windows of 16 MiB", Some(16 << 20))];
const MAX_STREAMS: u32 = 4096;
const LONGEST_ECHO: usize = 1 << 20;

impl Peer for Quinn {
    fn key(&self) -> &'static str {
        "quinn"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        let what = match test {
            Test::Bulk => "chunks passed by reference",
            Test::Streams => "a task for each stream, chunks passed by reference",
            _ => "a stream per request, a task answers each",
        };
        VARIANTS.map(|(windows, _)| format!("{windows}, {what}")).into()
    }

    fn rtt<'a>(&'a self, variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = pair(variant).await?;
            load.spawn(answer(server));
            echo_in_turn(Small(Caller(client)), load);
            Ok(Some(keep))
        })
    }

    fn rps<'a>(&'a self, variant: usize, in_flight: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = pair(variant).await?;
            load.spawn(answer(server));
            spawn_callers((0..in_flight).map(|_| Small(Caller(client.clone()))), load);
            Ok(Some(keep))
        })
    }

    fn bulk<'a>(&'a self, variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = pair(variant).await?;
            let mut sender = client.open_uni().await?;
            let chunk = Bytes::from(payload(write_bytes));
            let counter = load.counter();
            load.spawn(async move {
                loop {
                    sender.write_chunk(chunk.clone()).await?;
                }
            });
            load.spawn(async move {
                let mut receiver = server.accept_uni().await?;
                while let Some(chunk) = receiver.read_chunk(usize::MAX, true).await? {
                    counter.add(chunk.bytes.len() as u64);
                }
                Ok(())
            });
            Ok(Some(keep))
        })
    }

    fn streams<'a>(&'a self, variant: usize, count: usize, bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server, keep) = pair(variant).await?;
            let arrivals = Arrivals::new();
            let (counter, arrived) = (load.counter(), arrivals.clone());
            load.spawn(async move {
                loop {
                    let mut stream = server.accept_uni().await?;
                    let (counter, arrived) = (counter.clone(), arrived.clone());
                    tokio::spawn(async move {
                        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                            counter.add(chunk.bytes.len() as u64);
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
                        let stream = client.open_uni().await?;
                        tokio::spawn(fill(stream, chunk.clone(), bytes));
                    }
                    arrivals.wait_for(count).await;
                }
                Ok(())
            });
            Ok(Some(keep))
        })
    }

    fn idle<'a>(&'a self, variant: usize, sessions: usize) -> Starting<'a> {
        Box::pin(async move {
            let (server, address) = listen(variant)?;
            let mut kept = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let (client, accepted, keep) = connect(variant, &server, address).await?;
                tokio::spawn(answer(accepted));
                let mut client = Caller(client);
                client.call(Bytes::from_static(&[7; ECHO_BYTES])).await?;
                kept.push((client, keep));
            }
            Ok(Some(Box::new((server, kept)) as Keep))
        })
    }
}

async fn fill(mut stream: SendStream, chunk: Bytes, bytes: usize) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let part = chunk.slice(..left.min(chunk.len()));
        left -= part.len();
        stream.write_chunk(part).await?;
    }
    stream.finish().map_err(io::Error::other)
}

fn transport(variant: usize) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS));
    if let (_, Some(window)) = VARIANTS[variant] {
        transport
            .stream_receive_window(VarInt::from_u32(window))
            .send_window(window.into());
    }
    Arc::new(transport)
}

fn listen(variant: usize) -> io::Result<(Endpoint, SocketAddr)> {
    let pem = |bytes: &'static [u8]| CertificateDer::from_pem_slice(bytes).map_err(io::Error::other);
    let certificate = pem(include_bytes!("../../../core/tests/certs/server.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../core/tests/certs/server.key"))
        .map_err(io::Error::other)?;
    let tls = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(variant));
    let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = server.local_addr()?;
    Ok((server, address))
}

async fn connect(
    variant: usize,
    server: &Endpoint,
    address: SocketAddr,
) -> io::Result<(Connection, Connection, Keep)> {
    let ca = CertificateDer::from_pem_slice(include_bytes!("../../../core/tests/certs/ca.pem"));
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    let tls = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(variant));
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connecting = endpoint
        .connect_with(config, address, "localhost")
        .map_err(io::Error::other)?;
    let (client, accepted) = tokio::join!(connecting, async {
        let incoming = server
            .accept()
            .await
            .ok_or_else(|| io::Error::other("the server stopped"))?;
        Ok::<_, io::Error>(incoming.await?)
    });
    let (client, accepted) = (client?, accepted?);
    let keep = Box::new((endpoint, client.clone(), accepted.clone()));
    Ok((client, accepted, keep))
}

async fn pair(variant: usize) -> io::Result<(Connection, Connection, Keep)> {
    let (server, address) = listen(variant)?;
    let (client, accepted, keep) = connect(variant, &server, address).await?;
    Ok((client, accepted, Box::new((server, keep))))
}

async fn answer(connection: Connection) -> io::Result<()> {
    loop {
        let (send, receive) = connection.accept_bi().await?;
        tokio::spawn(echo(send, receive));
    }
}

async fn echo(mut send: SendStream, mut receive: RecvStream) -> io::Result<()> {
    let request = receive
        .read_to_end(LONGEST_ECHO)
        .await
        .map_err(io::Error::other)?;
    send.write_chunk(request.into()).await?;
    send.finish().map_err(io::Error::other)
}

/// A caller of the shared connection.
#[derive(Clone)]
struct Caller(Connection);

impl Client for Caller {
    async fn call(&mut self, payload: Bytes) -> io::Result<Bytes> {
        let (mut send, mut receive) = self.0.open_bi().await?;
        send.write_chunk(payload).await?;
        send.finish().map_err(io::Error::other)?;
        let answer = receive
            .read_to_end(LONGEST_ECHO)
            .await
            .map_err(io::Error::other)?;
        Ok(answer.into())
    }
}

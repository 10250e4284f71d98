//! `tokio-rustls` over TCP: TLS 1.3 with ring, one stream of bytes.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::bulk::{read_forever, write_forever};
use super::case::Test;
use super::load::{Caller, ECHO_BYTES, Load};
use super::net;
use super::peer::{Keep, Peer, Starting};
use super::rtt::echo_in_turn;

/// See the [module](self).
pub(crate) struct Rustls;

const READ_BYTES: [usize; 3] = [16 << 10, 64 << 10, 256 << 10];

impl Peer for Rustls {
    fn key(&self) -> &'static str {
        "rustls"
    }

    fn variants(&self, test: Test) -> Vec<String> {
        match test {
            Test::Bulk => READ_BYTES
                .map(|bytes| format!("{} KiB reads", bytes >> 10))
                .into(),
            _ => vec!["a write and a flush per message".into()],
        }
    }

    fn rtt<'a>(&'a self, _variant: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server) = pair().await?;
            load.spawn(echo(server));
            echo_in_turn(Direct(client), load);
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn bulk<'a>(&'a self, variant: usize, write_bytes: usize, load: &'a Load) -> Starting<'a> {
        Box::pin(async move {
            let (client, server) = pair().await?;
            read_forever(server, READ_BYTES[variant], load);
            write_forever(client, write_bytes, load);
            Ok(Some(Box::new(()) as Keep))
        })
    }

    fn idle<'a>(&'a self, _variant: usize, sessions: usize) -> Starting<'a> {
        Box::pin(async move {
            let mut kept = Vec::with_capacity(sessions);
            for _ in 0..sessions {
                let (client, server) = pair().await?;
                tokio::spawn(echo(server));
                let mut client = Direct(client);
                client.call(&[7; ECHO_BYTES]).await?;
                kept.push(client);
            }
            Ok(Some(Box::new(kept) as Keep))
        })
    }
}

type Stream = TlsStream<TcpStream>;

async fn pair() -> io::Result<(Stream, Stream)> {
    let pem = |bytes: &'static [u8]| CertificateDer::from_pem_slice(bytes).map_err(io::Error::other);
    let certificate = pem(include_bytes!("../../../core/tests/certs/server.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../core/tests/certs/server.key"))
        .map_err(io::Error::other)?;
    let server = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    let ca = pem(include_bytes!("../../../core/tests/certs/ca.pem"))?;
    roots.add(ca).map_err(io::Error::other)?;
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = net::pair(None).await?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        TlsAcceptor::from(Arc::new(server)).accept(far)
    );
    Ok((client?.into(), server?.into()))
}

async fn echo(mut stream: Stream) -> io::Result<()> {
    let mut message = [0; ECHO_BYTES];
    loop {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
        stream.flush().await?;
    }
}

struct Direct(Stream);

impl Caller for Direct {
    async fn call(&mut self, request: &[u8; ECHO_BYTES]) -> io::Result<[u8; ECHO_BYTES]> {
        self.0.write_all(request).await?;
        self.0.flush().await?;
        let mut answer = [0; ECHO_BYTES];
        self.0.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

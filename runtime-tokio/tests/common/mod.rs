//! What the tests share: pairs of sessions, and a relay that cuts connections.
#![allow(dead_code, clippy::disallowed_methods, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sheetbend_tokio::{
    Address, Class, Client, Config, Delivery, Server, ServerTls, Session, Trust, certificates, runtime,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

static NAMES: AtomicU64 = AtomicU64::new(0);

/// An address of the given kind that is free.
pub fn free_address(kind: &str, dir: &tempfile::TempDir) -> String {
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    match kind {
        "tcp" | "tls" | "ws" | "wss" | "quic" | "wt" => format!("{kind}://127.0.0.1:0"),
        http if http.starts_with("http") => {
            let (scheme, query) = http.split_once('?').unwrap_or((http, ""));
            format!("{scheme}://127.0.0.1:0/?{query}")
        }
        "unix" => format!("unix://{}/{number}.sock", dir.path().display()),
        "mem" => format!("mem://test-{number}"),
        other => panic!("no such kind: {other}"),
    }
}

/// A connected pair over one kind of transport.
pub struct Pair {
    pub server: Server,
    pub client: Session,
    pub peer: Session,
    _dir: tempfile::TempDir,
}

pub async fn pair(kind: &str) -> Pair {
    pair_with(kind, Config::default(), Config::default()).await
}

pub async fn pair_with(kind: &str, client: Config, server: Config) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .listen(free_address(kind, &dir))
        .unwrap()
        .config(server)
        .tls(server_tls())
        .bind(runtime())
        .await
        .unwrap();
    let client = Client::builder()
        .endpoint(&server.addresses()[0])
        .unwrap()
        .trust(test_roots())
        .config(client);
    let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
    Pair {
        server,
        client: client.unwrap(),
        peer: peer.unwrap(),
        _dir: dir,
    }
}

macro_rules! cert {
    ($name:literal) => {
        include_bytes!(concat!("../../../core/tests/certs/", $name))
    };
}

/// A certificate for 127.0.0.1 that [`test_roots`] vouch for.
pub fn server_tls() -> ServerTls {
    ServerTls::from_pem(cert!("server.pem"), cert!("server.key")).unwrap()
}

/// One that has expired.
pub fn expired_tls() -> ServerTls {
    ServerTls::from_pem(cert!("expired.pem"), cert!("expired.key")).unwrap()
}

pub fn test_roots() -> Trust {
    Trust::Roots(certificates(cert!("ca.pem")).unwrap())
}

/// An authority that vouches for nobody here.
pub fn other_roots() -> Vec<Vec<u8>> {
    let roots = certificates(cert!("other-ca.pem")).unwrap();
    roots.iter().map(|root| root.to_vec()).collect()
}

/// Ends TLS as somebody else would, with the certificate of [`server_tls`].
pub fn tls_acceptor() -> tokio_rustls::TlsAcceptor {
    use tokio_rustls::rustls::{ServerConfig, pki_types::PrivateKeyDer, pki_types::pem::PemObject};

    let chain = certificates(cert!("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(cert!("server.key")).unwrap();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    std::sync::Arc::new(config).into()
}

/// Answers every request with its payload.
pub fn serve_echo(peer: Session) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(mut request) = peer.accept_request().await {
            let payload = request.take_payload();
            request.respond(payload);
        }
    })
}

/// Waits until something holds, by the clock of the session's runtime: where tokio's is paused, no time passes.
pub async fn until(session: &Session, holds: impl Fn() -> bool) {
    for _ in 0..5000 {
        if holds() {
            return;
        }
        session.sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come to hold: {:?}", session.stats());
}

/// Messages whose number and length can be told by looking, in order from one session to another.
pub async fn numbered_messages(client: &Session, peer: &Session, count: u32, mut arrived: impl FnMut(u32)) {
    let payload = |number: u32| number.to_be_bytes().repeat(1 + number as usize % 30);
    let sender = client.clone();
    let sending = tokio::spawn(async move {
        for number in 0..count {
            let sent = sender.send_message(Class::EVENTS, Delivery::Ordered, payload(number));
            sent.await.unwrap();
        }
    });
    for number in 0..count {
        let message = peer.recv_message(Class::EVENTS).await.unwrap();
        assert_eq!(message.payload, payload(number), "message {number}");
        arrived(number);
    }
    sending.await.unwrap();
}

/// Forwards TCP connections until told to cut them.
pub struct Relay {
    pub address: SocketAddr,
    cut: Arc<watch::Sender<u64>>,
    pub connections: Arc<AtomicUsize>,
}

impl Relay {
    pub async fn to(target: &Address) -> Relay {
        let Address::Tcp { host, port } = target.socket() else {
            panic!("only what is over tcp is relayed")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(watch::channel(0).0);
        let connections = Arc::new(AtomicUsize::new(0));
        let (cutter, counter) = (cut.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = cutter.subscribe();
                let target = (host.clone(), port);
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {
                            // Every other cut is a reset.
                            if *cut.borrow() % 2 == 0 {
                                let _ = near.set_zero_linger();
                                let _ = far.set_zero_linger();
                            }
                        }
                    }
                });
            }
        });
        Relay {
            address,
            cut,
            connections,
        }
    }

    pub fn url(&self) -> String {
        self.url_over("tcp")
    }

    pub fn url_over(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

/// Bytes that are easy to make anywhere and hard to get right by accident.
pub fn pattern(offset: u64, out: &mut [u8]) {
    for (index, byte) in out.iter_mut().enumerate() {
        let at = offset + index as u64;
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

//! The server, a proxy in front of each of its addresses, and the session between.

use crate::address::{Address, ListenAddress};
use crate::failure::Failure;
use crate::proxy::{Proxy, ProxyHandle};
use crate::url;
use sheetbend_tokio::{Client, Server, Session, Trust, runtime};
use std::net::{Ipv4Addr, SocketAddr};
use tempfile::TempDir;

/// The paths, in order of preference: their names are the transport and a number.
const WAYS: [&str; 11] = [
    "tcp", "quic", "sse", "tls", "wt", "binary", "ws", "poll", "unix", "ndjson", "wss",
];

/// Those of them that are ways down over HTTP.
const HTTP: [&str; 4] = ["binary", "sse", "ndjson", "poll"];

/// How many paths the session keeps up: one that carries the data, and a warm one while another is in trouble.
const PATHS: usize = 3;

/// One way to the server, through a proxy of its own.
pub(super) struct Way {
    /// As in `tcp 1`.
    pub(super) name: String,
    /// `tcp`, `quic`, `wt`, `ws`, `tls`, `unix`, `wss`, or a way down over HTTP.
    pub(super) transport: &'static str,
    /// What breaks it.
    pub(super) proxy: ProxyHandle,
    _proxy: Proxy,
}

impl Way {
    /// Whether it is datagrams that go over it.
    pub(super) fn is_over_udp(&self) -> bool {
        matches!(self.transport, "quic" | "wt")
    }

    /// The proxy's address as the session names the path.
    pub(super) fn path_name(&self) -> String {
        url_over(self.transport, self.proxy.address())
    }
}

/// The URL of a transport, or of a way down over HTTP, at a proxy's address.
pub(crate) fn url_over(transport: &str, address: &Address) -> String {
    match address {
        Address::Tcp { .. } => {
            let text = address.to_string();
            let authority = text.strip_prefix("tcp://").unwrap_or(&text);
            match transport {
                mode if HTTP.contains(&mode) => format!("http://{authority}/?mode={mode}"),
                web if web.starts_with('w') => format!("{web}://{authority}/"),
                other => format!("{other}://{authority}"),
            }
        }
        socket => socket.to_string(),
    }
}

/// A proxy before a server, for that transport; `socket` is where it listens for Unix sockets.
///
/// # Errors
/// A socket cannot be bound.
pub(crate) async fn proxy_for(transport: &str, server: &Server, socket: &str) -> Result<Proxy, Failure> {
    let unix = transport == "unix";
    let target = server.addresses()[usize::from(unix)].to_string();
    let target: Address = target.parse().map_err(trouble)?;
    let listen = if unix { socket } else { "127.0.0.1:0" };
    let listen: ListenAddress = listen.parse().map_err(trouble)?;
    let proxy = match (transport, &target) {
        ("quic" | "wt", Address::Tcp { host, port }) => {
            let server = SocketAddr::new(host.parse().map_err(trouble)?, *port);
            Proxy::start_udp((Ipv4Addr::LOCALHOST, 0).into(), server).await
        }
        _ => Proxy::start(&listen.0, &target).await,
    };
    proxy.map_err(trouble)
}

/// Everything that the demo runs on. Dropping it leaves nothing behind.
pub(super) struct World {
    /// The client's end of the session.
    pub(super) client: Session,
    /// The server's end.
    pub(super) peer: Session,
    /// The ways between them.
    pub(super) ways: Vec<Way>,
    _server: Server,
    _folder: TempDir,
}

impl World {
    /// Starts the server and the proxies, and connects the session.
    ///
    /// # Errors
    /// A socket cannot be bound, or the session cannot be made.
    pub(super) async fn start() -> Result<World, Failure> {
        let folder = tempfile::Builder::new().prefix("sheetbend-").tempdir();
        let folder =
            folder.map_err(|error| Failure::failed(format!("cannot make a temporary folder: {error}")))?;
        let socket = |name: String| format!("unix://{}", folder.path().join(name).display());
        let tls = url::self_signed(std::iter::empty())?;
        let pins = tls.pin().into_iter().collect();
        // One port serves all that is over TCP.
        let server = Server::builder()
            .tls(tls)
            .listen("tcp://127.0.0.1:0")
            .and_then(|server| server.listen(socket("server.sock".to_owned())))
            .map_err(trouble)?;
        let server = server.bind(runtime()).await.map_err(trouble)?;
        let mut ways = Vec::new();
        for (index, transport) in WAYS.into_iter().enumerate() {
            let number = WAYS[..=index].iter().filter(|kind| **kind == transport).count();
            let proxy = proxy_for(transport, &server, &socket(format!("{number}.sock"))).await?;
            ways.push(Way {
                name: format!("{transport} {number}"),
                transport,
                proxy: proxy.handle(),
                _proxy: proxy,
            });
        }
        // Plain and encrypted ways mix, so the weakest is the floor: both ends derive that from their
        // addresses.
        let mut client = Client::builder().standby_paths(PATHS).trust(Trust::Pins(pins));
        for way in &ways {
            client = client.endpoint(way.path_name()).map_err(trouble)?;
        }
        let (client, peer) = tokio::join!(client.connect(runtime()), server.accept());
        let peer = peer.ok_or_else(|| Failure::failed("the server stopped"))?;
        Ok(World {
            client: client.map_err(trouble)?,
            peer,
            ways,
            _server: server,
            _folder: folder,
        })
    }

    /// The way that the session calls `path`.
    pub(super) fn way_of(&self, path: &str) -> Option<usize> {
        self.ways.iter().position(|way| way.path_name() == path)
    }
}

fn trouble(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot set the demo up: {error}"))
}

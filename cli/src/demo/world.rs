//! The server, a proxy in front of each of its addresses, and the session between.

use crate::address::{Address, ListenAddress};
use crate::failure::Failure;
use crate::proxy::{Proxy, ProxyHandle};
use sheetbend_tokio::{Client, Server, Session, runtime};
use tempfile::TempDir;

/// The paths, in order of preference: their names are the transport and a number.
const WAYS: [&str; 5] = ["tcp", "unix", "tcp", "unix", "tcp"];

/// How many paths the session keeps up: one that carries the data and one that is warm.
const PATHS: usize = 2;

/// One way to the server, through a proxy of its own.
pub(super) struct Way {
    /// As in `tcp 1`.
    pub(super) name: String,
    /// `tcp` or `unix`.
    pub(super) transport: &'static str,
    /// What breaks it.
    pub(super) proxy: ProxyHandle,
    _proxy: Proxy,
}

impl Way {
    /// The proxy's address as the session names the path.
    pub(super) fn path_name(&self) -> String {
        self.proxy.address().to_string()
    }
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
        let mut server = Server::builder();
        for (index, transport) in WAYS.iter().enumerate() {
            let address = match *transport {
                "tcp" => "tcp://127.0.0.1:0".to_owned(),
                _ => socket(format!("server{index}.sock")),
            };
            server = server.listen(address).map_err(trouble)?;
        }
        let server = server.bind(runtime()).await.map_err(trouble)?;
        let mut ways = Vec::new();
        for (index, transport) in WAYS.into_iter().enumerate() {
            let number = WAYS[..=index].iter().filter(|kind| **kind == transport).count();
            let target: Address = server.addresses()[index].to_string().parse().map_err(trouble)?;
            let listen = match transport {
                "tcp" => "127.0.0.1:0".to_owned(),
                _ => socket(format!("{number}.sock")),
            };
            let listen: ListenAddress = listen.parse().map_err(trouble)?;
            let proxy = Proxy::start(&listen.0, &target).await.map_err(trouble)?;
            ways.push(Way {
                name: format!("{transport} {number}"),
                transport,
                proxy: proxy.handle(),
                _proxy: proxy,
            });
        }
        // TCP and Unix sockets mix, so the weaker of both is the floor: both ends derive that from
        // their addresses.
        let mut client = Client::builder().standby_paths(PATHS);
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

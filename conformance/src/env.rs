//! Where a case runs, and what cases share.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures::channel::oneshot::{self, Canceled};
use futures::future::{AbortHandle, abortable};
use sheetbend_runtime::{
    Address, Class, Client, ClientBuilder, Config, Delivery, Listener, Runtime, Server, ServerBuilder,
    ServerTls, Session, Socket, Trust,
};

/// A case that has not ended by then has come to a standstill.
const STANDSTILL: Duration = Duration::from_secs(300);

/// Memory names are shared by all tests of a process.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// Where a case runs: a runtime, and a directory for the files of Unix sockets. Clones share it.
#[derive(Clone)]
pub struct Env {
    runtime: Arc<dyn Runtime>,
    dir: Arc<Path>,
    tls: ServerTls,
}

impl Env {
    /// On a runtime that has 127.0.0.1.
    pub fn new(runtime: Arc<dyn Runtime>, dir: impl Into<PathBuf>) -> Env {
        Env {
            runtime,
            dir: dir.into().into(),
            tls: sheetbend_sim::identity::server_tls(),
        }
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    /// A directory of this case's own.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A certificate.
    pub fn tls(&self) -> ServerTls {
        self.tls.clone()
    }

    /// Trust in whoever has that certificate.
    pub fn trust(&self) -> Trust {
        Trust::Pins(self.tls.pin().into_iter().collect())
    }

    /// Runs a task beside the others.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (tell, told) = oneshot::channel();
        let (task, abort) = abortable(task);
        self.runtime.spawn(Box::pin(async move {
            if let Ok(result) = task.await {
                let _ = tell.send(result);
            }
        }));
        Task { told, abort }
    }

    /// An address of this kind that nobody has: a scheme, and a query for HTTP.
    pub fn free_address(&self, kind: &str) -> String {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        match kind.split_once('?').unwrap_or((kind, "")) {
            ("unix", _) => format!("unix://{}/{number}.sock", self.dir.display()),
            ("mem", _) => format!("mem://test-{number}"),
            (scheme, "") => format!("{scheme}://127.0.0.1:0"),
            (scheme, query) => format!("{scheme}://127.0.0.1:0/?{query}"),
        }
    }

    /// A server there, once it is bound.
    pub async fn serve(&self, builder: ServerBuilder, address: &str) -> Server {
        let builder = builder.listen(address).unwrap().tls(self.tls());
        builder.bind(self.runtime()).await.unwrap()
    }

    /// A server at a free address of this kind.
    pub async fn server(&self, kind: &str) -> Server {
        self.serve(Server::builder(), &self.free_address(kind)).await
    }

    /// A client that trusts the servers of this suite.
    pub fn client(&self, address: impl ToString) -> ClientBuilder {
        let client = Client::builder().trust(self.trust());
        client.endpoint(address.to_string()).unwrap()
    }

    /// A session of a client with a server.
    pub async fn connect(&self, client: ClientBuilder, server: &Server) -> (Session, Session) {
        let (client, peer) = futures::join!(client.connect(self.runtime()), server.accept());
        (client.unwrap(), peer.unwrap())
    }

    /// Both ends of a session over a transport.
    pub async fn pair(&self, kind: &str) -> Pair {
        self.pair_with(kind, Config::default(), Config::default()).await
    }

    pub async fn pair_with(&self, kind: &str, client: Config, server: Config) -> Pair {
        let builder = Server::builder().config(server);
        let server = self.serve(builder, &self.free_address(kind)).await;
        let client = self.client(&server.addresses()[0]).config(client);
        let (client, peer) = self.connect(client, &server).await;
        Pair { server, client, peer }
    }

    /// Answers every request with its payload.
    pub fn serve_echo(&self, peer: Session) -> Task<()> {
        self.spawn(async move {
            while let Ok(mut request) = peer.accept_request().await {
                let payload = request.take_payload();
                request.respond(payload);
            }
        })
    }

    /// Messages whose number and length can be told by looking, in order from one session to another.
    pub async fn numbered_messages(
        &self,
        from: &Session,
        to: &Session,
        count: u32,
        mut arrived: impl FnMut(u32),
    ) {
        let payload = |number: u32| number.to_be_bytes().repeat(1 + number as usize % 30);
        let sender = from.clone();
        let sending = self.spawn(async move {
            for number in 0..count {
                let sent = sender.send_message(Class::EVENTS, Delivery::Ordered, payload(number));
                sent.await.unwrap();
            }
        });
        for number in 0..count {
            let message = to.recv_message(Class::EVENTS).await.unwrap();
            assert_eq!(message.payload, payload(number), "message {number}");
            arrived(number);
        }
        sending.await.unwrap();
    }

    /// A connection on which a case says what it likes.
    pub async fn wire(&self, to: &Server) -> Wire {
        Wire(self.runtime.connect(to.addresses()[0].socket()).await.unwrap())
    }

    /// A listener that is no server of sessions, and what to connect to.
    pub async fn listen(&self) -> (Box<dyn Listener>, String) {
        let any = "tcp://127.0.0.1:0".parse().unwrap();
        let listener = self.runtime.listen(any).await.unwrap();
        let address = listener.local_address().to_string();
        (listener, address)
    }
}

/// Both ends of a session, and its server.
pub struct Pair {
    pub server: Server,
    pub client: Session,
    pub peer: Session,
}

/// A task that runs beside the case. It goes on if this is dropped.
pub struct Task<T> {
    told: oneshot::Receiver<T>,
    abort: AbortHandle,
}

impl<T> Task<T> {
    /// Drops the task where it stands.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether it has come to its end.
    pub fn is_finished(&mut self) -> bool {
        !matches!(self.told.try_recv(), Ok(None))
    }
}

impl<T> Future for Task<T> {
    /// `Canceled` is a task that panicked or was dropped.
    type Output = Result<T, Canceled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.told).poll(cx)
    }
}

/// A connection on which a case says what it likes.
pub struct Wire(pub Box<dyn Socket>);

impl Wire {
    /// Says this, unless the other end hangs up meanwhile.
    pub async fn say(&self, mut words: &[u8]) -> io::Result<()> {
        while !words.is_empty() {
            let written = poll_fn(|cx| {
                ready!(self.0.poll_writable(cx))?;
                match self.0.try_write_vectored(&[IoSlice::new(words)]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.0.poll_writable(cx).map(|_| Ok(0))
                    }
                    other => Poll::Ready(other),
                }
            });
            words = &words[written.await?..];
        }
        Ok(())
    }

    /// Takes in some more of what the other end says; `false` is its end.
    pub async fn hear(&self, heard: &mut BytesMut) -> io::Result<bool> {
        poll_fn(|cx| {
            loop {
                ready!(self.0.poll_readable(cx))?;
                heard.reserve(4096);
                match self.0.try_read(heard) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other.map(|count| count > 0)),
                }
            }
        })
        .await
    }

    /// All that the other end says, until it hangs up.
    pub async fn hear_all(&self) -> Vec<u8> {
        let mut heard = BytesMut::new();
        while let Ok(true) = self.hear(&mut heard).await {}
        heard.to_vec()
    }
}

/// Runs a case to its end; panics if it comes to a standstill.
pub async fn limited(env: Env, case: impl Future<Output = ()>) {
    let mut case = pin!(case);
    let runtime = env.runtime();
    let mut timer = runtime.timer(runtime.now() + STANDSTILL);
    poll_fn(|cx| {
        let ended = case.as_mut().poll(cx);
        if ended.is_pending() && timer.poll_expired(cx).is_ready() {
            panic!("nothing comes of it");
        }
        ended
    })
    .await;
}

/// Lets other tasks run.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Polls a future once: whether it has yet to wait.
pub async fn pending_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// Waits until something holds, by the clock of the session's runtime.
pub async fn until(session: &Session, holds: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        session.sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come to hold: {:?}", session.stats());
}

/// Bytes that are easy to make anywhere and hard to get right by accident.
pub fn pattern(offset: u64, out: &mut [u8]) {
    for (index, byte) in out.iter_mut().enumerate() {
        let at = offset + index as u64;
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

/// The host and port of a server over TCP.
pub(crate) fn authority(server: &Server) -> String {
    let Address::Tcp { host, port } = server.addresses()[0].socket() else {
        panic!("over tcp")
    };
    format!("{host}:{port}")
}

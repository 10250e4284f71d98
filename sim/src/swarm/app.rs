//! The programs of a swarm's hosts.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sheetbend_runtime::{
    CallError, Client, ErrorCode, ProxyRules, RegistryConfig, Router, Server, Session, SessionEvent, Side,
};

use super::book::{Book, Phase};
use super::pattern::Header;
use super::plan::{LOGIN, Plan};
use super::receive;
use crate::failure::FailureKind;
use crate::host::Host;
use crate::tunnel;

/// The method by which a client says which session it is.
pub(super) const HELLO: &str = "hello";
/// The item of payloads that belong to none.
pub(super) const NO_ITEM: u32 = u32::MAX;
/// How long a client waits before it makes another session.
const AGAIN: Duration = Duration::from_millis(100);

/// What every task of a swarm has at hand.
#[derive(Clone)]
pub(super) struct Cx {
    pub(super) host: Host,
    pub(super) book: Arc<Book>,
    pub(super) plan: Arc<Plan>,
}

impl Cx {
    pub(super) fn fail(&self, kind: FailureKind, what: impl Into<String>) {
        self.book.fail(kind, self.host.name(), what);
    }

    pub(super) fn unsafe_(&self, what: impl Into<String>) {
        self.fail(FailureKind::Safety, what);
    }

    pub(super) async fn rest(&self, time: Duration) {
        if !time.is_zero() {
            self.host.sleep(time).await;
        }
    }

    /// For an error that only the end of the session excuses, or that it is to end. `end` is either end of it.
    pub(super) fn only_at_the_end(&self, session: &Session, end: u32, what: impl FnOnce() -> String) {
        if !session.state().is_terminal() && !self.book.drains(end) {
            self.unsafe_(format!(
                "{} although the session is {:?}",
                what(),
                session.state()
            ));
        }
    }
}

/// The first of two futures to be done.
pub(super) enum Either<A, B> {
    Left(A),
    Right(B),
}

pub(super) async fn either<A: Future, B: Future>(left: A, right: B) -> Either<A::Output, B::Output> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = left.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(done));
        }
        right.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// What both sides do with a session from its beginning to its end: they receive, and watch its lifecycle.
fn attend(cx: &Cx, session: &Session, end: u32, router: &Router) {
    receive::all(cx, session, end, router);
    let mut events = session.events();
    let (book, runtime) = (cx.book.clone(), session.runtime().clone());
    session.spawn(async move {
        let mut over = false;
        while let Some(event) = events.next().await {
            match event {
                SessionEvent::State { from, to, cause } => {
                    over |= to.is_terminal();
                    book.moved(end, from, to, &cause, runtime.now());
                }
                // A session that was drained ends its paths; why it ended, the book asks elsewhere.
                SessionEvent::PathDown { .. } if !over => book.path_ended(),
                _ => {}
            }
        }
    });
}

/// Waits for the end of a session, or closes it once the run has come to `phase`.
async fn see_off(cx: &Cx, session: &Session, end: u32, phase: Phase, resume: Duration) {
    let ended = match either(session.closed(), cx.book.reached(phase)).await {
        Either::Left(ended) => ended,
        Either::Right(()) => {
            cx.book.closing(end);
            session.close(ErrorCode::NONE, "done").await;
            session.closed().await
        }
    };
    cx.book.ended(end, &ended.cause, session.now(), resume);
    cx.book.withdraw(end);
}

/// What makes sessions of a client.
pub(super) fn caller(cx: &Cx, index: usize) -> Client {
    let own = &cx.plan.clients[index];
    let mut builder = Client::builder()
        .config(own.config.clone())
        .standby_paths(own.standby_paths)
        .keep_trying(true);
    for endpoint in &own.endpoints {
        builder = builder.endpoint(endpoint.as_str()).expect("a sound address");
    }
    if let Some(proxy) = &own.proxy {
        builder = builder.proxies(ProxyRules::all(proxy.parse().expect("a sound proxy")));
    }
    builder.build(cx.host.runtime()).expect("there are endpoints")
}

/// A proxy, for as long as there is a server.
pub(super) async fn proxy(cx: Cx) {
    let (user, password) = LOGIN;
    let login = (user.to_owned(), password.to_owned());
    either(
        tunnel::run(cx.host.clone(), Some(login)),
        cx.book.reached(Phase::Stopping),
    )
    .await;
}

/// A client: it has a session, and makes another whenever it has lost one.
pub(super) async fn client(cx: Cx, index: usize) {
    cx.book.program_began();
    let own = &cx.plan.clients[index];
    let resume = own
        .config
        .params
        .resume_timeout
        .min(cx.plan.server.params.resume_timeout);
    let router = receive::router(&cx);
    while cx.book.phase() == Phase::Working {
        let client = caller(&cx, index);
        let end = cx.book.begin_end(Side::Client, Some(index));
        let session = if own.hasty {
            client.start_connecting()
        } else {
            match either(client.connect(), cx.book.reached(Phase::Closing)).await {
                Either::Left(Ok(session)) => session,
                Either::Left(Err(_)) => {
                    cx.host.sleep(AGAIN).await;
                    continue;
                }
                Either::Right(()) => break,
            }
        };
        attend(&cx, &session, end, &router);
        introduce(&cx, &session, end);
        cx.book.publish(index, Side::Client, end, &session);
        see_off(&cx, &session, end, Phase::Closing, resume).await;
        cx.rest(AGAIN).await;
    }
    cx.book.program_ended();
}

/// Makes a request; where the session may send early data, as one that may be done twice.
pub(super) async fn ask(
    cx: &Cx,
    session: &Session,
    method: &str,
    header: &Header,
) -> Result<Bytes, CallError> {
    if !cx.book.goes_early(header.end) {
        return session.request(method, header.payload()).await;
    }
    let call = session.call(method).repeatable().unary(header.payload());
    call.await.map(|reply| reply.payload)
}

/// Tells the server which session this is.
fn introduce(cx: &Cx, session: &Session, end: u32) {
    let header = Header {
        end,
        item: NO_ITEM,
        index: 0,
        len: 0,
    };
    let (cx, own) = (cx.clone(), session.clone());
    session.spawn(async move {
        if let Err(error) = ask(&cx, &own, HELLO, &header).await {
            cx.only_at_the_end(&own, end, || format!("hello: {error}"));
        }
    });
}

/// The server: it takes every session in.
pub(super) async fn server(cx: Cx) {
    cx.book.program_began();
    let router = receive::router(&cx);
    let registry = RegistryConfig {
        max_unconfirmed: cx.plan.max_unconfirmed,
        ..RegistryConfig::default()
    };
    let bound = Server::builder()
        .listen("tcp://server:4433")
        .expect("a sound address")
        .tls(crate::identity::server_tls())
        .config(cx.plan.server.clone())
        .registry(registry)
        .bind(cx.host.runtime())
        .await;
    let server = match bound {
        Ok(server) => server,
        Err(error) => return cx.unsafe_(format!("cannot listen: {error}")),
    };
    while let Either::Left(Some(session)) = either(server.accept(), cx.book.reached(Phase::Stopping)).await {
        let end = cx.book.begin_end(Side::Server, None);
        let (cx, router) = (cx.clone(), router.clone());
        session.clone().spawn(async move {
            attend(&cx, &session, end, &router);
            // The client's wish is not known to the server's program: the least that it may be.
            let resume = cx.plan.clients.iter().map(|one| one.config.params.resume_timeout);
            let resume = resume.min().unwrap_or_default();
            let resume = resume.min(cx.plan.server.params.resume_timeout);
            see_off(&cx, &session, end, Phase::Stopping, resume).await;
        });
    }
    server.stop();
    server.drained().await;
    cx.book.program_ended();
}

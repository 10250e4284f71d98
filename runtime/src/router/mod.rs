//! Handlers of calls: plain async functions by the names of their methods.
//!
//! A handler is begun where its call was accepted. If that is all it needs, nothing is spawned for it;
//! otherwise it goes on in a task of its own. PROTOCOL 11.

mod keys;
mod limits;
mod run;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sheetbend_core::request::limiter::{Config as LimitConfig, MethodId, SessionId};
use sheetbend_core::request::{CallKind, Code, Failure, Reason, idempotency};

use crate::call::{Context, ItemSender, Items, Reply};
use crate::rt::BoxFuture;
use crate::server::Server;
use crate::session::{Ended, Session};

use keys::Keys;
use limits::Limits;

/// What a handler is given of a request.
pub(crate) enum Body {
    /// All of it.
    Payload(Bytes),
    /// Its items, as they come.
    Items(Box<Items>),
}

/// What a handler comes to: the answer, or what stands behind its items.
pub(crate) type Outcome = Result<Reply, Failure>;
type Run = dyn Fn(Context, Body, Option<ItemSender>) -> BoxFuture<'static, Outcome> + Send + Sync;

struct Handler {
    kind: CallKind,
    id: MethodId,
    /// It has a limit of its own.
    limited: bool,
    run: Box<Run>,
}

/// Whose keys a call's are.
/// What a handler of the user's does, as the router keeps it.
fn boxed<R: Into<Reply>>(
    future: impl Future<Output = Result<R, Failure>> + Send + 'static,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move { future.await.map(Into::into) })
}

type KeyScope = dyn Fn(&Context) -> u64 + Send + Sync;

pub(crate) struct Inner {
    handlers: BTreeMap<Box<str>, Handler>,
    /// For unary calls of any other name.
    fallback: Option<Handler>,
    limits: Limits,
    keys: Option<Keys>,
    key_scope: Box<KeyScope>,
    spawn_each: bool,
    sessions: AtomicU64,
}

/// Collects handlers.
///
/// ```
/// use sheetbend_runtime::{Code, Failure, Router};
///
/// let router = Router::builder()
///     .unary("greet", |_, name| async move {
///         let name = String::from_utf8(name.to_vec());
///         let name = name.map_err(|_| Failure::new(Code::InvalidArgument, "no text"))?;
///         Ok(format!("hello {name}"))
///     })
///     .server_streaming("count", |_, _, mut out| async move {
///         for number in 0..10_u32 {
///             out.send(number.to_string()).await?;
///         }
///         Ok(())
///     })
///     .client_streaming("sum", |_, mut items| async move {
///         let mut sum = 0;
///         while let Some(item) = items.next().await? {
///             sum += item.len();
///         }
///         Ok(sum.to_string())
///     })
///     .bidirectional("echo", |_, mut items, mut out| async move {
///         while let Some(item) = items.next().await? {
///             out.send(item).await?;
///         }
///         Ok(())
///     })
///     .build();
/// # let _ = router;
/// ```
pub struct RouterBuilder {
    handlers: BTreeMap<Box<str>, Handler>,
    fallback: Option<Handler>,
    limits: LimitConfig,
    method_limits: BTreeMap<Box<str>, usize>,
    keys: Option<idempotency::Config>,
    key_scope: Box<KeyScope>,
    spawn_each: bool,
}

impl Default for RouterBuilder {
    fn default() -> RouterBuilder {
        let keys = idempotency::Config::default();
        RouterBuilder {
            handlers: BTreeMap::new(),
            fallback: None,
            limits: LimitConfig::default(),
            method_limits: BTreeMap::new(),
            // All callers are one scope unless `key_scope` tells them apart.
            keys: Some(idempotency::Config {
                max_entries_per_scope: keys.max_entries,
                ..keys
            }),
            key_scope: Box::new(|_| 0),
            spawn_each: false,
        }
    }
}

impl RouterBuilder {
    pub(crate) fn handler(
        mut self,
        method: Option<&str>,
        kind: CallKind,
        run: impl Fn(Context, Body, Option<ItemSender>) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    ) -> RouterBuilder {
        let handler = Handler {
            kind,
            id: MethodId(0),
            limited: false,
            run: Box::new(run),
        };
        match method {
            Some(method) => drop(self.handlers.insert(method.into(), handler)),
            None => self.fallback = Some(handler),
        }
        self
    }

    /// One payload there, one back. A method that has a handler gets another.
    pub fn unary<F, R>(
        self,
        method: &str,
        run: impl Fn(Context, Bytes) -> F + Send + Sync + 'static,
    ) -> RouterBuilder
    where
        F: Future<Output = Result<R, Failure>> + Send + 'static,
        R: Into<Reply>,
    {
        self.handler(Some(method), CallKind::Unary, move |context, body, _| {
            boxed(run(context, body.payload()))
        })
    }

    /// One payload there, items back. They end when the handler returns: well, with the metadata of what it
    /// returns as trailers, or with its failure.
    pub fn server_streaming<F, R>(
        self,
        method: &str,
        run: impl Fn(Context, Bytes, ItemSender) -> F + Send + Sync + 'static,
    ) -> RouterBuilder
    where
        F: Future<Output = Result<R, Failure>> + Send + 'static,
        R: Into<Reply>,
    {
        self.handler(
            Some(method),
            CallKind::ServerStreaming,
            move |context, body, out| match out {
                Some(out) => boxed(run(context, body.payload(), out)),
                None => unreachable!("a call of this kind has items to answer with"),
            },
        )
    }

    /// Items there, one payload back.
    pub fn client_streaming<F, R>(
        self,
        method: &str,
        run: impl Fn(Context, Items) -> F + Send + Sync + 'static,
    ) -> RouterBuilder
    where
        F: Future<Output = Result<R, Failure>> + Send + 'static,
        R: Into<Reply>,
    {
        self.handler(
            Some(method),
            CallKind::ClientStreaming,
            move |context, body, _| match body {
                Body::Items(items) => boxed(run(context, *items)),
                Body::Payload(_) => unreachable!("a call of this kind is made of items"),
            },
        )
    }

    /// Items both ways; those of the answer end as with [`server_streaming`](Self::server_streaming).
    pub fn bidirectional<F, R>(
        self,
        method: &str,
        run: impl Fn(Context, Items, ItemSender) -> F + Send + Sync + 'static,
    ) -> RouterBuilder
    where
        F: Future<Output = Result<R, Failure>> + Send + 'static,
        R: Into<Reply>,
    {
        self.handler(
            Some(method),
            CallKind::Bidirectional,
            move |context, body, out| match (body, out) {
                (Body::Items(items), Some(out)) => boxed(run(context, *items, out)),
                _ => unreachable!("a call of this kind is items both ways"),
            },
        )
    }

    /// Serves unary calls of every method that has no handler; [`Context::method`] tells which.
    pub fn fallback<F, R>(self, run: impl Fn(Context, Bytes) -> F + Send + Sync + 'static) -> RouterBuilder
    where
        F: Future<Output = Result<R, Failure>> + Send + 'static,
        R: Into<Reply>,
    {
        self.handler(None, CallKind::Unary, move |context, body, _| {
            boxed(run(context, body.payload()))
        })
    }

    /// How many calls run and wait at once, over all sessions, of one session and of one method.
    pub fn limits(mut self, limits: LimitConfig) -> RouterBuilder {
        self.limits = limits;
        self
    }

    /// How many calls of one method run at once; others wait their turn.
    pub fn method_limit(mut self, method: &str, running: usize) -> RouterBuilder {
        self.method_limits.insert(method.into(), running);
        self
    }

    /// The table of idempotency keys; `None` refuses calls that carry one.
    pub fn keys(mut self, config: Option<idempotency::Config>) -> RouterBuilder {
        self.keys = config;
        self
    }

    /// Whose keys a call's are, as a number. By default all callers share one: whoever knows another's key and
    /// request gets its answer.
    pub fn key_scope(mut self, scope: impl Fn(&Context) -> u64 + Send + Sync + 'static) -> RouterBuilder {
        self.key_scope = Box::new(scope);
        self
    }

    /// Runs each handler in a task of its own from the beginning: for handlers that compute for long before
    /// they first wait.
    pub fn spawn_each(mut self) -> RouterBuilder {
        self.spawn_each = true;
        self
    }

    /// The router.
    pub fn build(self) -> Router {
        let limits = Limits::new(self.limits);
        let mut handlers = self.handlers;
        for (number, (name, handler)) in (1..).zip(&mut handlers) {
            handler.id = MethodId(number);
            if let Some(limit) = self.method_limits.get(name) {
                handler.limited = true;
                limits.set_method(handler.id, *limit);
            }
        }
        Router {
            inner: Arc::new(Inner {
                handlers,
                fallback: self.fallback,
                limits,
                keys: self.keys.map(Keys::new),
                key_scope: self.key_scope,
                spawn_each: self.spawn_each,
                sessions: AtomicU64::new(0),
            }),
        }
    }
}

impl Body {
    /// The payload of a request that is one.
    pub(crate) fn payload(self) -> Bytes {
        match self {
            Body::Payload(payload) => payload,
            Body::Items(_) => unreachable!("a call of this kind is made of one payload"),
        }
    }
}

/// The handlers of a server, with the limits and the keys that all of its sessions share. Clones are the same
/// router.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

impl Router {
    /// A builder without handlers.
    pub fn builder() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// Serves the peer's calls until the session has ended. Use either this or
    /// [`Session::accept_request`](crate::Session::accept_request). Calls that are running when it is dropped go on.
    pub async fn serve(&self, session: Session) -> Ended {
        self.serve_state(session, None).await
    }

    /// As [`serve`](Self::serve), with something that every handler finds in its context: who the peer is, for one.
    pub async fn serve_with(&self, session: Session, state: impl Any + Send + Sync) -> Ended {
        self.serve_state(session, Some(Arc::new(state))).await
    }

    async fn serve_state(&self, session: Session, state: Option<Arc<dyn Any + Send + Sync>>) -> Ended {
        let number = SessionId(self.inner.sessions.fetch_add(1, Ordering::Relaxed));
        loop {
            let arrived = match session.accept_arrived().await {
                Ok(arrived) => arrived,
                Err(ended) => return ended,
            };
            let mut arrived = Some(arrived);
            // Never waits: it only needs the task's waker.
            poll_fn(|cx| {
                if let Some(arrived) = arrived.take() {
                    let (context, first) = Context::new(session.owner().clone(), arrived);
                    run::begin(&self.inner, number, context, first, state.as_ref(), cx);
                }
                std::task::Poll::Ready(())
            })
            .await;
        }
    }

    /// How many calls run, as far as they did more than answer at once.
    pub fn running(&self) -> usize {
        self.inner.limits.running()
    }

    /// How many calls wait for their turn.
    pub fn waiting(&self) -> usize {
        self.inner.limits.waiting()
    }
}

impl Server {
    /// Accepts sessions and serves their calls, until the server is stopped.
    pub async fn serve(&self, router: &Router) {
        while let Some(session) = self.accept().await {
            let router = router.clone();
            session.clone().spawn(async move {
                router.serve(session).await;
            });
        }
    }
}

impl Inner {
    /// The handler for a call, or what to answer.
    fn find(&self, method: &str, kind: CallKind) -> Result<&Handler, Failure> {
        let handler = self.handlers.get(method).or(self.fallback.as_ref());
        let Some(handler) = handler else {
            return Err(Failure::refused(Code::Unimplemented, Reason::NoSuchMethod));
        };
        if handler.kind != kind {
            let message = format!("this method is {:?}, the call is {kind:?}", handler.kind);
            let failure = Failure::refused(Code::Unimplemented, Reason::NoSuchMethod);
            return Err(failure.with_message(message));
        }
        Ok(handler)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.inner.handlers.keys()).finish()
    }
}

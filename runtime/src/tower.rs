//! Both ways between calls and tower: a service as a handler, with whatever middleware it has, and a session or a
//! [`Caller`] as a service.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sheetbend_core::request::{CallError, CallKind, Failure, IdempotencyKey, Metadata, TraceContext};
use tower_service::Service;

use crate::call::{Context, Reply};
use crate::caller::Caller;
use crate::calls::Options;
use crate::router::RouterBuilder;
use crate::rt::BoxFuture;
use crate::session::Session;

/// A unary call that came, as a service is given it.
#[derive(Debug)]
pub struct Incoming {
    /// What the call says of itself.
    pub context: Context,
    /// The payload.
    pub payload: Bytes,
}

/// A unary call to be made by a service.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The method's name.
    pub method: String,
    /// The payload.
    pub payload: Bytes,
    /// Keys and values.
    pub metadata: Metadata,
    /// How long to wait for the answer.
    pub timeout: Option<Duration>,
    /// Executed once under this key, of 1 to 64 bytes; none if it is empty.
    pub key: Bytes,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// Executing it more than once does no harm.
    pub repeatable: bool,
}

impl Outgoing {
    /// A call of a method.
    pub fn new(method: impl Into<String>, payload: impl Into<Bytes>) -> Outgoing {
        Outgoing {
            method: method.into(),
            payload: payload.into(),
            ..Outgoing::default()
        }
    }

    fn options(&self) -> Result<Option<Box<Options>>, CallError> {
        if !self.key.is_empty() {
            IdempotencyKey::new(&self.key).map_err(|error| CallError::Failed(error.failure()))?;
        }
        let plain =
            self.key.is_empty() && self.metadata.is_empty() && self.trace.is_none() && !self.repeatable;
        Ok((!plain).then(|| {
            Box::new(Options {
                metadata: self.metadata.clone(),
                key: self.key.clone(),
                trace: self.trace,
                repeatable: self.repeatable,
                attempt: 0,
            })
        }))
    }
}

/// Unary calls. Always ready: the peer's credit holds calls back, each in its own future.
impl Service<Outgoing> for Session {
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Outgoing) -> Self::Future {
        let session = self.clone();
        Box::pin(async move {
            let options = call.options()?;
            let deadline = call.timeout.map(|left| session.now() + left);
            let made = session.call(&call.method).with(deadline, options);
            made.unary(call.payload).await
        })
    }
}

/// Unary calls by the caller's policy. Always ready, as a session is.
impl Service<Outgoing> for Caller {
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Outgoing) -> Self::Future {
        let caller = self.clone();
        Box::pin(async move {
            let options = call.options()?;
            let mut made = Caller::call(&caller, &call.method).with(options);
            if let Some(left) = call.timeout {
                made = made.timeout(left);
            }
            made.unary(call.payload).await
        })
    }
}

impl RouterBuilder {
    /// Serves unary calls of a method by a service, which may be wrapped in layers of middleware. Each call has a
    /// clone of it, and waits until that is ready.
    pub fn service<S>(self, method: &str, service: S) -> RouterBuilder
    where
        S: Service<Incoming> + Clone + Send + 'static,
        S::Response: Into<Reply>,
        S::Error: Into<Failure>,
        S::Future: Send + 'static,
    {
        self.any_service(Some(method), service)
    }

    /// Serves unary calls of every method that has no handler by a service; [`Context::method`] tells which.
    pub fn fallback_service<S>(self, service: S) -> RouterBuilder
    where
        S: Service<Incoming> + Clone + Send + 'static,
        S::Response: Into<Reply>,
        S::Error: Into<Failure>,
        S::Future: Send + 'static,
    {
        self.any_service(None, service)
    }

    fn any_service<S>(self, method: Option<&str>, service: S) -> RouterBuilder
    where
        S: Service<Incoming> + Clone + Send + 'static,
        S::Response: Into<Reply>,
        S::Error: Into<Failure>,
        S::Future: Send + 'static,
    {
        // Boxed services may not be shared between threads; to clone one takes a moment.
        let service = Arc::new(Mutex::new(service));
        self.handler(method, CallKind::Unary, move |context, body, _| {
            let mut service = service.lock().clone();
            let payload = body.payload();
            Box::pin(async move {
                poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
                let answer = service.call(Incoming { context, payload }).await;
                answer.map(Into::into).map_err(Into::into)
            })
        })
    }
}

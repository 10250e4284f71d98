//! What a caller says of a call before it is made.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sheetbend_core::request::{
    CallError, CallKind, Cause, Deadline, HeadError, IdempotencyKey, Metadata, MetadataError, TraceContext,
};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{Class, Kind};

use crate::call::options::call_options;
use crate::calls::{Options, head};
use crate::open::open;
use crate::request::UnaryCall;
use crate::shared::Owner;

use super::items::{Answers, ItemSender, Opened, StreamingRequest};

/// A call that is about to be made: [`Session::call`](crate::Session::call).
///
/// ```
/// # use std::time::Duration;
/// # use sheetbend_runtime::Session;
/// # async fn example(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
/// let reply = session
///     .call("orders.place")
///     .timeout(Duration::from_secs(2))
///     .key("order-4711")?
///     .unary("two of them, please")
///     .await?;
/// # let _ = reply.payload;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a call is made by one of `unary`, `server_streaming`, `client_streaming`, `bidirectional`"]
pub struct CallBuilder<'a> {
    owner: &'a Arc<Owner>,
    method: &'a str,
    deadline: Option<Timestamp>,
    options: Option<Box<Options>>,
}

impl<'a> CallBuilder<'a> {
    pub(crate) fn new(owner: &'a Arc<Owner>, method: &'a str) -> CallBuilder<'a> {
        CallBuilder {
            owner,
            method,
            deadline: None,
            options: None,
        }
    }

    fn now(&self) -> Timestamp {
        self.owner.0.runtime.now()
    }

    call_options!();

    /// One payload there, one back.
    ///
    /// # Errors
    /// [`CallError`] says whether it was sent, may have been executed, or has failed.
    pub fn unary(self, payload: impl Into<Bytes>) -> UnaryCall<'a> {
        UnaryCall::new(
            &self.owner.0,
            self.method,
            self.deadline,
            self.options,
            payload.into(),
        )
    }

    /// A [`unary`](Self::unary) call that ends here at `until`, of which the other end is not told beforehand.
    pub(crate) fn unary_until(self, until: Option<Timestamp>, payload: Bytes) -> UnaryCall<'a> {
        self.unary(payload).until(until)
    }

    /// All that is said besides the method.
    pub(crate) fn with(
        mut self,
        deadline: Option<Timestamp>,
        options: Option<Box<Options>>,
    ) -> CallBuilder<'a> {
        self.deadline = deadline;
        self.options = options;
        self
    }

    /// One payload there, items back. Resolves when the call has its stream.
    ///
    /// # Errors
    /// As [`CallBuilder::unary`].
    pub async fn server_streaming(self, payload: impl Into<Bytes>) -> Result<Answers, CallError> {
        let opened = self.open(CallKind::ServerStreaming, Some(payload.into()));
        opened.await.map(|(_, answers)| answers)
    }

    /// Items there, one payload back.
    ///
    /// # Errors
    /// As [`CallBuilder::unary`].
    pub async fn client_streaming(self) -> Result<StreamingRequest, CallError> {
        let (sender, answers) = self.open(CallKind::ClientStreaming, None).await?;
        Ok(StreamingRequest::new(sender, answers))
    }

    /// Items both ways.
    ///
    /// # Errors
    /// As [`CallBuilder::unary`].
    pub async fn bidirectional(self) -> Result<(ItemSender, Answers), CallError> {
        self.open(CallKind::Bidirectional, None).await
    }

    /// Opens the call's stream and writes its head, and the payload if that is all of the request.
    async fn open(self, kind: CallKind, payload: Option<Bytes>) -> Result<(ItemSender, Answers), CallError> {
        let CallBuilder {
            owner,
            method,
            deadline,
            options,
        } = self;
        let shared = &owner.0;
        let opening = open(shared, Kind::Bi, Class::REQUESTS);
        let key = match deadline {
            None => opening.await,
            Some(at) => {
                // What stands in line is in nobody's hands but this one's.
                let mut timer = shared.runtime.timer(at);
                let mut opening = std::pin::pin!(opening);
                std::future::poll_fn(|cx| match opening.as_mut().poll(cx) {
                    std::task::Poll::Ready(opened) => std::task::Poll::Ready(Some(opened)),
                    std::task::Poll::Pending => timer.poll_expired(cx).map(|()| None),
                })
                .await
                .ok_or(CallError::NotSent(Cause::Deadline))?
            }
        };
        let key = key.map_err(|error| CallError::NotSent(Cause::Open(error)))?;
        let opened = Opened::new(owner.clone(), key, kind, deadline);
        let time_left = match deadline {
            None => None,
            Some(at) => Some(
                Deadline::at(at)
                    .time_left(shared.runtime.now())
                    .map_err(|_| CallError::NotSent(Cause::Deadline))?,
            ),
        };
        let mut bytes = Vec::new();
        let defines = {
            let mut calls = shared.calls.lock();
            let method = calls
                .methods
                .method(method)
                .map_err(|error| CallError::NotSent(Cause::Name(error)))?;
            head(method, kind, options.as_deref(), time_left).encode(&mut bytes);
            method.defines()
        };
        Ok(opened.begin(&bytes, defines, payload))
    }
}

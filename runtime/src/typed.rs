//! Calls whose payloads are values: serde's, in JSON or in postcard. The bytes remain the base; this only
//! makes and reads them.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheetbend_core::request::{CallError, Code, Executed, Failure};

use crate::call::{Answers, CallBuilder, Context, ItemSender, Items, Reply, StreamingRequest};
use crate::caller::PolicyCall;
use crate::router::RouterBuilder;

/// How values become bytes.
pub trait Codec: Send + Sync + 'static {
    /// The bytes of a value.
    ///
    /// # Errors
    /// In words, when the value has no such bytes.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, String>;

    /// The value of bytes.
    ///
    /// # Errors
    /// In words, when they are not those of such a value.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String>;
}

/// Values as JSON.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, String> {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        Ok(bytes.into())
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// Values as postcard: compact, and understood only by who has the same types.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl Codec for Postcard {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, String> {
        let bytes = postcard::to_stdvec(value).map_err(|error| error.to_string())?;
        Ok(bytes.into())
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }
}

/// A request that cannot be encoded: it was not sent.
fn unsendable(why: String) -> CallError {
    let message = format!("the request cannot be encoded: {why}");
    Failure::new(Code::InvalidArgument, message)
        .with_executed(Executed::No)
        .into()
}

/// An answer of other bytes than were expected: the call was executed.
fn unreadable(why: String) -> CallError {
    Failure::new(Code::Internal, format!("the answer is not understood: {why}")).into()
}

/// What a handler cannot read.
fn misunderstood(why: String) -> Failure {
    let message = format!("the request is not understood: {why}");
    Failure::new(Code::InvalidArgument, message).with_executed(Executed::No)
}

/// What a handler cannot say.
fn unspeakable(why: String) -> Failure {
    Failure::new(Code::Internal, format!("the answer cannot be encoded: {why}"))
}

macro_rules! callers {
    ($($builder:ident),*) => {$(
        impl $builder<'_> {
            /// A unary call of values: `unary_as::<Json, _, _>(&request)`.
            ///
            /// # Errors
            /// As [`unary`](Self::unary); INVALID_ARGUMENT, not executed, where the request has no such bytes, and
            /// INTERNAL where the answer is another's.
            pub async fn unary_as<C: Codec, Q: Serialize + ?Sized, A: DeserializeOwned>(
                self,
                request: &Q,
            ) -> Result<A, CallError> {
                let bytes = C::encode(request).map_err(unsendable)?;
                let reply = self.unary(bytes).await?;
                C::decode(&reply.payload).map_err(unreadable)
            }
        }
    )*};
}

callers!(CallBuilder, PolicyCall);

impl CallBuilder<'_> {
    /// A server streaming call whose request is a value; see [`Answers::next_as`].
    ///
    /// # Errors
    /// As [`unary_as`](Self::unary_as).
    pub async fn server_streaming_as<C: Codec, Q: Serialize + ?Sized>(
        self,
        request: &Q,
    ) -> Result<Answers, CallError> {
        let bytes = C::encode(request).map_err(unsendable)?;
        self.server_streaming(bytes).await
    }
}

impl Answers {
    /// The next item as a value.
    ///
    /// # Errors
    /// As [`next`](Self::next), and INTERNAL where the item is another's.
    pub async fn next_as<C: Codec, T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        let item = self.next().await?;
        item.map(|item| C::decode(&item).map_err(unreadable)).transpose()
    }
}

impl StreamingRequest {
    /// Sends a value as an item.
    ///
    /// # Errors
    /// When it has no such bytes, and as [`send`](Self::send).
    pub async fn send_as<C: Codec, T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Failure> {
        let bytes = C::encode(item).map_err(unspeakable)?;
        Ok(self.send(bytes).await?)
    }

    /// Ends the items, and waits for the answer as a value.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and INTERNAL where the answer is another's.
    pub async fn finish_as<C: Codec, A: DeserializeOwned>(self) -> Result<A, CallError> {
        let reply = self.finish().await?;
        C::decode(&reply.payload).map_err(unreadable)
    }
}

impl Items {
    /// The next item as a value.
    ///
    /// # Errors
    /// As [`next`](Self::next), and INVALID_ARGUMENT where the item is another's.
    pub async fn next_as<C: Codec, T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let item = self.next().await?;
        item.map(|item| {
            // The handler has begun.
            C::decode(&item).map_err(|why| misunderstood(why).with_executed(Executed::Yes))
        })
        .transpose()
    }
}

impl ItemSender {
    /// Sends a value as an item.
    ///
    /// # Errors
    /// When it has no such bytes, and as [`send`](Self::send).
    pub async fn send_as<C: Codec, T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Failure> {
        let bytes = C::encode(item).map_err(unspeakable)?;
        Ok(self.send(bytes).await?)
    }
}

impl RouterBuilder {
    /// A unary handler of values. A request that is not understood is refused before it runs.
    pub fn unary_as<C, Q, A, F>(
        self,
        method: &str,
        run: impl Fn(Context, Q) -> F + Send + Sync + 'static,
    ) -> RouterBuilder
    where
        C: Codec,
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        self.unary(method, move |context, payload| {
            let running = C::decode(&payload).map(|request| run(context, request));
            async move {
                let answer = running.map_err(misunderstood)?.await?;
                let bytes = C::encode(&answer).map_err(unspeakable)?;
                Ok(Reply::new(bytes))
            }
        })
    }
}

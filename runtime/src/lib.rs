//! The async handles of sheetbend, and the one driver behind them.
//!
//! [`Client`] and [`Server`] make [`Session`]s; a session carries requests, byte streams, messages and
//! datagrams over paths that come and go. The handles are the same types under every [`Runtime`]: an
//! adapter such as `sheetbend-tokio` implements that trait, and so does the simulator.
//!
//! A session has one task, the driver, and one lock. Whatever the handles do, they do on the session's
//! state machine under that lock; the driver moves bytes between the machine and the sockets.
//!
//! # Example
//!
//! Nothing here names a runtime. An adapter gives it: `sheetbend_tokio::runtime()`, for one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use sheetbend_runtime::{Client, ErrorCode, Runtime, Server};
//!
//! async fn both_ends(runtime: Arc<dyn Runtime>) -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::builder().listen("mem://greeter")?.bind(runtime.clone()).await?;
//!     let session = Client::builder().endpoint("mem://greeter")?.connect(runtime).await?;
//!     let peer = server.accept().await.ok_or("the server was stopped")?;
//!     peer.clone().spawn(async move {
//!         while let Ok(request) = peer.accept_request().await {
//!             request.respond("hello");
//!         }
//!     });
//!     assert_eq!(session.request("greet", "").await?, "hello");
//!     session.close(ErrorCode::NONE, "done").await;
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

mod address;
mod alarm;
mod around;
mod arrive;
#[cfg(test)]
mod bench;
mod blocking;
mod body;
mod call;
mod caller;
mod calls;
mod class;
mod client;
mod dial;
mod dispatch;
mod driver;
mod endpoint;
mod events;
mod files;
#[cfg(feature = "http")]
mod http;
mod hub;
mod intake;
mod known;
#[cfg(feature = "quic")]
mod laned;
mod layers;
mod link;
mod mem;
mod observer;
mod open;
mod opening;
#[cfg(feature = "os")]
pub mod os;
mod pipe;
mod pool;
mod pooling;
#[cfg(feature = "proxy")]
mod proxied;
#[cfg(feature = "quic")]
mod quic;
mod race;
mod reach;
mod redirect;
mod request;
mod router;
mod rt;
mod server;
mod session;
mod shared;
mod stream;
mod stream_io;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tracing")]
mod traced;
mod transport;
#[cfg(all(feature = "proxy", feature = "tls"))]
mod tunnelled;
#[cfg(any(feature = "json", feature = "postcard"))]
mod typed;
mod wait;
mod waits;
#[cfg(any(feature = "http", all(feature = "proxy", feature = "tls")))]
mod wire;

pub use address::{Address, AddressError, MAX_ADDRESS_LEN, Scheme, ToAddress};
pub use around::Around;
pub use blocking::{Blocking, SessionListener, SessionStream};
pub use call::{Answers, CallBuilder, Cancelled, Context, ItemSender, Items, Reply, StreamingRequest};
pub use caller::{
    Caller, CallerBuilder, CallerStats, Pick, Picked, PolicyCall, RoundRobin, Target, TargetId,
};
pub use class::SessionClass;
pub use client::{Client, ClientBuilder, ConnectError, DEFAULT_MAX_REQUEST};
pub use events::{EVENT_QUEUE, Events, SessionEvent};
pub use files::Files;
pub use hub::ACCEPT_QUEUE;
pub use intake::{DEFAULT_MAX_UNACCEPTED, MAX_UNFINISHED, MAX_UNSENT};
pub use mem::{MEM_BACKLOG, MEM_CAPACITY, MemListener, MemNetwork, MemSocket, mem_pair};
pub use observer::Observer;
pub use pipe::piped;
pub use pooling::{
    Manage, Pool, PoolConfig, PoolError, PoolStats, Pooled, Sessions, SessionsTo, Sockets, Take,
};
pub use redirect::{Judge, Redirect, RedirectCause, RedirectRule};
pub use request::{IncomingRequest, Request, UnaryCall};
pub use router::{Router, RouterBuilder};
pub use rt::{BoxFuture, Datagrams, Listener, Received, Runtime, Socket, Timer, UdpSocket};
pub use server::{BindError, DEFAULT_MAX_HANDSHAKES, Server, ServerBuilder};
pub use session::{Ended, Session, Sleep, Tracked};
pub use stream::{BiStream, ReadToEndError, RecvStream, SendStream};
#[cfg(feature = "tower")]
pub use tower::{Incoming, Outgoing};
pub use transport::{Place, Transport};
#[cfg(any(feature = "json", feature = "postcard"))]
pub use typed::Codec;
#[cfg(feature = "json")]
pub use typed::Json;
#[cfg(feature = "postcard")]
pub use typed::Postcard;

#[cfg(feature = "http")]
pub use sheetbend_core::carrier::http::{Guard, Mode as HttpMode};
#[cfg(feature = "proxy")]
pub use sheetbend_core::carrier::proxy::{
    NoProxy, NoProxyError, Proxy, ProxyKind, ProxyParseError, ProxyRules, VariableError,
};
#[cfg(feature = "quic")]
pub use sheetbend_core::carrier::quic::{Congestion, QuicSettings};
#[cfg(feature = "tls")]
pub use sheetbend_core::carrier::tls::{
    CertificateDer, Pin, PinError, ServerTls, TlsError, Trust, certificates,
};
pub use sheetbend_core::client::RedirectLimit;
pub use sheetbend_core::client::connector::Config as ConnectorConfig;
pub use sheetbend_core::handshake::StreamLimits;
pub use sheetbend_core::policy::backoff::BackoffPolicy;
pub use sheetbend_core::policy::breaker::{Config as BreakerConfig, State as BreakerState};
pub use sheetbend_core::policy::budget::BudgetPolicy;
pub use sheetbend_core::policy::health::{Evidence, Standing};
pub use sheetbend_core::policy::hedge::{HedgeDelay, HedgePolicy};
pub use sheetbend_core::policy::retry::RetryPolicy;
pub use sheetbend_core::policy::selection::{
    Config as SelectionConfig, Explanation, Needs, Price, Reason as Choice, Weights,
};
pub use sheetbend_core::request::idempotency::Config as KeyConfig;
pub use sheetbend_core::request::limiter::Config as CallLimits;
pub use sheetbend_core::request::{
    CallError, CallKind, Cause as CallCause, Code, Deadline, Executed, Failure, Metadata, Pushback, Reason,
    TraceContext,
};
pub use sheetbend_core::server::Origin;
pub use sheetbend_core::server::registry::Config as RegistryConfig;
pub use sheetbend_core::session::{
    Cause, ClassConfig, ClassError, ClassSettings, Config, Delivery, DeliveryKind, EarlyStart, Message,
    Moved, OpenError, Outcome, PathEnd, PathMode, PathStats, Progress, SendError, State, Stats, StreamError,
    SwitchCause, SwitchEvidence,
};
pub use sheetbend_core::time::Timestamp;
pub use sheetbend_core::wire::{Class, ErrorCode, RejectCode, Side, StreamId};

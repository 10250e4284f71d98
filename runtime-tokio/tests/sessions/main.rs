//! Sessions on tokio and real sockets. One program, as each would be linked with everything.

mod adapters;
mod blocking;
mod carriers;
#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod hostile_calls;
mod hostile_carriers;
mod hostile_http;
mod http;
mod lifecycle;
mod listening;
mod messages;
mod policy;
mod proxies;
mod quic;
mod readme;
mod requests;
mod streams;
mod webtransport;
mod whatever;

//! A deterministic simulator for programs that use sheetbend, or plain TCP and UDP.
//!
//! A [`World`] has hosts, networks and one virtual clock that jumps from event to event. It runs on one thread;
//! one seed gives one run, on every machine. The handles of sheetbend run in it as they are: give them
//! [`Host::runtime`] instead of an adapter's.
//!
//! ```
//! use std::time::Duration;
//! use sheetbend_runtime::{Client, Server};
//! use sheetbend_sim::{LinkConfig, World};
//!
//! let mut world = World::new(7);
//! world.network("lan", LinkConfig::with_delay(Duration::from_millis(2)));
//! world.boot("server", &["lan"], |host| async move {
//!     let server = Server::builder().listen("tcp://server:4433").unwrap().bind(host.runtime()).await.unwrap();
//!     while let Some(session) = server.accept().await {
//!         let peer = session.clone();
//!         session.spawn(async move {
//!             while let Ok(request) = peer.accept_request().await {
//!                 request.respond("hello");
//!             }
//!         });
//!     }
//! });
//! let client = world.host("client", &["lan"]);
//! let runtime = client.runtime();
//! let answer = world.block_on(&client, async move {
//!     let session = Client::builder().endpoint("tcp://server:4433").unwrap().connect(runtime).await.unwrap();
//!     session.request("greet", "").await.unwrap()
//! }).unwrap();
//! assert_eq!(answer, "hello");
//! ```
//!
//! # Your own code
//!
//! `docs/SIMULATION.md` is a short guide, and `sim/tests/kv.rs` an example to copy from: a service of a user's own that
//! runs for real and simulated, a swarm that checks it against a model, and two planted mistakes that the swarm finds.
//! [`scenario::all`] has a world for every [`Fault`], each of which shows the fault's effect.
//!
//! # What came of it
//!
//! A run that goes wrong returns a [`Failure`]. [`World::keep_records`] before it has the world remember what happens,
//! without changing it; the writers of [`trace`] tell it as a timeline to read, as a picture, as JSON Lines, or as a
//! capture file for Wireshark.
//!
//! # What a program must not use
//!
//! The real clock, threads, sockets, sleep and randomness of the operating system, std's hash maps with their random
//! keys included: no seed brings back what depends on them. With the feature `leaks`, on by default, a program that
//! uses one of them fails its run with [`FailureKind::Leak`] on Linux with glibc. [`unsimulated`] is for what is meant.
#![warn(missing_docs)]
#![deny(unsafe_code)]

mod disk;
mod failure;
mod fault;
mod host;
pub mod identity;
mod leaks;
mod net;
mod observe;
mod queue;
mod quiet;
mod relay;
mod runtime;
pub mod scenario;
mod schedule;
pub mod shrink;
mod state;
pub mod swarm;
mod token;
pub mod trace;
mod tunnel;
mod world;

pub use disk::{DiskConfig, DiskStats};
pub use failure::{Failure, FailureKind};
pub use fault::Fault;
pub use host::{Host, HostId};
pub use leaks::{detects_leaks, unsimulated};
pub use net::{
    Burst, Drop, LinkConfig, LinkStats, Middlebox, TcpConfig, TcpListener, TcpStream, UdpSocket, Unknown,
};
pub use quiet::quietly;
pub use relay::{RelayConfig, RelayStats};
pub use schedule::{Schedule, ScheduleError, Step};
pub use token::{MAX_TOKEN_LEN, Token, TokenError};
pub use trace::{Record, What};
pub use tunnel::PROXY_PORT;
pub use world::{Join, Leftovers, World};

pub use sheetbend_core::marks::{Mark, Marks};
pub use sheetbend_core::rng::Rng;
pub use sheetbend_core::time::Timestamp;

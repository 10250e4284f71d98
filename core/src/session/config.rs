//! What a session may be told; every limit has a name and a default.

use std::sync::Arc;
use std::time::Duration;

use super::class_config::ClassConfig;
use crate::handshake::{Params, Security};
use crate::policy::selection::{self, Offer};
use crate::wire::Class;

/// How a session uses several paths (DESIGN "Scheduling"). A seam: *aggregate* joins it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathMode {
    /// One path; another is opened when it fails.
    Single,
    /// One path carries the data and a second is kept warm.
    #[default]
    Standby,
    /// What streams carry goes on two paths at once, so that there is no gap when either dies. It costs twice the
    /// bytes; [`ClassConfig::redundant`] has single classes go so, on any two paths that there are.
    Redundant,
}

/// Configuration of a session; one end's wishes. What the ends agree on is in PROTOCOL 5.5.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this end announces to its peer.
    pub params: Params,
    /// How several paths are used.
    pub mode: PathMode,
    /// Client: which of several paths carries the data.
    pub selection: selection::Config,
    /// Treatment of each class, by its number. [`Config::class`] sets one up whole.
    pub classes: [ClassConfig; Class::COUNT],
    /// The weakest carrier that the session accepts. `None`: whatever its first path offers.
    pub security_floor: Option<Security>,
    /// Client: whether what is sent before WELCOME may go as early data (PROTOCOL 5.6). Only for work
    /// that may be run twice, as a copy of the first bytes can be replayed much later: what may not is put on streams
    /// of [`Session::open_once`](super::Session::open_once), which wait for WELCOME.
    pub early_data: bool,
    /// Bytes that all streams together may hold unsent or unacknowledged. A writer beyond it waits.
    pub max_send_buffer: u64,
    /// Bytes of reliable messages that may wait or be unacknowledged. What is kept for a single one counts
    /// too: 64 bytes for each ordered one that is tracked, 256 for each unordered one. Beyond it
    /// [`super::SendError::Full`] is the answer, but for a class that holds less than a sixteenth of it.
    pub max_message_queue: u64,
    /// Received unreliable messages and datagrams that wait to be read, in bytes. The oldest goes.
    pub max_datagram_queue: u64,
    /// Receive windows grow up to this for one stream, in bytes, unless its class says otherwise.
    pub max_stream_window: u64,
    /// Receive windows grow up to this for one class, in bytes, unless it says otherwise.
    pub max_class_window: u64,
    /// A path that has not finished its handshake by then ends.
    pub handshake_timeout: Duration,
    /// A session that is being drained, and in which nothing has moved for this long, closes with what is
    /// still open: streams that nobody reads or writes would keep it for ever.
    pub max_drain_idle: Duration,
    /// Time without progress, at least, before a path is suspect.
    pub min_suspicion: Duration,
    /// Time without progress or answer, at least, before a suspect path is dead.
    pub min_death: Duration,
}

/// Upper bound on paths attached to one session at a time, those in handshake included. As many more may be
/// closing.
pub const MAX_PATHS: usize = 8;

impl Default for Config {
    fn default() -> Config {
        Config {
            params: Params::default(),
            mode: PathMode::default(),
            selection: selection::Config::default(),
            classes: Class::ALL.map(ClassConfig::new),
            security_floor: None,
            early_data: false,
            max_send_buffer: 32 * 1024 * 1024,
            max_message_queue: 4 * 1024 * 1024,
            max_datagram_queue: 256 * 1024,
            max_stream_window: 32 * 1024 * 1024,
            max_class_window: 48 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            max_drain_idle: Duration::from_secs(300),
            min_suspicion: Duration::from_millis(50),
            min_death: Duration::from_secs(1),
        }
    }
}

/// Where a path stands that began before its carrier's handshake was done (PROTOCOL 14.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EarlyStart {
    /// The carrier's handshake was done first.
    #[default]
    No,
    /// Client: HELLO, and early data if there was any, went in the first flight. What became of it is not known yet.
    Sent,
    /// The server took the first flight. What it sees itself is always this.
    Taken,
    /// The server did not take it: all of it was sent again behind the handshake.
    Refused,
}

/// What a session knows of the connection under a path.
#[derive(Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// For people: `tcp://127.0.0.1:4433`.
    pub name: Arc<str>,
    /// The kind of transport: `tcp`, `unix`, `mem`.
    pub transport: &'static str,
    /// What protects the bytes on it, as this end sees it.
    pub security: Security,
    /// The place in the order of preference; 0 is preferred most.
    pub rank: u32,
    /// What the carrier can do, and what it costs.
    pub offer: Offer,
    /// The TLS exporter's 32 bytes, where this end itself ends TLS.
    pub exporter: Option<[u8; 32]>,
    /// Lanes beyond the first that this end may open on it; 0 where the connection is one sequence of bytes.
    pub lanes: u16,
    /// Whether the path begins before the carrier's handshake is done: with HELLO then, never with JOIN, whose proof the
    /// handshake is needed for (PROTOCOL 14.8).
    pub early: EarlyStart,
}

impl PathInfo {
    /// A plain path.
    pub fn new(name: impl Into<Arc<str>>, transport: &'static str, security: Security) -> PathInfo {
        PathInfo {
            name: name.into(),
            transport,
            security,
            rank: 0,
            offer: Offer::default(),
            exporter: None,
            lanes: 0,
            early: EarlyStart::No,
        }
    }
}

impl std::fmt::Debug for PathInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The exporter is a secret of the TLS connection.
        f.debug_struct("PathInfo")
            .field("name", &self.name)
            .field("transport", &self.transport)
            .field("security", &self.security)
            .field("rank", &self.rank)
            .field("offer", &self.offer)
            .field("bound", &self.exporter.is_some())
            .field("lanes", &self.lanes)
            .field("early", &self.early)
            .finish()
    }
}

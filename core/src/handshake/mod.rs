//! How a session begins and how paths join it: messages, parameters, keys. PROTOCOL 5 and 6.
//!
//! Nothing here has state of its own but [`PathIdWindow`]: the session decides what is sent when.
//!
//! ```text
//! new session   C: HELLO ─▶   S: ◀─ WELCOME   C: CONFIRM ─▶
//! new path      C: JOIN  ─▶   S: ◀─ JOINED    C: CONFIRM ─▶
//! refused       S: ◀─ REJECT
//! ```

mod error;
mod ids;
mod keys;
mod message;
pub mod params;
mod path_ids;
mod reader;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_params;
#[cfg(test)]
mod vectors;

pub use crate::wire::RejectCode;
pub use error::HandshakeError;
pub use ids::{MAX_ROUTING_LEN, Routing, SessionId};
pub use keys::{EXPORTER_LABEL, EphemeralSecret, Exporter, SessionKeys};
pub use message::{
    Confirm, Counts, Hello, Join, Joined, MAX_BODY, MAX_COUNTS, MAX_LIVE_PATHS, MAX_TEXT_LEN, MAX_VERSIONS,
    PathCount, Reject, VERSION, Welcome,
};
pub use params::{Agreed, MAX_CREDIT, MAX_STREAM_LIMIT, ParamError, ParamId, Params, Security, StreamLimits};
pub use path_ids::{MAX_PATH_ID_JUMP, PATH_ID_WINDOW, PathIdError, PathIdWindow};

/// The longest body of a record before the path's handshake is done. PROTOCOL 3.1.
pub const MAX_HANDSHAKE_RECORD: usize = crate::wire::HANDSHAKE_MAX_BODY;

//! sheetbend itself.
//!
//! Not wired up: every test answers `Ok(None)`, so its column is null. What to fill in, each with the session
//! at its default settings (CRC on) and one TCP path on loopback:
//!
//! - `rtt`, `rps`: a server whose handler echoes the request; a `Caller` that wraps a clone of the session and
//!   one call of its request interface. Then `rtt::echo_in_turn(caller, load)`, or
//!   `rps::spawn_callers(callers, load)` with `in_flight` callers of the same session.
//! - `bulk`: one uni stream; `bulk::write_forever(stream, write_bytes, load)` on one side and
//!   `bulk::read_forever(stream, read_bytes, load)` on the other, or loops over the native calls that pass
//!   `Bytes`, counting into `load.counter()` what is received.
//! - `streams`: `streams::Arrivals` tells the sender that all of a batch has been received.
//! - `idle`: that many clients on one server, one echo each. It runs in a child process of its own.
//!
//! `Keep` carries whatever closes the session when dropped: the client, the server, their sessions.

use super::peer::Peer;

/// The key in the report.
pub(crate) const KEY: &str = "ours";

/// sheetbend over one TCP path.
pub(crate) struct Ours;

impl Peer for Ours {
    fn key(&self) -> &'static str {
        KEY
    }
}

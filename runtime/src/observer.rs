//! Looking on while a session works: for simulators, tests and tools.

use sheetbend_core::session::{Event, Session};
use sheetbend_core::time::Timestamp;

/// Sees everything that happens to one session, from its start to its end.
///
/// A [`Runtime`](crate::Runtime) gives one to each session whose driver it is to run, or none, which costs nothing.
/// It is called under the session's lock: it must not use the handles of that session, and whatever it does delays
/// the session. `now` is the runtime's clock, the same for all calls of one turn.
///
/// It is dropped with the driver. A driver that was dropped before its session ended, because its runtime was shut
/// down, has not called [`ended`](Observer::ended).
pub trait Observer: Send {
    /// Something happened: the lifecycle moved, a path went up or down, data moved to another path.
    ///
    /// `session` is as it stands after everything of this turn so far, so that a path that the event names may be
    /// gone.
    fn event(&mut self, now: Timestamp, session: &Session, event: &Event) {
        let _ = (now, session, event);
    }

    /// The driver has done a turn: input taken in, timers handled, events told, output pulled.
    fn turn(&mut self, now: Timestamp, session: &Session) {
        let _ = (now, session);
    }

    /// The session is in its final state and its last connection is gone. Nothing follows.
    fn ended(&mut self, now: Timestamp, session: &Session) {
        let _ = (now, session);
    }
}

//! Looking on while sessions work: for simulators, tests and tools.

use sheetbend_core::client::connector::Connector;
use sheetbend_core::server::Acceptor;
use sheetbend_core::session::{Event, Session};
use sheetbend_core::time::Timestamp;

/// Sees everything that happens to one session, from its start to its end.
///
/// A [`Runtime`](crate::Runtime) gives one to each session whose driver it is to run, or none, which costs nothing.
/// A server asks for one as well, of which only [`acceptor`](Observer::acceptor) is called.
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

    /// The driver of a client's session has done a turn: what decides where to connect, and when.
    fn connector(&mut self, now: Timestamp, connector: &Connector) {
        let _ = (now, connector);
    }

    /// A server has brought a new connection to its session, or has looked at its deadlines.
    fn acceptor(&mut self, now: Timestamp, acceptor: &Acceptor) {
        let _ = (now, acceptor);
    }

    /// The session is in its final state and its last connection is gone. Nothing follows.
    fn ended(&mut self, now: Timestamp, session: &Session) {
        let _ = (now, session);
    }
}

//! The session's lifecycle: one table of legal transitions, walked by one function.

use crate::wire::{ErrorCode, RejectCode};

/// Where a session stands (REQUIREMENTS S5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// A client that has no path and has not tried one, or whose first attempts all failed.
    Disconnected,
    /// The handshake is under way.
    Connecting,
    /// At least one path carries data.
    Connected,
    /// Established, but without a path; everything queued waits.
    Reconnecting,
    /// Ended in agreement. Final.
    Closed,
    /// Ended by an error or a loss. Final.
    Failed,
}

/// What moves a session from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first path is being opened.
    Opening,
    /// The last attempt to establish the session ended without one.
    AttemptsFailed,
    /// A path proved itself.
    Established,
    /// The last path ended.
    PathsLost,
    /// This end closed.
    LocalClose {
        /// The code given.
        code: ErrorCode,
        /// The reason given.
        reason: String,
    },
    /// The peer closed.
    PeerClose {
        /// The peer's code.
        code: ErrorCode,
        /// The peer's reason.
        reason: String,
    },
    /// No path for the resume timeout.
    ResumeTimeout,
    /// Not confirmed within the handshake deadline.
    HandshakeTimeout,
    /// The client gave up connecting: no endpoint is to be tried again.
    GivenUp {
        /// What went wrong at each.
        detail: String,
    },
    /// The server refused the session, or no longer has it.
    Rejected {
        /// Why.
        code: RejectCode,
        /// What the server said.
        detail: String,
    },
    /// The peer broke the protocol.
    PeerMisbehaved {
        /// Which rule.
        code: ErrorCode,
        /// In words.
        detail: String,
    },
}

/// The class of a [`Cause`], by which the transition table is keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Fail,
    Establish,
    Lose,
    Close,
    Break,
}

impl Cause {
    fn step(&self) -> Step {
        match self {
            Cause::Opening => Step::Open,
            Cause::AttemptsFailed => Step::Fail,
            Cause::Established => Step::Establish,
            Cause::PathsLost => Step::Lose,
            Cause::LocalClose { .. } | Cause::PeerClose { .. } => Step::Close,
            Cause::ResumeTimeout
            | Cause::HandshakeTimeout
            | Cause::GivenUp { .. }
            | Cause::Rejected { .. }
            | Cause::PeerMisbehaved { .. } => Step::Break,
        }
    }
}

/// Every legal transition. What is not here does not happen.
const TRANSITIONS: &[(State, Step, State)] = &[
    (State::Disconnected, Step::Open, State::Connecting),
    (State::Disconnected, Step::Close, State::Closed),
    (State::Disconnected, Step::Break, State::Failed),
    (State::Connecting, Step::Fail, State::Disconnected),
    (State::Connecting, Step::Establish, State::Connected),
    (State::Connecting, Step::Close, State::Closed),
    (State::Connecting, Step::Break, State::Failed),
    (State::Connected, Step::Lose, State::Reconnecting),
    (State::Connected, Step::Close, State::Closed),
    (State::Connected, Step::Break, State::Failed),
    (State::Reconnecting, Step::Establish, State::Connected),
    (State::Reconnecting, Step::Close, State::Closed),
    (State::Reconnecting, Step::Break, State::Failed),
];

impl State {
    /// The state that `cause` leads to, or `None` where it changes nothing.
    pub(super) fn after(self, cause: &Cause) -> Option<State> {
        let step = cause.step();
        TRANSITIONS
            .iter()
            .find(|(from, by, _)| *from == self && *by == step)
            .map(|(_, _, to)| *to)
    }

    /// Whether the session has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Closed | State::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as text: a change of the lifecycle is a change of this snapshot.
    #[test]
    fn the_table_is_what_the_protocol_says() {
        let table: Vec<String> = TRANSITIONS
            .iter()
            .map(|(from, by, to)| format!("{from:?} --{by:?}--> {to:?}"))
            .collect();
        let expected = "Disconnected --Open--> Connecting\n\
             Disconnected --Close--> Closed\n\
             Disconnected --Break--> Failed\n\
             Connecting --Fail--> Disconnected\n\
             Connecting --Establish--> Connected\n\
             Connecting --Close--> Closed\n\
             Connecting --Break--> Failed\n\
             Connected --Lose--> Reconnecting\n\
             Connected --Close--> Closed\n\
             Connected --Break--> Failed\n\
             Reconnecting --Establish--> Connected\n\
             Reconnecting --Close--> Closed\n\
             Reconnecting --Break--> Failed";
        assert_eq!(table.join("\n"), expected);
    }

    #[test]
    fn terminal_states_are_left_by_nothing() {
        for state in [State::Closed, State::Failed] {
            assert!(TRANSITIONS.iter().all(|(from, _, _)| *from != state));
        }
    }
}

//! Which rare branches were reached.
//!
//! A test that never gets somewhere proves nothing about that place. The machines therefore set a [`Mark`]
//! where something rare happens; a simulation unites the [`Marks`] of its runs and asks which are
//! [missing](Marks::missing). A mark is a bit in the machine that sets it: no global, and the cost of one OR.

use std::fmt;

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Mark {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &'static [Mark] = &[$(Mark::$name),+];

            /// Its name, as in the source.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mark::$name => stringify!($name),)+
                }
            }
        }
    };
}

marks! {
    // ---- paths ----
    /// A path made no progress for its suspicion time.
    PathSuspected,
    /// A suspect path made progress again.
    SuspicionCleared,
    /// What a suspect path held was sent on another, too.
    Reinjected,
    /// A path died of silence.
    PathSilent,
    /// A probe was not answered, and no evidence, as the carrier had acknowledgements of its own meanwhile.
    CarrierHeard,
    /// A silent path was kept, as there was no other.
    LastPathSpared,
    /// Data moved from a suspect path to another.
    SwitchedFromSuspect,
    /// Data moved from a dead path to a standby.
    SwitchedFromDead,
    /// Data moved to a path that is preferred.
    SwitchedByPreference,
    /// A path was ended by the peer's news of it.
    PathAbandoned,
    /// A path that the client no longer lists was ended.
    PathFenced,
    /// A path's handshake took too long.
    PathHandshakeExpired,
    /// Unacknowledged records were kept when the last path died.
    UnsettledKept,
    /// An acknowledgement came for records of a dead path.
    UnsettledAcknowledged,
    /// An acknowledgement came for a path of which nothing is kept.
    AckOfSettled,
    /// An acknowledgement of what was never sent ended a path.
    AckOfUnsent,
    /// An acknowledgement for a suspect path went over another.
    AckElsewhere,
    /// A checksum did not hold.
    CrcFailed,
    /// A peer's control frames were more than it may send.
    FloodStopped,
    /// An idle path was probed.
    HeartbeatSent,
    /// A probe was answered.
    PongReceived,
    /// Input was taken in before a deadline that had passed was judged.
    ReadBeforeJudging,

    // ---- handshake ----
    /// A client's HELLO came over a second path.
    HelloRepeated,
    /// A WELCOME for a session that stood came over a second path.
    WelcomeRepeated,
    /// Another path than the first confirmed the session.
    FirstPathDistrusted,
    /// A path joined while another one of the client's was in its handshake.
    JoinRaced,
    /// CONFIRM came when its path was suspect already.
    ConfirmLate,
    /// A HELLO was told to JOIN.
    UseJoin,
    /// A JOIN's proof did not hold.
    JoinUnproven,
    /// A path id came a second time.
    PathIdReused,
    /// A path was refused, as the session had as many as it may.
    TooManyPaths,
    /// A path was refused, as its carrier is too weak.
    CarrierTooWeak,
    /// Early data came before the client had proven itself.
    EarlyDataAccepted,
    /// More early data came than may, or on a path that may not carry it.
    EarlyDataRefused,
    /// A session without paths was resumed.
    Resumed,
    /// A session was without paths for too long.
    ResumeExpired,
    /// A session was not confirmed in time.
    HandshakeExpired,
    /// A client was told that its session is gone.
    SessionGone,

    // ---- streams ----
    /// A writer found no credit.
    StreamBlocked,
    /// A writer found no room in the session's buffer.
    BufferFull,
    /// A writer that waited was told to go on.
    WriterWoken,
    /// A stream waited for its class's credit.
    ClassBlocked,
    /// A class's credit came for streams that waited for it.
    ClassUnblocked,
    /// An opener found no credit.
    OpenBlocked,
    /// Credit for streams was renewed as one ended.
    OpenRenewed,
    /// Credit for streams was renewed as others were opened.
    OpenRenewedLate,
    /// Bytes came that had come before.
    DuplicateDropped,
    /// Bytes came of which a part had come before.
    OverlapDropped,
    /// Bytes came before others that belong in front of them.
    CameEarly,
    /// Bytes came that others waited for.
    GapFilled,
    /// A stream's end was sent again.
    FinResent,
    /// A frame that only controls was sent again.
    ControlResent,
    /// A stream was stopped after its end had been set.
    StopCrossedFin,
    /// A stream was reset while data of it was unread.
    ResetCrossedData,
    /// Data came for a stream that was stopped.
    StoppedDataDropped,
    /// A frame came for a stream that is gone.
    StreamGone,

    // ---- messages and datagrams ----
    /// A message found no room in the queue.
    MessageQueueFull,
    /// A sender that waited for room was told of it.
    MessageSpace,
    /// An ordered message was read in parts.
    MessageInParts,
    /// Credit was lent, as a message was longer than its window.
    CreditLent,
    /// A datagram was sent again after its path had died.
    DatagramResent,
    /// A datagram came a second time, or too late to tell.
    DatagramRepeated,
    /// A datagram was dropped unread, as more came.
    DatagramDropped,
    /// A datagram outlived its time.
    DatagramExpired,
    /// A datagram was longer than the peer takes.
    DatagramTooLong,
    /// A message's outcome is not known.
    OutcomeMaybe,
    /// A message was never sent.
    OutcomeNotSent,

    // ---- records ----
    /// A compressed record came.
    Lz4Received,
    /// A record was sent as it is, as it does not get shorter.
    Lz4NotWorthIt,

    // ---- lifecycle ----
    /// A session began to drain while streams were open.
    DrainedWhileOpen,
    /// A drained session closed by itself.
    Drained,
    /// The peer takes nothing new.
    GoAwayReceived,
    /// A session was closed with data unacknowledged.
    ClosedWithData,
    /// The peer broke the protocol.
    PeerMisbehaved,
    /// A quiet session gave memory back.
    Tidied,

    // ---- client: connector ----
    /// An endpoint was tried again while an attempt was under way.
    Hedged,
    /// An attempt took too long.
    AttemptGivenUp,
    /// An endpoint refused.
    AttemptRejected,
    /// More paths were up than wanted.
    SurplusPath,
    /// Every endpoint's backoff has reached its limit.
    Exhausted,
    /// A handshake was proven after its attempt had been given up.
    StaleAttempt,
    /// A path's work started its endpoint's backoff over.
    PathHadWorked,

    // ---- server: acceptor ----
    /// A HELLO came again before its session was confirmed.
    HelloAgain,
    /// Another HELLO had this nonce.
    NonceReused,
    /// A HELLO was refused, as there are too many sessions or handshakes.
    TooManySessions,
    /// A HELLO was refused by a server that drains.
    DrainRefusedHello,
    /// A JOIN was taken by a server that drains.
    DrainTookJoin,
    /// A JOIN named no session.
    JoinUnknown,
    /// A JOIN named a session that has ended.
    JoinEnded,
    /// A session that nobody confirmed was given up.
    Unconfirmed,
}

/// A set of marks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Marks(u128);

const _: () = assert!(Mark::ALL.len() <= 128);

impl Marks {
    /// No marks.
    pub const fn new() -> Marks {
        Marks(0)
    }

    /// Adds one.
    #[inline]
    pub const fn set(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u8;
    }

    /// Whether it was set.
    pub const fn has(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u8) != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// Those that were set, in the order of [`Mark::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(move |&mark| self.has(mark))
    }

    /// Those that were not set, in the order of [`Mark::ALL`].
    pub fn missing(self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(move |&mark| !self.has(mark))
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Notes that a rare branch was reached: `sometimes!(self.marks, PathSilent)`. With a condition behind it,
/// only where that holds.
macro_rules! sometimes {
    ($marks:expr, $mark:ident) => {
        $marks.set($crate::marks::Mark::$mark)
    };
    ($marks:expr, $mark:ident, $condition:expr) => {
        if $condition {
            $marks.set($crate::marks::Mark::$mark);
        }
    };
}
pub(crate) use sometimes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_marks() {
        let mut some = Marks::new();
        sometimes!(some, PathSilent);
        sometimes!(some, Unconfirmed, Mark::ALL.len() > 40);
        sometimes!(some, Resumed, Mark::ALL.is_empty());
        assert_eq!(
            some.iter().collect::<Vec<_>>(),
            [Mark::PathSilent, Mark::Unconfirmed]
        );
        assert_eq!(some.missing().count(), Mark::ALL.len() - 2);
        let mut other = Marks::new();
        other.set(Mark::Resumed);
        assert!(some.union(other).has(Mark::Resumed) && !some.has(Mark::Resumed));
        assert_eq!(format!("{other:?}"), "{Resumed}");
        assert_eq!(Mark::PathSilent.name(), "PathSilent");
    }
}

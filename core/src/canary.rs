//! Planted mistakes, by which tests are tested: `--cfg sheetbend_canary` builds them in, [`activate`] picks
//! one, and whatever claims to find mistakes must find it. Without that cfg none of this exists, and
//! `canary!(…)` is `false`.
//!
//! The active canary belongs to the process: a test that picks one runs alone.

use std::sync::atomic::{AtomicUsize, Ordering};

macro_rules! canaries {
    ($($(#[doc = $doc:literal])+ $name:ident $(in $place:ident)?,)+) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Canary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Canary {
            /// Every mistake there is.
            pub const ALL: &'static [Canary] = &[$(Canary::$name),+];

            /// Its name, as in the source.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Canary::$name => stringify!($name),)+
                }
            }

            /// Whether it lies in the driver, which the core alone never runs.
            pub const fn is_in_driver(self) -> bool {
                match self {
                    $(Canary::$name => canaries!(@driver $($place)?),)+
                }
            }
        }
    };
    (@driver driver) => { true };
    (@driver) => { false };
}

canaries! {
    /// An acknowledgement counts one record more than it says.
    AckOffByOne,
    /// A class's new credit is not told to the peer.
    WindowUpdateDropped,
    /// An ordered message is delivered a second time.
    MessageDoubled,
    /// A reader that waits is not told of data.
    ReaderNotWoken,
    /// A writer that waits is not told of room.
    WriterNotWoken,
    /// A JOIN is taken whatever its proof says.
    JoinUnproven,
    /// The end of a stream is not sent again when its path dies.
    FinLost,
    /// One range of each record is left out of what is sent again for a suspect path.
    ReinjectionForgets,
    /// A datagram that comes again is taken again.
    DatagramRepeated,
    /// A stream's receive credit is not checked.
    CreditUnchecked,
    /// Twice the window is granted.
    CreditOverGranted,
    /// Credit for streams is never renewed.
    OpeningNotRenewed,
    /// A PING is not answered.
    PingUnanswered,
    /// A reset is not sent again when its path dies.
    ResetNotResent,
    /// Credit for a stream is not sent again when its path dies.
    CreditNotResent,
    /// The first frame of a stream on another path leaves its offset out.
    OffsetOmitted,
    /// STOP_SENDING is ignored.
    StopIgnored,
    /// The deadline of an acknowledgement passes, and none is sent.
    AckTimerForgotten,
    /// A server that drains refuses JOIN.
    DrainRefusesJoin,
    /// CLOSE travels without its reason.
    CloseReasonLost,
    /// One record too many is counted on paths that are dead.
    DeadCountOff,
    /// A stream of the peer's that has ended is never forgotten.
    StreamLeaked,
    /// A checksum is not looked at.
    ChecksumIgnored,
    /// A class's credit does not bound what is sent.
    ClassCreditIgnored,
    /// What a dead path had not acknowledged is not sent again.
    DeadPathForgotten,
    /// The driver does not set its timer again after a timeout.
    DriverTimerForgotten in driver,
    /// A link loses what a partial write left over.
    LinkTailLost in driver,
    /// The task of a writer that may go on is not woken.
    WritableTaskNotWoken in driver,
}

/// 0 for none, otherwise one more than the canary's place in [`Canary::ALL`].
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Makes this mistake from now on, and no other.
pub fn activate(canary: Option<Canary>) {
    ACTIVE.store(canary.map_or(0, |canary| canary as usize + 1), Ordering::Relaxed);
}

/// Whether the mistake is to be made.
#[doc(hidden)]
#[inline]
pub fn is_active(canary: Canary) -> bool {
    ACTIVE.load(Ordering::Relaxed) == canary as usize + 1
}

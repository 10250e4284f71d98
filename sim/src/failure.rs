//! How a run fails.

use sheetbend_core::time::Timestamp;

/// What kind of failure ended a run. Shrinking keeps to one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A program, or a machine in it, panicked.
    Panic,
    /// A task runs again and again and nothing comes of it.
    Stall,
    /// A task had something to do, and nobody had woken it.
    LostWakeup,
    /// Everything waits, and nothing will ever happen.
    Deadlock,
    /// What holds at every moment did not.
    Invariant,
    /// Something was lost, doubled, reordered or changed.
    Safety,
    /// What was promised did not happen although nothing stood in its way.
    Liveness,
    /// The real clock, a thread, a socket or ambient randomness was used.
    Leak,
    /// Something was still there after everything was closed.
    Leftover,
}

/// Why a run failed.
#[derive(Clone, Debug, thiserror::Error, serde::Serialize)]
#[error("at {:.6} s on {host}: {kind:?}: {message}", *.at as f64 / 1e9)]
pub struct Failure {
    /// What kind it is of.
    pub kind: FailureKind,
    /// When, in nanoseconds since the world began.
    pub at: u64,
    /// The host that was running, or the name of the checker.
    pub host: String,
    /// In words.
    pub message: String,
}

impl Failure {
    /// A failure that a checker found.
    pub fn new(
        kind: FailureKind,
        at: Timestamp,
        host: impl Into<String>,
        message: impl Into<String>,
    ) -> Failure {
        Failure {
            kind,
            at: at.as_nanos(),
            host: host.into(),
            message: message.into(),
        }
    }
}

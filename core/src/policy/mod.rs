//! Pure decisions. No policy knows a socket or a session's internals: each is fed observations and
//! answers questions.

pub mod backoff;

pub use backoff::{Backoff, BackoffPolicy, Jitter, Strategy};

//! Calls over streams: their wire, what is known of their execution, and the machines that an end needs
//! to make and to serve them. PROTOCOL 11.
//!
//! A call is a bidirectional stream of class REQUESTS. Everything here is pure; a runtime puts it to use:
//!
//! **The caller** asks its session's [`MethodTable`] for the [`Method`], encodes a [`RequestHead`] and the
//! payload (or items, [`put_item_head`]) into the stream, and reads the answer: [`Answer::from_whole`]
//! where it is whole, otherwise an [`AnswerReader`]. When the head of an answer came to a call that defined
//! a number, [`MethodTable::handle_answer`]. Where no answer came, [`CallError::unanswered`] has the word for it.
//!
//! **The callee** reads with [`CallHead::take`] or a [`RequestReader`] and the session's [`PeerMethods`],
//! asks its [`Limiter`] whether the call may run, and for a call with a key its [`IdempotencyTable`] whether
//! it should; answers with [`put_success`], [`put_failure`] and [`put_end`].
//!
//! Retries, hedges, breakers and pools are in [`policy`](crate::policy); [`classify`] tells them what an
//! error means.

pub mod answer;
pub mod classify;
pub mod deadline;
pub mod error;
pub mod head;
pub mod idempotency;
pub mod intern;
pub mod item;
pub mod limiter;
pub mod metadata;
pub mod outcome;
pub mod reader;
pub mod status;
#[cfg(test)]
mod tests;
pub mod trace;

pub use answer::{Answer, put_end, put_failure, put_success};
pub use classify::{Advice, Category, Classification, Classify};
pub use deadline::{Deadline, MAX_TIME_LEFT, TimeLeft};
pub use error::{AnswerError, DeadlineError, HeadError, ItemError, MetadataError};
pub use head::{CallKind, IdempotencyKey, MAX_HEAD, MAX_KEY, Method, RequestHead};
pub use idempotency::IdempotencyTable;
pub use intern::{
    MAX_METHOD_BYTES, MAX_METHOD_NAME, MAX_METHODS, MethodTable, NameError, PeerMethods, Resolved,
};
pub use item::{ItemReader, Piece, put_item_head};
pub use limiter::Limiter;
pub use metadata::{MAX_METADATA, MAX_METADATA_ENTRIES, MAX_METADATA_KEY, Metadata};
pub use outcome::{CallError, Cause, ResetCode, Sent};
pub use reader::{
    AnswerPart, AnswerReader, CallHead, CalledMethod, Limits, RequestError, RequestPart, RequestReader,
};
pub use status::{Code, Executed, Failure, MAX_DETAILS, MAX_MESSAGE, Pushback, Reason};
pub use trace::TraceContext;

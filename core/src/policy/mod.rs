//! Pure decisions. No policy knows a socket or a session's internals: each is fed observations and
//! answers questions.
//!
//! - [`backoff`]: how long to wait before the next try.
//! - [`retry`]: one call and its retries. [`hedge`]: one call sent twice when it is late.
//! - [`budget`]: how many retries and hedges there may be, over all calls to a target.
//! - [`breaker`]: whether to call a target at all.
//! - [`pool`]: connections or sessions, kept for reuse.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod hedge;
pub mod pool;
pub mod retry;
#[cfg(test)]
mod tests;

pub use backoff::{Backoff, BackoffPolicy, Grow, Jitter, Strategy};
pub use breaker::{BreakerOpen, Breakers};
pub use budget::{Budget, BudgetPolicy};
pub use hedge::{Hedge, HedgePolicy, Latencies};
pub use pool::Pool;
pub use retry::{Retry, RetryPolicy};

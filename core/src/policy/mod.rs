//! Pure decisions. No policy knows a socket or a session's internals: each is fed observations and
//! answers questions.
//!
//! - [`backoff`]: how long to wait before the next try.
//! - [`retry`]: one call and its retries. [`hedge`]: one call sent twice when it is late.
//! - [`budget`]: how many retries and hedges there may be, over all calls to a target.
//! - [`breaker`]: whether to call a target at all.
//! - [`pool`]: connections or sessions, kept for reuse.
//! - [`rtt`], [`health`]: how long answers take, and how well something does by them.
//! - [`selection`]: which of several paths carries the data, and why.
//! - [`racing`]: in which order and at what pace the addresses of a host are tried.
//! - [`memory`]: which transport is broken, and which worked last, by network.
//! - [`reaction`]: what a failed attempt says about where to try next.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod health;
pub mod hedge;
pub mod memory;
pub mod pool;
pub mod racing;
pub mod reaction;
pub mod retry;
pub mod rtt;
pub mod selection;
#[cfg(test)]
mod tests;

pub use backoff::{Backoff, BackoffPolicy, Grow, Jitter, Strategy};
pub use breaker::{BreakerOpen, Breakers};
pub use budget::{Budget, BudgetPolicy};
pub use health::{Evidence, Health, Standing};
pub use hedge::{Hedge, HedgePolicy, Latencies};
pub use memory::{Brokenness, Memory};
pub use pool::Pool;
pub use racing::Race;
pub use reaction::{ConnectFailure, Reaction};
pub use retry::{Retry, RetryPolicy};
pub use rtt::Rtt;
pub use selection::{Explanation, Selector};

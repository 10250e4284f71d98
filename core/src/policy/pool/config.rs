//! The settings of a pool, and what it counts.

use std::time::Duration;

use super::MAX_WAIT;

/// The settings of a [`Pool`](super::Pool).
#[derive(Clone, Debug)]
pub struct Config {
    /// Items of a target that are kept idle, from its first use on.
    pub min_idle: usize,
    /// The most items of one target, idle, busy and being made.
    pub max_per_target: usize,
    /// The most items of all targets.
    pub max_total: usize,
    /// The most targets.
    pub max_targets: usize,
    /// The most who wait.
    pub max_waiting: usize,
    /// The longest that anybody waits, whatever deadline it gives.
    pub max_wait: Duration,
    /// An item older than this is not used again. Spread by up to a tenth less, so that items made together
    /// do not go together.
    pub max_age: Duration,
    /// An item that was idle for longer is closed, unless it is one of `min_idle`.
    pub idle_timeout: Duration,
    /// An item that was idle for longer is checked before it is given out; `None` for never.
    pub check_after: Option<Duration>,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// How long the making of an item may take.
    pub open_timeout: Duration,
    /// The shortest delay after an item could not be made.
    pub min_backoff: Duration,
    /// The longest.
    pub max_backoff: Duration,
}

impl Default for Config {
    /// No idle minimum; 8 items for each target, 1,024 in all; 1,024 targets; 16,384 who wait, for 30 s at
    /// most; an hour of age; 5 minutes idle; a check after 30 s idle, of 2 s; 10 s to make an item; a backoff
    /// of 50 ms to 10 s.
    fn default() -> Config {
        Config {
            min_idle: 0,
            max_per_target: 8,
            max_total: 1024,
            max_targets: 1024,
            max_waiting: 16_384,
            max_wait: MAX_WAIT,
            max_age: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(300),
            check_after: Some(Duration::from_secs(30)),
            check_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(10),
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(10),
        }
    }
}

/// What a pool did, and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items given out.
    pub granted: u64,
    /// Of those, items that had been given out before.
    pub reused: u64,
    /// Items made.
    pub opened: u64,
    /// Items that could not be made.
    pub open_failures: u64,
    /// Items that were not well when they were checked, or said nothing.
    pub failed_checks: u64,
    /// Items that ended, of those that were made.
    pub closed: u64,
    /// Takes that had to wait.
    pub waits: u64,
    /// Of those, how many reached their deadline.
    pub expired: u64,
    /// Idle items.
    pub idle: usize,
    /// Items given out and not given back.
    pub busy: usize,
    /// Items being made.
    pub opening: usize,
    /// Items being checked.
    pub checking: usize,
    /// How many wait.
    pub waiting: usize,
    /// Targets known.
    pub targets: usize,
}

//! How often a client lets itself be sent elsewhere (PROTOCOL 8.3).

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// The limit on a client's [`Redirects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectLimit {
    /// How many are followed.
    pub count: usize,
    /// In this time.
    pub within: Duration,
}

impl Default for RedirectLimit {
    fn default() -> RedirectLimit {
        RedirectLimit {
            count: 5,
            within: Duration::from_secs(60),
        }
    }
}

/// Counts the addresses that a client follows, so that no circle of servers keeps it going.
#[derive(Debug)]
pub struct Redirects {
    limit: RedirectLimit,
    followed: VecDeque<Timestamp>,
}

impl Redirects {
    /// None was followed.
    pub fn new(limit: RedirectLimit) -> Redirects {
        Redirects {
            limit,
            followed: VecDeque::new(),
        }
    }

    /// Whether one more may be followed; it counts then.
    #[must_use]
    pub fn follow(&mut self, now: Timestamp) -> bool {
        while self
            .followed
            .front()
            .is_some_and(|at| now.since(*at) >= self.limit.within)
        {
            self.followed.pop_front();
        }
        let may = self.followed.len() < self.limit.count;
        if may {
            self.followed.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_comes_to_its_end() {
        let mut redirects = Redirects::new(RedirectLimit::default());
        let at = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);
        assert!((0..5).all(|second| redirects.follow(at(second))));
        assert!((5..60).all(|second| !redirects.follow(at(second))));
        assert!(redirects.follow(at(60)), "the first is forgotten");
        assert!(!redirects.follow(at(60)));
        let mut none = Redirects::new(RedirectLimit {
            count: 0,
            ..RedirectLimit::default()
        });
        assert!(!none.follow(at(1000)));
    }
}

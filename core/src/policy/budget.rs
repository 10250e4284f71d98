//! How many retries may be added to the calls: so that an outage is not made worse by everyone trying again.
//!
//! One budget for each target and program, shared by its calls, hedges too.

use std::time::Duration;

use crate::time::Timestamp;

const SLOTS: usize = 10;
/// Tokens are counted in thousandths.
const TOKEN: u64 = 1000;

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetPolicy {
    /// In any [`window`](BudgetPolicy::Ratio::window): so many retries for each 1,000 calls, and so many
    /// for each second on top (Finagle). The latter are for a program that calls seldom; where many such
    /// programs share a target, they are what it has to bear when it comes back.
    Ratio {
        /// Retries for each 1,000 calls.
        per_mille: u32,
        /// Retries for each second, whatever the calls.
        per_second: u32,
        /// How long calls and retries count.
        window: Duration,
    },
    /// A bucket of tokens: a failure takes one, a success gives a part of one back, and there are no retries
    /// while it is no more than half full (gRPC).
    Tokens {
        /// What the bucket holds.
        max: u32,
        /// Thousandths of a token for each success.
        per_success_milli: u32,
    },
    /// As many as the other limits allow.
    Unlimited,
}

impl BudgetPolicy {
    /// 20 % of the calls, and 10 a second, over 10 s.
    pub const fn ratio() -> BudgetPolicy {
        BudgetPolicy::Ratio {
            per_mille: 200,
            per_second: 10,
            window: Duration::from_secs(10),
        }
    }

    /// 20 % of the calls over 10 s and no more: for one of many programs that share a target.
    pub const fn strict() -> BudgetPolicy {
        BudgetPolicy::Ratio {
            per_mille: 200,
            per_second: 0,
            window: Duration::from_secs(10),
        }
    }

    /// 10 tokens, a tenth of one for each success.
    pub const fn tokens() -> BudgetPolicy {
        BudgetPolicy::Tokens {
            max: 10,
            per_success_milli: 100,
        }
    }
}

impl Default for BudgetPolicy {
    fn default() -> BudgetPolicy {
        BudgetPolicy::ratio()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    calls: u64,
    retries: u64,
}

/// A budget for retries.
///
/// [`handle_call`](Self::handle_call) for each call (not for its retries), [`handle_success`](Self::handle_success)
/// and [`handle_failure`](Self::handle_failure) for each attempt that ended, [`withdraw`](Self::withdraw) before
/// each retry or hedge. It has no timers.
#[derive(Clone, Debug)]
pub struct Budget {
    policy: BudgetPolicy,
    start: Timestamp,
    /// Number of the slot that is in use, since `start`.
    current: u64,
    slots: [Slot; SLOTS],
    tokens: u64,
}

impl Budget {
    /// A full budget.
    pub fn new(policy: BudgetPolicy, now: Timestamp) -> Budget {
        let tokens = match policy {
            BudgetPolicy::Tokens { max, .. } => u64::from(max) * TOKEN,
            BudgetPolicy::Ratio { .. } | BudgetPolicy::Unlimited => 0,
        };
        Budget {
            policy,
            start: now,
            current: 0,
            slots: [Slot::default(); SLOTS],
            tokens,
        }
    }

    /// A call is made.
    pub fn handle_call(&mut self, now: Timestamp) {
        self.advance(now);
        let slot = self.slot();
        slot.calls = slot.calls.saturating_add(1);
    }

    /// An attempt succeeded.
    pub fn handle_success(&mut self) {
        if let BudgetPolicy::Tokens {
            max,
            per_success_milli,
        } = self.policy
        {
            let full = u64::from(max) * TOKEN;
            self.tokens = self.tokens.saturating_add(u64::from(per_success_milli)).min(full);
        }
    }

    /// An attempt failed in a way that might be retried.
    pub fn handle_failure(&mut self) {
        self.tokens = self.tokens.saturating_sub(TOKEN);
    }

    /// Whether one more retry may be made; it counts as made.
    pub fn withdraw(&mut self, now: Timestamp) -> bool {
        self.advance(now);
        let allowed = match self.policy {
            BudgetPolicy::Unlimited => true,
            BudgetPolicy::Tokens { max, .. } => self.tokens > u64::from(max) * TOKEN / 2,
            BudgetPolicy::Ratio { .. } => self.balance() >= TOKEN,
        };
        if allowed {
            let slot = self.slot();
            slot.retries = slot.retries.saturating_add(1);
        }
        allowed
    }

    /// Thousandths of retries that are left.
    fn balance(&self) -> u64 {
        let BudgetPolicy::Ratio {
            per_mille,
            per_second,
            window,
        } = self.policy
        else {
            return self.tokens;
        };
        let (calls, retries) = self.slots.iter().fold((0_u64, 0_u64), |(calls, retries), slot| {
            (
                calls.saturating_add(slot.calls),
                retries.saturating_add(slot.retries),
            )
        });
        let reserve = u64::from(per_second).saturating_mul(window.as_millis() as u64);
        calls
            .saturating_mul(u64::from(per_mille))
            .saturating_add(reserve)
            .saturating_sub(retries.saturating_mul(TOKEN))
    }

    fn slot(&mut self) -> &mut Slot {
        &mut self.slots[(self.current % SLOTS as u64) as usize]
    }

    fn advance(&mut self, now: Timestamp) {
        let window = match self.policy {
            BudgetPolicy::Ratio { window, .. } => window,
            BudgetPolicy::Tokens { .. } | BudgetPolicy::Unlimited => return,
        };
        let length = (window.as_nanos() as u64 / SLOTS as u64).max(1);
        let number = now.since(self.start).as_nanos() as u64 / length;
        if number <= self.current {
            return;
        }
        for step in 1..=(number - self.current).min(SLOTS as u64) {
            self.slots[((self.current + step) % SLOTS as u64) as usize] = Slot::default();
        }
        self.current = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_share_of_the_calls_and_a_reserve() {
        let mut budget = Budget::new(BudgetPolicy::ratio(), at(0));
        for _ in 0..1000 {
            budget.handle_call(at(5));
        }
        let granted = (0..1000).filter(|_| budget.withdraw(at(6))).count();
        assert_eq!(granted, 200 + 100);
        // After the window everything is new.
        assert_eq!((0..1000).filter(|_| budget.withdraw(at(10_500))).count(), 100);
        assert_eq!((0..1000).filter(|_| budget.withdraw(Timestamp::MAX)).count(), 100);
    }

    #[test]
    fn never_more_than_the_share_in_any_window() {
        bolero::check!().with_type::<Vec<(u8, u16)>>().for_each(|steps| {
            let mut budget = Budget::new(BudgetPolicy::strict(), at(0));
            let (mut now, mut calls, mut retries) = (0_u64, Vec::new(), Vec::new());
            for &(what, wait) in steps {
                now += u64::from(wait) % 700;
                if what % 2 == 0 {
                    budget.handle_call(at(now));
                    calls.push(now);
                } else if budget.withdraw(at(now)) {
                    retries.push(now);
                    // Slots make the window up to a tenth shorter for retries; calls count as long.
                    let recent = |times: &[u64], ms: u64| times.iter().filter(|at| **at + ms > now).count();
                    assert!(recent(&retries, 9_000) * 5 <= recent(&calls, 10_000));
                }
            }
        });
    }

    #[test]
    fn tokens() {
        let mut budget = Budget::new(BudgetPolicy::tokens(), at(0));
        let mut granted = 0;
        for _ in 0..20 {
            budget.handle_failure();
            granted += u32::from(budget.withdraw(at(1)));
        }
        assert_eq!(granted, 4);
        (0..50).for_each(|_| budget.handle_success());
        assert!(!budget.withdraw(at(1)), "half is not enough");
        budget.handle_success();
        assert!(budget.withdraw(at(1)));
    }
}

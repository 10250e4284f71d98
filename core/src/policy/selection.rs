//! Which of several paths is to carry the data, and why.

use std::fmt;
use std::time::Duration;

use super::health::{Millis, Standing};
use crate::time::Timestamp;

/// What a path must be able to do. Where none can, the best of the others serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Datagrams of its own, that do not wait for what was sent before.
    pub datagrams: bool,
    /// Lanes of its own for streams.
    pub lanes: bool,
    /// Either end can send at any time.
    pub realtime: bool,
    /// Records of this length, in bytes.
    pub record: usize,
}

/// What a path can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// As in [`Needs`].
    pub datagrams: bool,
    /// As in [`Needs`].
    pub lanes: bool,
    /// As in [`Needs`].
    pub realtime: bool,
    /// The longest record, in bytes.
    pub record: usize,
    /// What it costs; a hundred units weigh as much as a tenth of a second of delay. 0 is TCP.
    pub cost: u32,
}

impl Default for Offer {
    /// What TCP offers.
    fn default() -> Offer {
        Offer {
            datagrams: false,
            lanes: false,
            realtime: true,
            record: usize::MAX,
            cost: 0,
        }
    }
}

impl Offer {
    /// Whether it is all that is needed.
    pub fn meets(&self, needs: &Needs) -> bool {
        (self.datagrams || !needs.datagrams)
            && (self.lanes || !needs.lanes)
            && (self.realtime || !needs.realtime)
            && self.record >= needs.record
    }
}

/// What weighs how much, in percent of the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Round-trip time: a millisecond each.
    pub latency: u32,
    /// Errors: 10 ms for each percent of answers that failed or were late.
    pub reliability: u32,
    /// Cost: a millisecond for each unit.
    pub cost: u32,
    /// Order of preference: 50 ms for each place further back, up to twenty.
    pub preference: u32,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights {
            latency: 100,
            reliability: 100,
            cost: 100,
            preference: 100,
        }
    }
}

/// How to select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What weighs how much.
    pub weights: Weights,
    /// What the path must be able to do.
    pub needs: Needs,
    /// Another is better if its price is lower by this at least …
    pub margin: Duration,
    /// … and by so many percent of the price of the one in use …
    pub margin_percent: u32,
    /// … for so long, where delay or errors make the difference and not preference or cost, which do not change by
    /// themselves.
    pub hold: Duration,
}

impl Default for Config {
    /// 10 ms and 20 %, for a second.
    fn default() -> Config {
        Config {
            weights: Weights::default(),
            needs: Needs::default(),
            margin: Duration::from_millis(10),
            margin_percent: 20,
            hold: Duration::from_secs(1),
        }
    }
}

/// A path that may carry data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Which.
    pub key: K,
    /// Nothing speaks against it: it is not suspect.
    pub sound: bool,
    /// The peer wishes it to be left.
    pub leaving: bool,
    /// How well it does.
    pub standing: Standing,
    /// What a round trip takes, at its worst of late.
    pub round_trip: Duration,
    /// Of a million answers, so many failed or were late.
    pub errors_ppm: u32,
    /// What it can do, and its cost.
    pub offer: Offer,
    /// The lower, the more it is preferred.
    pub rank: u32,
    /// It failed of late, and is not gone back to before then.
    pub trusted_at: Timestamp,
}

/// What a path costs, each part as a delay of equal weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// For its round trips.
    pub latency: Duration,
    /// For its errors.
    pub reliability: Duration,
    /// For its cost.
    pub cost: Duration,
    /// For its place in the order of preference.
    pub preference: Duration,
}

impl Price {
    /// The sum.
    pub fn total(&self) -> Duration {
        self.latency + self.reliability + self.fixed()
    }

    /// What does not change by itself.
    fn fixed(&self) -> Duration {
        self.cost + self.preference
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {} round trip + {} errors + {} cost + {} preference",
            Millis(self.total()),
            Millis(self.latency),
            Millis(self.reliability),
            Millis(self.cost),
            Millis(self.preference)
        )
    }
}

impl<K> Candidate<K> {
    /// What it costs.
    pub fn price(&self, weights: &Weights) -> Price {
        let of = |part: Duration, weight: u32| part.saturating_mul(weight.min(10_000)) / 100;
        Price {
            latency: of(self.round_trip.min(Duration::from_secs(3600)), weights.latency),
            reliability: of(Duration::from_micros(self.errors_ppm.into()), weights.reliability),
            cost: of(Duration::from_millis(self.offer.cost.into()), weights.cost),
            preference: of(Duration::from_millis(50) * self.rank.min(20), weights.preference),
        }
    }

    /// What outweighs any price.
    fn faults(&self, needs: &Needs) -> (bool, bool, bool) {
        (!self.sound, self.leaving, !self.offer.meets(needs))
    }
}

/// Why a path carries the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no other.
    Only,
    /// There was none in use, and it has the lowest price.
    Cheapest,
    /// The one in use is suspect.
    OtherUnsound,
    /// The peer wishes the one in use to be left.
    OtherLeaving,
    /// The one in use cannot do what is needed.
    OtherUnfit,
    /// It is better than the one in use by so much, and was long enough.
    Better {
        /// The difference of their prices.
        by: Duration,
    },
    /// The peer, whose choice it is, sends on it.
    PeerUses,
    /// It is in use, and none is better by enough.
    InUse,
    /// It is in use; another is better and has to be so for a while longer.
    InUseFor {
        /// Until then.
        until: Timestamp,
    },
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<K> {
    /// The path.
    pub key: K,
    /// Why.
    pub reason: Reason,
}

impl<K> Choice<K> {
    /// When to decide again, if nothing happens before.
    pub fn again_at(&self) -> Option<Timestamp> {
        match self.reason {
            Reason::InUseFor { until } => Some(until),
            _ => None,
        }
    }
}

/// Decides which path carries the data, with hysteresis: [`choose`](Selector::choose) whenever something changed, and
/// at [`Choice::again_at`].
#[derive(Clone, Debug)]
pub struct Selector<K> {
    /// Better than the one in use, and since when.
    challenger: Option<(K, Timestamp)>,
}

impl<K> Default for Selector<K> {
    fn default() -> Selector<K> {
        Selector { challenger: None }
    }
}

impl<K: Copy + PartialEq + Ord> Selector<K> {
    /// Nothing in use.
    pub fn new() -> Selector<K> {
        Selector::default()
    }

    /// The path to use; `None` if there is no candidate. Of two alike it is the one with the lower key.
    pub fn choose(
        &mut self,
        now: Timestamp,
        config: &Config,
        current: Option<K>,
        candidates: &[Candidate<K>],
    ) -> Option<Choice<K>> {
        let faults = |one: &Candidate<K>| one.faults(&config.needs);
        let price = |one: &Candidate<K>| one.price(&config.weights);
        let least = candidates.iter().map(faults).min()?;
        // What failed of late is worth less than its price as long as there is something else.
        let order = |one: &&Candidate<K>| (one.trusted_at > now, price(one).total(), one.key);
        let fit = || candidates.iter().filter(|one| faults(one) == least);
        let used = current.and_then(|key| candidates.iter().find(|one| one.key == key));
        let Some(used) = used.filter(|used| faults(used) == least) else {
            self.challenger = None;
            let best = fit().min_by_key(order)?;
            let reason = match used.map(faults) {
                None if candidates.len() == 1 => Reason::Only,
                None => Reason::Cheapest,
                Some(bad) if bad.0 != least.0 => Reason::OtherUnsound,
                Some(bad) if bad.1 != least.1 => Reason::OtherLeaving,
                Some(_) => Reason::OtherUnfit,
            };
            return Some(Choice {
                key: best.key,
                reason,
            });
        };
        let stay = |reason| {
            Some(Choice {
                key: used.key,
                reason,
            })
        };
        let paid = price(used);
        let margin = config
            .margin
            .max(paid.total().saturating_mul(config.margin_percent) / 100);
        let better = fit().filter(|one| {
            one.standing < Standing::Failing && price(one).total().saturating_add(margin) <= paid.total()
        });
        let Some(best) = better.min_by_key(order) else {
            self.challenger = None;
            return stay(Reason::InUse);
        };
        let since = match self.challenger {
            Some((key, since)) if key == best.key => since,
            _ => now,
        };
        self.challenger = Some((best.key, since));
        let asked = price(best);
        let lasting =
            asked.fixed().saturating_add(margin) <= paid.fixed() && asked.latency <= paid.latency + margin;
        let hold = if lasting { Duration::ZERO } else { config.hold };
        let until = (since + hold).max(best.trusted_at);
        if until > now {
            return stay(Reason::InUseFor { until });
        }
        self.challenger = None;
        let by = paid.total().saturating_sub(asked.total());
        Some(Choice {
            key: best.key,
            reason: Reason::Better { by },
        })
    }
}

/// A decision, for people: what each candidate would cost, the cheapest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why the first of them carries the data.
    pub reason: Reason,
    /// The one in use, then the others by price.
    pub rows: Vec<Row>,
}

/// One candidate of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: std::sync::Arc<str>,
    /// What it would cost.
    pub price: Price,
    /// What is known of it.
    pub evidence: super::health::Evidence,
    /// What speaks against it, whatever the price.
    pub objection: Option<Objection>,
}

/// What speaks against a candidate, whatever its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It makes no progress.
    Suspect,
    /// The peer wishes it to be left.
    Leaving,
    /// It cannot do what is needed.
    Unfit,
    /// It failed of late, and has to be well for a while before it is preferred again.
    Untrusted {
        /// How much longer.
        left: Duration,
    },
}

impl Objection {
    /// What speaks against it.
    pub fn of<K>(now: Timestamp, config: &Config, candidate: &Candidate<K>) -> Option<Objection> {
        if !candidate.sound {
            return Some(Objection::Suspect);
        }
        if candidate.leaving {
            return Some(Objection::Leaving);
        }
        if !candidate.offer.meets(&config.needs) {
            return Some(Objection::Unfit);
        }
        let left = candidate.trusted_at.since(now);
        (!left.is_zero()).then_some(Objection::Untrusted { left })
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::Suspect => f.write_str("makes no progress"),
            Objection::Leaving => f.write_str("the peer wishes it to be left"),
            Objection::Unfit => f.write_str("cannot do what is needed"),
            Objection::Untrusted { left } => {
                write!(f, "failed of late, to be well for another {}", Millis(*left))
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Only => f.write_str("there is no other"),
            Reason::Cheapest => f.write_str("it has the lowest price"),
            Reason::OtherUnsound => f.write_str("the one in use made no progress"),
            Reason::OtherLeaving => f.write_str("the peer wished the one in use to be left"),
            Reason::OtherUnfit => f.write_str("the one in use cannot do what is needed"),
            Reason::Better { by } => write!(f, "it is better by {}", Millis(*by)),
            Reason::PeerUses => f.write_str("the peer sends on it"),
            Reason::InUse => f.write_str("it is in use and none is better by enough"),
            Reason::InUseFor { .. } => {
                f.write_str("it is in use; another is better and has to be so for a while longer")
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, row) in self.rows.iter().enumerate() {
            if place == 0 {
                writeln!(f, "{} carries the data: {}", row.name, self.reason)?;
            } else {
                writeln!(f, "{}", row.name)?;
            }
            writeln!(f, "    price {}", row.price)?;
            writeln!(f, "    {}", row.evidence)?;
            if let Some(objection) = row.objection {
                writeln!(f, "    {objection}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + ms(millis)
    }

    fn path(key: u32, round_trip: u64, rank: u32) -> Candidate<u32> {
        Candidate {
            key,
            sound: true,
            leaving: false,
            standing: Standing::Healthy,
            round_trip: ms(round_trip),
            errors_ppm: 0,
            offer: Offer::default(),
            rank,
            trusted_at: Timestamp::ZERO,
        }
    }

    fn choose(
        selector: &mut Selector<u32>,
        now: u64,
        current: Option<u32>,
        candidates: &[Candidate<u32>],
    ) -> (u32, Reason) {
        let choice = selector.choose(at(now), &Config::default(), current, candidates);
        let choice = choice.expect("there are candidates");
        (choice.key, choice.reason)
    }

    #[test]
    fn the_first_choice_is_the_cheapest() {
        let mut selector = Selector::new();
        assert_eq!(selector.choose(at(0), &Config::default(), None, &[]), None);
        assert_eq!(
            choose(&mut selector, 0, None, &[path(7, 900, 3)]),
            (7, Reason::Only)
        );
        // Preference weighs, and so does delay.
        let near = [path(1, 10, 1), path(2, 40, 0)];
        assert_eq!(choose(&mut selector, 0, None, &near), (2, Reason::Cheapest));
        let far = [path(1, 10, 1), path(2, 80, 0)];
        assert_eq!(choose(&mut selector, 0, None, &far), (1, Reason::Cheapest));
    }

    #[test]
    fn a_better_path_takes_over_once_it_was_better_for_long_enough() {
        let mut selector = Selector::new();
        let until = at(1000);
        let paths = [path(1, 60, 0), path(2, 20, 0)];
        let hold = Reason::InUseFor { until };
        assert_eq!(choose(&mut selector, 0, Some(1), &paths), (1, hold));
        assert_eq!(choose(&mut selector, 900, Some(1), &paths), (1, hold));
        // A moment in which it is not better begins it anew.
        assert_eq!(
            choose(&mut selector, 950, Some(1), &[path(1, 25, 0), path(2, 20, 0)]),
            (1, Reason::InUse)
        );
        let hold = Reason::InUseFor { until: at(2000) };
        assert_eq!(choose(&mut selector, 1000, Some(1), &paths), (1, hold));
        let by = ms(40);
        assert_eq!(
            choose(&mut selector, 2000, Some(1), &paths),
            (2, Reason::Better { by })
        );
    }

    #[test]
    fn a_little_better_is_not_enough() {
        let mut selector = Selector::new();
        for (used, other) in [(20, 11), (100, 85), (1000, 810)] {
            let paths = [path(1, used, 0), path(2, other, 0)];
            assert_eq!(choose(&mut selector, 0, Some(1), &paths), (1, Reason::InUse));
        }
    }

    #[test]
    fn a_preferred_path_takes_over_at_once_unless_it_failed_of_late() {
        let mut selector = Selector::new();
        let mut paths = [path(1, 20, 1), path(2, 25, 0)];
        assert_eq!(
            choose(&mut selector, 0, Some(1), &paths),
            (2, Reason::Better { by: ms(45) })
        );
        paths[1].trusted_at = at(5000);
        let until = at(5000);
        assert_eq!(
            choose(&mut selector, 0, Some(1), &paths),
            (1, Reason::InUseFor { until })
        );
        assert_eq!(choose(&mut selector, 5000, Some(1), &paths).0, 2);
        paths[1].standing = Standing::Failing;
        assert_eq!(choose(&mut selector, 6000, Some(1), &paths).0, 1);
    }

    #[test]
    fn faults_outweigh_prices() {
        let mut selector = Selector::new();
        let mut paths = [path(1, 5, 0), path(2, 800, 5)];
        paths[0].sound = false;
        assert_eq!(
            choose(&mut selector, 0, Some(1), &paths),
            (2, Reason::OtherUnsound)
        );
        paths[1].sound = false;
        assert_eq!(choose(&mut selector, 0, Some(1), &paths).0, 1);
        let mut paths = [path(1, 5, 0), path(2, 800, 5)];
        paths[0].leaving = true;
        assert_eq!(
            choose(&mut selector, 0, Some(1), &paths),
            (2, Reason::OtherLeaving)
        );
        // Of those that remain, what failed of late comes last.
        let mut paths = [path(1, 5, 0), path(2, 800, 5), path(3, 10, 0)];
        paths[0].sound = false;
        paths[2].trusted_at = at(100);
        assert_eq!(choose(&mut selector, 0, Some(1), &paths).0, 2);
    }

    #[test]
    fn needs_are_met_where_they_can_be() {
        let config = Config {
            needs: Needs {
                datagrams: true,
                ..Needs::default()
            },
            ..Config::default()
        };
        let mut paths = [path(1, 5, 0), path(2, 80, 3)];
        let mut selector = Selector::new();
        let chosen = selector
            .choose(at(0), &config, Some(1), &paths)
            .map(|choice| choice.key);
        assert_eq!(chosen, Some(1), "neither has datagrams");
        paths[1].offer.datagrams = true;
        let choice = selector.choose(at(0), &config, Some(1), &paths);
        assert_eq!(
            choice,
            Some(Choice {
                key: 2,
                reason: Reason::OtherUnfit
            })
        );
    }

    #[test]
    fn prices_are_told_in_numbers() {
        let mut one = path(1, 12, 2);
        one.errors_ppm = 15_000;
        one.offer.cost = 5;
        let price = one.price(&Weights::default());
        assert_eq!(
            price.to_string(),
            "132.00 ms = 12.00 ms round trip + 15.00 ms errors + 5.00 ms cost + 100.00 ms preference"
        );
        let weights = Weights {
            preference: 0,
            latency: 1000,
            ..Weights::default()
        };
        assert_eq!(one.price(&weights).total(), ms(140));
    }
}

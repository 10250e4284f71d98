//! Which endpoint to connect to next, and when.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Connector, Endpoint, FAILED_OUT, MAX_PATHS};
use crate::time::Timestamp;

impl Connector {
    /// When to start the next attempt, and where.
    pub(super) fn next_start(&self) -> Option<(Timestamp, usize)> {
        if self.stopped {
            return None;
        }
        let gate = if self.in_flight.is_empty() {
            Timestamp::ZERO
        } else {
            self.gate
        };
        let next = if self.paths_up() == 0 {
            self.next_in_race(gate)
        } else {
            self.next_to_fill(gate)
        };
        next.filter(|(at, _)| *at < Timestamp::MAX)
    }

    /// No path is up: every endpoint that is not backing off.
    fn next_in_race(&self, gate: Timestamp) -> Option<(Timestamp, usize)> {
        // Of those that may be tried at one moment, those that nothing is under way to come first: the
        // pace at which one is tried again must not keep the others waiting.
        let loads = self.loads();
        let at = |index: usize| {
            let start = self.race_start(index)?.max(gate);
            let tried = self.in_flight.iter().filter(|a| a.attempt.endpoint == index);
            let last = tried.map(|a| a.started).max();
            // What worked last on this network goes first.
            let order = (!self.endpoints[index].won, self.preference(index));
            Some((start, loads[index].total(), last, order))
        };
        let next = (0..self.endpoints.len()).filter_map(at).min();
        next.map(|(at, .., (_, (_, index)))| (at, index))
    }

    /// When an endpoint may be tried (once more) in a race.
    fn race_start(&self, index: usize) -> Option<Timestamp> {
        let endpoint = &self.endpoints[index];
        let mute = |path: &super::Path| path.attempt.endpoint == index && path.voice == super::Voice::Mute;
        if endpoint.retired || self.paths.iter().any(mute) {
            return None;
        }
        let started = self
            .in_flight
            .iter()
            .filter(|a| a.attempt.endpoint == index)
            .map(|a| a.started);
        let (Some(oldest), Some(last)) = (started.clone().min(), started.clone().max()) else {
            let at = endpoint.not_before.max(self.resort(index));
            return self.has_room(index).then_some(at);
        };
        // How long its handshake takes is known: early in the outage it is tried again and again at
        // that pace, and attempts that had several times as long make room.
        if let (Some(took), Some(outage)) = (endpoint.took(self.now), self.outage) {
            let pace = took
                .saturating_mul(2)
                .clamp(self.config.stagger, Duration::from_secs(1));
            let room = if self.has_room(index) {
                last
            } else {
                oldest + pace.saturating_mul(3)
            };
            let at = (last + pace).max(room).max(endpoint.not_before);
            if at < outage + self.config.early_for {
                return Some(at);
            }
        }
        let doublings = u32::try_from(started.count())
            .unwrap_or(u32::MAX)
            .saturating_sub(1)
            .min(16);
        let hedge = last + self.config.hedge_after.saturating_mul(1 << doublings);
        self.has_room(index).then(|| hedge.max(endpoint.not_before))
    }

    /// Where the [last resorts](super::Config::last_resorts) begin among the endpoints.
    fn first_resort(&self) -> usize {
        self.config.endpoints.saturating_sub(self.config.last_resorts)
    }

    /// Whether an endpoint is one of the [last resorts](super::Config::last_resorts).
    pub fn is_last_resort(&self, index: usize) -> bool {
        (self.first_resort()..self.config.endpoints).contains(&index)
    }

    /// When a last resort may be tried at the earliest, or one that is broken: there is hope for the others as long as
    /// one of them has not failed.
    fn resort(&self, index: usize) -> Timestamp {
        let first = self.first_resort();
        let last_resort = self.is_last_resort(index);
        if !last_resort && !self.is_broken(index) {
            return Timestamp::ZERO;
        }
        let others = if last_resort { first } else { self.endpoints.len() };
        let hope = (0..others).any(|other| {
            let known = &self.endpoints[other];
            !known.retired && known.failures() == 0 && !self.is_broken(other)
        });
        let head_start = match last_resort {
            true => self.config.resort_after,
            false => self.config.hedge_after,
        };
        match self.outage {
            Some(since) if hope => since + head_start,
            _ => Timestamp::ZERO,
        }
    }

    pub(super) fn is_broken(&self, index: usize) -> bool {
        self.endpoints[index].brokenness.is_broken(self.now)
    }

    /// Whether the limits allow one more attempt to this endpoint. Further ones to an endpoint that does not answer leave
    /// room for those that are not being tried: up to half of all.
    pub(super) fn has_room(&self, index: usize) -> bool {
        if self.endpoints[index].retired {
            return false;
        }
        let tried = |index: usize| self.in_flight.iter().filter(move |a| a.attempt.endpoint == index);
        let same = tried(index).count();
        let others = (0..self.endpoints.len()).filter(|&other| !self.endpoints[other].retired);
        let kept = match same {
            0 => 0,
            _ => others.filter(|&other| tried(other).next().is_none()).count(),
        };
        let most = self.config.max_in_flight;
        same < self.config.max_in_flight_per_endpoint && self.in_flight.len() + kept.min(most / 2) < most
    }

    /// Some path is up: as many more as are wanted, on different endpoints where possible; or another place for one of
    /// them.
    fn next_to_fill(&self, gate: Timestamp) -> Option<(Timestamp, usize)> {
        let paths = self.paths_up() + self.in_flight.len();
        let loads = self.loads();
        if paths < self.mode.paths() {
            // The least served of those that work, and those that work no more and are served less.
            let works = |(load, endpoint): &(&Load, &Endpoint)| {
                !endpoint.retired && (load.paths > 0 || endpoint.failures() < FAILED_OUT)
            };
            let known = loads.iter().zip(&self.endpoints);
            let level = known.filter(works).map(|(load, _)| load.total()).min()?;
            return self.least_served(&loads, level, gate);
        }
        if !self.in_flight.is_empty() {
            return None;
        }
        // All wanted paths are up, but perhaps unevenly: look whether an endpoint that failed is back.
        let most = loads.iter().map(|load| load.paths).max()?;
        let settled = self.paths_up() <= self.mode.paths();
        let uneven = most.checked_sub(2).filter(|_| settled);
        let back = uneven.and_then(|level| self.least_served(&loads, level, gate));
        back.into_iter().chain(self.next_upgrade()).min()
    }

    /// Of the endpoints that are served no better than this, the first that may be tried.
    fn least_served(&self, loads: &[Load], level: usize, gate: Timestamp) -> Option<(Timestamp, usize)> {
        let candidates =
            (0..loads.len()).filter(|&index| loads[index].total() <= level && self.has_room(index));
        let at = |index: usize| {
            (
                self.endpoints[index].not_before.max(gate),
                loads[index].total(),
                self.is_broken(index),
                self.alike(index),
                self.preference(index),
            )
        };
        candidates.map(at).min().map(|(at, .., (_, index))| (at, index))
    }

    /// Enough paths are up: an endpoint that is preferred to all of them, if it may be tried.
    fn next_upgrade(&self) -> Option<(Timestamp, usize)> {
        let most = self.mode.paths().min(MAX_PATHS - 1);
        if !self.config.upgrade || self.paths_up() > most {
            return None;
        }
        let best = self.best_up()?;
        let better = |index: &usize| self.preference(*index) < best && self.has_room(*index);
        let at = |index: usize| {
            let endpoint = &self.endpoints[index];
            let rested = endpoint.brokenness.until().unwrap_or(Timestamp::ZERO);
            let trusted = endpoint.health.damping().trusted_at();
            (
                endpoint.not_before.max(rested).max(trusted),
                self.preference(index),
            )
        };
        let next = (0..self.endpoints.len()).filter(better).map(at).min();
        next.map(|(at, (_, index))| (at, index))
    }

    /// How much an endpoint has in common with those that have paths: what ends these may end its own, too.
    fn alike(&self, index: usize) -> usize {
        let own = self.config.kind(index);
        let counting = self.paths.iter().filter(|path| path.counts());
        let common = |path: &super::Path| {
            let other = self.config.kind(path.attempt.endpoint);
            usize::from(own.transport == other.transport) + usize::from(own.host == other.host)
        };
        counting.map(common).sum()
    }

    pub(super) fn loads(&self) -> SmallVec<[Load; 8]> {
        let mut loads: SmallVec<[Load; 8]> = smallvec::smallvec![Load::default(); self.endpoints.len()];
        for path in self.paths.iter().filter(|path| path.counts()) {
            loads[path.attempt.endpoint].paths += 1;
        }
        for attempt in &self.in_flight {
            loads[attempt.attempt.endpoint].in_flight += 1;
        }
        loads
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) paths: usize,
    in_flight: usize,
}

impl Load {
    pub(super) fn total(self) -> usize {
        self.paths + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connector::{Attempt, Config, Verdict};
    use crate::rng::Rng;

    fn connector() -> Connector {
        let mut config = Config::new(4);
        config.last_resorts = 2;
        Connector::new(config, Rng::from_seed([1; 32]), Timestamp::ZERO)
    }

    /// Runs by the connector's own deadlines; what it starts until then.
    fn starts(connector: &mut Connector, until: Timestamp) -> Vec<(Timestamp, Attempt)> {
        let mut starts = Vec::new();
        while let Some(at) = connector.poll_timeout().filter(|at| *at < until) {
            connector.handle_timeout(at);
            while connector.poll_event().is_some() {}
            while let Some(attempt) = connector.poll_connect(at) {
                starts.push((at, attempt));
            }
        }
        starts
    }

    /// UDP that is blocked answers nothing, and TCP that is refused fails at once: the one must not keep the other waiting.
    #[test]
    fn endpoints_that_do_not_answer_leave_room_for_others() {
        let config = Config::new(4);
        let early = config.early_for;
        let mut connector = Connector::new(config, Rng::from_seed([1; 32]), Timestamp::ZERO);
        // Their handshakes took no time before.
        for endpoint in 0..2 {
            connector.endpoints[endpoint].took.sample(
                Timestamp::ZERO,
                Duration::from_millis(1),
                Duration::ZERO,
            );
        }
        let mut last = [Timestamp::ZERO; 4];
        let end = Timestamp::ZERO + early;
        while let Some(at) = connector.poll_timeout().filter(|at| *at < end) {
            connector.handle_timeout(at);
            while connector.poll_event().is_some() {}
            while let Some(attempt) = connector.poll_connect(at) {
                let waited = at.since(std::mem::replace(&mut last[attempt.endpoint], at));
                if attempt.endpoint >= 2 {
                    assert!(waited <= Duration::from_millis(300), "{waited:?} at {at:?}");
                    connector.handle_connect_failed(at, attempt.attempt_id);
                }
            }
        }
        assert!(
            last.iter().all(|at| end.since(*at) < Duration::from_millis(500)),
            "{last:?}"
        );
    }

    #[test]
    fn last_resorts_wait_for_the_others_or_for_their_time() {
        let mut connector = connector();
        let resort = Timestamp::ZERO + Config::new(0).resort_after;
        let early = starts(&mut connector, resort);
        assert!(early.iter().all(|(_, attempt)| attempt.endpoint < 2), "{early:?}");
        let late = starts(&mut connector, resort + Duration::from_secs(1));
        assert!(late.iter().any(|(_, attempt)| attempt.endpoint >= 2), "{late:?}");
    }

    #[test]
    fn last_resorts_are_tried_once_the_others_have_failed() {
        let mut connector = connector();
        let now = Timestamp::ZERO + Duration::from_millis(150);
        let first = starts(&mut connector, now);
        assert_eq!(
            first.iter().map(|(_, one)| one.endpoint).collect::<Vec<_>>(),
            [0, 1]
        );
        connector.handle_connect_failed(now, first[0].1.attempt_id);
        let held = connector.poll_connect(now);
        assert!(held.is_none_or(|attempt| attempt.endpoint < 2), "{held:?}");
        connector.handle_connect_failed(now, first[1].1.attempt_id);
        let resort = connector.poll_connect(now).expect("a last resort");
        assert_eq!(resort.endpoint, 2);
        assert_eq!(connector.handle_path_up(now, resort.attempt_id), Verdict::Keep);
    }
}

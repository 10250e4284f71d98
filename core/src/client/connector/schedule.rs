//! Which endpoint to connect to next, and when.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Connector, Endpoint, FAILED_OUT};
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
            Some((start, loads[index].total(), self.preference(index)))
        };
        let next = (0..self.endpoints.len()).filter_map(at).min();
        next.map(|(at, _, (_, index))| (at, index))
    }

    /// When an endpoint may be tried (once more) in a race.
    fn race_start(&self, index: usize) -> Option<Timestamp> {
        let endpoint = &self.endpoints[index];
        if endpoint.retired {
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
        if let (Some(took), Some(outage)) = (endpoint.took, self.outage) {
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

    /// Whether an endpoint is one of the [last resorts](super::Config::last_resorts).
    pub fn is_last_resort(&self, index: usize) -> bool {
        let first = self.config.endpoints.saturating_sub(self.config.last_resorts);
        (first..self.config.endpoints).contains(&index)
    }

    /// When a last resort may be tried at the earliest.
    fn resort(&self, index: usize) -> Timestamp {
        if !self.is_last_resort(index) {
            return Timestamp::ZERO;
        }
        let first = self.config.endpoints.saturating_sub(self.config.last_resorts);
        let mut others = self.endpoints.iter().take(first);
        let hope = others.any(|other| !other.retired && other.failures == 0);
        match self.outage {
            Some(since) if hope => since + self.config.resort_after,
            _ => Timestamp::ZERO,
        }
    }

    /// Whether the limits allow one more attempt to this endpoint.
    pub(super) fn has_room(&self, index: usize) -> bool {
        if self.endpoints[index].retired {
            return false;
        }
        let same = self
            .in_flight
            .iter()
            .filter(|a| a.attempt.endpoint == index)
            .count();
        same < self.config.max_in_flight_per_endpoint && self.in_flight.len() < self.config.max_in_flight
    }

    /// Some path is up: as many more as are wanted, on different endpoints where possible.
    fn next_to_fill(&self, gate: Timestamp) -> Option<(Timestamp, usize)> {
        let paths = self.paths_up() + self.in_flight.len();
        let missing = paths < self.mode.paths();
        if !missing && paths < 2 {
            // One path cannot be uneven.
            return None;
        }
        let loads = self.loads();
        let level = if missing {
            // The least served of those that work, and those that work no more and are served less.
            let works = |(load, endpoint): &(&Load, &Endpoint)| {
                !endpoint.retired && (load.paths > 0 || endpoint.failures < FAILED_OUT)
            };
            loads
                .iter()
                .zip(&self.endpoints)
                .filter(works)
                .map(|(load, _)| load.total())
                .min()?
        } else if self.in_flight.is_empty() {
            // All wanted paths are up, but unevenly: look whether an endpoint that failed is back.
            loads.iter().map(|load| load.paths).max()?.checked_sub(2)?
        } else {
            return None;
        };
        let candidates =
            (0..loads.len()).filter(|&index| loads[index].total() <= level && self.has_room(index));
        let at = |index: usize| {
            (
                self.endpoints[index].not_before.max(gate),
                loads[index].total(),
                self.preference(index),
            )
        };
        candidates.map(at).min().map(|(at, _, (_, index))| (at, index))
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

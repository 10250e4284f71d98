//! Endpoints that the server names (PROTOCOL 8.3).

use std::cmp::Reverse;

use super::{Connector, Endpoint, Event};
use crate::time::Timestamp;

/// The most endpoints that are learnt; beyond it the oldest of them makes room.
pub const MAX_LEARNED: usize = 2;

impl Connector {
    /// The server named another place. It is tried before those that were configured, and before those that were
    /// learnt earlier. Returns its index: a new one, or that of the learnt endpoint that it replaces, whose
    /// attempts are given up and whose paths are surplus.
    pub fn learn_endpoint(&mut self, now: Timestamp) -> usize {
        self.advance(now);
        let newest = self.endpoints.iter().map(|endpoint| endpoint.learned).max();
        let learned = newest.unwrap_or_default().saturating_add(1);
        // Before whatever has been due for long.
        let endpoint = Endpoint::new(self.config.backoff.clone(), Timestamp::ZERO, learned);
        self.exhausted = false;
        // It answers a refusal: nothing is to be waited for.
        self.gate = now;
        let known = (0..self.endpoints.len()).filter(|&index| self.endpoints[index].learned > 0);
        if known.clone().count() < MAX_LEARNED {
            self.endpoints.push(endpoint);
            return self.endpoints.len() - 1;
        }
        let oldest = known.min_by_key(|&index| self.endpoints[index].learned);
        let index = oldest.unwrap_or_default();
        self.endpoints[index] = endpoint;
        self.leave(index);
        index
    }

    /// The session does not live at this endpoint, which is not tried any more: what is under way to it is given
    /// up, its paths are surplus.
    pub fn retire_endpoint(&mut self, index: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.retired = true;
            self.leave(index);
        }
    }

    fn leave(&mut self, index: usize) {
        while let Some(at) = self.in_flight.iter().position(|a| a.attempt.endpoint == index) {
            let attempt = self.in_flight.remove(at).attempt;
            self.events.push_back(Event::GiveUp(attempt));
        }
        for path in self
            .paths
            .iter_mut()
            .filter(|path| path.attempt.endpoint == index)
        {
            if !std::mem::replace(&mut path.surplus, true) {
                self.events.push_back(Event::Surplus(path.attempt));
            }
        }
    }

    /// The less, the more an endpoint is preferred.
    pub(super) fn preference(&self, index: usize) -> (Reverse<u32>, usize) {
        (Reverse(self.endpoints[index].learned), index)
    }
}

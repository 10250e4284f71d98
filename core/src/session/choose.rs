//! Which path carries the data (DESIGN "Scheduling": *single* and *standby*; PROTOCOL 4.7). The client decides by
//! [`selection`](crate::policy::selection), the server follows it.

use std::time::Duration;

use smallvec::SmallVec;

use super::Session;
use super::event::{Event, SwitchCause, SwitchEvidence};
use super::keys::PathKey;
use super::path::Path;
use super::timers::TimerKind;
use crate::marks::sometimes;
use crate::policy::health::{Damping, Evidence};
use crate::policy::selection::{Candidate, Choice, Explanation, Objection, Reason, Row};
use crate::time::Timestamp;
use crate::wire::Side;

/// While answers come in, paths are compared no more often than this.
const COMPARE_EVERY: Duration = Duration::from_millis(100);
/// How many places are remembered to have failed of late.
const MAX_DAMPED: usize = 8;

/// The path that carried data last, while none does, and why it ended.
pub(super) struct Left {
    pub(super) key: PathKey,
    pub(super) cause: SwitchCause,
    pub(super) evidence: Evidence,
}

/// What is remembered of paths that failed, for the next to the same place.
#[derive(Default)]
pub(super) struct Damped {
    known: SmallVec<[(std::sync::Arc<str>, Damping); 1]>,
}

impl Damped {
    pub(super) fn recall(&self, name: &str) -> Damping {
        let known = self.known.iter().find(|(known, _)| **known == *name);
        known.map_or_else(Damping::default, |(_, damping)| *damping)
    }

    fn remember(&mut self, now: Timestamp, name: &std::sync::Arc<str>, damping: Damping) {
        self.known
            .retain(|(known, damping)| *known != *name && damping.count(now) > 0);
        if damping.count(now) == 0 {
            return;
        }
        if self.known.len() >= MAX_DAMPED {
            self.known.remove(0);
        }
        self.known.push((name.clone(), damping));
    }

    /// The machine is on another network.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl Session {
    /// Decides which path carries the data. `cause` is told where that changes.
    pub(super) fn choose_active(&mut self, now: Timestamp, cause: SwitchCause) {
        self.compared_at = now;
        let choice = match self.side {
            Side::Client => self.select(now),
            Side::Server => self.follow(),
        };
        let again = choice.as_ref().and_then(Choice::again_at);
        self.timers
            .set(TimerKind::Choose, again.unwrap_or(Timestamp::MAX));
        let current = self.active;
        let Some(choice) = choice else {
            self.active = None;
            return;
        };
        let slot = choice.key.slot;
        if current == Some(slot) {
            return;
        }
        let left = match current.and_then(|old| Some((self.path_key(old), self.paths.get(old)?))) {
            Some((key, path)) => Some(Left {
                key,
                cause,
                evidence: path.health.evidence(now, &path.rtt),
            }),
            None => self.left.take(),
        };
        let cause = left.as_ref().map_or(SwitchCause::First, |left| left.cause);
        match cause {
            SwitchCause::Suspect => sometimes!(self.marks, SwitchedFromSuspect),
            SwitchCause::Reset | SwitchCause::Closed => sometimes!(self.marks, SwitchedFromDead),
            SwitchCause::Preferred => sometimes!(self.marks, SwitchedByPreference),
            _ => {}
        }
        self.active = Some(slot);
        self.switches += 1;
        self.tell_switch(current, slot);
        let path = &self.paths[slot];
        let evidence = SwitchEvidence {
            reason: choice.reason,
            from: left.as_ref().map(|left| left.evidence),
            to: path.health.evidence(now, &path.rtt),
        };
        self.events.push_back(Event::Switched {
            from: left.map(|left| left.key),
            to: self.path_key(slot),
            cause,
            evidence: Box::new(evidence),
        });
    }

    /// An answer came: what it took may make another path the better one.
    pub(super) fn reconsider(&mut self, now: Timestamp, at_once: bool) {
        let due = at_once || now >= self.compared_at + COMPARE_EVERY;
        if due && self.paths.len() > 1 {
            self.choose_active(now, SwitchCause::Preferred);
        }
    }

    /// Another path has been better for long enough, if it still is.
    pub(super) fn choose_again(&mut self, now: Timestamp) {
        self.choose_active(now, SwitchCause::Preferred);
    }

    fn candidates(&self, now: Timestamp) -> SmallVec<[Candidate<Place>; 4]> {
        let usable = self.paths.iter().filter(|(_, path)| path.may_send());
        usable
            .map(|(slot, path)| Candidate {
                key: Place { id: path.id, slot },
                sound: path.suspicion.is_none(),
                leaving: path.peer_wants_leave,
                standing: path.health.standing(),
                round_trip: path.rtt.peak(now),
                errors_ppm: path.health.errors_ppm(now),
                offer: path.info.offer,
                rank: path.info.rank,
                trusted_at: path.health.damping().trusted_at(),
            })
            .collect()
    }

    fn current(&self) -> Option<Place> {
        let slot = self.active?;
        let id = self.paths.get(slot)?.id;
        Some(Place { id, slot })
    }

    /// The client's choice, by price and with hysteresis.
    fn select(&mut self, now: Timestamp) -> Option<Choice<Place>> {
        let (candidates, current) = (self.candidates(now), self.current());
        let config = &self.config.selection;
        let choice = self.selector.choose(now, config, current, &candidates)?;
        if let Reason::InUseFor { until } = choice.reason {
            // What is to be trusted again has to answer all along.
            for candidate in candidates.iter().filter(|one| one.trusted_at > now && one.sound) {
                self.paths[candidate.key.slot].begin_trial(now, until);
            }
        }
        Some(choice)
    }

    /// The server's: a sound path before a suspect one, one as quick as ever before one that has become slow (which
    /// alone is no reason to leave it), the one that the client sends on, the one in use, the quicker one, the older
    /// one.
    fn follow(&self) -> Option<Choice<Place>> {
        let usable = self.paths.iter().filter(|(_, path)| path.may_send());
        let best = usable.min_by_key(|(slot, path)| {
            (
                path.suspicion.is_some(),
                path.peer_wants_leave,
                self.active != Some(*slot) && path.rtt.is_late(),
                std::cmp::Reverse(path.peer_sends),
                self.active != Some(*slot),
                path.rtt.get(),
                path.id,
            )
        });
        let (slot, path) = best?;
        let reason = match self.active {
            Some(active) if active == slot => Reason::InUse,
            _ if path.peer_sends > 0 => Reason::PeerUses,
            Some(_) => Reason::OtherUnsound,
            None => Reason::Only,
        };
        Some(Choice {
            key: Place { id: path.id, slot },
            reason,
        })
    }

    /// PROTOCOL 4.7: the server learns which path the client sends on, so that it follows.
    fn tell_switch(&mut self, from: Option<usize>, to: usize) {
        if self.side == Side::Server || self.paths.len() < 2 {
            return;
        }
        for slot in from.into_iter().chain([to]) {
            if let Some(path) = self.paths.get_mut(slot) {
                path.status_seq += 1;
                path.status_due = true;
            }
        }
    }

    /// A path ends: what is to be held against the next one to the same place.
    pub(super) fn remember_damping(&mut self, now: Timestamp, slot: usize, failed: bool) {
        let path = &mut self.paths[slot];
        if failed {
            path.health.on_failure(now);
        }
        path.health.on_down();
        if self.side == Side::Client {
            let (name, damping) = (&self.paths[slot].info.name, self.paths[slot].health.damping());
            self.damped.remember(now, name, damping);
        }
    }

    /// The machine is on another network: what paths did on the old one is not held against those of this one.
    pub fn handle_network_change(&mut self, now: Timestamp) {
        self.damped.forget();
        for (_, path) in &mut self.paths {
            path.health.forgive(now);
            // Each is asked whether it still leads anywhere.
            path.ping_due |= path.may_send() && path.ping_sent.is_none();
        }
        self.choose_active(now, SwitchCause::Preferred);
    }

    /// Which path carries the data and why, in words and numbers; `None` while none does.
    pub fn explain(&self, now: Timestamp) -> Option<Explanation> {
        let current = self.current()?;
        let config = &self.config.selection;
        let candidates = self.candidates(now);
        let choice = match self.side {
            Side::Client => self
                .selector
                .clone()
                .choose(now, config, Some(current), &candidates),
            Side::Server => self.follow(),
        };
        let mut order: SmallVec<[&Candidate<Place>; 4]> = candidates.iter().collect();
        order.sort_by_key(|one| (one.key != current, one.price(&config.weights).total(), one.key));
        let row = |one: &Candidate<Place>| {
            let path: &Path = &self.paths[one.key.slot];
            Row {
                name: path.info.name.clone(),
                price: one.price(&config.weights),
                evidence: path.health.evidence(now, &path.rtt),
                objection: Objection::of(now, config, one),
            }
        };
        Some(Explanation {
            reason: choice.map_or(Reason::InUse, |choice| choice.reason),
            rows: order.into_iter().map(row).collect(),
        })
    }
}

/// A path in the order of selection: the older one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    id: u64,
    slot: usize,
}

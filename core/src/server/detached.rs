//! What sessions without paths hold, within a budget for each origin and one for all of them (DESIGN §2).
//!
//! An origin beyond its budget loses the session that has been without a path for longest. When all of them together
//! are beyond theirs, the origin that holds the most does. So who leaves sessions behind pushes out their own.

use std::collections::{BTreeMap, BTreeSet};

use super::origin::Origin;
use super::registry::SessionToken;

/// What may be held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) sessions: u64,
}

impl Budget {
    fn is_exceeded(self, held: Held) -> bool {
        held.bytes > self.bytes || held.sessions > self.sessions
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    bytes: u64,
    sessions: u64,
}

/// The sessions of one origin.
#[derive(Debug, Default)]
struct Group {
    held: Held,
    /// By when they came, counted.
    order: BTreeMap<u64, SessionToken>,
}

#[derive(Debug)]
struct Entry {
    came: u64,
    bytes: u64,
    origin: Origin,
}

/// The sessions without paths, by how long they have been so.
#[derive(Debug, Default)]
pub(super) struct Detached {
    sessions: BTreeMap<SessionToken, Entry>,
    groups: BTreeMap<Origin, Group>,
    /// The origins by what they hold.
    by_bytes: BTreeSet<(u64, Origin)>,
    by_sessions: BTreeSet<(u64, Origin)>,
    total: Held,
    next: u64,
}

impl Detached {
    /// The session has no path, and holds so much.
    pub(super) fn hold(&mut self, token: SessionToken, origin: Origin, bytes: u64) {
        let known = self.sessions.get(&token).map(|entry| (entry.origin, entry.came));
        // Who it belongs to was learnt late.
        if known.is_some_and(|(before, _)| before != origin) {
            self.release(token);
        }
        let came = match known {
            Some((_, came)) => came,
            None => {
                self.next += 1;
                self.next
            }
        };
        let group = self.groups.entry(origin).or_default();
        self.by_bytes.remove(&(group.held.bytes, origin));
        self.by_sessions.remove(&(group.held.sessions, origin));
        let entry = self.sessions.entry(token).or_insert_with(|| {
            group.order.insert(came, token);
            group.held.sessions += 1;
            self.total.sessions += 1;
            Entry {
                came,
                bytes: 0,
                origin,
            }
        });
        for held in [&mut group.held, &mut self.total] {
            held.bytes = held.bytes.saturating_sub(entry.bytes).saturating_add(bytes);
        }
        entry.bytes = bytes;
        self.by_bytes.insert((group.held.bytes, origin));
        self.by_sessions.insert((group.held.sessions, origin));
    }

    /// The session has a path again, or has ended.
    pub(super) fn release(&mut self, token: SessionToken) {
        let Some(entry) = self.sessions.remove(&token) else {
            return;
        };
        self.total.bytes = self.total.bytes.saturating_sub(entry.bytes);
        self.total.sessions = self.total.sessions.saturating_sub(1);
        let Some(group) = self.groups.get_mut(&entry.origin) else {
            return;
        };
        self.by_bytes.remove(&(group.held.bytes, entry.origin));
        self.by_sessions.remove(&(group.held.sessions, entry.origin));
        group.order.remove(&entry.came);
        group.held.bytes = group.held.bytes.saturating_sub(entry.bytes);
        group.held.sessions = group.held.sessions.saturating_sub(1);
        if group.order.is_empty() {
            self.groups.remove(&entry.origin);
        } else {
            self.by_bytes.insert((group.held.bytes, entry.origin));
            self.by_sessions.insert((group.held.sessions, entry.origin));
        }
    }

    /// Takes out the session that has to go, if `changed` or all together hold more than they may.
    pub(super) fn evict(&mut self, changed: Origin, each: Budget, all: Budget) -> Option<SessionToken> {
        let own = self.groups.get(&changed).map(|group| group.held);
        let from = if changed != Origin::Unknown && own.is_some_and(|own| each.is_exceeded(own)) {
            changed
        } else if self.total.bytes > all.bytes {
            self.by_bytes.last()?.1
        } else if self.total.sessions > all.sessions {
            self.by_sessions.last()?.1
        } else {
            return None;
        };
        let (_, &oldest) = self.groups.get(&from)?.order.first_key_value()?;
        self.release(oldest);
        Some(oldest)
    }

    /// Bytes held by all of them.
    pub(super) fn total(&self) -> u64 {
        self.total.bytes
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.total.sessions
    }
}

//! What sessions without paths hold, within a budget for all of them together (DESIGN §2).

use std::collections::BTreeMap;

use super::registry::SessionToken;

/// The sessions without paths, by how long they have been so.
#[derive(Debug, Default)]
pub(super) struct Detached {
    /// When it came, counted, and what it holds in bytes.
    sessions: BTreeMap<SessionToken, (u64, u64)>,
    order: BTreeMap<u64, SessionToken>,
    total: u64,
    next: u64,
}

impl Detached {
    /// The session has no path, and holds so much.
    pub(super) fn hold(&mut self, token: SessionToken, bytes: u64) {
        let next = &mut self.next;
        let order = &mut self.order;
        let (_, held) = self.sessions.entry(token).or_insert_with(|| {
            *next += 1;
            order.insert(*next, token);
            (*next, 0)
        });
        self.total = self.total.saturating_sub(*held).saturating_add(bytes);
        *held = bytes;
    }

    /// The session has a path again, or has ended.
    pub(super) fn release(&mut self, token: SessionToken) {
        if let Some((came, held)) = self.sessions.remove(&token) {
            self.order.remove(&came);
            self.total = self.total.saturating_sub(held);
        }
    }

    /// Takes out the session that has been without a path for longest, if all hold more than this.
    pub(super) fn evict(&mut self, max: u64) -> Option<SessionToken> {
        if self.total <= max {
            return None;
        }
        let (_, &oldest) = self.order.first_key_value()?;
        self.release(oldest);
        Some(oldest)
    }

    /// Bytes held by all of them.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

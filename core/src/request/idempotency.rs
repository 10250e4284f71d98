//! The callee's memory of idempotency keys: a key is executed once in its life, a repeat is answered from
//! memory. PROTOCOL 11.8.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::status::{Code, Failure, Pushback, Reason};
use crate::time::Timestamp;

/// What an entry takes beside its key and answer, in bytes, as it is counted.
const ENTRY_BYTES: usize = 192;

/// The settings of an [`IdempotencyTable`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The most keys, of requests under way and of executed ones.
    pub max_entries: usize,
    /// The most keys of one scope, so that one peer cannot use the table up.
    pub max_entries_per_scope: usize,
    /// The most bytes. When they are used up the oldest answers are forgotten, but not that there was one.
    pub max_bytes: usize,
    /// The longest answer that is kept, in bytes.
    pub max_answer: usize,
    /// How long a key lives after its answer.
    pub life: Duration,
    /// The most repeats that wait for one request under way.
    pub max_waiting: usize,
}

impl Default for Config {
    /// 65,536 keys, 4,096 for each scope, 64 MiB, answers of up to 1 MiB, 10 minutes, 16 waiting.
    fn default() -> Config {
        Config {
            max_entries: 65_536,
            max_entries_per_scope: 4_096,
            max_bytes: 64 * 1024 * 1024,
            max_answer: 1024 * 1024,
            life: Duration::from_secs(600),
            max_waiting: 16,
        }
    }
}

/// Whose keys: an identity that outlives a session, or the session where there is none. The server picks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u64);

/// Names a repeat that waits. The server picks it, unique among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Names an execution under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a request says, in 128 bits: a key may only repeat the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestDigest([u8; 16]);

impl RequestDigest {
    /// The digest of method and payload: half of SHA-256.
    pub fn of(method: &str, payload: &[u8]) -> RequestDigest {
        let mut hash = Sha256::new();
        hash.update((method.len() as u64).to_be_bytes());
        hash.update(method.as_bytes());
        hash.update(payload);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        RequestDigest(digest)
    }
}

/// What to do with a request that carries a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Run the handler, then [`IdempotencyTable::complete`] or [`IdempotencyTable::abandon`].
    Execute(Ticket),
    /// Answer with this: it was executed before.
    Replay(Bytes),
    /// The same request is being executed: [`Event`] will say.
    Wait,
    /// Answer with [`Refusal::failure`].
    Refuse(Refusal),
}

/// Why a request with a key is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key was used for another request.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// It was executed, and its answer was too long to keep or made room for others.
    #[error("executed before, the answer is no longer kept")]
    AnswerForgotten,
    /// The table, or the scope's part of it, is full.
    #[error("no room for another idempotency key")]
    Full,
    /// Too many repeats wait already.
    #[error("too many repeats of this request wait already")]
    TooManyWaiting,
}

impl Refusal {
    /// The answer to it.
    pub fn failure(self) -> Failure {
        match self {
            Refusal::KeyReused => {
                Failure::refused(Code::InvalidArgument, Reason::KeyReused).with_pushback(Pushback::Never)
            }
            // Executed, by an attempt before this one: to send it again is of no use.
            Refusal::AnswerForgotten => {
                Failure::cut_short(Code::DataLoss, Reason::AnswerForgotten).with_pushback(Pushback::Never)
            }
            Refusal::Full | Refusal::TooManyWaiting => {
                Failure::refused(Code::ResourceExhausted, Reason::KeysFull)
                    .with_pushback(Pushback::After(Duration::from_secs(1)))
            }
        }
    }
}

/// What became of a repeat that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Answer it with this.
    Replay(WaiterId, Bytes),
    /// The execution it waited for was abandoned before a handler ran: this one is to be executed instead.
    Execute(WaiterId, Ticket),
}

#[derive(Debug)]
enum Status {
    Running(VecDeque<WaiterId>),
    /// `None` when the answer is not kept.
    Done(Option<Bytes>),
}

#[derive(Debug)]
struct Entry {
    scope: Scope,
    key: Bytes,
    digest: RequestDigest,
    status: Status,
}

/// The table.
///
/// - Commands: [`begin`](Self::begin), [`complete`](Self::complete), [`abandon`](Self::abandon),
///   [`cancel_wait`](Self::cancel_wait).
/// - Time: [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
/// - Output: [`poll_event`](Self::poll_event), after each of them.
///
/// A key lives from `begin` until [`Config::life`] after its answer; it is never dropped before, so within
/// its life it is never executed twice. When there is no room, new keys are refused.
#[derive(Debug)]
pub struct IdempotencyTable {
    config: Config,
    now: Timestamp,
    ids: BTreeMap<(Scope, Bytes), u64>,
    entries: BTreeMap<u64, Entry>,
    per_scope: BTreeMap<Scope, usize>,
    waiting: BTreeMap<WaiterId, u64>,
    /// Executed ones, in the order of their answers and so of their ends.
    ends: VecDeque<(Timestamp, u64)>,
    /// Those of them whose answer is kept, oldest first.
    kept: VecDeque<u64>,
    bytes: usize,
    next_id: u64,
    events: VecDeque<Event>,
}

impl IdempotencyTable {
    /// An empty table.
    pub fn new(config: Config, now: Timestamp) -> IdempotencyTable {
        IdempotencyTable {
            config,
            now,
            ids: BTreeMap::new(),
            entries: BTreeMap::new(),
            per_scope: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ends: VecDeque::new(),
            kept: VecDeque::new(),
            bytes: 0,
            next_id: 0,
            events: VecDeque::new(),
        }
    }

    /// A request with a key is there. `waiter` names it in case that it has to wait.
    pub fn begin(
        &mut self,
        now: Timestamp,
        scope: Scope,
        key: &[u8],
        digest: RequestDigest,
        waiter: WaiterId,
    ) -> Begin {
        self.handle_timeout(now);
        let key = Bytes::copy_from_slice(key);
        if let Some(&id) = self.ids.get(&(scope, key.clone())) {
            return self.repeat(id, digest, waiter);
        }
        let of_scope = self.per_scope.get(&scope).copied().unwrap_or(0);
        let size = ENTRY_BYTES + key.len();
        if self.entries.len() >= self.config.max_entries
            || of_scope >= self.config.max_entries_per_scope
            || !self.make_room(size)
        {
            return Begin::Refuse(Refusal::Full);
        }
        self.bytes += size;
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert((scope, key.clone()), id);
        self.per_scope.insert(scope, of_scope + 1);
        let entry = Entry {
            scope,
            key,
            digest,
            status: Status::Running(VecDeque::new()),
        };
        self.entries.insert(id, entry);
        Begin::Execute(Ticket(id))
    }

    fn repeat(&mut self, id: u64, digest: RequestDigest, waiter: WaiterId) -> Begin {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Begin::Refuse(Refusal::AnswerForgotten);
        };
        if entry.digest != digest {
            return Begin::Refuse(Refusal::KeyReused);
        }
        match &mut entry.status {
            Status::Done(Some(answer)) => Begin::Replay(answer.clone()),
            Status::Done(None) => Begin::Refuse(Refusal::AnswerForgotten),
            Status::Running(waiters) if waiters.len() >= self.config.max_waiting => {
                Begin::Refuse(Refusal::TooManyWaiting)
            }
            Status::Running(waiters) => {
                waiters.push_back(waiter);
                self.waiting.insert(waiter, id);
                Begin::Wait
            }
        }
    }

    /// The handler has run, or has begun to and failed: `answer` is what the caller gets, as it travels,
    /// and what every repeat will get.
    pub fn complete(&mut self, now: Timestamp, ticket: Ticket, answer: Bytes) {
        self.handle_timeout(now);
        let keep = answer.len() <= self.config.max_answer && self.make_room(answer.len());
        let Some(entry) = self.entries.get_mut(&ticket.0) else {
            return;
        };
        let Status::Running(waiters) = &mut entry.status else {
            return;
        };
        for waiter in waiters.drain(..) {
            self.waiting.remove(&waiter);
            self.events.push_back(Event::Replay(waiter, answer.clone()));
        }
        if keep {
            self.bytes += answer.len();
            self.kept.push_back(ticket.0);
        }
        entry.status = Status::Done(keep.then_some(answer));
        self.ends.push_back((self.now + self.config.life, ticket.0));
    }

    /// The request was not executed, and never will be under this ticket: the next that waits is, or the
    /// key is free again.
    pub fn abandon(&mut self, now: Timestamp, ticket: Ticket) {
        self.handle_timeout(now);
        let Some(entry) = self.entries.get_mut(&ticket.0) else {
            return;
        };
        let Status::Running(waiters) = &mut entry.status else {
            return;
        };
        let Some(next) = waiters.pop_front() else {
            self.remove(ticket.0);
            return;
        };
        self.waiting.remove(&next);
        // Another ticket: the one who abandoned holds the old one still.
        let Some(entry) = self.entries.remove(&ticket.0) else {
            return;
        };
        let id = self.next_id;
        self.next_id += 1;
        if let Status::Running(waiters) = &entry.status {
            for waiter in waiters {
                self.waiting.insert(*waiter, id);
            }
        }
        self.ids.insert((entry.scope, entry.key.clone()), id);
        self.entries.insert(id, entry);
        self.events.push_back(Event::Execute(next, Ticket(id)));
    }

    /// A repeat no longer waits. One whose [`Event`] was taken is not waiting any more.
    pub fn cancel_wait(&mut self, waiter: WaiterId) {
        let Some(id) = self.waiting.remove(&waiter) else {
            return;
        };
        if let Some(Status::Running(waiters)) = self.entries.get_mut(&id).map(|entry| &mut entry.status) {
            waiters.retain(|other| *other != waiter);
        }
    }

    /// What became of repeats that waited.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the next key ends; at once while an event waits.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.events.is_empty() {
            false => Some(self.now),
            true => self.ends.front().map(|(at, _)| *at),
        }
    }

    /// Forgets the keys whose life is over.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(&(at, id)) = self.ends.front() {
            if at > self.now {
                return;
            }
            self.ends.pop_front();
            self.remove(id);
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, as they are counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the oldest answers until `size` bytes are free.
    fn make_room(&mut self, size: usize) -> bool {
        let Some(allowed) = self.config.max_bytes.checked_sub(size) else {
            return false;
        };
        while self.bytes > allowed {
            let Some(oldest) = self.kept.pop_front() else {
                return false;
            };
            if let Some(entry) = self.entries.get_mut(&oldest)
                && let Status::Done(answer) = &mut entry.status
            {
                self.bytes -= answer.take().map_or(0, |answer| answer.len());
            }
        }
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        let mut size = ENTRY_BYTES + entry.key.len();
        if let Status::Done(Some(answer)) = &entry.status {
            size += answer.len();
            // Both lists are in the order of answers, so it is at the front.
            if self.kept.front() == Some(&id) {
                self.kept.pop_front();
            }
        }
        self.bytes -= size;
        self.ids.remove(&(entry.scope, entry.key));
        if let Some(count) = self.per_scope.get_mut(&entry.scope) {
            *count -= 1;
            if *count == 0 {
                self.per_scope.remove(&entry.scope);
            }
        }
    }
}

#[cfg(test)]
mod tests;

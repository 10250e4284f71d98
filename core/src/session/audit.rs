//! What must hold of a session between any two calls; simulations and fuzzers ask after every step.

use std::fmt;

use super::Session;
use super::audit_paths::audit_lane;
use super::establish::MAX_HELLO_PATHS;
use super::failure::{MAX_DEAD_COUNTS, MAX_UNSETTLED};
use super::streams::{Flags, Stream};
use crate::stream::SendState;
use crate::wire::{Class, Kind, Side};

/// Events that wait to be polled, at most: a driver polls them once a turn, and one turn's input is bounded.
const MAX_EVENTS: usize = 1 << 17;
/// PONGs that wait for a path's next record.
pub(super) const MAX_PONGS: usize = 8;
/// Handshake frames that wait for a path's next record.
pub(super) const MAX_HANDSHAKE_FRAMES: usize = 4;

/// A rule that does not hold: a mistake in this crate, never the peer's or the application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What is so instead.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken rule: {} ({})", self.rule, self.found)
    }
}

impl std::error::Error for Violation {}

/// `Err` with the rule and the values, unless the condition holds.
macro_rules! rule {
    ($holds:expr, $rule:expr $(, $value:expr)* $(,)?) => {
        if !$holds {
            return Err(Violation {
                rule: $rule,
                found: Vec::<String>::from([$(format!("{}: {:?}", stringify!($value), $value)),*]).join(", "),
            });
        }
    };
}
pub(super) use rule;

/// Sums over the streams of a class.
#[derive(Clone, Copy, Default)]
struct Sums {
    buffered: u64,
    partial: u64,
    /// Put on some path at least once.
    sent: u64,
    highest: u64,
    /// Received, and neither read nor dropped.
    unread: u64,
    /// Streams that the peer opened: Bi, Uni, Unordered.
    remote: [u64; 3],
}

impl Session {
    /// Checks what must hold between any two calls, whatever the peer and the application did:
    ///
    /// - **bytes**: what streams hold adds up to what the session and its classes count; no end sends or
    ///   accepts beyond credit; what was received is unread, read or dropped, and given back once;
    /// - **memory**: buffers and queues keep within their limits;
    /// - **no lost wake-up**: a stream that can send is on the list of those that can, one with a control frame
    ///   due is on that list, and nobody waits for what is there already;
    /// - **paths**: records under way add up, an acknowledgement that is wanted has a deadline, a path that
    ///   waits for an answer has a timer, and the path in use is one that may be used;
    /// - **lifecycle**: state, paths and timers fit each other, and nothing waits once the session has ended.
    ///
    /// For simulations and fuzzing: it costs time in proportion to streams and records under way, and nothing
    /// calls it otherwise. [`audit_in_flight`](Session::audit_in_flight) looks closer.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn audit(&self) -> Result<(), Violation> {
        let sums = self.audit_streams()?;
        self.audit_classes(&sums)?;
        self.audit_lists()?;
        self.audit_memory(&sums)?;
        for (slot, path) in &self.paths {
            self.audit_path(slot, path)?;
        }
        for unsettled in &self.unsettled {
            unsettled.lanes.iter().try_for_each(audit_lane)?;
        }
        self.audit_path_table()?;
        self.audit_lifecycle()
    }

    // ---- streams ----

    fn audit_streams(&self) -> Result<[Sums; Class::COUNT], Violation> {
        let mut sums = [Sums::default(); Class::COUNT];
        for (_, stream) in self.streams.live() {
            let id = stream.id;
            let sums = &mut sums[id.class().index()];
            sums.partial += stream.partial;
            if let Some(send) = &stream.send {
                sums.buffered += send.buffered();
                sums.sent += send.sent_to();
                rule!(
                    send.acked_prefix() <= send.sent_to() && send.sent_to() <= send.written(),
                    "a stream's bytes are written, then sent, then acknowledged",
                    id,
                    send,
                );
                rule!(
                    send.sent_to() <= send.max_data(),
                    "a stream sends within its credit",
                    id,
                    send.sent_to(),
                    send.max_data(),
                );
            }
            if let Some(recv) = &stream.recv {
                sums.highest += recv.highest();
                sums.unread += recv.highest().saturating_sub(recv.consumed());
                rule!(
                    recv.highest() <= recv.window().limit(),
                    "a stream receives within its credit",
                    id,
                    recv.highest(),
                    recv.window(),
                );
                rule!(
                    recv.consumed() <= recv.highest(),
                    "what was read has come",
                    id,
                    recv.consumed(),
                    recv.highest(),
                );
                let most = recv.consumed().saturating_add(recv.window().size());
                let lent = if id.kind() == Kind::Unordered {
                    self.config.params.max_message
                } else {
                    0
                };
                rule!(
                    recv.window().limit() <= most.max(lent),
                    "a stream's credit is at most its window ahead of what was read",
                    id,
                    recv.window(),
                );
            }
            if id.initiator() != self.side
                && let Some(place) = super::classes::opening_index(id.kind())
            {
                sums.remote[place] += 1;
            }
            self.audit_waiting(stream)?;
        }
        Ok(sums)
    }

    /// Nobody waits for what is there already.
    fn audit_waiting(&self, stream: &Stream) -> Result<(), Violation> {
        let (id, flags) = (stream.id, stream.flags);
        if self.state.is_terminal() {
            let waits = flags.has(Flags::READ_BLOCKED) || flags.has(Flags::WRITE_BLOCKED);
            rule!(!waits, "nobody waits on a session that has ended", id, flags);
            return Ok(());
        }
        let reads = flags.has(Flags::READ_BLOCKED) && !flags.has(Flags::STOPPING);
        if let Some(recv) = stream.recv.as_ref().filter(|_| reads) {
            rule!(
                recv.readable() == 0 && !recv.is_complete() && recv.reset_code().is_none(),
                "no reader waits for what has come",
                id,
                recv.readable(),
                recv.final_size(),
            );
        }
        let Some(send) = stream.send.as_ref() else {
            return Ok(());
        };
        if flags.has(Flags::WRITE_BLOCKED) && send.state() == SendState::Open && send.capacity() > 0 {
            let class = self.classes.used(id.class().index());
            let held = class.map_or(0, |class| class.buffered);
            let most = self.config.max_send_buffer;
            rule!(
                self.buffered > most / 2 && held >= most / 32,
                "no writer waits for buffers that are free",
                id,
                self.buffered,
                held,
            );
        }
        let pending = send.has_pending() && send.state() != SendState::ResetSent;
        rule!(
            !pending || flags.has(Flags::READY) || flags.has(Flags::CLASS_BLOCKED),
            "a stream that can send is ready, or waits for its class",
            id,
            flags,
            send,
        );
        if flags.has(Flags::CLASS_BLOCKED) {
            let class = self.classes.used(id.class().index());
            rule!(
                class.is_none_or(|class| class.sent >= class.send_limit || class.holds_back(id, send)),
                "no stream waits for class credit that is there",
                id,
            );
        }
        let due = [Flags::RESET_DUE, Flags::STOP_DUE, Flags::CREDIT_DUE];
        rule!(
            flags.has(Flags::CONTROL) || !due.into_iter().any(|flag| flags.has(flag)),
            "a stream with a control frame due is queued for it",
            id,
            flags,
        );
        rule!(
            send.state() != SendState::ResetSent || stream.recv.is_some() || send.buffered() == 0,
            "a reset stream holds nothing",
            id,
        );
        Ok(())
    }

    /// Every flag that says that a stream is on a list is true.
    fn audit_lists(&self) -> Result<(), Violation> {
        let mut listed = vec![Flags::default(); self.streams.places()];
        let mut mark = |slot: u32, flag| {
            if let Some(flags) = listed.get_mut(slot as usize) {
                flags.set(flag);
            }
        };
        self.ready.slots().for_each(|slot| mark(slot, Flags::READY));
        self.control.iter().for_each(|&slot| mark(slot, Flags::CONTROL));
        for index in self.classes.all_used() {
            let Some(class) = self.classes.used(index) else {
                continue;
            };
            for (list, flag) in [
                (&class.blocked, Flags::CLASS_BLOCKED),
                (&class.waiters, Flags::WRITE_BLOCKED),
            ] {
                for &key in list {
                    if self.streams.get(key).is_some() {
                        mark(key.slot, flag);
                    }
                }
            }
        }
        for (slot, stream) in self.streams.live() {
            for flag in [Flags::READY, Flags::CONTROL, Flags::CLASS_BLOCKED] {
                rule!(
                    !stream.flags.has(flag) || listed[slot].has(flag),
                    "a stream that is marked as listed is on the list",
                    stream.id,
                    flag,
                );
            }
            let buffers = stream.send.as_ref().is_some_and(|send| {
                send.state() == SendState::Open && send.capacity() > 0 && !self.state.is_terminal()
            });
            rule!(
                !(buffers && stream.flags.has(Flags::WRITE_BLOCKED))
                    || listed[slot].has(Flags::WRITE_BLOCKED),
                "a writer that waits for buffers is on the list of those",
                stream.id,
            );
        }
        Ok(())
    }

    // ---- classes ----

    fn audit_classes(&self, sums: &[Sums; Class::COUNT]) -> Result<(), Violation> {
        let all = sums.iter().map(|sums| sums.buffered).sum::<u64>();
        rule!(
            self.buffered == all,
            "what the session counts as buffered is what its streams hold",
            self.buffered,
            all,
        );
        let mut control = false;
        for index in self.classes.all_used() {
            let Some(class) = self.classes.used(index) else {
                continue;
            };
            let sums = &sums[index];
            rule!(
                class.buffered == sums.buffered,
                "what a class counts as buffered is what its streams hold",
                index,
                class.buffered,
                sums.buffered,
            );
            rule!(
                class.partial == sums.partial,
                "what a class counts of messages in part is what its streams hold",
                index,
                class.partial,
                sums.partial,
            );
            rule!(
                class.sent <= class.send_limit && sums.sent <= class.sent,
                "a class sends within its credit, and counts it all",
                index,
                class.sent,
                class.send_limit,
                sums.sent,
            );
            rule!(
                class.received <= class.window.limit(),
                "a class receives within its credit",
                index,
                class.received,
                class.window,
            );
            rule!(
                class.consumed + sums.unread == class.received || self.state.is_terminal(),
                "what a class received is unread, read or dropped",
                index,
                class.received,
                class.consumed,
                sums.unread,
            );
            rule!(
                class.window.consumed() <= class.received
                    && class.window.limit() <= class.window.consumed() + class.window.size(),
                "a class's credit is at most its window ahead of what was read",
                index,
                class.window,
                class.received,
            );
            control |= class.credit_due;
            self.audit_openings(index, class, &sums.remote)?;
            control |= class.opening.iter().any(|opening| opening.due);
        }
        rule!(
            !control || self.class_control,
            "a class with a control frame due is looked at"
        );
        Ok(())
    }

    fn audit_openings(
        &self,
        index: usize,
        class: &super::classes::ClassState,
        remote: &[u64; 3],
    ) -> Result<(), Violation> {
        for (opening, &live) in class.opening.iter().zip(remote) {
            rule!(
                opening.next_local <= opening.allowed && opening.next_remote <= opening.granted,
                "both ends open streams within their credit",
                index,
                opening,
            );
            rule!(
                opening.granted <= opening.gone + opening.concurrent,
                "the peer has as many streams as it may, at most",
                index,
                opening,
            );
            rule!(
                live == opening.next_remote - opening.gone,
                "a stream that the peer opened is there or gone",
                index,
                opening,
                live,
            );
            rule!(
                self.state.is_terminal() || !opening.wants_renewal(),
                "credit for streams is renewed once half is used",
                index,
                opening,
            );
            // What must not be done twice waits for WELCOME beside the credit of early data.
            let begun = self.side == Side::Server || self.identity.is_some();
            let waits = begun && opening.blocked && opening.next_local < opening.allowed && !self.draining();
            rule!(
                !waits,
                "nobody waits for stream credit that is there",
                index,
                opening
            );
        }
        for (place, queue) in class.accept.iter().enumerate() {
            rule!(
                queue.is_empty() || !class.accept_blocked[place],
                "nobody waits for a stream that was opened",
                index,
            );
        }
        Ok(())
    }

    // ---- memory ----

    fn audit_memory(&self, sums: &[Sums; Class::COUNT]) -> Result<(), Violation> {
        let config = &self.config;
        rule!(
            self.events.len() <= MAX_EVENTS,
            "the event queue is bounded",
            self.events.len()
        );
        // A message goes beyond the send buffer, and may be longer than its queue where its class has none
        // waiting; each class has a share of a sixteenth of both however much the others hold.
        let queue = config.max_message_queue + config.max_message_queue / 2;
        let messages = queue + Class::COUNT as u64 * (self.peer.max_message + 512);
        let most = config.max_send_buffer + config.max_send_buffer / 2 + messages;
        rule!(
            self.buffered <= most,
            "the send buffer keeps within its limit",
            self.buffered,
            most
        );
        for (index, sums) in sums.iter().enumerate() {
            let window = self.classes.used(index).map_or(0, |class| class.window.limit());
            rule!(
                sums.unread <= window,
                "what waits to be read keeps within the class's window",
                index,
                sums.unread,
            );
        }
        let unread = match &self.messages {
            Some(messages) => messages.audit(self)?,
            None => 0,
        };
        self.datagrams.audit(self, unread)?;
        rule!(
            self.unsettled.len() <= MAX_UNSETTLED
                && self.dead_counts.len() <= MAX_DEAD_COUNTS
                && self.abandons.len() <= MAX_DEAD_COUNTS
                && self.hello_ids.len() <= MAX_HELLO_PATHS,
            "what is kept of dead paths keeps within its limits",
            self.unsettled.len(),
            self.dead_counts.len(),
            self.abandons.len(),
            self.hello_ids.len(),
        );
        Ok(())
    }
}

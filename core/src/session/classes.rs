//! What is kept per class of streams: credit, opening, and who waits. A class that was never used
//! costs a pointer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::config::Config;
use super::establish::{EARLY_BYTES, EARLY_STREAMS};
use super::keys::StreamKey;
use smallvec::SmallVec;

use crate::handshake::{Params, StreamLimits};
use crate::stream::{SendHalf, Window};
use crate::wire::{Class, Kind, Side, StreamId};

/// Opening credit of one (class, kind).
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    /// Next index that this end opens.
    pub(super) next_local: u64,
    /// Indexes that the peer lets this end use.
    pub(super) allowed: u64,
    /// Indexes below this were opened by the peer.
    pub(super) next_remote: u64,
    /// Indexes below this are open to the peer.
    pub(super) granted: u64,
    /// Streams of the peer that are finished and gone.
    pub(super) gone: u64,
    /// How many the peer may have at a time.
    pub(super) concurrent: u64,
    /// An opener found no credit and wants to hear of some.
    pub(super) blocked: bool,
    /// MAX_STREAMS is to be sent.
    pub(super) due: bool,
}

impl Opening {
    /// Whether half of the peer's credit is used up and there is more to grant. Not for every stream: that
    /// would be a frame for each.
    pub(super) fn wants_renewal(&self) -> bool {
        let left = self.granted.saturating_sub(self.next_remote);
        left <= self.concurrent / 2 && self.gone.saturating_add(self.concurrent) > self.granted
    }

    /// Grants what there is, if it is time to; tells whether it did.
    pub(super) fn renew(&mut self) -> bool {
        let wanted = self.wants_renewal() && !crate::canary!(OpeningNotRenewed);
        if wanted {
            self.granted = self.gone.saturating_add(self.concurrent);
            self.due = true;
        }
        wanted
    }
}

/// No stream is expected to need a larger window than this before it shows that it does, in bytes.
const MAX_EXPECTED: u64 = 4 << 20;

/// What is kept per class and side.
pub(super) struct ClassState {
    pub(super) urgency: u8,
    /// Bytes that the peer lets this end send on the class's streams together.
    pub(super) send_limit: u64,
    pub(super) sent: u64,
    /// Bytes that unordered messages of which some was sent have still to send.
    pub(super) begun: u64,
    /// Bytes that the class's send halves hold.
    pub(super) buffered: u64,
    /// Writers that found no room in the session's buffer.
    pub(super) waiters: VecDeque<StreamKey>,
    /// Streams that have data but no class credit.
    pub(super) blocked: VecDeque<StreamKey>,
    /// How many in these two lists are gone.
    pub(super) stale: usize,
    pub(super) window: Window,
    pub(super) received: u64,
    /// Bytes that the application has taken, or that were dropped.
    pub(super) consumed: u64,
    /// Bytes received of unordered messages that are not whole.
    pub(super) partial: u64,
    /// Of these, so many count as consumed: the longest message, and what others may begin meanwhile.
    max_lent: u64,
    pub(super) credit_due: bool,
    /// The largest window that one of its streams has needed, up to [`MAX_EXPECTED`].
    stream_window: u64,
    /// Credit that a stream of this end starts with.
    pub(super) stream_credit_out: u64,
    /// By kind: Bi, Uni, Unordered.
    pub(super) opening: [Opening; 3],
    /// Streams that the peer opened and nobody accepted yet, by kind: Bi, Uni.
    pub(super) accept: [VecDeque<u32>; 2],
    pub(super) accept_blocked: [bool; 2],
}

impl ClassState {
    /// One of its streams has needed a window of that size.
    pub(super) fn note_stream_window(&mut self, size: u64) {
        self.stream_window = self.stream_window.max(size.min(MAX_EXPECTED));
    }

    /// What its streams may need.
    pub(super) fn stream_window(&self) -> u64 {
        self.stream_window
    }

    /// Counts bytes as consumed. Those of messages that are not whole cannot be read, so they count too
    /// (PROTOCOL 7.4).
    #[inline]
    pub(super) fn consume(&mut self, bytes: u64) {
        self.consumed += bytes;
        let goal = self.consumed + self.partial.min(self.max_lent);
        self.window
            .on_consumed(goal.saturating_sub(self.window.consumed()));
    }

    /// Whether a stream is a message that must not begin: credit would end amid it and those that have begun,
    /// and the peer gives more than that for one alone (PROTOCOL 7.4).
    #[inline]
    pub(super) fn holds_back(&self, id: StreamId, send: &SendHalf) -> bool {
        self.begun > 0
            && id.kind() == Kind::Unordered
            && send.sent_to() == 0
            && self.begun.saturating_add(send.unsent()) > self.send_limit.saturating_sub(self.sent)
    }

    /// Some of an unordered message was sent, from `high` on. Tells whether none is begun any more.
    #[inline]
    pub(super) fn message_sent(&mut self, high: u64, send: &SendHalf) -> bool {
        let before = self.begun;
        if high == 0 {
            self.begun += send.unsent();
        } else {
            self.begun = self.begun.saturating_sub(send.sent_to() - high);
        }
        before > 0 && self.begun == 0
    }

    /// An unordered message that has begun was given up with so much unsent. Tells whether none is begun any more.
    pub(super) fn message_given_up(&mut self, left: u64) -> bool {
        self.begun = self.begun.saturating_sub(left);
        self.begun == 0
    }

    /// Grants what there is, if the peer has used up its credit: amid a message, or while what nobody reads, on
    /// other streams of the class, takes half of the window or more. Tells whether it did.
    pub(super) fn relieve_starved(&mut self) -> bool {
        let limit = self.window.consumed() + self.window.size();
        self.received >= self.window.limit() && self.window.extend_to(limit)
    }
}

/// The place of a kind in [`ClassState::opening`]; ordered message streams need no opening.
pub(super) fn opening_index(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Bi => Some(0),
        Kind::Uni => Some(1),
        Kind::Unordered => Some(2),
        Kind::Ordered => None,
    }
}

pub(super) const OPENING_KINDS: [Kind; 3] = [Kind::Bi, Kind::Uni, Kind::Unordered];

/// What the peer announced per class (PROTOCOL 5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerCredit {
    pub(super) data: [u64; Class::COUNT],
    pub(super) stream_data: [u64; Class::COUNT],
    pub(super) streams: [StreamLimits; Class::COUNT],
}

impl PeerCredit {
    pub(super) fn of(params: &Params) -> PeerCredit {
        PeerCredit {
            data: params.max_data,
            stream_data: params.max_stream_data,
            streams: params.max_streams,
        }
    }
}

/// The credit that a class starts with.
struct Start {
    data: u64,
    stream_data: u64,
    streams: StreamLimits,
}

/// What this end knows of the peer's announcements.
enum Credit {
    /// Nothing yet; a client may use the fixed credit of early data, if it is enabled.
    Early(bool),
    /// The peer announced the defaults, as most do.
    Default,
    Announced(Box<PeerCredit>),
}

/// The classes that have been used.
pub(super) struct Classes {
    slots: [Option<Box<ClassState>>; Class::COUNT],
    config: Arc<Config>,
    credit: Credit,
}

impl Classes {
    pub(super) fn new(config: Arc<Config>, side: Side) -> Classes {
        let early = side == Side::Client && config.early_data;
        Classes {
            slots: Default::default(),
            config,
            credit: Credit::Early(early),
        }
    }

    /// The class's state, made when it is first asked for.
    #[inline]
    pub(super) fn at(&mut self, index: usize) -> &mut ClassState {
        if self.slots[index].is_none() {
            self.begin(index);
        }
        match &mut self.slots[index] {
            Some(class) => class,
            None => unreachable!("it was made"),
        }
    }

    #[cold]
    fn begin(&mut self, index: usize) {
        self.slots[index] = Some(Box::new(new_class(&self.config, &self.credit, index)));
    }

    /// The class's state, if it was ever used.
    pub(super) fn used(&self, index: usize) -> Option<&ClassState> {
        self.slots[index].as_deref()
    }

    /// The numbers of the classes that were used.
    pub(super) fn all_used(&self) -> SmallVec<[usize; Class::COUNT]> {
        (0..Class::COUNT)
            .filter(|&index| self.slots[index].is_some())
            .collect()
    }

    /// Gives back what an idle class does not need.
    pub(super) fn shrink(&mut self) {
        for state in self.slots.iter_mut().flatten() {
            state.blocked.shrink_to_fit();
            state.waiters.shrink_to_fit();
            state.accept.iter_mut().for_each(VecDeque::shrink_to_fit);
        }
    }

    /// The peer's announcements hold for every class from now on.
    pub(super) fn adopt(&mut self, params: &Params) {
        let announced = PeerCredit::of(params);
        self.credit = if announced == PeerCredit::of(&Params::default()) {
            Credit::Default
        } else {
            Credit::Announced(Box::new(announced))
        };
    }
}

fn start(credit: &Credit, index: usize) -> Start {
    const NONE: StreamLimits = StreamLimits {
        bi: 0,
        uni: 0,
        unordered: 0,
    };
    match credit {
        Credit::Early(true) if index == Class::REQUESTS.index() => Start {
            data: EARLY_BYTES,
            stream_data: EARLY_BYTES,
            streams: StreamLimits {
                bi: EARLY_STREAMS,
                ..NONE
            },
        },
        Credit::Early(_) => Start {
            data: 0,
            stream_data: 0,
            streams: NONE,
        },
        Credit::Default => {
            let params = Params::default();
            Start {
                data: params.max_data[index],
                stream_data: params.max_stream_data[index],
                streams: params.max_streams[index],
            }
        }
        Credit::Announced(credit) => Start {
            data: credit.data[index],
            stream_data: credit.stream_data[index],
            streams: credit.streams[index],
        },
    }
}

fn new_class(config: &Config, credit: &Credit, index: usize) -> ClassState {
    let own = config.params.max_streams[index];
    let start = start(credit, index);
    let opening = |concurrent, allowed| Opening {
        allowed,
        granted: concurrent,
        concurrent,
        ..Opening::default()
    };
    ClassState {
        urgency: config.classes[index].urgency.min(7),
        send_limit: start.data,
        sent: 0,
        begun: 0,
        buffered: 0,
        waiters: VecDeque::new(),
        stale: 0,
        blocked: VecDeque::new(),
        window: Window::new(
            config.params.max_data[index],
            config.classes[index]
                .max_window
                .unwrap_or(config.max_class_window),
        ),
        received: 0,
        consumed: 0,
        partial: 0,
        max_lent: config
            .params
            .max_message
            .saturating_add(config.params.max_data[index]),
        credit_due: false,
        stream_window: 0,
        stream_credit_out: start.stream_data,
        opening: [
            opening(own.bi, start.streams.bi),
            opening(own.uni, start.streams.uni),
            opening(own.unordered, start.streams.unordered),
        ],
        accept: Default::default(),
        accept_blocked: [false; 2],
    }
}

/// A class by its number in a fixed table.
pub(super) fn class_at(index: usize) -> Class {
    Class::new(index as u8).unwrap_or(Class::CONTROL)
}

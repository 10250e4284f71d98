//! One session: the association between two programs that outlives any connection under it.
//!
//! [`Session`] is a pure state machine. Its methods by family, in the order in which a driver calls
//! them:
//!
//! 1. **Paths**: [`open_path`](Session::open_path) (client) or [`accept_path`](Session::accept_path)
//!    (server) for every new connection, [`handle_input`](Session::handle_input) with what it
//!    received, [`handle_path_closed`](Session::handle_path_closed) when it is gone.
//! 2. **Time**: [`handle_timeout`](Session::handle_timeout) once a deadline of
//!    [`poll_timeout`](Session::poll_timeout) has passed.
//! 3. **Commands**: [`open`](Session::open), [`write`](Session::write),
//!    [`send_message`](Session::send_message), [`close`](Session::close), and their like.
//! 4. **Events**: [`poll_event`](Session::poll_event) until there is none.
//! 5. **Output**: [`poll_transmit`](Session::poll_transmit) for every path whose buffer is empty.
//! 6. **Deadline**: [`poll_timeout`](Session::poll_timeout), last, as all of the above move it.
//!
//! A driver that wakes late first takes in what its sockets hold, then judges timers: silence is
//! only silence when the sockets were read.

mod close;
mod config;
mod datagrams;
mod error;
mod establish;
mod event;
mod failure;
mod keys;
mod lifecycle;
mod messages;
mod path;
mod receive;
mod rtt;
mod sent;
mod stats;
mod stream_ops;
mod streams;
mod timers;
mod transmit;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

pub use config::{ClassConfig, Config, MAX_PATHS, PathInfo, PathMode};
pub use error::{Misbehaviour, OpenError, OpenPathError, PathError, SendError, StreamError};
pub(crate) use establish::First;
pub use establish::{EARLY_BYTES, EARLY_STREAMS, Incoming, Rejected};
pub use event::{Delivery, DeliveryKind, Event, Message, MessageId, Outcome, PathEnd, SwitchCause};
pub use keys::{PathKey, StreamKey};
pub use lifecycle::{Cause, State};
pub use stats::{PathState, PathStats, Stats};
pub use stream_ops::{Progress, Read, ReadInto};
pub use timers::TimerKind;
pub use transmit::Transmit;

use crate::handshake::{Params, PathCount, PathIdWindow, Security, Welcome};
use crate::rng::Rng;
use crate::stream::{RecvHalf, Window};
use crate::time::Timestamp;
use crate::wire::{Class, Compressor, ErrorCode, Side};
use datagrams::Datagrams;
use establish::{Handshake, Identity};
use messages::Messages;
use path::{Path, Stage, Unsettled};
use streams::{ClassState, OPENING_KINDS, Ready, StreamTable, opening_index};
use timers::Timers;

/// News of a dead path, told on every path until one of them has it acknowledged.
struct Abandon {
    path: u64,
    code: u64,
    told: SmallVec<[u64; 2]>,
}

/// The state machine of one end of a session. See the [module](self) for how to drive it.
pub struct Session {
    side: Side,
    config: Config,
    rng: Rng,
    state: State,
    local: Params,
    peer: Params,
    identity: Option<Identity>,
    handshake: Handshake,
    first_welcome: Option<Welcome>,
    welcomed: bool,
    confirmed: bool,
    floor: Option<Security>,
    early: Option<usize>,
    early_received: u64,

    paths: Slab<Box<Path>>,
    next_generation: u32,
    active: Option<usize>,
    /// The path that carried data last, while none does, and why it ended.
    switch_from: Option<(PathKey, SwitchCause)>,
    switches: u64,
    next_path_id: u64,
    path_ids: PathIdWindow,
    /// Server: ids of paths that began with HELLO, which proves nothing.
    hello_ids: SmallVec<[u64; 2]>,
    unsettled: Vec<Unsettled>,
    dead_counts: Vec<PathCount>,
    abandons: Vec<Abandon>,

    streams: StreamTable,
    classes: [ClassState; Class::COUNT],
    ready: Ready,
    /// Streams with a control frame to send.
    control: VecDeque<u32>,
    class_control: bool,
    /// Classes, a bit each, whose streams were given up unread: their windows are looked at next.
    class_dropped: u8,
    /// Bytes that all send halves hold.
    buffered: u64,
    messages: Option<Box<Messages>>,
    datagrams: Datagrams,
    datagram_sender_blocked: bool,

    peer_draining: bool,
    drain_address: Option<String>,
    goaway_due: bool,
    close_reason: Option<(ErrorCode, String)>,

    timers: Timers,
    events: VecDeque<Event>,
    scratch: Vec<u8>,
    compressor: Option<Box<Compressor>>,
}

impl Session {
    /// A client's session that has no path yet. Parameters outside their ranges fall back to the
    /// defaults; [`Params::check`] tells beforehand.
    pub fn client(config: Config, seed: [u8; 32], now: Timestamp) -> Session {
        Session::new(Side::Client, config, seed, now)
    }

    fn new(side: Side, mut config: Config, seed: [u8; 32], _now: Timestamp) -> Session {
        if config.params.check().is_err() {
            config.params = Params::default();
        }
        let local = config.params.clone();
        let mut classes = std::array::from_fn(|index| class_state(&config, &local, index));
        if side == Side::Client {
            Session::early_credit(&mut classes, config.early_data);
        }
        let floor = config.security_floor;
        Session {
            side,
            rng: Rng::from_seed(seed),
            state: State::Disconnected,
            local,
            peer: Params::default(),
            identity: None,
            handshake: Handshake::Done,
            first_welcome: None,
            welcomed: false,
            confirmed: false,
            floor,
            early: None,
            early_received: 0,
            paths: Slab::new(),
            next_generation: 0,
            active: None,
            switch_from: None,
            switches: 0,
            next_path_id: 0,
            path_ids: PathIdWindow::new(),
            hello_ids: SmallVec::new(),
            unsettled: Vec::new(),
            dead_counts: Vec::new(),
            abandons: Vec::new(),
            streams: StreamTable::default(),
            classes,
            ready: Ready::default(),
            control: VecDeque::new(),
            class_control: false,
            class_dropped: 0,
            buffered: 0,
            messages: None,
            datagrams: Datagrams::default(),
            datagram_sender_blocked: false,
            peer_draining: false,
            drain_address: None,
            goaway_due: false,
            close_reason: None,
            timers: Timers::default(),
            events: VecDeque::new(),
            scratch: Vec::new(),
            compressor: None,
            config,
        }
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The connection of a path is gone, or [`Transmit::CloseAfterFlush`] was carried out.
    pub fn handle_path_closed(&mut self, now: Timestamp, key: PathKey, end: PathEnd) {
        let Some(slot) = self.path_slot(key) else { return };
        self.retire_path(now, slot, end, None);
        self.paths.remove(slot);
        if self.early == Some(slot) {
            self.early = None;
        }
        if self.paths.is_empty() {
            self.paths_lost(now);
        }
        self.forget_lanes();
    }

    /// Bytes that the record which is partly in `buffer` still lacks; 0 where that is not known.
    pub fn missing(&self, buffer: &[u8]) -> usize {
        match buffer.first_chunk::<{ crate::wire::HEADER_LEN }>() {
            None => 0,
            Some([high, middle, low, _]) => {
                let total = u32::from_be_bytes([0, *high, *middle, *low]) as usize + crate::wire::HEADER_LEN;
                total.saturating_sub(buffer.len())
            }
        }
    }

    // ---- time ----

    /// The next deadline and its reason. Asked last, after everything else was handled.
    pub fn poll_timeout(&self) -> Option<(Timestamp, TimerKind)> {
        let paths = self.paths.iter().filter_map(|(_, path)| path.timers.next());
        paths.chain(self.timers.next()).min()
    }

    /// Handles every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let slots: SmallVec<[usize; 8]> = self.paths.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.path_timeout(now, slot);
        }
        if self.timers.take_due(TimerKind::Ttl, now) {
            self.expire_datagrams(now);
        }
        if self.timers.take_due(TimerKind::Resume, now) {
            self.end_session(now, Cause::ResumeTimeout);
        }
        if self.timers.take_due(TimerKind::Handshake, now) {
            self.end_session(now, Cause::HandshakeTimeout);
        }
    }

    fn path_timeout(&mut self, now: Timestamp, slot: usize) {
        let heartbeat = self.heartbeat();
        let Some(path) = self.paths.get_mut(slot) else {
            return;
        };
        if path.timers.take_due(TimerKind::Ack, now) {
            path.ack_due = true;
        }
        if path.timers.take_due(TimerKind::Heartbeat, now) && path.is_live() {
            let idle = now.since(path.last_sent);
            if idle >= heartbeat && path.ping_sent.is_none() {
                path.ping_due = true;
                path.timers.set(TimerKind::Heartbeat, now + heartbeat);
            } else {
                path.timers.set(
                    TimerKind::Heartbeat,
                    now + heartbeat.saturating_sub(idle).max(heartbeat / 8),
                );
            }
        }
        if path.timers.take_due(TimerKind::Handshake, now) {
            self.retire_path(now, slot, PathEnd::Local, Some(PathError::HandshakeTimeout));
            return;
        }
        if path.timers.take_due(TimerKind::Suspect, now) {
            self.suspect(now, slot);
        }
        if self
            .paths
            .get_mut(slot)
            .is_some_and(|path| path.timers.take_due(TimerKind::Probe, now))
        {
            self.probe_unanswered(now, slot);
        }
    }

    /// PROTOCOL 6.7: the agreed interval; a second while a stream of this end waits for its answer.
    fn heartbeat(&self) -> Duration {
        let agreed = self.local.agree(&self.peer).heartbeat;
        let agreed = if agreed.is_zero() {
            Duration::from_secs(u64::from(u32::MAX))
        } else {
            agreed
        };
        if self.streams.waiting_for_answers() {
            agreed.min(Duration::from_secs(1))
        } else {
            agreed
        }
    }

    /// The interval has become shorter.
    pub(in crate::session) fn hasten_heartbeats(&mut self) {
        let heartbeat = self.heartbeat();
        for (_, path) in &mut self.paths {
            if path.is_live() {
                let at = path.last_sent + heartbeat;
                path.timers.set_earlier(TimerKind::Heartbeat, at);
            }
        }
    }

    // ---- shared by the families ----

    fn path_slot(&self, key: PathKey) -> Option<usize> {
        let slot = key.slot as usize;
        self.paths
            .get(slot)
            .filter(|path| path.generation == key.generation)
            .map(|_| slot)
    }

    fn slot_of_path_id(&self, id: u64) -> Option<usize> {
        self.paths
            .iter()
            .find(|(_, path)| path.id == id && path.stage != Stage::Closing)
            .map(|(slot, _)| slot)
    }

    fn transition(&mut self, cause: Cause) {
        if let Some(to) = self.state.after(&cause) {
            let from = std::mem::replace(&mut self.state, to);
            self.events.push_back(Event::State { from, to, cause });
        }
    }

    fn new_recv(&self, class: Class) -> RecvHalf {
        RecvHalf::new(
            self.classes[class.index()].stream_credit_in,
            self.config.max_stream_window,
        )
    }

    fn lz4(&self) -> bool {
        self.local.lz4 && self.peer.lz4
    }

    /// The round-trip time that windows are tuned by: the path's own, without its queues, so that a
    /// queue does not call for a larger one.
    fn best_rtt(&self) -> Duration {
        self.active
            .and_then(|slot| self.paths.get(slot))
            .map_or(rtt::INITIAL_RTT, |path| path.rtt.base())
    }

    fn consume_class(&mut self, class: Class, bytes: u64) {
        self.classes[class.index()].window.on_consumed(bytes);
    }

    fn update_class(&mut self, now: Timestamp, class: Class, rtt: Duration) {
        let state = &mut self.classes[class.index()];
        if state.window.update(now, rtt, 0).is_some() {
            state.credit_due = true;
            self.class_control = true;
        }
    }

    /// Gives the class credit back of what was given up unread.
    fn update_dropped(&mut self, now: Timestamp) {
        let rtt = self.best_rtt();
        let dropped = std::mem::take(&mut self.class_dropped);
        for class in Class::ALL {
            if dropped & (1 << class.index()) != 0 {
                self.update_class(now, class, rtt);
            }
        }
    }

    fn draining(&self) -> bool {
        self.peer_draining || self.drain_address.is_some()
    }

    /// Streams need not remember offsets on lanes of paths that are gone.
    fn forget_lanes(&mut self) {
        let lanes: SmallVec<[u32; 8]> = self.paths.iter().map(|(_, path)| path.lane_key).collect();
        self.streams.forget_lanes(&lanes);
    }
}

fn class_state(config: &Config, local: &Params, index: usize) -> ClassState {
    let limits = local.max_streams[index];
    let mut opening: [streams::Opening; 3] = Default::default();
    for (kind, concurrent) in OPENING_KINDS
        .into_iter()
        .zip([limits.bi, limits.uni, limits.unordered])
    {
        if let Some(place) = opening_index(kind) {
            opening[place].granted = concurrent;
            opening[place].concurrent = concurrent;
        }
    }
    ClassState {
        urgency: config.classes[index].urgency.min(7),
        send_limit: 0,
        sent: 0,
        buffered: 0,
        waiters: VecDeque::new(),
        blocked: VecDeque::new(),
        window: Window::new(local.max_data[index], config.max_class_window),
        received: 0,
        lent: 0,
        credit_due: false,
        stream_credit_out: 0,
        stream_credit_in: local.max_stream_data[index],
        opening,
        accept: Default::default(),
        accept_blocked: [false; 2],
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("side", &self.side)
            .field("state", &self.state)
            .field("id", &self.id())
            .field("paths", &self.paths.len())
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

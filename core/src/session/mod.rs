//! One session: the association between two programs that outlives any connection under it.
//!
//! [`Session`] is a pure state machine. Its methods by family, in the order in which a driver calls
//! them:
//!
//! 1. **Paths**: [`open_path`](Session::open_path) (client) or [`accept_path`](Session::accept_path)
//!    (server) for every new connection, [`handle_input`](Session::handle_input) and
//!    [`handle_lane_input`](Session::handle_lane_input) with what it received,
//!    [`handle_path_closed`](Session::handle_path_closed) when it is gone.
//! 2. **Time**: [`handle_timeout`](Session::handle_timeout) once a deadline of
//!    [`poll_timeout`](Session::poll_timeout) has passed.
//! 3. **Commands**: [`open`](Session::open), [`write`](Session::write),
//!    [`send_message`](Session::send_message), [`close`](Session::close), and their like.
//! 4. **Events**: [`poll_event`](Session::poll_event) until there is none.
//! 5. **Output**: [`poll_transmit`](Session::poll_transmit) for every path whose buffer is empty, or
//!    [`poll_transmit_lanes`](Session::poll_transmit_lanes) where its carrier has lanes.
//! 6. **Deadline**: [`poll_timeout`](Session::poll_timeout), last, as all of the above move it.
//!
//! A driver that wakes late first takes in what its sockets hold, then judges timers: silence is
//! only silence when the sockets were read.

mod accept;
mod acks;
mod audit;
mod audit_paths;
mod choose;
mod class_config;
mod classes;
mod close;
mod config;
mod datagrams;
mod error;
mod establish;
mod event;
mod failure;
mod ids;
mod keys;
mod lanes;
mod lifecycle;
mod messages;
mod messages_in;
mod mirror;
mod path;
mod rare;
mod receive;
mod rtt;
mod sent;
mod standstill;
mod stats;
mod stream_frames;
mod stream_ops;
mod stream_reads;
mod streams;
mod timers;
mod transmit;
mod transmit_control;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

pub(crate) use accept::First;
pub use accept::{Incoming, Rejected};
pub use audit::Violation;
pub use class_config::{ClassConfig, ClassError, ClassSettings, MAX_CLASS_NAME};
pub use config::{Config, EarlyStart, MAX_PATHS, PathInfo, PathMode};
pub use error::{Misbehaviour, OpenError, OpenPathError, PathError, SendError, StreamError};
pub use establish::{EARLY_BYTES, EARLY_STREAMS};
pub use event::{
    Delivery, DeliveryKind, Event, Message, MessageId, Moved, Outcome, PathEnd, SwitchCause, SwitchEvidence,
};
pub use keys::{PathKey, StreamKey};
pub use lanes::{LaneRoom, LaneRun, MAX_LANES};
pub use lifecycle::{Cause, State};
pub use stats::{PathState, PathStats, Stats};
pub use stream_ops::Progress;
pub use stream_reads::{Read, ReadInto};
pub use timers::TimerKind;
pub use transmit::Transmit;

use crate::handshake::{Params, PathCount, PathIdWindow, Security};
use crate::marks::{Marks, sometimes};
use crate::policy::Selector;
use crate::policy::rtt::INITIAL_RTT;
use crate::rng::SparseRng;
use crate::time::Timestamp;
use crate::wire::{Class, Compressor, ErrorCode, Kind, Side};
use choose::{Damped, Left, Place};
use classes::{ClassState, Classes};
use datagrams::Datagrams;
use establish::{Handshake, Identity};
use messages::Messages;
use mirror::Copies;
use path::{Path, Stage, Unsettled};
use rare::Rare;
use standstill::Standstill;
use streams::{Ready, RecvWindow, StreamTable};
use timers::Timers;

/// News of a dead path, told on every path until one of them has it acknowledged.
struct Abandon {
    path: u64,
    code: u64,
    told: SmallVec<[u64; 2]>,
}

/// What of the peer's announcements is asked for again and again (PROTOCOL 5.5).
#[derive(Clone, Copy, Debug)]
struct PeerSettings {
    max_record: u32,
    max_datagram: u32,
    max_message: u64,
    in_flight: u64,
    resume_timeout: Duration,
    heartbeat: Duration,
    max_ack_delay: Duration,
    crc: Option<bool>,
    lz4: bool,
}

impl PeerSettings {
    fn of(params: &Params) -> PeerSettings {
        PeerSettings {
            max_record: params.max_record,
            max_datagram: params.max_datagram,
            max_message: params.max_message,
            in_flight: params.in_flight,
            resume_timeout: params.resume_timeout,
            heartbeat: params.heartbeat,
            max_ack_delay: params.max_ack_delay,
            crc: params.crc,
            lz4: params.lz4,
        }
    }

    fn wants_crc(&self, carrier: Security) -> bool {
        self.crc.unwrap_or(carrier < Security::Encrypted)
    }
}

/// The state machine of one end of a session. See the [module](self) for how to drive it.
pub struct Session {
    side: Side,
    config: Arc<Config>,
    rng: SparseRng,
    state: State,
    peer: PeerSettings,
    identity: Option<Identity>,
    handshake: Handshake,
    welcomed: bool,
    confirmed: bool,
    floor: Option<Security>,
    early: Option<usize>,
    early_received: u64,
    /// Server: HELLO allowed no carrier that is not encrypted, so that nobody has read it on the way.
    hello_unread: bool,

    paths: Slab<Box<Path>>,
    next_generation: u32,
    active: Option<usize>,
    /// The path that carried data last, while none does.
    left: Option<Left>,
    selector: Selector<Place>,
    damped: Damped,
    /// When paths were last compared.
    compared_at: Timestamp,
    switches: u64,
    /// PATH_STATUS frames heard.
    statuses: u64,
    next_path_id: u64,
    path_ids: PathIdWindow,
    /// Server: ids of paths that began with HELLO, which proves nothing.
    hello_ids: SmallVec<[u64; 2]>,
    unsettled: Vec<Unsettled>,
    dead_counts: Vec<PathCount>,
    abandons: Vec<Abandon>,

    streams: StreamTable,
    classes: Classes,
    ready: Ready,
    /// Streams with a control frame to send.
    control: VecDeque<u32>,
    class_control: bool,
    /// Classes, a bit each, whose streams were given up unread: their windows are looked at next.
    class_dropped: u8,
    /// Bytes that all send halves hold.
    buffered: u64,
    /// A writer may stand in some class's list.
    writers_wait: bool,
    messages: Option<Box<Messages>>,
    datagrams: Rare<Datagrams>,
    datagram_sender_blocked: bool,
    copies: Rare<Copies>,
    standstill: Standstill,

    peer_draining: bool,
    drain_address: Option<String>,
    /// How much had moved when a drained session was last looked at.
    drain_moved: u64,
    goaway_due: bool,
    /// This end says that it has done with all that was open.
    done_due: bool,
    done_said: bool,
    follows_redirects: bool,
    peer_done: bool,
    /// The peer has acknowledged it: nothing that it sent before it knew is still under way.
    goaway_told: bool,
    close_reason: Option<(ErrorCode, String)>,

    marks: Marks,
    timers: Timers,
    /// Something was sent since the session last looked whether it is quiet.
    stirred: bool,
    events: VecDeque<Event>,
    scratch: Vec<u8>,
    compressor: Option<Box<Compressor>>,
}

impl Session {
    /// A client's session that has no path yet. Parameters outside their ranges fall back to the
    /// defaults; [`Params::check`] tells beforehand.
    pub fn client(config: impl Into<Arc<Config>>, seed: [u8; 32], now: Timestamp) -> Session {
        Session::new(Side::Client, config.into(), seed, now)
    }

    fn new(side: Side, mut config: Arc<Config>, seed: [u8; 32], _now: Timestamp) -> Session {
        if config.params.check().is_err() {
            Arc::make_mut(&mut config).params = Params::default();
        }
        let floor = config.security_floor;
        Session {
            side,
            rng: SparseRng::from_seed(seed),
            state: State::Disconnected,
            peer: PeerSettings::of(&Params::default()),
            identity: None,
            handshake: Handshake::Done,
            welcomed: false,
            confirmed: false,
            floor,
            early: None,
            early_received: 0,
            hello_unread: false,
            paths: Slab::with_capacity(1),
            next_generation: 0,
            active: None,
            left: None,
            selector: Selector::new(),
            damped: Damped::default(),
            compared_at: Timestamp::ZERO,
            switches: 0,
            statuses: 0,
            next_path_id: 0,
            path_ids: PathIdWindow::new(),
            hello_ids: SmallVec::new(),
            unsettled: Vec::new(),
            dead_counts: Vec::new(),
            abandons: Vec::new(),
            streams: StreamTable::default(),
            classes: Classes::new(config.clone(), side),
            ready: Ready::new(),
            control: VecDeque::new(),
            class_control: false,
            class_dropped: 0,
            buffered: 0,
            writers_wait: false,
            messages: None,
            datagrams: Rare::new(),
            datagram_sender_blocked: false,
            copies: Rare::new(),
            standstill: Standstill::default(),
            peer_draining: false,
            drain_address: None,
            drain_moved: 0,
            goaway_due: false,
            done_due: false,
            done_said: false,
            follows_redirects: false,
            peer_done: false,
            goaway_told: false,
            close_reason: None,
            marks: Marks::new(),
            timers: Timers::default(),
            stirred: false,
            events: VecDeque::new(),
            scratch: Vec::new(),
            compressor: None,
            config,
        }
    }

    /// Requires a carrier at least this secure of every path, before there is any; where the configuration
    /// requires more, that holds.
    pub fn require(&mut self, floor: Security) {
        self.floor = self.floor.max(Some(floor));
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The rare branches that this session has been through, for tests.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(event, Event::Quiet) {
            self.events.shrink_to_fit();
        }
        Some(event)
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

    /// The address of a path's end has changed, or has proven to be good or not. `name` is the path's from here on, if
    /// it has another.
    pub fn handle_path_moved(&mut self, key: PathKey, name: Option<Arc<str>>, how: Moved) {
        let Some(slot) = self.path_slot(key) else { return };
        let before = self.paths[slot].info.name.clone();
        if let Some(name) = name {
            self.paths[slot].info.name = name;
        }
        self.events.push_back(Event::PathMoved {
            path: key,
            before,
            how,
        });
    }

    /// Client: what became of the first flight of a path that began early is known. PROTOCOL 14.8.
    pub fn handle_early_start(&mut self, key: PathKey, taken: bool) {
        let Some(slot) = self.path_slot(key) else { return };
        self.paths[slot].info.early = match taken {
            true => EarlyStart::Taken,
            false => EarlyStart::Refused,
        };
    }

    /// Bytes of the whole record that is partly in `buffer`; 0 where that is not known.
    pub fn record_len(&self, buffer: &[u8]) -> usize {
        match buffer.first_chunk::<{ crate::wire::HEADER_LEN }>() {
            None => 0,
            Some([high, middle, low, _]) => {
                u32::from_be_bytes([0, *high, *middle, *low]) as usize + crate::wire::HEADER_LEN
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
        if self.timers.take_due(TimerKind::Choose, now) {
            self.choose_again(now);
        }
        if self.timers.take_due(TimerKind::Ttl, now) {
            self.expire_datagrams(now);
        }
        if self.timers.take_due(TimerKind::DrainIdle, now) {
            self.drain_idle(now);
        }
        if self.timers.take_due(TimerKind::Tidy, now) {
            self.tidy(now);
        }
        if self.timers.take_due(TimerKind::Resume, now) {
            sometimes!(self.marks, ResumeExpired);
            self.end_session(now, Cause::ResumeTimeout);
        }
        if self.timers.take_due(TimerKind::Handshake, now) {
            sometimes!(self.marks, HandshakeExpired);
            self.end_session(now, Cause::HandshakeTimeout);
        }
    }

    /// Idle sessions are many: each keeps little.
    fn tidy(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.stirred) {
            self.timers.set(TimerKind::Tidy, now + transmit::TIDY_AFTER);
            return;
        }
        sometimes!(self.marks, Tidied);
        self.streams.shrink();
        self.classes.shrink();
        self.ready.shrink();
        self.control.shrink_to_fit();
        self.scratch = Vec::new();
        self.compressor = None;
        for (_, path) in &mut self.paths {
            for lane in &mut path.lanes {
                lane.sent.shrink();
            }
            if let Some(pool) = &mut path.pool {
                pool.shrink();
            }
        }
        if self.events.is_empty() {
            self.events = VecDeque::with_capacity(1);
        }
        self.events.push_back(Event::Quiet);
    }

    fn path_timeout(&mut self, now: Timestamp, slot: usize) {
        let heartbeat = self.heartbeat();
        let Some(path) = self.paths.get_mut(slot) else {
            return;
        };
        if path.timers.take_due(TimerKind::Ack, now) {
            path.ack_due = !crate::canary!(AckTimerForgotten);
        }
        if path.timers.take_due(TimerKind::Heartbeat, now) && path.is_live() {
            let idle = now.since(path.last_asked);
            if idle >= heartbeat && path.ping_sent.is_none() {
                sometimes!(self.marks, HeartbeatSent);
                path.ping_due = true;
                path.timers.set(TimerKind::Heartbeat, now + heartbeat);
            } else {
                path.timers.set(
                    TimerKind::Heartbeat,
                    now + heartbeat.saturating_sub(idle).max(heartbeat / 8),
                );
            }
        }
        if path.timers.take_due(TimerKind::Recheck, now) {
            path.recheck(now);
        }
        if path.timers.take_due(TimerKind::Handshake, now) {
            sometimes!(self.marks, PathHandshakeExpired);
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
        let agreed = match (self.config.params.heartbeat, self.peer.heartbeat) {
            (Duration::ZERO, other) | (other, Duration::ZERO) => other,
            (ours, theirs) => ours.min(theirs),
        };
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
                let at = path.last_asked + heartbeat;
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

    /// What the receiving half of a stream grants.
    fn recv_window(&self, kind: Kind, class: Class) -> RecvWindow {
        let config = &self.config;
        let most = config.classes[class.index()].max_stream_window;
        let bytes = matches!(kind, Kind::Bi | Kind::Uni);
        let used = self.classes.used(class.index()).filter(|_| bytes);
        RecvWindow {
            first: config.params.max_stream_data[class.index()],
            expected: used.map_or(0, ClassState::stream_window),
            most: most.unwrap_or(config.max_stream_window),
        }
    }

    fn lz4(&self) -> bool {
        self.config.params.lz4 && self.peer.lz4
    }

    /// The round-trip time that windows are tuned by: the path's own, without its queues, so that a
    /// queue does not call for a larger one.
    fn best_rtt(&self) -> Duration {
        self.active
            .and_then(|slot| self.paths.get(slot))
            .map_or(INITIAL_RTT, |path| path.rtt.base())
    }

    fn consume_class(&mut self, class: Class, bytes: u64) {
        self.classes.at(class.index()).consume(bytes);
    }

    fn update_class(&mut self, now: Timestamp, class: Class, rtt: Duration) {
        let state = self.classes.at(class.index());
        let lent = state.window.update(now, rtt, 0).is_none();
        if !lent || state.relieve_starved() {
            sometimes!(self.marks, CreditLent, lent);
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

    /// Whether either end takes nothing new: what is open goes on to its end, and work belongs in another session.
    pub fn is_draining(&self) -> bool {
        self.draining()
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

//! One live carrier connection of a session.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::config::PathInfo;
use super::error::PathError;
use super::keys::StreamKey;
use super::lanes::Pool;
use super::rare::{Blank, Rare};
use super::rtt::Rate;
use super::sent::SentLog;
use super::timers::{TimerKind, Timers};
use crate::handshake::PathCount;
use crate::policy::{Health, Rtt};
use crate::time::Timestamp;

/// A path without progress is suspect after this at the latest, and what the bytes under way take, whatever its answers
/// took when the network was at its worst.
const MAX_SUSPICION: Duration = Duration::from_secs(10);

/// How far a path has come (PROTOCOL 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Client: HELLO is out; only early data may follow it.
    HelloSent,
    /// Server: the path that made the session; WELCOME is out, data may follow, CONFIRM is awaited.
    Welcomed,
    /// Server: a repeated HELLO; WELCOME is out and nothing else goes before CONFIRM.
    Repeated,
    /// Client: JOIN is out.
    JoinSent,
    /// Server: JOINED is out, CONFIRM is awaited.
    Joined,
    /// Both ends have proven themselves.
    Live,
    /// Only what is queued is still written; then the connection is closed.
    Closing,
}

/// Evidence against a path (DESIGN "Failure, suspicion, death").
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    pub(super) since: Timestamp,
    pub(super) probes: u32,
    /// Enough silence to be dead; it stays only because nothing better stands.
    pub(super) condemned: bool,
    /// That no other is sound was told.
    pub(super) mute: bool,
    /// At the last probe another path had proven that the peer is there: this one had the time to answer, too.
    pub(super) outlived: bool,
    /// The carrier's acknowledgements when this was last looked at.
    pub(super) carrier: Option<u64>,
    /// The carrier had acknowledgements since the last probe.
    pub(super) heard: bool,
    /// Probes that are no evidence, because the carrier was heard meanwhile.
    pub(super) spared: u32,
}

/// An ordered, reliable conveyor of records within a path: one for each direction, of the same number. Single-socket
/// carriers have lane 0 only.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) sent: SentLog,
    /// Records received in order.
    pub(super) received: u64,
    /// The count that was last put into an acknowledgement.
    pub(super) reported: u64,
    /// Something in the records since then wants to be acknowledged.
    pub(super) ack_wanted: bool,
    /// When the newest counted record came.
    pub(super) received_at: Timestamp,
    /// Bytes of the records not yet reported; on lane 0 those of all lanes of the path.
    pub(super) unreported_bytes: u64,
    /// The stream that alone is sent on it, until all of that is acknowledged.
    pub(super) owner: Option<StreamKey>,
    /// It is of no more use for sending.
    pub(super) lost: bool,
}

/// A token bucket over control frames that make this end work (PROTOCOL 10).
#[derive(Debug)]
pub(super) struct ControlBudget {
    tokens: u32,
    refilled: Timestamp,
}

const CONTROL_BURST: u32 = 20_000;
const CONTROL_PER_MILLISECOND: u64 = 2;

impl ControlBudget {
    pub(super) fn new(now: Timestamp) -> ControlBudget {
        ControlBudget {
            tokens: CONTROL_BURST,
            refilled: now,
        }
    }

    /// What this end sends calls for credit and the like in return: it earns them their price.
    #[inline]
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = u32::try_from(bytes / 4096).unwrap_or(0) + 1;
        self.tokens = self.tokens.saturating_add(earned).min(CONTROL_BURST);
    }

    /// Takes the price of one control frame, or tells that the peer floods.
    pub(super) fn spend(&mut self, now: Timestamp) -> bool {
        if self.tokens == 0 {
            let elapsed = u64::try_from(now.since(self.refilled).as_millis()).unwrap_or(u64::MAX);
            let refill = elapsed
                .saturating_mul(CONTROL_PER_MILLISECOND)
                .min(u64::from(CONTROL_BURST));
            self.tokens = u32::try_from(refill).unwrap_or(CONTROL_BURST);
            self.refilled = now;
        }
        self.tokens = match self.tokens.checked_sub(1) {
            Some(rest) => rest,
            None => return false,
        };
        true
    }
}

/// How long a path that has become slow rests before it is looked at again; twice as long each time.
const RECHECK: Duration = Duration::from_millis(10);
const MAX_RECHECK: Duration = Duration::from_secs(2);
/// The longest between two looks at a path on trial.
const MAX_LOOK: Duration = Duration::from_secs(1);

/// What is kept of a handshake between its messages.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// SHA-256 of our JOIN or the peer's.
    pub(super) join_hash: Option<[u8; 32]>,
    /// SHA-256 of the JOINED that answered it.
    pub(super) joined_hash: Option<[u8; 32]>,
    /// Server: the paths that the client named as live in its JOIN.
    pub(super) listed: Vec<u64>,
}

impl Blank for Exchange {
    const BLANK: &'static Exchange = &Exchange {
        join_hash: None,
        joined_hash: None,
        listed: Vec::new(),
    };
}

pub(super) struct Path {
    pub(super) generation: u32,
    /// The path's number on the wire, chosen by the client, never used twice.
    pub(super) id: u64,
    pub(super) info: PathInfo,
    pub(super) stage: Stage,
    /// Names this path's lane 0 in the streams' offset memory.
    pub(super) lane_key: u32,
    /// By number.
    pub(super) lanes: SmallVec<[Lane; 1]>,
    /// Which lanes beyond the first there are, where the carrier has any.
    pub(super) pool: Option<Box<Pool>>,
    pub(super) rtt: Rtt,
    pub(super) rate: Rate,
    pub(super) health: Health,
    /// It failed of late and has to answer all along until then before it is preferred again.
    trial_until: Timestamp,
    pub(super) crc: bool,
    /// The largest body that the peer takes.
    pub(super) max_record: usize,
    /// The peer's bound on bytes in flight, half of which calls for an acknowledgement.
    pub(super) peer_in_flight: u64,
    /// The bound that the peer was last told.
    pub(super) announced_in_flight: u64,
    /// Eliciting bytes sent since an acknowledgement was last asked for.
    pub(super) since_ack_asked: u64,
    /// Handshake frames waiting to go, each in a record of its own.
    pub(super) handshake: Vec<Bytes>,
    pub(super) exchange: Rare<Exchange>,
    pub(super) timers: Timers,
    pub(super) suspicion: Option<Suspicion>,
    /// How long a slow path rests between two looks at it.
    pub(super) recheck: Duration,
    /// When what we sent last made progress, or began to wait for it.
    pub(super) progress_at: Timestamp,
    /// When the peer last proved that it is there: by an answer to what this end sent.
    pub(super) proven_at: Timestamp,
    /// When something was last sent that the peer is to answer.
    pub(super) last_asked: Timestamp,
    /// An acknowledgement goes alone if nothing else does.
    pub(super) ack_due: bool,
    pub(super) ping_due: bool,
    pub(super) ping_seq: u64,
    pub(super) ping_sent: Option<Timestamp>,
    pub(super) pongs: SmallVec<[u64; 2]>,
    pub(super) status_seq: u64,
    pub(super) status_due: bool,
    pub(super) peer_status_seq: Option<u64>,
    pub(super) peer_wants_leave: bool,
    /// Server: the client says that it sends on this path; greater the later it was heard. 0 if it does not.
    pub(super) peer_sends: u64,
    pub(super) close_due: bool,
    /// Set while [`Stage::Closing`]: what ended it.
    pub(super) error: Option<Box<PathError>>,
    pub(super) budget: ControlBudget,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) records_sent: u64,
    pub(super) records_received: u64,
}

impl Path {
    pub(super) fn new(
        now: Timestamp,
        generation: u32,
        id: u64,
        info: PathInfo,
        stage: Stage,
        in_flight: u64,
    ) -> Path {
        Path {
            generation,
            id,
            stage,
            lane_key: generation,
            lanes: SmallVec::from_buf([Lane::default()]),
            pool: Pool::of(&info),
            rtt: Rtt::new(),
            rate: Rate::new(now, in_flight),
            health: Health::new(),
            trial_until: Timestamp::ZERO,
            crc: true,
            max_record: crate::handshake::MAX_HANDSHAKE_RECORD,
            peer_in_flight: in_flight,
            announced_in_flight: in_flight,
            since_ack_asked: 0,
            handshake: Vec::new(),
            exchange: Rare::new(),
            timers: Timers::default(),
            suspicion: None,
            recheck: RECHECK,
            progress_at: now,
            proven_at: Timestamp::ZERO,
            last_asked: now,
            ack_due: false,
            ping_due: false,
            ping_seq: 0,
            ping_sent: None,
            pongs: SmallVec::new(),
            status_seq: 0,
            status_due: false,
            peer_status_seq: None,
            peer_wants_leave: false,
            peer_sends: 0,
            close_due: false,
            error: None,
            budget: ControlBudget::new(now),
            bytes_sent: 0,
            bytes_received: 0,
            records_sent: 0,
            records_received: 0,
            info,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether it is alive for all that is known, or may be once its handshake is done. One that has been silent
    /// for so long that it would be dead if there were another is not.
    pub(super) fn may_live(&self) -> bool {
        let silent = self.suspicion.is_some_and(|suspicion| suspicion.condemned);
        self.stage != Stage::Closing && !silent
    }

    /// Whether frames other than the handshake's may go out on it.
    pub(super) fn may_send(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Welcomed)
    }

    pub(super) fn in_flight(&self) -> u64 {
        let others = self.pool.as_ref().map_or(0, |pool| pool.in_flight);
        self.lanes[0].sent.in_flight + others
    }

    /// Counts of what came on this path, for JOINED, CONFIRM and PATH_ABANDON.
    pub(super) fn counts(&self) -> impl Iterator<Item = PathCount> + '_ {
        let received = self.lanes.iter().filter(|lane| lane.id == 0 || lane.received > 0);
        received.map(|lane| PathCount {
            path: self.id,
            lane: lane.id,
            count: lane.received,
        })
    }

    /// Time without progress after which the path is suspect (PROTOCOL 6.6).
    pub(super) fn suspicion_time(&self, max_ack_delay: Duration, floor: Duration) -> Duration {
        let queue = self.rate.excuse_for(self.in_flight(), self.rtt.get());
        let usual = self.rtt.get() * 3 + self.rtt.variance() * 4 + max_ack_delay;
        (usual.min(MAX_SUSPICION) + queue).max(floor)
    }

    /// Takes in a round trip. Tells whether the path, having been slow, is itself again.
    pub(super) fn take_rtt(&mut self, now: Timestamp, measured: Duration, ack_delay: Duration) -> bool {
        let was_degraded = self.rtt.is_late();
        let is_news = self.rtt.sample(now, measured, ack_delay);
        if self.in_flight() == 0 {
            self.rtt.renew_minimum(now);
        }
        match is_news {
            true => self.health.on_answer(now, self.rtt.is_late()),
            // A stall is one thing that went wrong, however many records waited in it.
            false => self.health.on_echo(now),
        }
        if self.trial_until > now {
            self.timers.set(TimerKind::Recheck, now + self.look_every());
            return was_degraded && !self.rtt.is_late();
        }
        if self.rtt.is_late() {
            if !self.timers.is_set(TimerKind::Recheck) {
                self.timers.set(TimerKind::Recheck, now + self.recheck);
                self.recheck = (self.recheck * 2).min(MAX_RECHECK);
            }
            return false;
        }
        self.recheck = RECHECK;
        self.timers.clear(TimerKind::Recheck);
        was_degraded
    }

    /// The path failed of late: it is asked often until then whether it is well.
    pub(super) fn begin_trial(&mut self, now: Timestamp, until: Timestamp) {
        self.trial_until = until;
        if !self.timers.is_set(TimerKind::Recheck) {
            self.timers.set(TimerKind::Recheck, now + self.look_every());
        }
    }

    fn look_every(&self) -> Duration {
        let often = self.health.damping().look_every().min(MAX_LOOK);
        often.max(self.rtt.get() * 2)
    }

    /// A slow path that carries nothing would stay slow for ever, as far as this end knows.
    pub(super) fn recheck(&mut self, now: Timestamp) {
        if !self.is_live() || !(self.rtt.is_late() || self.trial_until > now) {
            return;
        }
        if self.in_flight() == 0 && self.ping_sent.is_none() {
            self.ping_due = true;
        } else {
            let wait = if self.trial_until > now {
                self.look_every()
            } else {
                self.recheck
            };
            self.timers.set(TimerKind::Recheck, now + wait);
        }
    }

    /// (Re)arms suspicion from `from`, or disarms it where nothing waits for an answer.
    pub(super) fn arm_suspicion(&mut self, max_ack_delay: Duration, floor: Duration) {
        let waiting = self.ping_sent.is_some() || self.in_flight() > 0;
        if !waiting || self.suspicion.is_some() {
            self.timers.clear(TimerKind::Suspect);
            return;
        }
        let after = self.suspicion_time(max_ack_delay, floor);
        self.timers.set(TimerKind::Suspect, self.progress_at + after);
    }
}

/// The unacknowledged records of a path that died while there was no other, until the peer tells
/// what it received (PROTOCOL 6.3).
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) id: u64,
    pub(super) lanes: SmallVec<[Lane; 1]>,
}

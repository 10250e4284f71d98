//! The sending half of a TCP connection: RFC 9293, loss recovery by time (RFC 8985) with selective
//! acknowledgements (RFC 2018), a tail loss probe, and Reno's congestion window (RFC 5681).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::TcpConfig;

const MILLI: u64 = 1_000_000;
/// "Never", for a timer.
pub(super) const NEVER: u64 = u64::MAX;
/// The least retransmission timeout, as Linux has it.
const MIN_RTO: u64 = 200 * MILLI;
/// The greatest one.
const MAX_RTO: u64 = 120_000 * MILLI;
/// The timeout before there is a sample of the round-trip time.
const FIRST_RTO: u64 = 1000 * MILLI;
/// Segments of the first congestion window (RFC 6928).
const FIRST_WINDOW: u64 = 10;

/// A segment that was sent and is not acknowledged.
struct Flight {
    seq: u64,
    data: Bytes,
    /// SYN or FIN: takes one number of the sequence.
    control: bool,
    sent_at: u64,
    again: bool,
    sacked: bool,
    lost: bool,
}

impl Flight {
    fn len(&self) -> u64 {
        self.data.len() as u64 + u64::from(self.control)
    }

    fn end(&self) -> u64 {
        self.seq + self.len()
    }
}

/// What to put into the next segment.
pub(super) struct Piece {
    pub(super) seq: u64,
    pub(super) data: Bytes,
    pub(super) control: bool,
}

/// What an acknowledgement did.
#[derive(Default)]
pub(super) struct Acked {
    pub(super) progress: bool,
    /// There is room for more in the send buffer.
    pub(super) freed: bool,
}

pub(super) struct Sender {
    una: u64,
    nxt: u64,
    flights: VecDeque<Flight>,
    unsent: VecDeque<Bytes>,
    /// Bytes written and not acknowledged.
    held: usize,
    fin_queued: bool,
    fin_sent: bool,
    /// The first number that the peer has no room for.
    edge: u64,
    window: u64,
    threshold: u64,
    recovery: Option<u64>,
    /// The recovery began with a timeout: the window grows again meanwhile.
    timed_out: bool,
    pipe: u64,
    lost: usize,
    srtt: Option<u64>,
    rttvar: u64,
    rto: u64,
    timeouts: u32,
    rto_at: u64,
    probe_at: u64,
    probed: bool,
    reorder_at: u64,
    persist_at: u64,
    persists: u32,
    /// When, and with what number, the newest of the delivered segments was sent; and its round trip.
    newest: (u64, u64),
    newest_rtt: u64,
    probe_window: bool,
    probe_tail: bool,
}

impl Sender {
    pub(super) fn new(mss: usize) -> Sender {
        Sender {
            una: 0,
            nxt: 0,
            flights: VecDeque::new(),
            unsent: VecDeque::new(),
            held: 0,
            fin_queued: false,
            fin_sent: false,
            edge: 1,
            window: FIRST_WINDOW * mss as u64,
            threshold: u64::MAX,
            recovery: None,
            timed_out: false,
            pipe: 0,
            lost: 0,
            srtt: None,
            rttvar: 0,
            rto: FIRST_RTO,
            timeouts: 0,
            rto_at: NEVER,
            probe_at: NEVER,
            probed: false,
            reorder_at: NEVER,
            persist_at: NEVER,
            persists: 0,
            newest: (0, 0),
            newest_rtt: 0,
            probe_window: false,
            probe_tail: false,
        }
    }

    pub(super) fn nxt(&self) -> u64 {
        self.nxt
    }

    pub(super) fn room(&self, config: &TcpConfig) -> usize {
        config.send_buffer.saturating_sub(self.held)
    }

    /// Timeouts in a row, of retransmission or of a closed window.
    pub(super) fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// Everything written has been acknowledged, the FIN too if there was one.
    pub(super) fn is_done(&self) -> bool {
        self.flights.is_empty() && self.unsent.is_empty() && (self.fin_sent || !self.fin_queued)
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.fin_queued
    }

    pub(super) fn write(&mut self, data: Bytes) {
        self.held += data.len();
        self.unsent.push_back(data);
    }

    pub(super) fn finish(&mut self) {
        self.fin_queued = true;
    }

    /// The SYN, which is the first thing sent.
    pub(super) fn open(&mut self, now: u64) -> Piece {
        self.track(now, Bytes::new(), true)
    }

    pub(super) fn deadline(&self) -> u64 {
        self.rto_at
            .min(self.probe_at)
            .min(self.reorder_at)
            .min(self.persist_at)
    }

    fn track(&mut self, now: u64, data: Bytes, control: bool) -> Piece {
        let seq = self.nxt;
        let flight = Flight {
            seq,
            data: data.clone(),
            control,
            sent_at: now,
            again: false,
            sacked: false,
            lost: false,
        };
        self.nxt = flight.end();
        self.pipe += flight.len();
        self.flights.push_back(flight);
        if self.rto_at == NEVER {
            self.rto_at = now + self.timeout();
        }
        self.arm_probe(now);
        Piece { seq, data, control }
    }

    fn timeout(&self) -> u64 {
        self.rto
            .saturating_mul(1 << self.timeouts.min(20))
            .min(MAX_RTO.max(self.rto))
    }

    fn arm_probe(&mut self, now: u64) {
        self.probe_at = NEVER;
        let Some(srtt) = self.srtt else { return };
        if self.probed || self.recovery.is_some() || self.flights.is_empty() {
            return;
        }
        let slack = if self.flights.len() == 1 {
            MIN_RTO
        } else {
            2 * MILLI
        };
        let at = now + 2 * srtt + slack;
        if at < self.rto_at {
            self.probe_at = at;
        }
    }

    /// What to send next, if anything may be sent.
    pub(super) fn poll(&mut self, now: u64, mss: usize) -> Option<Piece> {
        if self.lost > 0 && (self.pipe < self.window || self.pipe == 0) {
            return self.send_again(now);
        }
        if std::mem::take(&mut self.probe_tail)
            && let Some(last) = self
                .flights
                .iter_mut()
                .rev()
                .find(|flight| !flight.sacked && !flight.lost)
        {
            last.again = true;
            last.sent_at = now;
            return Some(Piece {
                seq: last.seq,
                data: last.data.clone(),
                control: last.control,
            });
        }
        if self.una == 0 {
            return None; // the SYN is under way
        }
        let probe = std::mem::take(&mut self.probe_window);
        if self.pipe < self.window || probe {
            if let Some(piece) = self.send_new(now, mss, probe) {
                return Some(piece);
            }
        }
        if self.fin_queued && !self.fin_sent && self.unsent.is_empty() {
            self.fin_sent = true;
            return Some(self.track(now, Bytes::new(), true));
        }
        None
    }

    fn send_again(&mut self, now: u64) -> Option<Piece> {
        let flight = self.flights.iter_mut().find(|flight| flight.lost)?;
        flight.lost = false;
        flight.again = true;
        flight.sent_at = now;
        self.lost -= 1;
        self.pipe += flight.len();
        let piece = Piece {
            seq: flight.seq,
            data: flight.data.clone(),
            control: flight.control,
        };
        if self.rto_at == NEVER {
            self.rto_at = now + self.timeout();
        }
        Some(piece)
    }

    fn send_new(&mut self, now: u64, mss: usize, probe: bool) -> Option<Piece> {
        if self.unsent.is_empty() {
            return None;
        }
        let room = self.edge.saturating_sub(self.nxt).max(u64::from(probe));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if room == 0 {
            if self.flights.is_empty() && self.persist_at == NEVER {
                self.persist_at = now + (self.rto << self.persists.min(10)).min(MAX_RTO);
            }
            return None;
        }
        self.persist_at = NEVER;
        let data = self.gather(mss.min(room));
        Some(self.track(now, data, false))
    }

    /// Up to `limit` bytes of what is unsent, without a copy where they lie in one piece.
    fn gather(&mut self, limit: usize) -> Bytes {
        let mut first = self.unsent.pop_front().unwrap_or_default();
        if first.len() > limit {
            let head = first.split_to(limit);
            self.unsent.push_front(first);
            return head;
        }
        if first.len() == limit || self.unsent.is_empty() {
            return first;
        }
        let mut all = BytesMut::with_capacity(limit);
        all.extend_from_slice(&first);
        while all.len() < limit {
            let Some(mut next) = self.unsent.pop_front() else {
                break;
            };
            let head = next.split_to(next.len().min(limit - all.len()));
            all.extend_from_slice(&head);
            if !next.is_empty() {
                self.unsent.push_front(next);
            }
        }
        all.freeze()
    }

    /// Takes an acknowledgement, with what lies above it (`sacks`) and where the peer's room ends.
    pub(super) fn acked(&mut self, now: u64, ack: u64, edge: u64, sacks: &[(u64, u64)], mss: usize) -> Acked {
        let mut told = Acked::default();
        if ack > self.nxt {
            return told;
        }
        if edge > self.edge {
            self.edge = edge;
            self.persist_at = NEVER;
            self.persists = 0;
        }
        let mut bytes = 0;
        while let Some(flight) = self.flights.front().filter(|flight| flight.end() <= ack) {
            bytes += flight.len();
            let (len, again, sent_at, end) = (flight.data.len(), flight.again, flight.sent_at, flight.end());
            if flight.lost {
                self.lost -= 1;
            } else if !flight.sacked {
                self.pipe -= flight.len();
            }
            self.held -= len;
            told.freed |= len > 0;
            if !again {
                self.sample(now - sent_at);
            }
            self.delivered(now, sent_at, end, again);
            self.flights.pop_front();
        }
        told.progress = ack > self.una;
        self.una = self.una.max(ack);
        for &(from, to) in sacks {
            self.mark_sacked(now, from, to);
        }
        if told.progress {
            self.timeouts = 0;
            self.probed = false;
            self.grow(bytes, mss as u64);
            self.rto_at = if self.flights.is_empty() {
                NEVER
            } else {
                now + self.timeout()
            };
            self.arm_probe(now);
        }
        if self.recovery.is_some_and(|until| self.una >= until) {
            self.recovery = None;
            self.timed_out = false;
        }
        if !self.flights.is_empty() {
            self.detect(now, mss as u64);
        } else {
            self.reorder_at = NEVER;
        }
        told
    }

    fn mark_sacked(&mut self, now: u64, from: u64, to: u64) {
        let mut news = None;
        for flight in &mut self.flights {
            if flight.seq >= to {
                break;
            }
            if flight.sacked || flight.seq < from || flight.end() > to {
                continue;
            }
            flight.sacked = true;
            if std::mem::take(&mut flight.lost) {
                self.lost -= 1;
            } else {
                self.pipe -= flight.len();
            }
            news = news.max(Some((flight.sent_at, flight.end(), flight.again)));
        }
        if let Some((sent_at, end, again)) = news {
            self.delivered(now, sent_at, end, again);
        }
    }

    fn delivered(&mut self, now: u64, sent_at: u64, end: u64, again: bool) {
        let rtt = now - sent_at;
        // RFC 8985 §6.2 step 2: an answer too quick for a retransmission belongs to the original.
        if again && self.srtt.is_some_and(|srtt| rtt < srtt / 2) {
            return;
        }
        if (sent_at, end) > self.newest {
            self.newest = (sent_at, end);
            self.newest_rtt = rtt;
        }
    }

    fn grow(&mut self, bytes: u64, mss: u64) {
        // RFC 5681 §3.1: after a timeout, slow start begins anew.
        let recovers = self.recovery.is_some() && !self.timed_out;
        if recovers || self.pipe + bytes < self.window / 2 {
            return;
        }
        if self.window < self.threshold {
            self.window += bytes;
        } else {
            self.window += (mss * bytes / self.window.max(1)).max(1);
        }
    }

    fn sample(&mut self, rtt: u64) {
        // RFC 6298 §2
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = (3 * self.rttvar + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((7 * srtt + rtt) / 8);
            }
        }
        let srtt = self.srtt.unwrap_or(rtt);
        self.rto = (srtt + (4 * self.rttvar).max(MIN_RTO)).min(MAX_RTO);
    }

    /// RFC 8985 §6.2 steps 4 and 5: what was sent before something that has arrived is lost, once it
    /// had time to be overtaken.
    fn detect(&mut self, now: u64, mss: u64) {
        self.reorder_at = NEVER;
        let sacked: u64 = self.flights.iter().filter(|f| f.sacked).map(Flight::len).sum();
        let patience = if sacked >= 3 * mss || self.recovery.is_some() {
            0
        } else {
            self.srtt.unwrap_or(FIRST_RTO) / 4
        };
        let mut found = false;
        for flight in &mut self.flights {
            if flight.sacked || flight.lost || (flight.sent_at, flight.end()) >= self.newest {
                continue;
            }
            let at = flight.sent_at + self.newest_rtt + patience;
            if at <= now {
                flight.lost = true;
                self.lost += 1;
                self.pipe -= flight.len();
                found = true;
            } else {
                self.reorder_at = self.reorder_at.min(at);
            }
        }
        if found && self.recovery.is_none() {
            self.threshold = (self.window / 10 * 7).max(2 * mss);
            self.window = self.threshold;
            self.recovery = Some(self.nxt);
        }
    }

    /// Looks at the timers. `poll` has something to send afterwards.
    pub(super) fn timeout_due(&mut self, now: u64, mss: usize) {
        if self.reorder_at <= now {
            self.detect(now, mss as u64);
        }
        if self.persist_at <= now {
            self.persist_at = NEVER;
            self.persists += 1;
            self.probe_window = true;
        }
        if self.probe_at <= now {
            self.probe_at = NEVER;
            self.probed = true;
            self.probe_tail = true;
            self.rto_at = now + self.timeout();
        } else if self.rto_at <= now {
            self.expire(now, mss as u64);
        }
    }

    fn expire(&mut self, now: u64, mss: u64) {
        self.timeouts += 1;
        self.threshold = (self.pipe.max(mss) / 2).max(2 * mss);
        self.window = mss;
        self.recovery = Some(self.nxt);
        self.timed_out = true;
        self.pipe = 0;
        self.lost = 0;
        for flight in self.flights.iter_mut().filter(|flight| !flight.sacked) {
            flight.lost = true;
            self.lost += 1;
        }
        self.probe_at = NEVER;
        self.reorder_at = NEVER;
        self.rto_at = now + self.timeout();
    }
}

//! What a session tells about itself.

use std::time::Duration;

use super::Session;
use super::config::EarlyStart;
use super::keys::PathKey;
use super::path::Stage;

/// A path's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// Its handshake is under way.
    Handshake,
    /// It carries the data.
    Active,
    /// It is warm and waits.
    Standby,
    /// It makes no progress.
    Suspect,
    /// Its connection is being closed.
    Closing,
}

/// One path, in numbers.
#[derive(Clone, Debug)]
pub struct PathStats {
    /// Its description.
    pub name: std::sync::Arc<str>,
    /// Its kind of transport.
    pub transport: &'static str,
    /// Its number on the wire.
    pub id: u64,
    /// Its standing.
    pub state: PathState,
    /// Smoothed round-trip time; `None` before the first sample.
    pub rtt: Option<Duration>,
    /// The shortest round trip seen of late; `None` before the first sample.
    pub rtt_min: Option<Duration>,
    /// Variation of the round-trip time.
    pub rtt_variance: Duration,
    /// Bytes in records sent.
    pub bytes_sent: u64,
    /// Bytes in records received.
    pub bytes_received: u64,
    /// Records sent.
    pub records_sent: u64,
    /// Records received.
    pub records_received: u64,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// The bound on them.
    pub in_flight_limit: u64,
    /// Delivery rate in bytes per second; 0 while unknown.
    pub delivery_rate: u64,
    /// Whether it began before its carrier's handshake was done, and what came of that (PROTOCOL 14.8).
    pub early: EarlyStart,
}

/// A session, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Paths attached, those in handshake included.
    pub paths: usize,
    /// Live streams, those of messages included.
    pub streams: usize,
    /// Times that data moved to another path, the first included.
    pub switches: u64,
    /// Times that nothing moved while there was something to send, as [`super::Event::Standstill`] has it.
    pub standstills: u64,
    /// The longest of them.
    pub longest_standstill: Duration,
    /// All of them together.
    pub time_at_standstill: Duration,
    /// Bytes written and not yet acknowledged.
    pub buffered: u64,
    /// Unreliable messages and datagrams dropped because nobody read them.
    pub datagrams_dropped: u64,
}

impl Session {
    /// The session in numbers.
    pub fn stats(&self) -> Stats {
        Stats {
            paths: self.paths.len(),
            streams: self.streams.len(),
            switches: self.switches,
            standstills: self.standstill.count,
            longest_standstill: self.standstill.longest,
            time_at_standstill: self.standstill.total,
            buffered: self.buffered,
            datagrams_dropped: self.datagrams.dropped,
        }
    }

    /// Every path that is attached, in no order that means anything.
    pub fn paths(&self) -> impl Iterator<Item = PathKey> + '_ {
        self.paths.iter().map(|(slot, _)| self.path_key(slot))
    }

    /// The path that carries the data.
    pub fn active_path(&self) -> Option<PathKey> {
        self.active.map(|slot| self.path_key(slot))
    }

    /// One path in numbers.
    pub fn path_stats(&self, key: PathKey) -> Option<PathStats> {
        let slot = self.path_slot(key)?;
        let path = &self.paths[slot];
        let state = match path.stage {
            Stage::Closing => PathState::Closing,
            Stage::Live | Stage::Welcomed if path.suspicion.is_some() => PathState::Suspect,
            Stage::Live | Stage::Welcomed if self.active == Some(slot) => PathState::Active,
            Stage::Live | Stage::Welcomed => PathState::Standby,
            _ => PathState::Handshake,
        };
        Some(PathStats {
            name: path.info.name.clone(),
            transport: path.info.transport,
            id: path.id,
            state,
            rtt: path.rtt.smoothed(),
            rtt_min: Some(path.rtt.minimum()).filter(|least| *least != Duration::MAX),
            rtt_variance: path.rtt.variance(),
            bytes_sent: path.bytes_sent,
            bytes_received: path.bytes_received,
            records_sent: path.records_sent,
            records_received: path.records_received,
            in_flight: path.in_flight(),
            in_flight_limit: path.limit(),
            delivery_rate: path.rate.bytes_per_second(),
            early: path.info.early,
        })
    }
}

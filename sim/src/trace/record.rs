//! What a trace is made of.

use std::net::SocketAddrV4;

use serde::Serialize;

use crate::fault::Fault;
use crate::net::Drop;

/// Whether a fault begins, ends, or is over as soon as it took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// From here on.
    Begins,
    /// Until here.
    Ends,
    /// At this moment only.
    Happens,
}

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostPower {
    /// It runs.
    Running,
    /// Its programs are stopped; its kernel runs.
    Paused,
    /// All of it is stopped.
    Suspended,
    /// It lost power.
    Crashed,
}

/// What became of a TCP connection, as one of its ends sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionEvent {
    /// It is being connected.
    Calls,
    /// Its handshake is done.
    Opens,
    /// An error ended it: a reset, a refusal, or no answer for too long.
    Fails {
        /// Which error.
        error: String,
    },
    /// Both ends have closed it, or its program let go of it after it had failed.
    Closes,
}

/// The standing of a session's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathPhase {
    /// Its handshake is under way.
    Handshake,
    /// It carries the data.
    Active,
    /// It is warm and waits.
    Standby,
    /// It makes no progress.
    Suspect,
    /// It is being closed.
    Closing,
    /// It has ended.
    Down,
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// The queue was full.
    pub queue: u32,
    /// Lost on the way.
    pub loss: u32,
    /// Longer than the MTU.
    pub mtu: u32,
    /// Damaged.
    pub checksum: u32,
    /// Cut off.
    pub partition: u32,
    /// Nobody was there.
    pub down: u32,
    /// Stopped by a middlebox.
    pub filter: u32,
}

impl Drops {
    pub(crate) fn add(&mut self, reason: Drop) {
        let count = match reason {
            Drop::Queue => &mut self.queue,
            Drop::Loss => &mut self.loss,
            Drop::Mtu => &mut self.mtu,
            Drop::Checksum => &mut self.checksum,
            Drop::Partition => &mut self.partition,
            Drop::Down => &mut self.down,
            Drop::Filter => &mut self.filter,
        };
        *count += 1;
    }

    pub(crate) fn named(&self) -> [(&'static str, u32); 7] {
        [
            ("queue full", self.queue),
            ("lost", self.loss),
            ("too long", self.mtu),
            ("damaged", self.checksum),
            ("cut off", self.partition),
            ("nobody there", self.down),
            ("filtered", self.filter),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn merge(&mut self, other: &Drops) {
        self.queue += other.queue;
        self.loss += other.loss;
        self.mtu += other.mtu;
        self.checksum += other.checksum;
        self.partition += other.partition;
        self.down += other.down;
        self.filter += other.filter;
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A packet was put onto a link, or thrown away at one of its ends.
    Packet {
        /// The network.
        network: String,
        /// The host that sends.
        from: String,
        /// The host that is to receive.
        to: String,
        /// Where it comes from.
        source: SocketAddrV4,
        /// Where it goes.
        destination: SocketAddrV4,
        /// `tcp` with its flags, or `udp`.
        kind: String,
        /// The first number of its sequence.
        seq: u64,
        /// What it acknowledges.
        ack: u64,
        /// Bytes of payload.
        len: usize,
        /// Bytes with headers.
        size: usize,
        /// When the first copy arrives.
        arrives: Option<u64>,
        /// Why none does.
        dropped: Option<Drop>,
        /// Whether it was thrown away at one of the link's ends, before or after it was on the link.
        at_end: bool,
    },
    /// What one direction of a link carried from here on until a moment.
    Traffic {
        /// The network.
        network: String,
        /// The host that sends.
        from: String,
        /// The host that receives.
        to: String,
        /// The end of the interval, in nanoseconds since the world began.
        until: u64,
        /// Packets put onto the link.
        packets: u32,
        /// Their bytes, with headers.
        bytes: u64,
        /// Of these bytes, those that were not dropped.
        carried: u64,
        /// Packets that were dropped, on the link or at its ends.
        drops: Drops,
    },
    /// A TCP connection, as one end sees it.
    Connection {
        /// The host.
        host: String,
        /// Its own address.
        local: SocketAddrV4,
        /// The other end's.
        remote: SocketAddrV4,
        /// What became of it.
        event: ConnectionEvent,
    },
    /// A fault.
    Fault {
        /// Whether it begins or ends.
        phase: Phase,
        /// The same for the beginning and the end of one fault.
        key: String,
        /// In words.
        text: String,
        /// What it was.
        fault: Fault,
    },
    /// A host came to run, or ceased to.
    Power {
        /// The host.
        host: String,
        /// What it does from here on.
        power: HostPower,
    },
    /// A program had something to say.
    Note {
        /// The host it runs on.
        host: String,
        /// What it said.
        text: String,
    },
    /// A session's lifecycle moved.
    Session {
        /// The host.
        host: String,
        /// The session's number in this world; its two ends have one each.
        session: u32,
        /// The identifier that both its ends have in common, once there is one.
        id: Option<String>,
        /// `client` or `server`.
        side: &'static str,
        /// The state that it came to.
        state: String,
        /// Why.
        cause: String,
    },
    /// A session's path came to another standing.
    Path {
        /// The host.
        host: String,
        /// The session's number.
        session: u32,
        /// The path's number within the session, as this end counts them.
        path: u32,
        /// What the path is called.
        name: String,
        /// Its standing from here on.
        phase: PathPhase,
        /// Why it ended.
        why: Option<String>,
        /// Bytes in records sent on it so far.
        sent: u64,
        /// Bytes in records received on it so far.
        received: u64,
    },
    /// A session's data moved to another path.
    Switch {
        /// The host.
        host: String,
        /// The session's number.
        session: u32,
        /// The path it left, if there was one.
        from: Option<u32>,
        /// The path it went to.
        to: u32,
        /// Why.
        cause: String,
        /// Nanoseconds from the last bytes received over the active path before, to the first received over the
        /// new one; `None` if none came, or none had come before.
        gap: Option<u64>,
    },
    /// A run failed.
    Failure {
        /// In words.
        text: String,
    },
}

/// Something that happened, and when.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Nanoseconds since the world began.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

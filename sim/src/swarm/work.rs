//! The work items of a plan.

use std::fmt;
use std::time::Duration;

use sheetbend_core::rng::Rng;
use sheetbend_runtime::{CallKind, Class, Delivery, Side};

use super::plan::{Item, Plan, What, millis, pick};

/// What a handler does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answers with so many bytes.
    Bytes(u32),
    /// Answers with a failure.
    Fail(u32),
    /// Drops it.
    Drop,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With everything written and read.
    Whole,
    /// Its writer resets it once so many bytes are written.
    ResetAt(u64),
    /// Its reader stops it once so many bytes are read.
    StopAt(u64),
}

/// Something to be done over a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// A request.
    Request {
        /// Bytes of its body; at least a header that says whose it is.
        size: u32,
        /// What comes back.
        answer: Answer,
        /// How long the handler takes.
        takes: Duration,
        /// Given up after so long.
        cancel: Option<Duration>,
    },
    /// A stream with both directions or one.
    Stream {
        /// Whether the reader answers with a stream of `back` bytes.
        back: Option<u64>,
        /// Its class.
        class: Class,
        /// Bytes written, the header not counted.
        size: u64,
        /// Bytes written at a time, and the pause after each.
        write: (u32, Duration),
        /// Bytes read at a time, and the pause after each.
        read: (u32, Duration),
        /// How it ends.
        ending: Ending,
    },
    /// Messages of one class, one after the other.
    Messages {
        /// The class.
        class: Class,
        /// How they travel.
        delivery: Delivery,
        /// How many.
        count: u32,
        /// The longest payload.
        size: u32,
        /// The pause after each.
        pause: Duration,
        /// Whether the sender asks what became of each.
        tracked: bool,
    },
    /// A call by a policy of its own: it is tried again as long as that may be.
    Call {
        /// Of which kind.
        kind: CallKind,
        /// Items, where there are such.
        count: u32,
        /// The longest payload or item.
        size: u32,
        /// How long the handler takes.
        takes: Duration,
        /// How long its caller waits.
        deadline: Option<Duration>,
        /// Executed once under a key.
        keyed: bool,
        /// The most attempts.
        tries: u32,
        /// Given up after so long.
        cancel: Option<Duration>,
    },
    /// Datagrams.
    Datagrams {
        /// How many.
        count: u32,
        /// The longest payload.
        size: u32,
        /// The pause after each.
        pause: Duration,
    },
    /// The session is closed; its client makes another.
    Close {
        /// The code.
        code: u64,
    },
    /// The session is drained: it closes once what is open is done, and its client makes another.
    Drain,
    /// A client makes a session of its own, sends some messages and lets go of it.
    Visit {
        /// The messages' class.
        class: Class,
        /// How many.
        count: u32,
        /// The longest payload.
        size: u32,
    },
}

impl Job {
    /// Of a stream.
    pub fn class(&self) -> Option<Class> {
        match self {
            Job::Stream { class, .. } | Job::Messages { class, .. } | Job::Visit { class, .. } => {
                Some(*class)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// [`Job::Request`]
    Request,
    /// [`Job::Call`]
    Call,
    /// [`Job::Request`] that are given up, fail or are dropped.
    Refused,
    /// [`Job::Stream`] in one direction.
    Uni,
    /// [`Job::Stream`] in both.
    Bi,
    /// [`Job::Stream`] with a slow reader.
    Slow,
    /// [`Job::Stream`] that are reset or stopped.
    Broken,
    /// [`Delivery::Ordered`]
    Ordered,
    /// [`Delivery::Unordered`]
    Unordered,
    /// [`Delivery::Unreliable`]
    Unreliable,
    /// Messages whose outcome is asked for.
    Tracked,
    /// [`Job::Datagrams`]
    Datagrams,
    /// [`Job::Close`]
    Close,
    /// [`Job::Drain`]
    Drain,
    /// [`Job::Visit`]
    Visit,
}

impl JobKind {
    /// All of them.
    pub const ALL: &[JobKind] = &[
        JobKind::Request,
        JobKind::Call,
        JobKind::Refused,
        JobKind::Uni,
        JobKind::Bi,
        JobKind::Slow,
        JobKind::Broken,
        JobKind::Ordered,
        JobKind::Unordered,
        JobKind::Unreliable,
        JobKind::Tracked,
        JobKind::Datagrams,
        JobKind::Close,
        JobKind::Drain,
        JobKind::Visit,
    ];
}

fn size(rng: &mut Rng) -> u64 {
    let most = pick(rng, &[20, 2000, 30_000, 200_000]);
    rng.below(most)
}

fn few(rng: &mut Rng) -> u64 {
    let most = pick(rng, &[1, 10, 60]);
    rng.below(most)
}

/// None, or one of at most so many milliseconds.
fn pause(rng: &mut Rng, most: u64) -> Duration {
    match rng.below(2) {
        0 => Duration::ZERO,
        _ => millis(rng, 0, most),
    }
}

fn request(rng: &mut Rng, refused: bool) -> Job {
    let answer = match rng.below(3) {
        0 if refused => Answer::Fail(rng.below(100) as u32),
        1 if refused => Answer::Drop,
        _ => Answer::Bytes(size(rng) as u32),
    };
    Job::Request {
        size: size(rng) as u32,
        answer,
        takes: pause(rng, 300),
        cancel: (refused && rng.below(2) == 0).then(|| millis(rng, 0, 400)),
    }
}

fn call(rng: &mut Rng) -> Job {
    let kind = pick(
        rng,
        &[
            CallKind::Unary,
            CallKind::Unary,
            CallKind::ServerStreaming,
            CallKind::ClientStreaming,
            CallKind::Bidirectional,
        ],
    );
    let keyed = kind == CallKind::Unary && rng.below(2) == 0;
    Job::Call {
        kind,
        count: few(rng) as u32,
        size: pick(rng, &[0, 100, 3000, 100_000]),
        takes: pause(rng, 300),
        deadline: (rng.below(2) == 0).then(|| millis(rng, 1, 2000)),
        keyed,
        tries: 1 + rng.below(4) as u32,
        cancel: (rng.below(4) == 0).then(|| millis(rng, 0, 400)),
    }
}

fn stream(rng: &mut Rng, kind: JobKind, class: Class) -> Job {
    let bytes = size(rng);
    let bi = kind != JobKind::Uni && (kind == JobKind::Bi || rng.below(2) == 0) && class != Class::REQUESTS;
    let slow = kind == JobKind::Slow;
    let chunk = |rng: &mut Rng| 1 + (bytes / 20) as u32 + rng.below(10_000) as u32;
    Job::Stream {
        back: bi.then(|| size(rng)),
        class,
        size: bytes,
        write: (chunk(rng), pause(rng, 10)),
        read: (chunk(rng), if slow { millis(rng, 5, 60) } else { Duration::ZERO }),
        ending: match rng.below(2) {
            0 if kind == JobKind::Broken => Ending::ResetAt(rng.below(bytes + 1)),
            1 if kind == JobKind::Broken => Ending::StopAt(rng.below(bytes + 1)),
            _ => Ending::Whole,
        },
    }
}

fn messages(rng: &mut Rng, kind: JobKind, class: Class) -> Job {
    let ttl = millis(rng, 0, 3000);
    let delivery = match kind {
        JobKind::Ordered => Delivery::Ordered,
        JobKind::Unordered => Delivery::Unordered,
        JobKind::Unreliable => Delivery::Unreliable { ttl },
        _ => pick(
            rng,
            &[
                Delivery::Ordered,
                Delivery::Unordered,
                Delivery::Unreliable { ttl },
            ],
        ),
    };
    let small = matches!(delivery, Delivery::Unreliable { .. });
    Job::Messages {
        class,
        delivery,
        count: 1 + few(rng) as u32,
        size: pick(rng, &[0, 100, 3000, if small { 1000 } else { 40_000 }]),
        pause: pause(rng, 50),
        tracked: kind == JobKind::Tracked,
    }
}

pub(super) fn item(rng: &mut Rng, number: u32, plan: &Plan, kinds: &[JobKind]) -> Item {
    let kind = pick(rng, kinds);
    let class = pick(rng, &plan.classes);
    let job = match kind {
        // Sessions that are closed all the time get little done.
        JobKind::Close | JobKind::Drain if rng.below(4) > 0 => request(rng, false),
        JobKind::Drain => Job::Drain,
        JobKind::Visit => Job::Visit {
            class,
            count: 1 + few(rng) as u32,
            size: pick(rng, &[0, 100, 3000]),
        },
        JobKind::Close => Job::Close {
            code: 16 + rng.below(50),
        },
        JobKind::Request | JobKind::Refused => request(rng, kind == JobKind::Refused),
        JobKind::Call => call(rng),
        JobKind::Uni | JobKind::Bi | JobKind::Slow | JobKind::Broken => stream(rng, kind, class),
        JobKind::Ordered | JobKind::Unordered | JobKind::Unreliable | JobKind::Tracked => {
            messages(rng, kind, class)
        }
        JobKind::Datagrams => Job::Datagrams {
            count: 1 + rng.below(30) as u32,
            size: pick(rng, &[0, 100, 1000, 20_000]),
            pause: pause(rng, 50),
        },
    };
    let visit = matches!(job, Job::Visit { .. });
    let sides: &[Side] = if visit {
        &[Side::Client]
    } else {
        &[Side::Client, Side::Client, Side::Server]
    };
    Item {
        number,
        at: rng.duration(Duration::ZERO, plan.horizon),
        what: What::Work {
            client: rng.below(plan.clients.len() as u64) as usize,
            side: pick(rng, sides),
            job,
        },
    }
}

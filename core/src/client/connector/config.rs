//! The settings of a connector.

use std::time::Duration;

use super::MAX_PATHS;
use crate::policy::BackoffPolicy;

/// How many paths to keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One.
    Single,
    /// This many (1 to [`MAX_PATHS`]), on different endpoints where possible.
    Standby {
        /// The number.
        paths: usize,
    },
}

impl Mode {
    pub(super) fn paths(self) -> usize {
        match self {
            Mode::Single => 1,
            Mode::Standby { paths } => paths.clamp(1, MAX_PATHS),
        }
    }
}

/// What an endpoint has in common with others. Two of one kind are likely to fail together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Numbers the transport.
    pub transport: u32,
    /// Numbers the host.
    pub host: u32,
}

/// The settings of a [`Connector`](super::Connector).
#[derive(Clone, Debug)]
pub struct Config {
    /// How many endpoints there are; the lower the index, the more it is preferred.
    pub endpoints: usize,
    /// What each has in common with others; those that nothing is said of are hosts of their own, with one transport.
    pub kinds: Vec<Kind>,
    /// How many of them, the last, are a last resort: while no path is up they wait until each other has failed, or for
    /// [`resort_after`](Config::resort_after).
    pub last_resorts: usize,
    /// How long a last resort waits from the beginning of an outage.
    pub resort_after: Duration,
    /// How many paths to keep up.
    pub mode: Mode,
    /// The time between the starts of attempts that race (RFC 8305 §5). Where it is known how long the handshake of
    /// the one that was started takes, three quarters of that if it is longer, at most [`Config::max_stagger`].
    pub stagger: Duration,
    /// The longest time between them.
    pub max_stagger: Duration,
    /// While no path is up, an endpoint whose attempt has not finished is tried once more after
    /// this long; after each further one twice as long. A SYN may be lost, a connection mute. Early
    /// in an outage an endpoint that was up before is tried at twice the time its handshake took.
    /// One that is broken waits so long from the beginning of an outage, while there is hope for others.
    pub hedge_after: Duration,
    /// An attempt that has not finished by then is given up.
    pub connect_timeout: Duration,
    /// A path that lives longer has proven its endpoint, whose backoff starts over.
    pub proven_after: Duration,
    /// So does one that lived this long and is known to have worked
    /// ([`handle_path_worked`](super::Connector::handle_path_worked)), though the next attempt then waits for its first delay.
    pub worked_after: Duration,
    /// Each endpoint's delays. Its cap holds in the long run: 4 s by default, so that a server that is back has its
    /// clients back within five, at an even rate.
    pub backoff: BackoffPolicy,
    /// The cap on delays in the first [`early_for`](Config::early_for) of an outage.
    pub early_cap: Duration,
    /// How long that is.
    pub early_for: Duration,
    /// The cap on delays from then until [`outage_for`](Config::outage_for) into an outage.
    pub outage_cap: Duration,
    /// How long that is.
    pub outage_for: Duration,
    /// The least delay after a REJECT; jittered down to half of it.
    pub rejected_delay: Duration,
    /// The least delay after a failure that only somebody's hand mends ([`Down::Hopeless`](super::Down::Hopeless));
    /// jittered down to half of it.
    pub hopeless_delay: Duration,
    /// Whether an endpoint that is preferred to all that are up is tried while enough paths are: at once if it was not
    /// tried before, otherwise when it is not broken any more and has earned trust again. When its path has proven
    /// itself, the least preferred one is surplus.
    pub upgrade: bool,
    /// The most attempts under way.
    pub max_in_flight: usize,
    /// The most attempts under way to one endpoint.
    pub max_in_flight_per_endpoint: usize,
}

impl Config {
    /// The defaults for `endpoints` endpoints and one path.
    pub fn new(endpoints: usize) -> Config {
        Config {
            endpoints,
            kinds: Vec::new(),
            last_resorts: 0,
            resort_after: Duration::from_secs(2),
            mode: Mode::Single,
            stagger: Duration::from_millis(100),
            max_stagger: Duration::from_secs(2),
            hedge_after: Duration::from_millis(400),
            connect_timeout: Duration::from_secs(5),
            proven_after: Duration::from_secs(1),
            worked_after: Duration::from_millis(50),
            backoff: BackoffPolicy::spread(Duration::from_millis(10), Duration::from_secs(4)),
            early_cap: Duration::from_millis(100),
            early_for: Duration::from_secs(2),
            outage_cap: Duration::from_secs(2),
            outage_for: Duration::from_secs(5),
            rejected_delay: Duration::from_millis(500),
            hopeless_delay: Duration::from_secs(30),
            upgrade: true,
            max_in_flight: 8,
            max_in_flight_per_endpoint: 4,
        }
    }

    /// What the endpoint has in common with others.
    pub(super) fn kind(&self, index: usize) -> Kind {
        let alone = Kind {
            transport: 0,
            host: u32::try_from(index).unwrap_or(u32::MAX),
        };
        self.kinds.get(index).copied().unwrap_or(alone)
    }
}

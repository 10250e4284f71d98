//! The faults that the demo causes.

use std::time::Duration;

/// A way to break a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Closed with a FIN both ways.
    Cut,
    /// Closed with a RST both ways.
    Reset,
    /// Silent both ways, without closing, for so long.
    Stall(Duration),
    /// Silent towards the server only.
    OneWayStall(Duration),
    /// Closed, and new connections are refused for a while.
    Refuse,
    /// Everything is late for a while.
    Delay,
    /// Hardly anything gets through for a while.
    Throttle,
    /// Every path is closed, and new connections are refused for so long.
    Outage(Duration),
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How late everything is in a delay burst.
pub(super) const DELAY: Duration = ms(300);
/// How long a delay burst lasts.
pub(super) const DELAY_LASTS: Duration = ms(450);
/// What gets through a throttled path, in bytes per second.
pub(super) const THROTTLE: u64 = 4_000;
/// How long a path is throttled.
pub(super) const THROTTLE_LASTS: Duration = ms(500);
/// How long connections are refused.
pub(super) const REFUSE_LASTS: Duration = ms(300);

/// The faults in the order in which they come, again and again.
pub(super) const CYCLE: [Fault; 14] = [
    Fault::Cut,
    Fault::Stall(ms(300)),
    Fault::Reset,
    Fault::Outage(ms(300)),
    Fault::Cut,
    Fault::Delay,
    Fault::Stall(ms(1200)),
    Fault::Refuse,
    Fault::OneWayStall(ms(300)),
    Fault::Reset,
    Fault::Cut,
    Fault::Outage(ms(900)),
    Fault::Throttle,
    Fault::Stall(ms(300)),
];

impl Fault {
    /// The cause of the switches that it makes, in the report.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Fault::Cut => "cut",
            Fault::Reset => "reset",
            Fault::Stall(_) => "stall",
            Fault::OneWayStall(_) => "one-way stall",
            Fault::Refuse => "refuse",
            Fault::Delay => "delay",
            Fault::Throttle => "throttle",
            Fault::Outage(_) => "outage",
        }
    }

    /// What a broken path is called in the table.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Fault::Cut => "cut",
            Fault::Reset => "reset",
            Fault::Stall(_) => "silent",
            Fault::OneWayStall(_) => "half silent",
            Fault::Refuse | Fault::Outage(_) => "refused",
            Fault::Delay => "late",
            Fault::Throttle => "throttled",
        }
    }

    /// What is happening, in words.
    pub(super) fn words(self, way: &str) -> String {
        match self {
            Fault::Cut => format!("{way} is cut (FIN)"),
            Fault::Reset => format!("{way} is reset (RST)"),
            Fault::Stall(_) => format!("{way} falls silent without closing"),
            Fault::OneWayStall(_) => format!("{way} falls silent towards the server"),
            Fault::Refuse => format!("{way} is cut and refuses connections"),
            Fault::Delay => format!("{way} delivers everything {} ms late", DELAY.as_millis()),
            Fault::Throttle => format!("{way} is throttled to {} kB/s", THROTTLE / 1000),
            Fault::Outage(time) => format!("every path is cut for {} ms", time.as_millis()),
        }
    }

    /// Whether it concerns all paths.
    pub(super) fn is_outage(self) -> bool {
        matches!(self, Fault::Outage(_))
    }
}

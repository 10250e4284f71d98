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
    /// Nothing of its flow gets through any more, and nobody says so: UDP.
    Block,
    /// An address translation gives it another port: UDP.
    Rebind,
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
/// What ends connections for good, over TCP and Unix sockets.
const HARD: [Fault; 2] = [Fault::Cut, Fault::Reset];

/// What falls silent and says nothing, and comes back.
const SILENT: [Fault; 6] = [
    Fault::Stall(ms(300)),
    Fault::OneWayStall(ms(300)),
    Fault::Delay,
    Fault::Stall(ms(1200)),
    Fault::Throttle,
    Fault::Stall(ms(300)),
];

/// The same for UDP, which nothing ends: what is blocked is silent, too.
const DATAGRAMS: [Fault; 6] = [
    Fault::Block,
    Fault::Stall(ms(300)),
    Fault::Block,
    Fault::Rebind,
    Fault::Block,
    Fault::OneWayStall(ms(300)),
];

const OUTAGES: [Fault; 2] = [Fault::Outage(ms(300)), Fault::Outage(ms(900))];
/// One fault in so many is an outage.
const OUTAGE_EVERY: usize = 9;

/// Which fault comes next: as many that end connections as such that are silent, and an outage now and then.
#[derive(Debug, Default)]
pub(super) struct Plan {
    hard: usize,
    silent: usize,
    over_udp: usize,
    outages: usize,
}

impl Plan {
    /// The next, for a path over UDP or not.
    pub(super) fn next(&mut self, udp: bool) -> Fault {
        fn take(faults: &[Fault], count: &mut usize) -> Fault {
            *count += 1;
            faults[(*count - 1) % faults.len()]
        }
        let all = self.hard + self.silent + self.over_udp + self.outages;
        if all % OUTAGE_EVERY == OUTAGE_EVERY / 2 {
            take(&OUTAGES, &mut self.outages)
        } else if udp {
            take(&DATAGRAMS, &mut self.over_udp)
        } else if self.hard <= self.silent + self.over_udp {
            take(&HARD, &mut self.hard)
        } else {
            take(&SILENT, &mut self.silent)
        }
    }
}

impl Fault {
    /// The cause of the switches that it makes, in the report.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Fault::Cut => "cut",
            Fault::Reset => "reset",
            Fault::Stall(_) => "stall",
            Fault::OneWayStall(_) => "one-way stall",
            Fault::Block => "blocked",
            Fault::Rebind => "rebinding",
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
            Fault::Block => "blocked",
            Fault::Rebind => "rebound",
            Fault::Outage(_) => "refused",
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
            Fault::Block => format!("{way} is blocked: nothing gets through, and nobody says so"),
            Fault::Rebind => format!("{way} gets another port from an address translation"),
            Fault::Delay => format!("{way} delivers everything {} ms late", DELAY.as_millis()),
            Fault::Throttle => format!("{way} is throttled to {} kB/s", THROTTLE / 1000),
            Fault::Outage(time) => format!("every path is cut for {} ms", time.as_millis()),
        }
    }

    /// Whether its way is closed for a while afterwards, so that the others have their turn.
    pub(super) fn closes(self) -> bool {
        matches!(self, Fault::Cut | Fault::Reset | Fault::Block)
    }

    /// Whether it concerns all paths.
    pub(super) fn is_outage(self) -> bool {
        matches!(self, Fault::Outage(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_connections_and_what_is_silent_come_as_often() {
        let mut plan = Plan::default();
        let faults: Vec<Fault> = (0..72).map(|number| plan.next(number % 5 == 4)).collect();
        assert_eq!(faults[0], Fault::Cut);
        let count = |of: fn(&Fault) -> bool| faults.iter().filter(|fault| of(fault)).count();
        let outages = count(|fault| fault.is_outage());
        assert_eq!(outages, 8);
        let hard = count(|fault| HARD.contains(fault));
        assert!((0..2).contains(&(hard * 2).abs_diff(72 - outages)), "{hard}");
    }
}

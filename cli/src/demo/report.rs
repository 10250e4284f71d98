//! What the demo found, in the shape that `--json` prints.

use serde::Serialize;
use std::time::Duration;

/// Requests and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests sent.
    pub sent: u64,
    /// Requests that were answered, each counted once.
    pub answered: u64,
    /// Requests that never were.
    pub lost: u64,
    /// Requests that the server ran more than once.
    pub duplicated: u64,
}

/// Messages and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// Messages sent.
    pub sent: u64,
    /// Messages that arrived, each counted once.
    pub delivered: u64,
    /// Messages that never arrived.
    pub lost: u64,
    /// Arrivals beyond the first of a message, or of something that was never sent.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
}

/// The byte stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Bytes received.
    pub bytes: u64,
    /// Whether they are those that were sent, all of them, in order.
    pub intact: bool,
}

/// One move of the session from one path to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Switch {
    /// The path left.
    pub from: String,
    /// The path taken.
    pub to: String,
    /// The fault that made it necessary.
    pub cause: String,
    /// The longest silence at the receiver around it, in milliseconds.
    pub gap_ms: f64,
    /// The session's own reason: closed, reset, suspect, preferred, …
    #[serde(skip_serializing_if = "str::is_empty")]
    pub session: &'static str,
    /// When it happened, since the demo began; shown in the table only.
    #[serde(skip)]
    pub at: Duration,
}

impl Switch {
    /// A switch with its gap rounded to microseconds.
    pub fn new(at: Duration, from: &str, to: &str, cause: &str, gap: Duration) -> Self {
        Switch {
            from: from.to_owned(),
            to: to.to_owned(),
            cause: cause.to_owned(),
            gap_ms: milliseconds(gap),
            session: "",
            at,
        }
    }

    /// The same with the session's own reason.
    pub fn told_as(mut self, session: &'static str) -> Self {
        self.session = session;
        self
    }

    /// Sets the gap, once it is known.
    pub fn set_gap(&mut self, gap: Duration) {
        self.gap_ms = milliseconds(gap);
    }

    /// The gap as a time.
    pub fn gap(&self) -> Duration {
        Duration::try_from_secs_f64(self.gap_ms / 1e3).unwrap_or_default()
    }
}

/// A time in which every path was cut and refused.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Outage {
    /// How long it lasted.
    pub down_ms: f64,
    /// From its end to the first message that arrived.
    pub after_end_ms: f64,
    /// From the first connection that was accepted to the first message that arrived.
    pub after_attempt_ms: f64,
}

impl Outage {
    /// An outage with its times rounded to microseconds.
    pub fn new(down: Duration, after_end: Duration, after_attempt: Duration) -> Self {
        Outage {
            down_ms: milliseconds(down),
            after_end_ms: milliseconds(after_end),
            after_attempt_ms: milliseconds(after_attempt),
        }
    }
}

/// Milliseconds, rounded to microseconds.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A promise about gaps, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// What is measured.
    pub name: &'static str,
    /// How many times it was.
    pub samples: usize,
    /// The median of them.
    pub median_ms: f64,
    /// What it shall be below.
    pub below_ms: f64,
    /// Whether it is.
    pub met: bool,
}

impl Gate {
    fn new(name: &'static str, below_ms: f64, times: impl Iterator<Item = f64>) -> Option<Gate> {
        let mut times: Vec<_> = times.map(|ms| Duration::from_secs_f64(ms / 1e3)).collect();
        let samples = times.len();
        let median_ms = milliseconds(median(&mut times));
        (samples > 0).then_some(Gate {
            name,
            samples,
            median_ms,
            below_ms,
            met: median_ms < below_ms,
        })
    }
}

/// The whole result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    ok: bool,
    /// The transports that carried something.
    pub transports: Vec<String>,
    /// Requests.
    pub requests: Requests,
    /// Messages.
    pub messages: Messages,
    /// The byte stream.
    pub stream: Stream,
    /// Every switch, in order.
    pub switches: Vec<Switch>,
    /// How long the demo ran.
    pub seconds: f64,
    /// Every time in which no path could be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
    /// The promises about gaps that could be judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
}

/// One line of the summary: a cause and the gaps that it made.
#[derive(Debug, Clone, PartialEq)]
pub struct CauseGaps {
    /// The cause.
    pub cause: String,
    /// How many switches it caused.
    pub switches: usize,
    /// The median of their gaps.
    pub median: Duration,
    /// The longest of their gaps.
    pub longest: Duration,
}

impl Report {
    /// Puts the parts together and judges them.
    pub fn new(
        transports: Vec<String>,
        requests: Requests,
        messages: Messages,
        stream: Stream,
        switches: Vec<Switch>,
        ran: Duration,
    ) -> Self {
        // A run in which nothing was sent has shown nothing.
        let ran_at_all = requests.sent > 0 && messages.sent > 0 && stream.bytes > 0;
        let whole = requests.answered == requests.sent
            && requests.lost + requests.duplicated == 0
            && messages.delivered == messages.sent
            && messages.lost + messages.duplicated + messages.reordered == 0
            && stream.intact;
        let seconds = (ran.as_secs_f64() * 1e3).round() / 1e3;
        Report {
            ok: ran_at_all && whole,
            transports,
            requests,
            messages,
            stream,
            switches,
            seconds,
            outages: Vec::new(),
            gates: Vec::new(),
        }
    }

    /// The same with the outages, and the promises judged.
    pub fn with_outages(mut self, outages: Vec<Outage>) -> Self {
        let gaps = |cause| {
            let of = self.switches.iter().filter(move |switch| switch.cause == cause);
            of.map(|switch| switch.gap_ms)
        };
        let after = outages.iter().map(|outage| outage.after_attempt_ms);
        let gates = [
            Gate::new("gap after a cut", 20.0, gaps("cut")),
            Gate::new("gap after a silent stall", 150.0, gaps("stall")),
            Gate::new("outage: first attempt to message", 50.0, after),
        ];
        self.gates = gates.into_iter().flatten().collect();
        self.outages = outages;
        self
    }

    /// Whether something was sent, and all of it arrived once and in order.
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// The report as one line of JSON.
    ///
    /// # Errors
    /// None in practice; those of the serialiser.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The gaps by cause, in order of first appearance.
    pub fn gaps_by_cause(&self) -> Vec<CauseGaps> {
        gaps_by_cause(&self.switches)
    }
}

/// The gaps of `switches` by cause, in order of first appearance.
pub fn gaps_by_cause(switches: &[Switch]) -> Vec<CauseGaps> {
    let mut groups: Vec<(&str, Vec<Duration>)> = Vec::new();
    for switch in switches {
        match groups.iter_mut().find(|(cause, _)| *cause == switch.cause) {
            Some((_, gaps)) => gaps.push(switch.gap()),
            None => groups.push((&switch.cause, vec![switch.gap()])),
        }
    }
    let line = |(cause, mut gaps): (&str, Vec<Duration>)| CauseGaps {
        cause: cause.to_owned(),
        switches: gaps.len(),
        median: median(&mut gaps),
        longest: gaps.iter().max().copied().unwrap_or_default(),
    };
    groups.into_iter().map(line).collect()
}

/// The median of `times`, zero if there are none; sorts them.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    match times.len() {
        0 => Duration::ZERO,
        odd if odd % 2 == 1 => times[odd / 2],
        even => (times[even / 2 - 1] + times[even / 2]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(messages: Messages, stream: Stream) -> Report {
        let requests = Requests {
            sent: 2,
            answered: 2,
            ..Requests::default()
        };
        let gaps = [("cut", 4), ("stall", 90), ("cut", 2), ("cut", 3)];
        let switch =
            |(cause, ms)| Switch::new(Duration::ZERO, "tcp", "unix", cause, Duration::from_millis(ms));
        let switches = gaps.into_iter().map(switch).collect();
        Report::new(
            vec!["tcp".into()],
            requests,
            messages,
            stream,
            switches,
            Duration::from_micros(1_500_400),
        )
    }

    #[test]
    fn the_json_has_the_promised_shape() {
        let messages = Messages {
            sent: 3,
            delivered: 3,
            ..Messages::default()
        };
        let mut report = report(
            messages,
            Stream {
                bytes: 9,
                intact: true,
            },
        );
        report.switches.truncate(1);
        assert_eq!(
            report.to_json().expect("serialises"),
            concat!(
                r#"{"ok":true,"transports":["tcp"],"#,
                r#""requests":{"sent":2,"answered":2,"lost":0,"duplicated":0},"#,
                r#""messages":{"sent":3,"delivered":3,"lost":0,"duplicated":0,"reordered":0},"#,
                r#""stream":{"bytes":9,"intact":true},"#,
                r#""switches":[{"from":"tcp","to":"unix","cause":"cut","gap_ms":4.0}],"seconds":1.5}"#
            )
        );
    }

    #[test]
    fn anything_amiss_is_not_ok() {
        let good = Messages {
            sent: 3,
            delivered: 3,
            ..Messages::default()
        };
        let intact = Stream {
            bytes: 9,
            intact: true,
        };
        assert!(report(good, intact).ok());
        for messages in [
            Messages { lost: 1, ..good },
            Messages {
                duplicated: 1,
                ..good
            },
            Messages { reordered: 1, ..good },
            Messages { delivered: 2, ..good },
            Messages::default(),
        ] {
            assert!(!report(messages, intact).ok(), "{messages:?}");
        }
        assert!(
            !report(
                good,
                Stream {
                    intact: false,
                    ..intact
                }
            )
            .ok()
        );
        assert!(!report(good, Stream { bytes: 0, ..intact }).ok());
    }

    #[test]
    fn gaps_are_grouped_by_cause() {
        let groups = report(Messages::default(), Stream::default()).gaps_by_cause();
        let ms = Duration::from_millis;
        let lines: Vec<_> = groups
            .iter()
            .map(|g| (g.cause.as_str(), g.switches, g.median, g.longest))
            .collect();
        assert_eq!(lines, [("cut", 3, ms(3), ms(4)), ("stall", 1, ms(90), ms(90))]);
        assert_eq!(median(&mut [ms(1), ms(4)]), Duration::from_micros(2500));
    }
}

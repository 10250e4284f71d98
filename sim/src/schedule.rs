//! Links whose rate and delay change over time, as those of cellular and satellite networks do.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheetbend_core::rng::Rng;

use crate::fault::Fault;
use crate::world::World;

/// Bits of a packet of full length: what one opportunity of a packet trace carries.
const PACKET_BITS: u64 = 1500 * 8;
/// What stands for a rate of nothing: what waits goes on waiting.
const STANDSTILL: u64 = 1;

/// How a link is from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The moment, counted from the beginning of the schedule.
    pub at: Duration,
    /// Bits per second from then on. With 0 nothing leaves, and what waits goes on waiting.
    pub rate: u64,
    /// The one-way delay from then on; `None` leaves it as it is.
    pub delay: Option<Duration>,
}

/// A course of rates and delays for [`World::vary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    steps: Vec<Step>,
    /// It begins again after this; zero is never.
    length: Duration,
}

/// Why a text is not a packet trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no number of milliseconds, or less than the one before: {text:?}")]
pub struct ScheduleError {
    /// The line, counted from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl Schedule {
    /// These steps, once. They are put into the order of their times.
    pub fn new(mut steps: Vec<Step>) -> Schedule {
        steps.sort_by_key(|step| step.at);
        Schedule {
            steps,
            length: Duration::ZERO,
        }
    }

    /// Begins again after `length`; steps from then on are left out.
    pub fn repeating(mut self, length: Duration) -> Schedule {
        self.steps.retain(|step| step.at < length);
        self.length = length;
        self
    }

    /// A rate that wanders between `low` and `high` bits per second, a step `every` so often, up to threefold or
    /// down to a third each time. Repeats after `length`.
    pub fn wandering(seed: u64, low: u64, high: u64, every: Duration, length: Duration) -> Schedule {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(bytes);
        let (low, high) = (low.max(1), high.max(low.max(1)));
        // In thousandths, by whole numbers only: the same on every machine.
        let mut rate = low + rng.below(high - low + 1);
        let mut steps = Vec::new();
        let mut at = Duration::ZERO;
        while at < length && !every.is_zero() {
            steps.push(Step {
                at,
                rate,
                delay: None,
            });
            let factor = if rng.below(2) == 0 {
                333 + rng.below(668)
            } else {
                1000 + rng.below(2001)
            };
            let next = u128::from(rate) * u128::from(factor) / 1000;
            rate = u64::try_from(next).unwrap_or(high).clamp(low, high);
            at += every;
        }
        Schedule::new(steps).repeating(length)
    }

    /// A packet trace as Mahimahi has them: each line is the millisecond at which one packet of 1,500 bytes may
    /// leave. Rates are taken over spans of `every`, and it repeats after its last line, rounded up to a span.
    ///
    /// # Errors
    /// When a line is not a number, or less than the one before.
    pub fn from_packet_trace(text: &str, every: Duration) -> Result<Schedule, ScheduleError> {
        let span = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut packets: Vec<u64> = Vec::new();
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let wrong = || ScheduleError {
                line: index + 1,
                text: line.chars().take(40).collect(),
            };
            let at: u64 = line.parse().map_err(|_| wrong())?;
            // A day is more than any trace has, and bounds what is held.
            if at < last || at > 86_400_000 {
                return Err(wrong());
            }
            last = at;
            let place = usize::try_from(at / span).unwrap_or(usize::MAX);
            if packets.len() <= place {
                packets.resize(place + 1, 0);
            }
            packets[place] += 1;
        }
        let steps = packets.iter().zip(0_u64..).map(|(count, number)| Step {
            at: Duration::from_millis(number * span),
            rate: count * PACKET_BITS * 1000 / span,
            delay: None,
        });
        let length = Duration::from_millis(packets.len() as u64 * span);
        Ok(Schedule::new(steps.collect()).repeating(length))
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// One direction of a link, by names.
struct Way {
    from: String,
    to: String,
    network: String,
    schedule: Schedule,
}

impl World {
    /// Has the rate and delay of one direction of a link follow a schedule, from now on. All else about the link
    /// stays as it is, or as faults make it.
    pub fn vary(&mut self, from: &str, to: &str, network: &str, schedule: Schedule) {
        let way = Arc::new(Way {
            from: from.to_owned(),
            to: to.to_owned(),
            network: network.to_owned(),
            schedule,
        });
        let begin = Duration::from_nanos(self.now().as_nanos());
        self.follow(way, 0, begin);
    }

    /// Has the step of that number take place, and those after it. `begin` is the moment of its round's beginning.
    fn follow(&mut self, way: Arc<Way>, index: usize, begin: Duration) {
        let Some(&step) = way.schedule.steps.get(index) else {
            if !way.schedule.length.is_zero() && !way.schedule.steps.is_empty() {
                let begin = begin + way.schedule.length;
                self.at(begin, move |world| world.follow(way, 0, begin));
            }
            return;
        };
        if begin + step.at > Duration::from_nanos(self.now().as_nanos()) {
            return self.at(begin + step.at, move |world| world.follow(way, index, begin));
        }
        if let Some(mut config) = self.link_config(&way.from, &way.to, &way.network) {
            config.rate = step.rate.max(STANDSTILL);
            config.delay = step.delay.unwrap_or(config.delay);
            self.apply(&Fault::Link {
                from: way.from.clone(),
                to: way.to.clone(),
                network: way.network.clone(),
                config,
            });
        }
        self.follow(way, index + 1, begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::LinkConfig;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_packet_trace_becomes_rates() {
        let schedule = Schedule::from_packet_trace("0\n1\n2\n3\n\n25\n", 10 * MILLI).unwrap();
        let rates: Vec<u64> = schedule.steps().iter().map(|step| step.rate).collect();
        assert_eq!(rates, [4_800_000, 0, 1_200_000]);
        assert_eq!(schedule.length, 30 * MILLI);
        let error = Schedule::from_packet_trace("5\n4", MILLI).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(Schedule::from_packet_trace("a day", MILLI).is_err());
        assert!(Schedule::from_packet_trace("18446744073709551615", MILLI).is_err());
    }

    #[test]
    fn wandering_stays_within_its_bounds() {
        let schedule = Schedule::wandering(3, 100_000, 20_000_000, 100 * MILLI, 60_000 * MILLI);
        assert_eq!(schedule.steps().len(), 600);
        let rates = schedule.steps().iter().map(|step| step.rate);
        assert!(rates.clone().all(|rate| (100_000..=20_000_000).contains(&rate)));
        assert!(rates.clone().min() < Some(1_000_000) && rates.max() > Some(10_000_000));
    }

    #[test]
    fn a_link_follows_its_schedule() {
        let mut world = World::new(1);
        world.network("lte", LinkConfig::with_delay(10 * MILLI));
        let (from, to) = (world.host("a", &["lte"]), world.host("b", &["lte"]));
        let steps = [(0, 800_000), (1000, 0), (2000, 8_000_000)];
        let steps = steps.map(|(at, rate)| Step {
            at: at * MILLI,
            rate,
            delay: None,
        });
        world.vary(
            "a",
            "b",
            "lte",
            Schedule::new(steps.to_vec()).repeating(3000 * MILLI),
        );
        let arrivals = world.spawn(&to, {
            let to = to.clone();
            async move {
                let socket = to.bind_udp(9).unwrap();
                let mut arrivals = Vec::new();
                while arrivals.len() < 1000 {
                    socket.recv_from().await.unwrap();
                    arrivals.push(to.world_now());
                }
                arrivals
            }
        });
        let sender = from.clone();
        let sent = world.spawn(&from, async move {
            let socket = sender.bind_udp(0).unwrap();
            let to = sender.resolve("b", 9).unwrap()[0];
            let std::net::SocketAddr::V4(to) = to else { return };
            for _ in 0..1000 {
                socket.send_to(&[0; 972], to).unwrap();
            }
        });
        world.run_for(20 * Duration::from_secs(1)).unwrap();
        assert!(sent.is_done());
        let arrivals = arrivals.take().expect("all of them arrive");
        // 100 packets in the first second, none in the next, 900 at ten times the rate.
        let until = |millis: u64| {
            let end = sheetbend_core::time::Timestamp::ZERO + Duration::from_millis(millis);
            arrivals.iter().filter(|at| **at <= end).count()
        };
        assert!((98..=101).contains(&until(1010)), "{}", until(1010));
        assert_eq!(until(1010), until(2009));
        assert!((595..=605).contains(&until(2510)), "{}", until(2510));
        assert_eq!(until(3000), 1000);
    }
}

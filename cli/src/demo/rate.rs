//! Rates from totals.

use std::time::Duration;

/// Turns a total that is looked at now and then into a rate that does not flicker.
#[derive(Debug, Default)]
pub struct RateMeter {
    last: Option<(Duration, u64)>,
    per_second: f64,
}

/// How long a change of the rate takes to show in full, roughly.
const SMOOTHING: Duration = Duration::from_millis(500);

impl RateMeter {
    /// The total at `now` (since any origin); returns the rate per second.
    pub fn update(&mut self, now: Duration, total: u64) -> f64 {
        if let Some((then, before)) = self.last {
            let passed = now.saturating_sub(then).as_secs_f64();
            if passed <= 0.0 {
                return self.per_second;
            }
            let sample = total.saturating_sub(before) as f64 / passed;
            let weight = 1.0 - (-passed / SMOOTHING.as_secs_f64()).exp();
            self.per_second += (sample - self.per_second) * weight;
        }
        self.last = Some((now, total));
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_total_gives_its_rate_and_a_still_one_none() {
        let mut meter = RateMeter::default();
        let mut rate = 0.0;
        for tenth in 0..50 {
            rate = meter.update(Duration::from_millis(tenth * 100), tenth * 1000);
        }
        assert!((9_900.0..=10_100.0).contains(&rate), "{rate}");
        for tenth in 50..150 {
            rate = meter.update(Duration::from_millis(tenth * 100), 49_000);
        }
        assert!(rate < 1.0, "{rate}");
    }
}

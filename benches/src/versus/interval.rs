//! How sure a ratio is: the median of paired ratios, with an interval from their order.

use serde::Serialize;

use super::runner::median;

/// The level that is aimed at.
const LEVEL: f64 = 0.95;

/// The median of what one contender did as a multiple of another, round by round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Paired {
    pub(crate) median: f64,
    /// Between these the median of all possible rounds lies,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// with this probability: at least 0.95 from six rounds on.
    pub(crate) confidence: f64,
}

impl Paired {
    /// Of the rounds in which both took part; `None` without any.
    ///
    /// Nothing is assumed of how ratios are distributed: whether the median lies below the k-th least of n is a matter
    /// of n tosses of a coin.
    pub(crate) fn of(ours: impl Iterator<Item = f64>, others: impl Iterator<Item = f64>) -> Option<Paired> {
        let mut ratios: Vec<f64> = ours.zip(others).map(|(ours, other)| ours / other).collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        // `beyond` is the chance that the median is less than the one at `at`.
        let (mut at, mut beyond) = (0, 0.5_f64.powi(count as i32));
        let mut tossed = beyond;
        let mut sum = beyond;
        while at + 1 < count.div_ceil(2) {
            tossed *= (count - at) as f64 / (at + 1) as f64;
            sum += tossed;
            if 2.0 * sum > 1.0 - LEVEL {
                break;
            }
            at += 1;
            beyond = sum;
        }
        Some(Paired {
            median: median(ratios.iter().copied()),
            low: *ratios.get(at)?,
            high: *ratios.get(count - 1 - at)?,
            confidence: (1.0 - 2.0 * beyond).max(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u32) -> Paired {
        let ours = (1..=count).map(f64::from);
        Paired::of(ours, std::iter::repeat(1.0)).expect("there are rounds")
    }

    /// The ranks are those of the tables of the sign test.
    #[test]
    fn intervals_come_from_the_order_of_ratios() {
        assert_eq!(Paired::of([].into_iter(), [].into_iter()), None);
        let few = of(3);
        assert_eq!((few.low, few.median, few.high), (1.0, 2.0, 3.0));
        assert!((few.confidence - 0.75).abs() < 1e-9);
        let one = of(1);
        assert_eq!((one.low, one.high, one.confidence), (1.0, 1.0, 0.0));
        for (count, low, high, confidence) in
            [(6, 1.0, 6.0, 0.969), (9, 2.0, 8.0, 0.961), (15, 4.0, 12.0, 0.965)]
        {
            let paired = of(count);
            assert_eq!((paired.low, paired.high), (low, high), "{count}");
            assert!((paired.confidence - confidence).abs() < 1e-3, "{paired:?}");
        }
    }
}

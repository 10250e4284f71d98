//! Numbers in words.

use super::record::Drops;

/// A length of time, given in nanoseconds.
pub(super) fn length(nanos: u64) -> String {
    let seconds = nanos as f64 / 1e9;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.0} µs", seconds * 1e6),
        1_000_000..10_000_000 => format!("{:.1} ms", seconds * 1e3),
        10_000_000..1_000_000_000 => format!("{:.0} ms", seconds * 1e3),
        1_000_000_000..120_000_000_000 => format!("{seconds:.2} s"),
        120_000_000_000..7_200_000_000_000 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A number of bytes.
pub(super) fn amount(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// A rate in bits per second.
pub(super) fn rate(bits: f64) -> String {
    if bits >= 1e9 {
        format!("{} Gbit/s", short(bits / 1e9))
    } else if bits >= 1e6 {
        format!("{} Mbit/s", short(bits / 1e6))
    } else if bits >= 1e3 {
        format!("{} kbit/s", short(bits / 1e3))
    } else {
        format!("{} bit/s", short(bits))
    }
}

/// A number without needless digits.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Why packets were dropped, the reasons that there were.
pub(super) fn names_of_drops(drops: &Drops) -> String {
    let named = drops.named();
    let all: Vec<&(&str, u32)> = named.iter().filter(|(_, count)| *count > 0).collect();
    match all[..] {
        [(name, _)] => (*name).to_owned(),
        _ => {
            let parts = all.iter().map(|(name, count)| format!("{count} {name}"));
            parts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The next number of the series 1, 2, 5, 10, … that is at least this.
pub(super) fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.iter().find(|step| *step * power >= value * 0.999_999);
    step.unwrap_or(&10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(length(312_400_000), "312 ms");
        assert_eq!(length(1_500), "2 µs");
        assert_eq!(length(86_400_000_000_000), "24.0 h");
        assert_eq!(amount(1_234_567), "1.2 MB");
        assert_eq!(rate(20e6), "20 Mbit/s");
        assert_eq!(rate(1500.0), "1.5 kbit/s");
        assert_eq!(
            [0.3, 1.0, 1.1, 4.0, 60.0].map(round_up),
            [0.5, 1.0, 2.0, 5.0, 100.0]
        );
    }
}

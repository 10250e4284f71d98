//! Sizes, rates and times, as people write and read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with the word that fits it: `1 file`, `2,000 files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A number of bytes in decimal units with three digits: `999 B`, `12.3 MB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = number as f64;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ if value < 9.995 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A time in milliseconds with a precision that fits its size: `0.12 ms`, `3.4 ms`, `120 ms`, `1.52 s`.
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 0.995 => format!("{ms:.2} ms"),
        _ if ms < 99.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

/// Reads a time: `200ms`, `1.5s`, `2m`, or seconds without a unit.
///
/// # Errors
/// A line that says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a time; write it as in 200ms, 1.5s or 2m");
    let (number, unit) = split_unit(text).ok_or_else(bad)?;
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|_| bad())
}

/// Reads a number of bytes, or of bytes per second: `64KiB`, `100MB`, `100MB/s`, `1G`.
///
/// # Errors
/// A line that says what to write.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size; write it as in 64KiB, 100MB or 1GiB");
    let (number, unit) = split_unit(text.strip_suffix("/s").unwrap_or(text)).ok_or_else(bad)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(bad()),
    };
    let total = number * scale as f64;
    if total < u64::MAX as f64 {
        Ok(total as u64)
    } else {
        Err(bad())
    }
}

/// The same, for a rate, which is not zero.
///
/// # Errors
/// A line that says what to write.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text) {
        Ok(0) => Err("a rate is more than 0 bytes per second; write it as in 100MB".to_owned()),
        Ok(rate) => Ok(rate),
        Err(_) => Err(format!(
            "'{text}' is not a rate; write it as in 64KiB, 100MB or 1GiB (per second)"
        )),
    }
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_for_people() {
        let counts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 999, 1000, 999_499, 999_500, 12_345_678, 999_999_999, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            [
                "0 B", "999 B", "1.00 kB", "999 kB", "1.00 MB", "12.3 MB", "1.00 GB", "18447 PB"
            ]
        );
        let times = [120, 3_440, 99_960, 999_600].map(|us| milliseconds(Duration::from_micros(us)));
        assert_eq!(times, ["0.12 ms", "3.4 ms", "100 ms", "1.00 s"]);
    }

    #[test]
    fn times_and_sizes_are_read_with_their_units() {
        for (text, ms) in [
            ("200ms", 200),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("3", 3000),
            ("1 h", 3_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, size) in [
            ("7", 7),
            ("64KiB", 65536),
            ("100MB/s", 100_000_000),
            ("1.5g", 1_500_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn wrong_units_say_what_to_write() {
        for text in ["", "ms", "-1s", "1x", "1..2s", "9999999999999999999999h"] {
            assert!(
                parse_duration(text).is_err_and(|line| line.contains("200ms")),
                "{text}"
            );
        }
        for text in ["", "MB", "-1", "1XB", "99999999999999999999GB"] {
            assert!(
                parse_bytes(text).is_err_and(|line| line.contains("100MB")),
                "{text}"
            );
        }
        assert!(parse_rate("0").is_err());
    }
}

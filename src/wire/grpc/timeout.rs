//! The header `grpc-timeout`: at most eight digits, and a unit.

use std::time::Duration;

/// A value has at most so many digits.
const DIGITS: usize = 8;

/// The time that `grpc-timeout` gives, or none where it is not well-formed.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// `grpc-timeout` for a time, as exactly as its digits allow and never longer; what is too long for it is cut.
pub fn timeout_value(time: Duration) -> String {
    let most = 10_u128.pow(8);
    let seconds = u128::from(time.as_secs());
    for (count, unit) in [
        (time.as_nanos(), 'n'),
        (time.as_micros(), 'u'),
        (time.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
        (seconds / 3600, 'H'),
    ] {
        if count < most {
            return format!("{count}{unit}");
        }
    }
    format!("{}H", most - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        for (value, time) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("0u", Some(Duration::ZERO)),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789n", None),
            ("n", None),
            ("", None),
            ("+1S", None),
            ("-1S", None),
            ("1", None),
            ("1.5S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), time, "{value}");
        }
    }

    #[test]
    fn a_time_is_written_as_exactly_as_eight_digits_allow() {
        for (time, value) in [
            (Duration::ZERO, "0n"),
            (Duration::from_micros(99_999), "99999000n"),
            (Duration::from_millis(200), "200000u"),
            (Duration::from_mins(10), "600000m"),
            (Duration::from_hours(8760), "31536000S"),
            (Duration::from_hours(87600), "5256000M"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(timeout_value(time), value);
            assert!(parse_timeout(value.as_bytes()).is_some_and(|read| read <= time), "{value}");
        }
    }
}

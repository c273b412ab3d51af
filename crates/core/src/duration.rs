//! Lengths of time and sizes, as people write and read them.
//!
//! Time is in milliseconds everywhere, sizes in bytes.  Parsing is strict: a
//! text is understood whole or refused with what would have been right.

/// The longest time that can be written: 100 years.  Higher: adding it to a
/// point in time could leave what calendars can print.  Lower: nobody could say
/// "for ever".
pub const DURATION_MILLIS_MAX: i64 = 36_525 * MILLIS_PER_DAY;

const MILLIS_PER_SECOND: i64 = 1_000;
const MILLIS_PER_MINUTE: i64 = 60 * MILLIS_PER_SECOND;
const MILLIS_PER_HOUR: i64 = 60 * MILLIS_PER_MINUTE;
const MILLIS_PER_DAY: i64 = 24 * MILLIS_PER_HOUR;

/// Units of time from the longest to the shortest: the order in which they are written.
const TIME_UNITS: [(&str, i64); 6] = [
    ("w", 7 * MILLIS_PER_DAY),
    ("d", MILLIS_PER_DAY),
    ("h", MILLIS_PER_HOUR),
    ("m", MILLIS_PER_MINUTE),
    ("s", MILLIS_PER_SECOND),
    ("ms", 1),
];

/// Units of size.  A single letter means powers of 1024, as memory is sold.
const SIZE_UNITS: [(&str, u64); 26] = [
    ("", 1),
    ("B", 1),
    ("K", 1 << 10),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1 << 40),
    ("Ti", 1 << 40),
    ("TiB", 1 << 40),
    ("P", 1 << 50),
    ("Pi", 1 << 50),
    ("PiB", 1 << 50),
    ("E", 1 << 60),
    ("Ei", 1 << 60),
    ("EiB", 1 << 60),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
];

/// Text that is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a length of time: {problem}; write it like 90s, 10m, 2h30m or 7d")]
pub struct DurationError {
    text: String,
    problem: String,
}

/// Text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size: {problem}; write it like 512M, 10G or 1.5TiB")]
pub struct SizeError {
    text: String,
    problem: String,
}

/// Reads `90` (seconds), `90s`, `10m`, `2h30m`, `1d 12h`, `250ms`: whole numbers
/// with units from the longest to the shortest, each at most once.
pub fn parse_duration_millis(text: &str) -> Result<i64, DurationError> {
    let error = |problem: String| DurationError {
        text: shortened(text),
        problem,
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(error("it is empty".to_owned()));
    }
    let mut total = 0_i64;
    let mut units_left = &TIME_UNITS[..];
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after.trim_start(), |c| !c.is_alphabetic());
        if number.is_empty() {
            return Err(error(format!(
                "a whole number is missing at `{}`",
                shortened(rest)
            )));
        }
        let unit = match unit {
            "" if rest.len() == text.trim().len() && after.is_empty() => "s",
            "" => {
                return Err(error(format!(
                    "a unit is missing after {}",
                    shortened(number)
                )));
            }
            unit => unit,
        };
        let Some(index) = units_left.iter().position(|&(name, _)| name == unit) else {
            let known = TIME_UNITS.iter().any(|&(name, _)| name == unit);
            return Err(error(if known {
                format!("`{unit}` must come once, and before shorter units")
            } else {
                format!(
                    "the unit `{}` is not one of w, d, h, m, s, ms",
                    shortened(unit)
                )
            }));
        };
        let millis = units_left.get(index).map_or(0, |&(_, millis)| millis);
        total = number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(millis))
            .and_then(|part| total.checked_add(part))
            .filter(|&total| total <= DURATION_MILLIS_MAX)
            .ok_or_else(|| error("it is longer than 100 years".to_owned()))?;
        units_left = units_left.get(index + 1..).unwrap_or_default();
        rest = after.trim_start();
    }
    Ok(total)
}

/// The form of status tables: `0d-00:02:12`.
pub fn format_duration_clock(millis: i64) -> String {
    let seconds = millis.max(0) / MILLIS_PER_SECOND;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days}d-{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// The form of sentences, its two largest units: `2m 12s`, `3d 4h`, `1.5s`, `250ms`.
pub fn format_duration_short(millis: i64) -> String {
    let millis = millis.max(0);
    if millis < MILLIS_PER_SECOND {
        return format!("{millis}ms");
    }
    if millis < 10 * MILLIS_PER_SECOND {
        let tenths = millis % MILLIS_PER_SECOND / 100;
        let seconds = millis / MILLIS_PER_SECOND;
        return if tenths == 0 {
            format!("{seconds}s")
        } else {
            format!("{seconds}.{tenths}s")
        };
    }
    const STEPS: [(&str, i64, &str, i64); 3] = [
        ("d", MILLIS_PER_DAY, "h", MILLIS_PER_HOUR),
        ("h", MILLIS_PER_HOUR, "m", MILLIS_PER_MINUTE),
        ("m", MILLIS_PER_MINUTE, "s", MILLIS_PER_SECOND),
    ];
    for (unit, size, smaller_unit, smaller) in STEPS {
        if millis >= size {
            let (count, rest) = (millis / size, millis % size / smaller);
            return if rest == 0 {
                format!("{count}{unit}")
            } else {
                format!("{count}{unit} {rest}{smaller_unit}")
            };
        }
    }
    format!("{}s", millis / MILLIS_PER_SECOND)
}

/// Reads `1048576`, `512M`, `512MiB`, `10G`, `1.5TiB`, `500 MB` into bytes.
/// `K`, `M`, `G`, `T`, `P`, `E` are powers of 1024; `KB` and the like powers of 1000.
pub fn parse_size_bytes(text: &str) -> Result<u64, SizeError> {
    let error = |problem: String| SizeError {
        text: shortened(text),
        problem,
    };
    let (number, unit) = split_where(text.trim(), |c| !c.is_ascii_digit() && c != '.');
    let unit = unit.trim_start();
    if number.is_empty() {
        return Err(error("it does not start with a number".to_owned()));
    }
    let Some(&(_, size)) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
    else {
        return Err(error(format!(
            "the unit `{}` is not one of B, K, M, G, T, P, E",
            shortened(unit)
        )));
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let too_large = || error("it is too large".to_owned());
    let whole: u64 = whole.parse().map_err(|_| match whole {
        "" => error("a digit is missing before the point".to_owned()),
        _ => too_large(),
    })?;
    // Nine digits are exact to the byte up to a gigabyte, and nobody writes more.
    const FRACTION_DIGITS_MAX: usize = 9;
    if fraction.is_empty() || fraction.contains('.') || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(error(
            "the digits after the point are not a number of at most nine digits".to_owned(),
        ));
    }
    let digits: u128 = fraction
        .parse()
        .map_err(|_| error("the number is not one".to_owned()))?;
    let scale = 10_u128.pow(fraction.len() as u32);
    let bytes = u128::from(whole) * u128::from(size) + digits * u128::from(size) / scale;
    u64::try_from(bytes).map_err(|_| too_large())
}

/// `17 B`, `1.5 MiB`, `200 GiB`: one digit after the point where it says something, powers of 1024.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("EiB", 1 << 60),
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    // From here on the next larger unit reads better than `1024.0`.
    for (unit, size) in UNITS {
        if u128::from(bytes) * 2000 >= u128::from(size) * 1999 {
            let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
            return if tenths >= 1000 || tenths % 10 == 0 {
                format!("{} {unit}", (tenths + 5) / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("0", 0),
            (" 10m ", 600),
            ("2h30m", 9_000),
            ("2h 30m", 9_000),
            ("7d", 604_800),
            ("1w1d", 691_200),
            ("1d 2h 3m 4s", 93_784),
        ] {
            assert_eq!(parse_duration_millis(text), Ok(seconds * 1_000), "{text}");
        }
        assert_eq!(parse_duration_millis("1s250ms"), Ok(1_250));
        assert_eq!(parse_duration_millis("36525d"), Ok(DURATION_MILLIS_MAX));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            ("m", "a whole number is missing at `m`"),
            ("-5s", "a whole number is missing at `-5s`"),
            ("1.5h", "a unit is missing after 1"),
            ("2h30", "a unit is missing after 30"),
            ("5 years", "the unit `years` is not one of"),
            ("5M", "the unit `M` is not one of"),
            ("5m2h", "`h` must come once"),
            ("5m5m", "`m` must come once"),
            ("36526d", "longer than 100 years"),
            ("99999999999999999999s", "longer than 100 years"),
            ("9223372036854775807w", "longer than 100 years"),
        ] {
            let error = parse_duration_millis(text).map_err(|error| error.to_string());
            let told = matches!(&error, Err(message) if message.contains(reason));
            assert!(told, "{text}: {error:?}");
        }
    }

    #[test]
    fn durations_are_written() {
        for (millis, clock, short) in [
            (-5, "0d-00:00:00", "0ms"),
            (0, "0d-00:00:00", "0ms"),
            (999, "0d-00:00:00", "999ms"),
            (1_000, "0d-00:00:01", "1s"),
            (1_560, "0d-00:00:01", "1.5s"),
            (59_999, "0d-00:00:59", "59s"),
            (132_000, "0d-00:02:12", "2m 12s"),
            (120_000, "0d-00:02:00", "2m"),
            (3_661_000, "0d-01:01:01", "1h 1m"),
            (273_600_000, "3d-04:00:00", "3d 4h"),
            (8_640_000_000, "100d-00:00:00", "100d"),
        ] {
            assert_eq!(format_duration_clock(millis), clock);
            assert_eq!(format_duration_short(millis), short);
        }
        assert!(format_duration_clock(i64::MAX).starts_with("106751991167d-"));
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("10G", 10 << 30),
            ("10g", 10 << 30),
            ("10 GiB", 10 << 30),
            ("512MiB", 512 << 20),
            ("1.5Ti", 3 << 39),
            ("500 MB", 500_000_000),
            ("0.25K", 256),
            ("16383P", 16383 << 50),
        ] {
            assert_eq!(parse_size_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "does not start with a number"),
            ("G", "does not start with a number"),
            ("-1G", "does not start with a number"),
            ("1X", "the unit `X`"),
            ("1e3", "the unit `e3`"),
            (".5G", "a digit is missing"),
            ("1.G", "after the point"),
            ("1.2.3G", "after the point"),
            ("16384P", "too large"),
            ("99999999999999999999", "too large"),
        ] {
            let error = parse_size_bytes(text).map_err(|error| error.to_string());
            let told = matches!(&error, Err(message) if message.contains(reason));
            assert!(told, "{text}: {error:?}");
        }
    }

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_000, "1000 B"),
            (1_024, "1 KiB"),
            (1_536, "1.5 KiB"),
            (1_023 * 1_024, "1023 KiB"),
            (1_024 * 1_024 - 1, "1 MiB"),
            (200 << 30, "200 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn whole_units_read_back(millis in 0..=DURATION_MILLIS_MAX) {
            let text = format!("{}s{}ms", millis / 1_000, millis % 1_000);
            prop_assert_eq!(parse_duration_millis(&text), Ok(millis));
        }

        #[test]
        fn a_written_size_reads_back_nearly(bytes in 0..u64::MAX / 2) {
            let read = parse_size_bytes(&format_size(bytes)).unwrap_or(0);
            prop_assert!(read.abs_diff(bytes) <= bytes / 19, "{bytes} became {read}");
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = (parse_duration_millis(&text), parse_size_bytes(&text));
        }
    }
}

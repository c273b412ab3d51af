//! Points in time.  Nobody here asks what time it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC, for people and for ordering by age;
/// never for correctness, because clocks jump.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time, `millis` later.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; 0 when the clock went backwards.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        let between = self.0.saturating_sub(earlier.0);
        if between < 0 { 0 } else { between }
    }

    /// Reads RFC 3339 text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .map(|t| Self(t.as_millisecond()))
    }
}

/// Earliest and latest time that is believed of a file, in milliseconds since 1970 UTC: from the
/// year 1 to the end of the year 9999, but for its last day, which is another year in some zones.
/// Wider: some program that shows it cannot write it as a date; narrower: times that files have
/// are not kept.
const FILE_MS: (i64, i64) = (-62_135_596_800_000, 253_402_207_200_000);

/// The time of a file, in milliseconds since 1970 UTC, as it is kept and shown: files with times
/// that no calendar has are on people's disks, and in archives, and are no worse for it.  What
/// lies outside becomes the end that it is nearest to.
///
/// Whatever takes in the time of a file, or shows one that was taken in, asks here.
#[must_use]
pub fn file_ms(modified_ms: i64) -> i64 {
    let (earliest, latest) = FILE_MS;
    modified_ms.clamp(earliest, latest)
}

/// RFC 3339 with milliseconds and an offset: `2026-11-22T05:50:30.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            // Outside the years that RFC 3339 can write.
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back() {
        let at = Timestamp::from_millis(1_795_326_630_123);
        assert_eq!(at.to_string(), "2026-11-22T05:50:30.123Z");
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        assert_eq!(
            Timestamp::from_millis(0).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn any_time_of_a_file_can_be_written_as_a_date() {
        for (ms, shown) in [
            (i64::MAX, "9999-12-30T22:00:00.000Z"),
            (1_000_000_000_000_000, "9999-12-30T22:00:00.000Z"),
            (1_795_326_630_123, "2026-11-22T05:50:30.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MIN, "0001-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_millis(file_ms(ms)).to_string(), shown);
        }
    }

    #[test]
    fn time_that_goes_backwards_is_no_time() {
        assert_eq!(
            Timestamp::from_millis(5).millis_since(Timestamp::from_millis(9)),
            0
        );
    }
}

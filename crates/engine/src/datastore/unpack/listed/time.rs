//! When a file in a zip was changed.
//!
//! The time that every entry has is that of the clock on the wall of whoever packed it, and does
//! not say where that wall was.  Most programs add the true time, each in its own way; where none
//! did, the clock is taken to have shown UTC.

use std::io::Read;

use grid_core::time::Timestamp;
use zip::extra_fields::ExtraField;
use zip::read::ZipFile;

/// Fields of Info-ZIP before it agreed on another, and of PKZIP on Unix: when it was read, when
/// it was changed, and more.
const OLD_UNIX: [u16; 2] = [0x5855, 0x000d];

/// What Windows counts: ten millionths of a second since 1601.
const WINDOWS_PER_MS: u64 = 10_000;
const WINDOWS_EPOCH_MS: i64 = 11_644_473_600_000;

/// The year from which on seconds since 1970 need all 32 bits.
const LATE_YEAR: u16 = 2_038;

/// When it was changed, in milliseconds; 1970 if it does not say so.
pub(super) fn modified_ms<R: Read>(entry: &ZipFile<'_, R>) -> i64 {
    let clock = entry.last_modified();
    let is_late = clock.is_some_and(|clock| clock.year() >= LATE_YEAR);
    let said = |nth: fn(&ExtraField) -> Option<Said>| {
        let said = entry.extra_data_fields().find_map(nth)?;
        Some(said.ms(is_late))
    };
    said(unix)
        .or_else(|| said(windows))
        .or_else(|| said(old_unix))
        .or_else(|| clock.and_then(on_the_wall))
        .unwrap_or_default()
}

/// A time as a field says it.
#[derive(Debug, Clone, Copy)]
enum Said {
    /// Seconds since 1970, or before it.
    Seconds(u32),
    Windows(u64),
}

impl Said {
    fn ms(self, is_late: bool) -> i64 {
        match self {
            Self::Seconds(seconds) if is_late => i64::from(seconds) * 1_000,
            Self::Seconds(seconds) => i64::from(seconds.cast_signed()) * 1_000,
            Self::Windows(count) => (count / WINDOWS_PER_MS).cast_signed() - WINDOWS_EPOCH_MS,
        }
    }
}

fn unix(field: &ExtraField) -> Option<Said> {
    match field {
        ExtraField::ExtendedTimestamp(times) => times.mod_time().map(Said::Seconds),
        _ => None,
    }
}

fn windows(field: &ExtraField) -> Option<Said> {
    match field {
        // None is a time that was not set.
        ExtraField::Ntfs(times) => Some(times.mtime()).filter(|it| *it > 0).map(Said::Windows),
        _ => None,
    }
}

fn old_unix(field: &ExtraField) -> Option<Said> {
    match field {
        ExtraField::Custom(field) if OLD_UNIX.contains(&field.header_id) => {
            let seconds = field.data.get(4..8)?.try_into().ok()?;
            Some(Said::Seconds(u32::from_le_bytes(seconds)))
        }
        _ => None,
    }
}

fn on_the_wall(time: zip::DateTime) -> Option<i64> {
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second().min(59)
    );
    Timestamp::parse(&text).map(Timestamp::as_millis)
}

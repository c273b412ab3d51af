//! Times of the server as tables show them.

use grid_core::duration::format_duration_clock;
use grid_core::time::Timestamp;

/// From the start to the end, or to now: `0d-00:02:12`; `-` for what has not started.
pub(crate) fn duration(started: Option<&str>, finished: Option<&str>, now: Timestamp) -> String {
    let Some(started) = started.and_then(Timestamp::parse) else {
        return "-".to_owned();
    };
    let end = finished.and_then(Timestamp::parse).unwrap_or(now);
    format_duration_clock(end.millis_since(started))
}

/// `2021-04-11 21:46:11+0000`.
pub(crate) fn civil(text: &str) -> String {
    match Timestamp::parse(text) {
        Some(at) => {
            let iso = at.to_string();
            let seconds = iso.get(..19).unwrap_or(&iso);
            format!("{}+0000", seconds.replace('T', " "))
        }
        None => text.to_owned(),
    }
}

/// `2021-04-11 21:46Z`: the same to the minute, where there is no room.
pub(crate) fn brief(text: &str) -> String {
    match Timestamp::parse(text) {
        Some(at) => {
            let iso = at.to_string();
            let minutes = iso.get(..16).unwrap_or(&iso);
            format!("{}Z", minutes.replace('T', " "))
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_tables() {
        let now = Timestamp::parse("2026-11-22T05:52:42Z").unwrap_or_default();
        let start = Some("2026-11-22T05:50:30Z");
        assert_eq!(duration(start, None, now), "0d-00:02:12");
        assert_eq!(
            duration(start, Some("2026-11-22T06:50:30Z"), now),
            "0d-01:00:00"
        );
        assert_eq!(duration(None, None, now), "-");
        assert_eq!(
            civil("2021-04-11T23:46:11.5+02:00"),
            "2021-04-11 21:46:11+0000"
        );
        assert_eq!(civil("soon"), "soon");
        assert_eq!(brief("2021-04-11T23:46:11.5+02:00"), "2021-04-11 21:46Z");
    }
}

//! Values of flags that several commands take.

use grid_core::access::Scope;
use grid_core::duration::parse_duration_millis;
use grid_core::team::{Role, Sharing};
use grid_core::time::Timestamp;

use crate::clock;

/// Reads a role: owner, admin, member or viewer.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| one_of(&Role::ALL.map(Role::as_str)))
}

/// Reads what a key is good for: read, run or all.
pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| one_of(&Scope::ALL.map(Scope::as_str)))
}

/// Reads who a switch of a team lets do a thing: team or creator.
pub(crate) fn sharing(text: &str) -> Result<Sharing, String> {
    match text {
        "team" => Ok(Sharing::Team),
        "creator" => Ok(Sharing::Creator),
        _ => Err(one_of(&["team", "creator"])),
    }
}

/// The word that [`sharing`] reads.
pub(crate) fn sharing_word(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Team => "team",
        Sharing::Creator => "creator",
    }
}

/// Reads how many: 1 or more.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("it has to be a number, 1 or more".to_owned()),
    }
}

/// Reads the number of a version.
pub(crate) fn version(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(version) if version > 0 => Ok(version),
        _ => Err("versions are numbers: 1, 2, 3, …".to_owned()),
    }
}

/// Reads a length of time that is at least a second, as seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let millis = parse_duration_millis(text).map_err(|error| error.to_string())?;
    match u64::try_from(millis / 1_000) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("it has to be a second at least".to_owned()),
    }
}

/// Reads a point in time: how long ago (`7d`), or RFC 3339 (`2026-11-22T05:50:30Z`), or
/// the beginning of a day in UTC (`2026-11-22`).
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let at = Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
    if let Some(at) = at {
        return Ok(at);
    }
    match parse_duration_millis(text) {
        Ok(millis) => Ok(clock::now().plus_millis(-millis)),
        Err(_) => Err(format!(
            "`{text}` is neither a length of time (7d, 12h) nor a point in time (2026-11-22, \
             2026-11-22T05:50:30Z)"
        )),
    }
}

fn one_of(words: &[&str]) -> String {
    format!("it has to be one of: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_refused() {
        assert_eq!(role("viewer"), Ok(Role::Viewer));
        assert_eq!(
            role("boss"),
            Err("it has to be one of: viewer, member, admin, owner".to_owned())
        );
        assert_eq!(scope("run"), Ok(Scope::Run));
        assert!(scope("write").is_err());
        for word in ["team", "creator"] {
            assert_eq!(sharing(word).map(sharing_word), Ok(word));
        }
        assert_eq!(seconds("30d"), Ok(30 * 24 * 60 * 60));
        assert!(seconds("0s").is_err() && seconds("soon").is_err());
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let at = moment("2026-11-22").map(|at| at.to_string());
        assert_eq!(at.as_deref(), Ok("2026-11-22T00:00:00.000Z"));
        assert_eq!(
            moment("2026-11-22T05:50:30Z").map(|at| at.to_string()),
            Ok("2026-11-22T05:50:30.000Z".to_owned())
        );
        let ago = moment("7d").map(|at| clock::now().millis_since(at));
        let week = 7 * 24 * 60 * 60 * 1_000;
        assert!(ago.is_ok_and(|ago| ago >= week), "a week is a week");
        assert!(moment("yesterday").is_err());
    }
}

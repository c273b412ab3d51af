//! The audit log: who did what, on which thing, from where, and what came of it.
//!
//! | route | sees | answer |
//! | --- | --- | --- |
//! | `GET /teams/{team}/audit` | admins the team's, everybody else in it their own | [`AuditResponse`], the newest first |
//! | `GET /teams/{team}/audit/export` | the same | JSON lines of [`AuditEvent`], the newest first |
//! | `GET /audit` | everybody their own; operators all with `?all=true` | [`AuditResponse`] |
//! | `GET /audit/export` | the same | JSON lines of [`AuditEvent`] |
//!
//! All four take an [`AuditQuery`]; the exports ignore `limit` and `cursor`.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEvent {
    /// Id; sorts by age.
    pub id: String,
    /// RFC 3339, with milliseconds.
    pub at: String,
    /// What kind of somebody: `user`, `operator` (a right used beyond their own teams),
    /// `service`, `link`, `nobody` (not signed in).
    pub actor_kind: String,
    /// Who: a user name, or the id of a link.
    pub actor: String,
    /// Name of the team, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What: `run.stop`, `member.remove`, `key.create`, …
    pub action: String,
    /// Kind of the thing: `run`, `experiment`, `team`, `user`, `key`, …
    pub thing_kind: String,
    /// Id of the thing.
    pub thing_id: String,
    /// Name of the thing then: `ada:bert-1`.
    pub thing: String,
    /// `done`, `refused`, or `failed`.
    pub result: String,
    /// More about it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Address it came from; empty where it came from none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The program it came from, as it calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditResponse {
    /// The newest first.
    pub events: Vec<AuditEvent>,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Everybody's, of all teams; for operators at `/audit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// From this time on, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only what this user did, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Only this action: `run.stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only about this thing: its id, or its name as the events show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Only with this result: `done`, `refused` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// At most this many (1 to 1,000; default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

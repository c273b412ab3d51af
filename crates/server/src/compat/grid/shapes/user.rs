//! Signing in.

use grid_store::db;
use serde::{Deserialize, Serialize};

use super::read::or_default;
use super::time;

/// Signing in by name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Login {
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::compat::grid) username: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::compat::grid) api_key: String,
}

/// The token for what follows.
#[derive(Serialize)]
pub(in crate::compat::grid) struct LoggedIn {
    pub(in crate::compat::grid) token: String,
}

/// Who somebody is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct User {
    /// Never told.
    api_key: String,
    email: String,
    first_name: String,
    id: String,
    last_name: String,
    picture_url: String,
    status: Status,
    username: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    completed_signup: bool,
    installed_grid: bool,
    verified: bool,
    verified_at: String,
}

impl User {
    pub(in crate::compat::grid) fn new(user: db::user::User) -> Self {
        Self {
            api_key: String::new(),
            email: user.email,
            first_name: user.first_name,
            id: user.id.to_string(),
            last_name: user.last_name,
            picture_url: String::new(),
            status: Status {
                completed_signup: true,
                installed_grid: true,
                verified: true,
                verified_at: time(user.created_at),
            },
            username: user.username,
        }
    }
}

//! Interactive sessions, of which there are none yet.

use serde::Serialize;

/// A list of sessions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Sessions {
    sessions: [(); 0],
    next_page_token: &'static str,
    previous_page_token: &'static str,
}

impl Sessions {
    /// None.
    pub(in crate::compat::grid) const NONE: Self = Self {
        sessions: [],
        next_page_token: "",
        previous_page_token: "",
    };
}

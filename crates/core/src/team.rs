//! Teams, memberships and roles.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a person is in a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Role {
    /// Sees, and changes nothing.
    Viewer,
    /// Works.
    Member,
    /// Also looks after the team.
    Admin,
    /// Also makes and unmakes owners.
    Owner,
}

impl Role {
    /// All roles, from the least to the most powerful.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who, beside the creator and the admins, may do a thing that the policy governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Sharing {
    /// Every member.
    Team,
    /// Nobody.
    Creator,
}

/// The switches of a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TeamPolicy {
    /// Who may stop and delete a teammate's run.
    pub run_control: Sharing,
    /// Who may open a teammate's JupyterLab.
    pub jupyter_access: Sharing,
}

impl Default for TeamPolicy {
    fn default() -> Self {
        Self {
            run_control: Sharing::Team,
            jupyter_access: Sharing::Team,
        }
    }
}

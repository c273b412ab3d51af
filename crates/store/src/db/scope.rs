//! Whose things a list shows, as conditions that let the database walk an index.

use grid_core::id::{TeamId, UserId};

use super::sql::{Value, list};

/// Most teams that are read one after the other and merged, each in the order of its index.
/// More: many small questions, most of which find nothing.  Fewer: a member of few teams
/// waits until all that others made is looked through.
const TEAMS_APART_MAX: usize = 8;

/// Whose things.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// Those of one person.
    pub owner: Option<UserId>,
    /// Those of these teams; an empty list shows nothing.  `None` for all.
    pub teams: Option<&'a [TeamId]>,
}

/// A condition, and its values.
pub(super) type Condition = (String, Vec<Value>);

impl Scope<'_> {
    /// Conditions that hold for disjoint parts of the list: reading each part and merging
    /// them is reading the list.  Placeholders begin at `$first`.
    pub(super) fn parts(
        self,
        owner_column: &str,
        team_column: &str,
        first: usize,
    ) -> Vec<Condition> {
        match (self.owner, self.few_teams()) {
            (None, Some(teams)) => {
                let part = |team| (format!("{team_column} = ${first}"), vec![Value::from(team)]);
                teams.into_iter().map(part).collect()
            }
            _ => vec![self.whole(owner_column, team_column, first)],
        }
    }

    /// The teams, each once, if they are so few that each is read by itself.
    pub(super) fn few_teams(self) -> Option<Vec<TeamId>> {
        let mut teams = self
            .teams
            .filter(|teams| teams.len() <= TEAMS_APART_MAX)?
            .to_vec();
        teams.sort_unstable();
        teams.dedup();
        Some(teams)
    }

    /// One condition for the whole list.
    pub(super) fn whole(self, owner_column: &str, team_column: &str, first: usize) -> Condition {
        let (mut text, mut values) = ("1 = 1".to_owned(), Vec::new());
        if let Some(owner) = self.owner {
            text = format!("{owner_column} = ${first}");
            values.push(Value::from(owner));
        }
        match self.teams {
            None => {}
            Some(teams) => match list(teams, first + values.len()) {
                // With many teams the list is walked by age.  The empty text keeps SQLite
                // from gathering all that the teams have, to sort it.
                Some((list, more)) => {
                    text = format!("{text} and {team_column} || '' in {list}");
                    values.extend(more);
                }
                None => text = format!("{text} and 1 = 0"),
            },
        }
        (text, values)
    }
}

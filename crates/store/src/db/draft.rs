//! Runs whose code is still on its way.

use grid_core::id::{RunId, TeamId, UserId};
use grid_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::Result;
use super::sql::{Columns, values};
use super::tx::Tx;

/// A run that waits for its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The id that the run will have.
    pub id: RunId,
    /// Whose team's it will be.
    pub team: TeamId,
    /// Who makes it.
    pub creator: UserId,
    /// The name that the run will have.
    pub name: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Until when its code may come.
    pub expires_at: Timestamp,
    /// What was asked for, as JSON.
    pub request: String,
    /// How many experiments it will have.
    pub experiments: u32,
    /// How it ended without becoming a run, if it did.
    pub ended: Option<Ended>,
}

/// How a draft ended without becoming a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: String,
}

/// Ways for a draft to end without becoming a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What came was not its code; it may be sent again.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Failed, Self::Stopped]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

const COLUMNS: &str = "id, team, creator, name, created_at, expires_at, request, experiments, \
     ended_at, outcome, reason";

fn of_row(row: &AnyRow) -> Result<Draft> {
    let mut columns = Columns::of("reading a draft", row);
    let mut draft = Draft {
        id: columns.parse()?,
        team: columns.parse()?,
        creator: columns.parse()?,
        name: columns.text()?,
        created_at: columns.time()?,
        expires_at: columns.time()?,
        request: columns.text()?,
        experiments: columns.number()?,
        ended: None,
    };
    if let Some(at) = columns.opt_time()? {
        draft.ended = Some(Ended {
            at,
            outcome: columns.word(Outcome::parse)?,
            reason: columns.text()?,
        });
    }
    Ok(draft)
}

/// Adds a draft that has not ended.  A taken name is a conflict.
pub async fn insert(tx: &mut Tx, draft: &Draft) -> Result<()> {
    let sql = "insert into run_draft (id, team, creator, name, created_at, expires_at, \
         request, experiments) values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = values![
        draft.id,
        draft.team,
        draft.creator,
        draft.name.as_str(),
        draft.created_at,
        draft.expires_at,
        draft.request.as_str(),
        draft.experiments,
    ];
    let done = tx.execute("adding a draft", sql, values).await;
    done.map(drop).map_err(|e| e.taken("this run name"))
}

/// The draft with an id.
pub async fn by_id(tx: &mut Tx, id: RunId) -> Result<Option<Draft>> {
    let sql = format!("select {COLUMNS} from run_draft where id = $1");
    let row = tx
        .row("reading a draft", AssertSqlSafe(sql), values![id])
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// The draft of a creator with a name.
pub async fn by_name(tx: &mut Tx, creator: UserId, name: &str) -> Result<Option<Draft>> {
    let sql = format!("select {COLUMNS} from run_draft where creator = $1 and name = $2");
    let row = tx
        .row(
            "looking for a draft",
            AssertSqlSafe(sql),
            values![creator, name],
        )
        .await?;
    row.as_ref().map(of_row).transpose()
}

/// All drafts of a creator, the newest first.
pub async fn of_creator(tx: &mut Tx, creator: UserId) -> Result<Vec<Draft>> {
    let sql = format!(
        "select {COLUMNS} from run_draft where creator = $1 order by created_at desc, id desc"
    );
    let rows = tx
        .rows("listing drafts", AssertSqlSafe(sql), values![creator])
        .await?;
    rows.iter().map(of_row).collect()
}

/// Ends a draft, or tells again how it ended; `false` when it is not there, or was stopped.
pub async fn end(tx: &mut Tx, id: RunId, ended: &Ended) -> Result<bool> {
    let sql = "update run_draft set ended_at = $2, outcome = $3, reason = $4 \
          where id = $1 and (outcome is null or outcome <> 'stopped')";
    let values = values![id, ended.at, ended.outcome.as_str(), ended.reason.as_str()];
    Ok(tx.execute("ending a draft", sql, values).await? == 1)
}

/// Removes a draft because it becomes a run; `false` when it is not there or was stopped.
pub async fn take(tx: &mut Tx, id: RunId) -> Result<bool> {
    let sql = "delete from run_draft where id = $1 and (outcome is null or outcome <> 'stopped')";
    let done = tx
        .execute("turning a draft into a run", sql, values![id])
        .await?;
    Ok(done == 1)
}

/// Removes a draft; `false` when it is not there.
pub async fn remove(tx: &mut Tx, id: RunId) -> Result<bool> {
    let sql = "delete from run_draft where id = $1";
    Ok(tx.execute("removing a draft", sql, values![id]).await? == 1)
}

/// Removes the draft of a creator with a name, if it has ended or its time is over: another
/// run takes its name.
pub async fn remove_over(tx: &mut Tx, creator: UserId, name: &str, now: Timestamp) -> Result<bool> {
    let sql = "delete from run_draft where creator = $1 and name = $2 \
            and (outcome is not null or expires_at <= $3)";
    let done = tx
        .execute("replacing a draft", sql, values![creator, name, now])
        .await?;
    Ok(done == 1)
}

/// Forgets drafts that were made before a time; says how many.
pub async fn remove_before(tx: &mut Tx, time: Timestamp) -> Result<u64> {
    let sql = "delete from run_draft where created_at < $1";
    tx.execute("removing old drafts", sql, values![time]).await
}

//! A run that was asked for before its code was there.
//!
//! It has its id and its name at once, and an address to which the code is sent as one
//! archive.  When the archive has come whole it becomes a run like any other, in one
//! transaction.  Until then it is a row and nothing else: a server that is killed in the
//! middle of an upload leaves a draft that still waits, and the upload can be repeated.
//!
//! What cannot become a run says so: the draft has failed, with the reason, for as long as
//! it is kept.  One whose code does not come in time has failed, too.  It is its creator's
//! alone; teammates see the run that it becomes.

mod archive;

use bytes::Bytes;
use futures::Stream;
use grid_core::access::Action;
use grid_core::id::{RunId, TeamId, UserId};
use grid_core::name::{RunName, generate_run_name};
use grid_core::run::{Counts, status};
use grid_core::spec::{RunSpec, Source};
use grid_core::time::Timestamp;
use grid_core::workload::Status;
use grid_store::db::{self, Tx, draft::Outcome};
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Owned};
use crate::audit::{Draft as Event, Thing, Trail};
use crate::error::{Error, Result};
use crate::git::Folder;
use crate::receiving::{Sender, WAIT_MAX};
use crate::run::{self, NewRun, Reserved};
use crate::ticket::{self, Purpose, Ticket};
use crate::{Engine, datastore, snapshot, to_the_end};

pub use archive::{CODE_BYTES_MAX, UNPACKED_BYTES_MAX};

/// How long the code of a run is waited for.  Higher: a run that will never be has its name
/// for longer; lower: a large upload over a slow line comes too late.
pub const CODE_AWAITED_MS: i64 = 60 * 60 * 1_000;

/// How long one that did not become a run is shown.
pub(crate) const KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Runs of one person that wait for their code at once.  Higher: a program that asks and
/// never sends fills the database; lower: one that submits many side by side is refused.
const WAITING_MAX: usize = 1_000;

/// A run that waits for its code, or that came to nothing.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The row.
    pub row: db::draft::Draft,
    /// What is to be run, but for its source.
    pub spec: RunSpec,
    /// The command as typed.
    pub invocation: String,
    /// Where it stands.
    pub state: State,
}

/// Where a draft stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its code may still come.
    Waiting,
    /// It will not become a run unless its code is sent again in time.
    Failed {
        /// Since when.
        at: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// Somebody stopped it.
    Stopped {
        /// When.
        at: Timestamp,
    },
}

impl Draft {
    /// What is waited for, or why it came to nothing.
    pub fn message(&self) -> &str {
        match &self.state {
            State::Waiting => "its code is on its way",
            State::Failed { reason, .. } => reason,
            State::Stopped { .. } => "it was stopped before its code came",
        }
    }

    /// Its experiments as a run would count them.
    pub fn counts(&self) -> Counts {
        let status = match &self.state {
            State::Waiting => Status::Queued,
            State::Failed { .. } => Status::Failed,
            State::Stopped { .. } => Status::Stopped,
        };
        let mut counts = Counts::default();
        counts.add(status, u64::from(self.row.experiments));
        counts
    }

    /// When it came to nothing.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting => None,
            State::Failed { at, .. } | State::Stopped { at } => Some(at),
        }
    }
}

/// A run, or what is to become one.
#[derive(Debug, Clone)]
pub enum Found {
    /// A run.
    Run(Box<run::Run>),
    /// A run whose code is still on its way, or never came.
    Draft(Box<Draft>),
}

/// What is kept of a request until the code is there.
#[derive(Serialize, Deserialize)]
struct Request {
    spec: RunSpec,
    invocation: String,
    project: Option<String>,
}

impl Owned for db::draft::Draft {
    fn team(&self) -> TeamId {
        self.team
    }

    fn creator(&self) -> UserId {
        self.creator
    }

    fn called(&self) -> String {
        format!("run '{}'", self.name)
    }

    fn thing(&self, creator: &str) -> Thing {
        Thing::new("run", self.id, format!("{creator}:{}", self.name))
    }
}

/// Asks for a run whose code is sent later, with the ticket.  What can be refused without
/// the code is refused now.
pub async fn create(engine: &Engine, caller: &Caller, mut new: NewRun) -> Result<(Draft, Ticket)> {
    new.spec.source = Source::Nothing;
    let checked = run::checked(engine, caller, &new, None).await?;
    datastore::resolve(engine, caller, &mut new.spec).await?;
    let inner = &engine.inner;
    let now = inner.clock.now();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "some bits of entropy are wanted"
    )]
    let name = checked
        .name
        .unwrap_or_else(|| generate_run_name(inner.clock.entropy() as u64));
    let id = RunId::from_parts(now, inner.clock.entropy());
    let ticket = ticket::issue(engine, caller, &Purpose::SendCode(id), CODE_AWAITED_MS);
    let request = Request {
        spec: new.spec,
        invocation: new.invocation,
        project: new.project,
    };
    let row = db::draft::Draft {
        id,
        team: checked.team.id,
        creator: caller.id(),
        name: name.to_string(),
        created_at: now,
        expires_at: ticket.expires_at,
        request: serde_json::to_string(&request).map_err(Error::internal)?,
        experiments: u32::try_from(checked.expansion.experiments.len()).unwrap_or(u32::MAX),
        ended: None,
    };
    let mut tx = inner.db.write().await?;
    require_room(&mut tx, caller, now).await?;
    db::draft::remove_over(&mut tx, caller.id(), &row.name, now).await?;
    let added = db::draft::insert(&mut tx, &row).await;
    added.map_err(|error| match error {
        db::Error::Conflict { .. } => run::taken(&name),
        other => other.into(),
    })?;
    let event = did(caller, &row, "run.draft").detail("its code is on its way");
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok((read(row, now)?, ticket))
}

async fn require_room(tx: &mut Tx, caller: &Caller, now: Timestamp) -> Result<()> {
    let drafts = db::draft::of_creator(tx, caller.id()).await?;
    let waiting = |draft: &&db::draft::Draft| draft.ended.is_none() && draft.expires_at > now;
    if drafts.iter().filter(waiting).count() < WAITING_MAX {
        return Ok(());
    }
    Err(Error::TooMany(format!(
        "{WAITING_MAX} runs of yours wait for their code already: send it, or delete them"
    )))
}

fn did(caller: &Caller, row: &db::draft::Draft, action: &'static str) -> Event {
    caller.did(action, Some(row.team), row.thing(&caller.user.username))
}

fn read(row: db::draft::Draft, now: Timestamp) -> Result<Draft> {
    let request: Request = serde_json::from_str(&row.request).map_err(Error::internal)?;
    let state = match &row.ended {
        Some(ended) => match ended.outcome {
            Outcome::Failed => State::Failed {
                at: ended.at,
                reason: ended.reason.clone(),
            },
            Outcome::Stopped => State::Stopped { at: ended.at },
        },
        None if row.expires_at <= now => State::Failed {
            at: row.expires_at,
            reason: format!(
                "its code did not come within {} minutes",
                CODE_AWAITED_MS / 60_000
            ),
        },
        None => State::Waiting,
    };
    Ok(Draft {
        spec: request.spec,
        invocation: request.invocation,
        state,
        row,
    })
}

/// What became of an upload.
#[derive(Debug, Clone)]
pub struct Received {
    /// BLAKE3 of what was sent, in hex.
    pub digest: String,
}

/// An upload that may come.
pub struct Upload {
    engine: Engine,
    caller: Caller,
    draft: Draft,
}

/// Lets in whoever has the ticket of the run that waits for its code under `id`.
pub async fn upload(engine: &Engine, trail: &Trail, ticket: &str, id: RunId) -> Result<Upload> {
    let caller = ticket::admit(engine, trail, ticket, &Purpose::SendCode(id)).await?;
    let mut tx = engine.inner.db.read().await?;
    let row = db::draft::by_id(&mut tx, id).await?;
    let row = row.filter(|row| row.creator == caller.id());
    let done = db::run::by_id(&mut tx, id).await?.is_some();
    drop(tx);
    let Some(row) = row else {
        return Err(if done {
            Error::conflict("the code of this run has come already: it has begun with it")
        } else {
            Error::not_found("no run waits for this code any more")
        });
    };
    let draft = read(row, engine.inner.clock.now())?;
    if let State::Stopped { .. } = draft.state {
        return Err(Error::conflict(format!(
            "run '{}' was stopped before its code came",
            draft.row.name
        )));
    }
    Ok(Upload {
        engine: engine.clone(),
        caller,
        draft,
    })
}

impl Upload {
    /// Takes in the code, and makes the run.  `announced` is how many bytes are said to
    /// come; a piece that is an error says why no more do.
    pub async fn receive<S>(self, announced: Option<u64>, body: S) -> Result<Received>
    where
        S: Stream<Item = Result<Bytes, String>> + Send + 'static,
    {
        // The sender may go away in the middle; that is then written down.
        to_the_end(async move {
            let received = take_in(&self.engine, &self.caller, &self.draft, announced, body).await;
            if let Err(error) = &received {
                fail(&self.engine, &self.caller, &self.draft, error).await;
            }
            received
        })
        .await
    }
}

async fn take_in<S>(
    engine: &Engine,
    caller: &Caller,
    draft: &Draft,
    announced: Option<u64>,
    body: S,
) -> Result<Received>
where
    S: Stream<Item = Result<Bytes, String>> + Send + 'static,
{
    // It takes a thread for as long as it comes.
    let sender = Sender::User(caller.user.id);
    let place = engine.inner.receiving.take(sender, WAIT_MAX).await?;
    let name = format!("code-{:032x}", engine.inner.clock.entropy());
    let folder = Folder::new(engine.inner.scratch.join(name)).await?;
    let path = folder.path().join("code.tar");
    let digest = archive::receive(path.clone(), announced, body).await?;
    drop(place);
    let listed = path.clone();
    let tree = tokio::task::spawn_blocking(move || archive::read(&listed)).await;
    let tree = tree.map_err(Error::internal)??;
    archive::store(engine, &path, &tree).await?;
    let taken = snapshot::of_own(engine, caller, tree.entries).await?;
    let snapshot::Outcome::Taken(id) = taken else {
        return Err(Error::internal(anyhow::anyhow!(
            "files of an archive were stored and are missing"
        )));
    };
    let request: Request = serde_json::from_str(&draft.row.request).map_err(Error::internal)?;
    let team = caller
        .teams
        .iter()
        .find(|(team, _)| team.id == draft.row.team)
        .map(|(team, _)| team.name.clone());
    let team = team.ok_or_else(|| {
        Error::forbidden("you are no longer in the team that this run was asked for in")
    })?;
    let new = NewRun {
        name: Some(draft.row.name.clone()),
        team: Some(team),
        spec: RunSpec {
            source: Source::Snapshot { id, git: None },
            ..request.spec
        },
        invocation: request.invocation,
        project: request.project,
        cloned_from: None,
        dry_run: false,
        idempotency_key: None,
    };
    let reserved = Reserved {
        id: draft.row.id,
        created_at: draft.row.created_at,
    };
    run::create_reserved(engine, caller, new, reserved).await?;
    Ok(Received { digest })
}

/// Writes down why a draft did not become a run.
async fn fail(engine: &Engine, caller: &Caller, draft: &Draft, error: &Error) {
    let reason = match error {
        Error::Internal(_) => {
            "the server failed while it took in the code; send it again".to_owned()
        }
        other => match other.hint() {
            Some(hint) => format!("{other}; {hint}"),
            None => other.to_string(),
        },
    };
    let written = end(engine, caller, &draft.row, Outcome::Failed, &reason).await;
    if let Err(error) = written {
        // It waits until its time is over, and is shown as failed then.
        tracing::warn!(
            run = %draft.row.id,
            error = &error as &dyn std::error::Error,
            "why a run did not come to be was not written down"
        );
    }
}

/// Ends a draft.  Answers with whether it was there to be ended.
async fn end(
    engine: &Engine,
    caller: &Caller,
    row: &db::draft::Draft,
    outcome: Outcome,
    reason: &str,
) -> Result<bool> {
    let ended = db::draft::Ended {
        at: engine.inner.clock.now(),
        outcome,
        reason: reason.to_owned(),
    };
    let action = match outcome {
        Outcome::Failed => "run.fail",
        Outcome::Stopped => Action::StopRun.word(),
    };
    let mut tx = engine.inner.db.write().await?;
    if !db::draft::end(&mut tx, row.id, &ended).await? {
        return Ok(false);
    }
    let event = did(caller, row, action).detail(reason);
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// The draft of the caller's that `text` names: by its id or by its name.
async fn find(tx: &mut Tx, caller: &Caller, text: &str) -> Result<Option<db::draft::Draft>> {
    let own = match text.split_once(':') {
        Some((user, name)) if user == caller.user.username => name,
        Some(_) => return Ok(None),
        None => text,
    };
    let found = match own.parse::<RunId>() {
        Ok(id) => db::draft::by_id(tx, id).await?,
        Err(_) if RunName::parse(own).is_err() => None,
        Err(_) => db::draft::by_name(tx, caller.id(), own).await?,
    };
    let mine =
        |row: &db::draft::Draft| row.creator == caller.id() && caller.sees(row, Action::SeeRun);
    Ok(found.filter(mine))
}

/// One run, or what is to become one.
pub async fn get(engine: &Engine, caller: &Caller, name: &str) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let found = find(&mut tx, caller, name).await?;
    drop(tx);
    match found {
        Some(row) => Ok(Found::Draft(Box::new(read(row, engine.inner.clock.now())?))),
        None => Ok(Found::Run(Box::new(run::get(engine, caller, name).await?))),
    }
}

/// All drafts of the caller, the newest first.
pub async fn list(engine: &Engine, caller: &Caller) -> Result<Vec<Draft>> {
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.read().await?;
    let rows = db::draft::of_creator(&mut tx, caller.id()).await?;
    drop(tx);
    rows.into_iter()
        .filter(|row| caller.sees(row, Action::SeeRun))
        .map(|row| read(row, now))
        .collect()
}

/// The drafts of the caller that stand at the head of a list of runs.
pub async fn listed(engine: &Engine, caller: &Caller, filter: &run::Filter) -> Result<Vec<Draft>> {
    let mine = filter.created_by.as_ref();
    let is_mine = mine.is_none_or(|user| *user == caller.user.username);
    if filter.deleted || filter.after.is_some() || !is_mine {
        return Ok(vec![]);
    }
    let Some(statuses) = filter.statuses() else {
        return Ok(vec![]);
    };
    let part = filter.name.as_deref().unwrap_or_default();
    let mut drafts = list(engine, caller).await?;
    drafts.retain(|draft| {
        let wanted = statuses.is_empty() || statuses.contains(&status(&draft.counts()));
        let since = filter.since.is_none_or(|at| draft.row.created_at >= at);
        wanted && since && draft.row.name.contains(part)
    });
    Ok(drafts)
}

/// Stops a run, or one that is still to come.  Answers with how many experiments that ended.
pub async fn stop(engine: &Engine, caller: &Caller, name: &str) -> Result<(Found, u64)> {
    let mut tx = engine.inner.db.read().await?;
    let found = find(&mut tx, caller, name).await?;
    if let Some(row) = &found {
        caller.check(&mut tx, row, Action::StopRun).await?;
    }
    drop(tx);
    let Some(row) = found else {
        let (run, changed) = run::stop(engine, caller, name).await?;
        return Ok((Found::Run(Box::new(run)), changed));
    };
    let draft = read(row, engine.inner.clock.now())?;
    let mut changed = 0;
    if draft.state == State::Waiting {
        let reason = "stopped before its code came";
        end(engine, caller, &draft.row, Outcome::Stopped, reason).await?;
        changed = u64::from(draft.row.experiments);
    }
    // By its id: its code may have come in the meantime, and then it is a run.
    let found = get(engine, caller, &draft.row.id.to_string()).await?;
    Ok((found, changed))
}

/// Moves a run to the trash, or removes one that is still to come.
pub async fn delete(engine: &Engine, caller: &Caller, name: &str) -> Result<Found> {
    let as_run = async |name: &str| {
        let run = run::delete(engine, caller, name).await?;
        Ok(Found::Run(Box::new(run)))
    };
    let mut tx = engine.inner.db.read().await?;
    let found = find(&mut tx, caller, name).await?;
    if let Some(row) = &found {
        caller.check(&mut tx, row, Action::DeleteRun).await?;
    }
    drop(tx);
    let Some(row) = found else {
        return as_run(name).await;
    };
    let draft = read(row, engine.inner.clock.now())?;
    let mut tx = engine.inner.db.write().await?;
    if !db::draft::remove(&mut tx, draft.row.id).await? {
        drop(tx);
        // Its code has come in the meantime.
        return as_run(&draft.row.id.to_string()).await;
    }
    let event = did(caller, &draft.row, Action::DeleteRun.word()).detail("it waited for its code");
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(Found::Draft(Box::new(draft)))
}

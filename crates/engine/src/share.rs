//! Links that people pass on: to a run, for teammates; to an artifact, for whoever has it.
//!
//! A link is a row, so that it can be listed and taken back, and shows nothing that its
//! creator may not (any more) see.  Whatever is wrong with one, the answer is the same.

use grid_core::access::Action;
use grid_core::id::{RunId, ShareId, TeamId};
use grid_core::time::Timestamp;
use grid_store::db::share::Share;
use grid_store::db::{self, Tx};

use crate::access::{Caller, Owned};
use crate::audit::{Draft, Thing, Trail};
use crate::error::{Error, Result};
use crate::secret::seal;
use crate::{Engine, artifact, key, reference, run};

/// How long a link to a run works unless somebody says otherwise.
const LIFE_S: u64 = 30 * 24 * 60 * 60;

/// How often the last use of a link is written down.
const TOUCH_EVERY_MS: i64 = 60_000;

/// A link with the names that people know.
#[derive(Debug, Clone)]
pub struct Info {
    /// The row.
    pub row: Share,
    /// `user:run`, or `user:run-expN`.
    pub thing: String,
    /// Name of the team.
    pub team: String,
    /// User name of who made it.
    pub created_by: String,
}

impl Owned for Share {
    fn team(&self) -> TeamId {
        self.team
    }

    fn creator(&self) -> grid_core::id::UserId {
        self.creator
    }

    fn called(&self) -> String {
        format!("link '{}'", self.id)
    }

    fn thing(&self, _: &str) -> Thing {
        Thing::new("link", &self.id, "")
    }
}

/// A token that nobody can guess.
pub(crate) fn token(engine: &Engine) -> String {
    format!("{:032x}", engine.inner.clock.entropy())
}

/// A new link to a run or to an artifact of it.
pub(crate) fn new(
    engine: &Engine,
    caller: &Caller,
    run: &db::run::Run,
    artifact: Option<(grid_core::id::WorkloadId, String)>,
    expires_at: Option<Timestamp>,
) -> Share {
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    Share {
        id: ShareId::from_parts(now, clock.entropy()).to_string(),
        team: run.team,
        creator: caller.id(),
        run: run.id,
        artifact,
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    }
}

/// Makes a link to a run.  Answers with it and its token, in clear this once.
pub async fn create(
    engine: &Engine,
    caller: &Caller,
    name: &str,
    expires_in_s: Option<u64>,
) -> Result<(Info, String)> {
    let now = engine.inner.clock.now();
    let expires_at = key::end(now, Some(expires_in_s.unwrap_or(LIFE_S)))?;
    let mut tx = engine.inner.db.read().await?;
    let run = reference::run(&mut tx, caller, name, false).await?;
    artifact::check(&mut tx, caller, &run, Action::ShareRun).await?;
    drop(tx);
    let token = token(engine);
    let share = new(engine, caller, &run, None, expires_at);
    let creator = run::creator(engine, caller, &run).await?;
    let mut tx = engine.inner.db.write().await?;
    db::share::insert_many(
        &mut tx,
        &[(share.clone(), seal(&engine.inner.secret, &token))],
    )
    .await?;
    let event = caller.did(
        Action::ShareRun.word(),
        Some(run.team),
        Thing::run(&run, &creator),
    );
    let event = event.detail(format!("link {}", share.id));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    let mut tx = engine.inner.db.read().await?;
    let mut infos = named(&mut tx, vec![share]).await?;
    let info = infos.pop().ok_or_else(gone)?;
    Ok((info, token))
}

/// Which links; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Teammates', too.
    pub global: bool,
    /// Those to this run.
    pub run: Option<String>,
    /// After this place.
    pub after: Option<db::Position<String>>,
    /// At most so many.
    pub limit: u32,
}

/// Links that work, the newest first: the caller's, or those of their teams.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
) -> Result<db::Page<Info, db::Position<String>>> {
    let mut tx = engine.inner.db.read().await?;
    let teams: Vec<TeamId> = caller.teams.iter().map(|(team, _)| team.id).collect();
    let run: Option<RunId> = match &filter.run {
        Some(name) => {
            let run = reference::run(&mut tx, caller, name, false).await?;
            artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
            Some(run.id)
        }
        None => None,
    };
    let wanted = db::share::Filter {
        scope: db::Scope {
            owner: (!filter.global).then(|| caller.id()),
            teams: Some(&teams),
        },
        run,
        open_at: Some(engine.inner.clock.now()),
        after: filter.after.clone(),
    };
    let page = db::share::list(&mut tx, &wanted, filter.limit).await?;
    Ok(db::Page {
        items: named(&mut tx, page.items).await?,
        next: page.next,
    })
}

async fn named(tx: &mut Tx, shares: Vec<Share>) -> Result<Vec<Info>> {
    let runs: Vec<RunId> = shares.iter().map(|share| share.run).collect();
    let runs = db::run::by_ids(tx, &runs).await?;
    let mut people: Vec<_> = shares.iter().map(|share| share.creator).collect();
    people.extend(runs.iter().map(|run| run.creator));
    people.sort_unstable();
    people.dedup();
    let people = db::user::by_ids(tx, &people).await?;
    let teams: Vec<TeamId> = shares.iter().map(|share| share.team).collect();
    let teams = db::team::by_ids(tx, &teams).await?;
    let name_of = |id| {
        let user = people.iter().find(|user| user.id == id);
        user.map_or_else(String::new, |user| user.username.clone())
    };
    let mut infos = Vec::with_capacity(shares.len());
    for row in shares {
        let run = runs.iter().find(|run| run.id == row.run);
        let mut thing = run.map_or_else(String::new, |run| {
            format!("{}:{}", name_of(run.creator), run.name)
        });
        if let Some((workload, _)) = &row.artifact
            && let Some(experiment) = db::workload::get(tx, *workload).await?
        {
            thing = format!("{thing}-exp{}", experiment.idx);
        }
        let team = teams.iter().find(|team| team.id == row.team);
        infos.push(Info {
            thing,
            team: team.map_or_else(String::new, |team| team.name.clone()),
            created_by: name_of(row.creator),
            row,
        });
    }
    Ok(infos)
}

/// Takes a link back: whoever made it, and admins of the team.
pub async fn revoke(engine: &Engine, caller: &Caller, id: &str) -> Result<Info> {
    let none = || Error::NotFound {
        what: format!("no link '{id}' of yours works"),
        hint: Some("`grid share --list` lists those that do".to_owned()),
    };
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    let share = db::share::by_id(&mut tx, id).await?;
    let share = share.filter(|share| {
        let over = share.expires_at.is_some_and(|at| at <= now);
        !over && share.revoked_at.is_none() && caller.sees(share, Action::SeeRun)
    });
    let mut share = share.ok_or_else(none)?;
    caller.require_run_scope("revoke links")?;
    if share.creator != caller.id() {
        let team = share.team.to_string();
        let found = caller.team(&mut tx, &team).await.map_err(|_| none())?;
        caller.check_team(&found, Action::ManageTeam)?;
    }
    db::share::revoke(&mut tx, id, now).await?;
    share.revoked_at = Some(now);
    let team = share.team;
    let mut infos = named(&mut tx, vec![share]).await?;
    let info = infos.pop().ok_or_else(none)?;
    let thing = Thing::new("link", id, info.thing.clone());
    let event = caller.did("share.revoke", Some(team), thing);
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(info)
}

fn gone() -> Error {
    Error::NotFound {
        what: "this link does not work, or no longer".to_owned(),
        hint: Some("ask whoever sent it for a new one".to_owned()),
    }
}

/// The link of a token, if it works: not over, not revoked, to something that is not in
/// the trash, by somebody who may still see it.
pub(crate) async fn open(
    engine: &Engine,
    tx: &mut Tx,
    token: &str,
    action: Action,
) -> Result<(Share, db::run::Run)> {
    let token = token.trim().rsplit('/').next().unwrap_or_default();
    let share = db::share::by_hash(tx, &seal(&engine.inner.secret, token)).await?;
    let share = share.ok_or_else(gone)?;
    let now = engine.inner.clock.now();
    let over = share.expires_at.is_some_and(|at| at <= now);
    let run = db::run::by_id(tx, share.run).await?;
    let run = run.filter(|run| !over && share.revoked_at.is_none() && run.deleted.is_none());
    let run = run.ok_or_else(gone)?;
    let maker = db::user::by_id(tx, share.creator).await?;
    let maker = maker.filter(|user| user.disabled_at.is_none());
    let maker = Caller::load(tx, maker.ok_or_else(gone)?, None).await?;
    if maker.may(&run, action) && maker.may(&run, Action::ShareRun) {
        Ok((share, run))
    } else {
        Err(gone())
    }
}

/// Until when a link to a run works, for whoever has it: that it is one tells them nothing
/// that its giver did not.
pub async fn peek(engine: &Engine, token: &str) -> Result<Option<Timestamp>> {
    let mut tx = engine.inner.db.read().await?;
    let (share, _) = open(engine, &mut tx, token, Action::SeeRun).await?;
    if share.artifact.is_some() {
        return Err(gone());
    }
    Ok(share.expires_at)
}

/// The run that a link leads to, for a teammate.
pub async fn resolve(engine: &Engine, caller: &Caller, token: &str) -> Result<run::Run> {
    let mut tx = engine.inner.db.read().await?;
    let (share, run) = open(engine, &mut tx, token, Action::SeeRun).await?;
    if share.artifact.is_some() || !caller.sees(&run, Action::SeeRun) {
        return Err(gone());
    }
    artifact::check(&mut tx, caller, &run, Action::SeeRun).await?;
    let found = run::one(&mut tx, caller, run).await?;
    drop(tx);
    touch(engine, &share);
    Ok(found)
}

/// Notes that a link was used, beside the request.
fn touch(engine: &Engine, share: &Share) {
    let now = engine.inner.clock.now();
    let stale = |at| now.millis_since(at) > TOUCH_EVERY_MS;
    if !share.last_used_at.is_none_or(stale) {
        return;
    }
    let (engine, id) = (engine.clone(), share.id.clone());
    tokio::spawn(async move {
        let touched = async {
            let mut tx = engine.inner.db.write().await?;
            db::share::touch(&mut tx, &id, now).await?;
            Ok::<(), Error>(tx.commit().await?)
        };
        if let Err(error) = touched.await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the use of a link was not written down"
            );
        }
    });
}

/// Notes that somebody without an account used a link to an artifact.
pub(crate) fn followed(
    engine: &Engine,
    trail: &Trail,
    share: &Share,
    run: &db::run::Run,
    path: &str,
) {
    touch(engine, share);
    let thing = Thing::new("run", run.id, run.name.clone());
    let draft = Draft::by_link(trail, &share.id, "share.open", thing);
    trail.note_link(draft.in_team(share.team).detail(path));
}

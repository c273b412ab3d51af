//! The audit log: who did what, on which thing, from where, and what came of it.
//!
//! A change is written down in the transaction that makes it ([`Draft::write`]).  What
//! changes nothing — refusals, and operators who look into a team — is noted on the way
//! ([`Trail`]) and written by one task for all who wait, before they are answered
//! ([`Engine::settle`]).

mod writer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid_core::access::Action;
use grid_core::id::{AuditId, TeamId, UserId};
use grid_core::time::Timestamp;
use grid_store::db::{self, Tx, audit::Entry};

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Clock, Engine, reference};

pub(crate) use writer::{Auditor, run};

/// Longest name of a client that is kept, in bytes.  Longer: a line of the log is mostly
/// what a browser says of itself; shorter: programs look alike.
const CLIENT_BYTES_MAX: usize = 200;

/// Longest text about one event, in bytes, for the same reason.
const DETAIL_BYTES_MAX: usize = 1_000;

/// Why somebody was refused who was told that there is no such thing.  Their own log does
/// not list it: it would tell that there is, and what it is called.
const HIDDEN: &str = "an outsider";

/// How often events that are too old are looked for.
const SHORTEN_EVERY: Duration = Duration::from_secs(60 * 60);

/// Events forgotten in one transaction.  Higher: those who write wait longer.
const SHORTEN_STEP: u32 = 1_000;

/// How long events are kept unless somebody says otherwise, in days.  Longer: the database
/// grows; shorter: what happened last year is not known.
pub const KEPT_DAYS: u32 = 365;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The address.
    pub address: String,
    /// The program, as it calls itself.
    pub client: String,
}

/// What a request leaves behind, until it is written down.  Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<TrailInner>);

#[derive(Debug, Default)]
struct TrailInner {
    origin: Origin,
    notes: Mutex<Vec<Note>>,
}

#[derive(Debug)]
struct Note {
    draft: Draft,
    /// Whether the request may be answered only once it is written.
    must: bool,
}

impl Trail {
    /// Nothing yet, from somewhere.
    pub fn new(mut origin: Origin) -> Self {
        origin.client = clean(&origin.client, CLIENT_BYTES_MAX);
        Self(Arc::new(TrailInner {
            origin,
            notes: Mutex::default(),
        }))
    }

    /// Where the request comes from.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    fn note(&self, draft: Draft, must: bool) {
        let mut notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(Note { draft, must });
    }

    fn take(&self) -> Vec<Note> {
        let mut notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notes)
    }

    /// Somebody used a link.
    pub(crate) fn note_link(&self, draft: Draft) {
        self.note(draft, true);
    }

    /// Somebody could not sign in as `login`.
    pub(crate) fn failed_login(&self, login: &str, detail: &str) {
        let thing = Thing::new("user", "", clean(login, CLIENT_BYTES_MAX));
        let mut draft = Draft::new(self, "login", thing).detail(detail);
        draft.result = "refused";
        self.note(draft, false);
    }
}

fn clean(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    text[..end].replace(char::is_control, "?")
}

/// What an event is about.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    kind: &'static str,
    id: String,
    name: String,
}

impl Thing {
    pub(crate) fn new(
        kind: &'static str,
        id: impl std::fmt::Display,
        name: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            id: id.to_string(),
            name: name.into(),
        }
    }

    pub(crate) fn team(team: &db::team::Team) -> Self {
        Self::new("team", team.id, team.name.clone())
    }

    pub(crate) fn user(user: &db::user::User) -> Self {
        Self::new("user", user.id, user.username.clone())
    }

    /// A run.
    pub(crate) fn run(run: &db::run::Run, creator: &str) -> Self {
        Self::made("run", run.id, creator, &run.name)
    }

    /// What somebody made, named as teammates name it; by its own name where nobody looked
    /// for the creator's.
    pub(crate) fn made(
        kind: &'static str,
        id: impl std::fmt::Display,
        creator: &str,
        name: &str,
    ) -> Self {
        match creator {
            "" => Self::new(kind, id, name),
            creator => Self::new(kind, id, format!("{creator}:{name}")),
        }
    }

    /// An experiment, named as teammates name it.
    pub(crate) fn experiment(
        run: &db::run::Run,
        row: &db::workload::Stored,
        creator: &str,
    ) -> Self {
        let name = format!("{creator}:{}-exp{}", run.name, row.idx);
        Self::new("experiment", row.workload.id, name)
    }
}

/// An event that is about to be written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    team: Option<TeamId>,
    user: Option<UserId>,
    actor_kind: &'static str,
    actor: String,
    action: &'static str,
    thing: Thing,
    result: &'static str,
    detail: String,
    origin: Origin,
}

impl Draft {
    fn new(trail: &Trail, action: &'static str, thing: Thing) -> Self {
        Self {
            team: None,
            user: None,
            actor_kind: "nobody",
            actor: String::new(),
            action,
            thing,
            result: "done",
            detail: String::new(),
            origin: trail.origin().clone(),
        }
    }

    /// By whoever has a link.
    pub(crate) fn by_link(trail: &Trail, link: &str, action: &'static str, thing: Thing) -> Self {
        let mut draft = Self::new(trail, action, thing);
        draft.actor_kind = "link";
        link.clone_into(&mut draft.actor);
        draft
    }

    /// By a user who is not signed in, as one who registers.
    pub(crate) fn by_user(
        trail: &Trail,
        user: &db::user::User,
        action: &'static str,
        thing: Thing,
    ) -> Self {
        let mut draft = Self::new(trail, action, thing);
        draft.actor_kind = "user";
        draft.user = Some(user.id);
        draft.actor.clone_from(&user.username);
        draft
    }

    /// By a right that only those have who run the server.
    pub(crate) fn by_operator(mut self) -> Self {
        self.actor_kind = "operator";
        self
    }

    /// By a right that everybody has, whoever they are: to make a team, to accept an
    /// invitation.
    pub(crate) fn by_anybody(mut self) -> Self {
        if self.actor_kind == "operator" {
            self.actor_kind = "user";
        }
        self
    }

    /// In a team.
    pub(crate) fn in_team(mut self, team: TeamId) -> Self {
        self.team = Some(team);
        self
    }

    /// More about it.
    pub(crate) fn detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = clean(detail.as_ref(), DETAIL_BYTES_MAX);
        self
    }

    /// The line of the log.
    pub(crate) fn entry(self, clock: &dyn Clock) -> Entry {
        let at = clock.now();
        Entry {
            id: AuditId::from_parts(at, clock.entropy()).to_string(),
            at,
            team: self.team,
            user: self.user,
            actor_kind: self.actor_kind.to_owned(),
            actor: self.actor,
            action: self.action.to_owned(),
            thing_kind: self.thing.kind.to_owned(),
            thing_id: self.thing.id,
            thing_name: self.thing.name,
            result: self.result.to_owned(),
            detail: self.detail,
            address: self.origin.address,
            client: self.origin.client,
        }
    }

    /// Writes it down in the transaction of the change that it tells of.
    pub(crate) async fn write(self, engine: &Engine, tx: &mut Tx) -> Result<()> {
        let entry = self.entry(&*engine.inner.clock);
        Ok(db::audit::insert(tx, &entry).await?)
    }

    /// Writes it down by itself, together with what others have to write.
    pub(crate) async fn write_alone(self, engine: &Engine) -> Result<()> {
        let entry = self.entry(&*engine.inner.clock);
        engine.inner.auditor.write(vec![entry]).await
    }
}

impl Caller {
    /// An event of this caller's.  In a team that an operator is not in, it is a right used
    /// beyond their own teams, and says so; about what is their own they are users.
    pub(crate) fn did(&self, action: &'static str, team: Option<TeamId>, thing: Thing) -> Draft {
        let mut draft = Draft::by_user(&self.trail, &self.user, action, thing);
        draft.team = team;
        let mine = |team| self.teams.iter().any(|(mine, _)| mine.id == team);
        if self.user.service_team.is_some() {
            draft.actor_kind = "service";
        } else if self.user.operator && team.is_some_and(|team| !mine(team)) {
            draft.actor_kind = "operator";
        }
        draft
    }

    /// Notes that the caller was let in by a right that is written down.
    pub(crate) fn note_look(&self, action: Action, team: Option<TeamId>, thing: Thing) {
        let draft = self.did(action.word(), team, thing).by_operator();
        self.trail.note(draft, true);
    }

    /// Notes that the caller was refused, and why.
    pub(crate) fn note_refusal(
        &self,
        action: &'static str,
        team: Option<TeamId>,
        thing: Thing,
        why: &str,
    ) {
        let mut draft = self.did(action, team, thing).detail(why);
        draft.result = "refused";
        self.trail.note(draft, true);
    }

    /// Notes that the caller asked for what they may not know of.  Nobody waits for it, and
    /// it is written a while later: the time it takes would tell that it is there.
    pub(crate) fn note_hidden(&self, action: Action, team: TeamId, thing: Thing) {
        let mut draft = self.did(action.word(), Some(team), thing);
        draft.result = "refused";
        self.trail.note(draft.detail(HIDDEN), false);
    }
}

impl Engine {
    /// Writes down what a request has left behind and nobody has written yet.  To be
    /// called before the request is answered; when it fails, what was looked at must not
    /// be shown.
    pub async fn settle(&self, trail: &Trail) -> Result<()> {
        let notes = trail.take();
        if notes.is_empty() {
            return Ok(());
        }
        let must = notes.iter().any(|note| note.must);
        let clock = &*self.inner.clock;
        let entries = notes.into_iter().map(|note| note.draft.entry(clock));
        let entries = entries.collect();
        if must {
            return self.inner.auditor.write(entries).await;
        }
        self.inner.auditor.note(entries);
        Ok(())
    }

    /// Writes down what still waits to be, as before the server ends.
    pub async fn settle_all(&self) -> Result<()> {
        self.inner.auditor.write(vec![]).await
    }

    /// For how many days the audit log is kept; 0 is for ever.
    pub fn keep_audit_for(&self, days: u32) {
        self.inner.audit_days.store(days, Ordering::Relaxed);
    }

    /// Forgets events that are too old, now and then, for ever.
    pub async fn keep_audit(&self) {
        loop {
            if let Err(error) = self.shorten_audit().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the audit log could not be shortened; trying again later"
                );
            }
            tokio::time::sleep(SHORTEN_EVERY).await;
        }
    }

    /// Forgets events that are too old; says how many.
    pub async fn shorten_audit(&self) -> Result<u64> {
        let days = self.inner.audit_days.load(Ordering::Relaxed);
        if days == 0 {
            return Ok(0);
        }
        let before = self
            .inner
            .clock
            .now()
            .plus_millis(-DAY_MS * i64::from(days));
        let mut forgotten = 0;
        loop {
            let mut tx = self.inner.db.write().await?;
            let step = db::audit::remove_before(&mut tx, before, SHORTEN_STEP).await?;
            tx.commit().await?;
            forgotten += step;
            if step < u64::from(SHORTEN_STEP) {
                return Ok(forgotten);
            }
        }
    }
}

/// Which events; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Everybody's, of all teams; for operators.
    pub all: bool,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// What this user did, by name.
    pub user: Option<String>,
    /// This action.
    pub action: Option<String>,
    /// About this thing, by id or name.
    pub thing: Option<String>,
    /// With this result.
    pub result: Option<String>,
    /// After this place.
    pub after: Option<db::Position<String>>,
    /// At most so many.
    pub limit: u32,
}

/// An event with the name of its team.
#[derive(Debug, Clone)]
pub struct Event {
    /// The line of the log.
    pub entry: Entry,
    /// Name of the team now.
    pub team: Option<String>,
}

/// A page of events, and where the next one begins.
pub type Events = db::Page<Event, db::Position<String>>;

/// Events of a team, the newest first: all for admins, their own for everybody else.
pub async fn of_team(
    engine: &Engine,
    caller: &Caller,
    team: &str,
    filter: &Filter,
) -> Result<Events> {
    let mut tx = engine.inner.db.read().await?;
    let found = caller.team(&mut tx, team).await?;
    caller.check_team(&found, Action::SeeTeam)?;
    let mut user = match &filter.user {
        Some(name) => Some(known(&mut tx, name).await?),
        None => None,
    };
    let me = caller.id();
    if caller.may_team(&found, Action::ReadAudit) {
        caller.check_team(&found, Action::ReadAudit)?;
    } else if user.is_none() || user == Some(Some(me)) {
        user = Some(Some(me));
    } else {
        caller.check_team(&found, Action::ReadAudit)?;
    }
    list(&mut tx, Some(found.team.id), user, filter).await
}

/// Events of the caller, the newest first; with `all`, everybody's, for operators.
pub async fn of_caller(engine: &Engine, caller: &Caller, filter: &Filter) -> Result<Events> {
    let mut tx = engine.inner.db.read().await?;
    let named = match &filter.user {
        Some(name) => Some(known(&mut tx, name).await?),
        None => None,
    };
    if filter.all {
        caller.require_operator("read the audit log of all teams")?;
        let thing = Thing::new("server", "", "audit log of all teams");
        caller.note_look(Action::ReadAudit, None, thing);
        return list(&mut tx, None, named, filter).await;
    }
    match named {
        Some(user) if user != Some(caller.id()) => {
            let message =
                "these are your own events; admins read their team's with `grid team audit TEAM`";
            caller.note_refusal(
                "server.operate",
                None,
                Thing::new("server", "", ""),
                message,
            );
            Err(Error::forbidden(message))
        }
        _ => list(&mut tx, None, Some(Some(caller.id())), filter).await,
    }
}

async fn known(tx: &mut Tx, name: &str) -> Result<Option<UserId>> {
    let user = reference::user_by_name(tx, name).await?;
    Ok(user.map(|user| user.id))
}

/// `user`: `None` for everybody's, `Some(None)` for those of somebody unknown.
async fn list(
    tx: &mut Tx,
    team: Option<TeamId>,
    user: Option<Option<UserId>>,
    filter: &Filter,
) -> Result<Events> {
    if user == Some(None) {
        return Ok(db::Page {
            items: vec![],
            next: None,
        });
    }
    let wanted = db::audit::Filter {
        team,
        user: user.flatten(),
        action: filter.action.as_deref(),
        thing: filter.thing.as_deref(),
        result: filter.result.as_deref(),
        not_refused_as: (team.is_none() && !filter.all).then_some(HIDDEN),
        from: filter.since,
        until: filter.until,
        after: filter.after.clone(),
    };
    let page = db::audit::list(tx, &wanted, filter.limit).await?;
    let mut ids: Vec<TeamId> = page.items.iter().filter_map(|entry| entry.team).collect();
    ids.sort_unstable();
    ids.dedup();
    let teams = db::team::by_ids(tx, &ids).await?;
    let named = |entry: Entry| {
        let team = teams.iter().find(|team| Some(team.id) == entry.team);
        Event {
            team: team.map(|team| team.name.clone()),
            entry,
        }
    };
    Ok(db::Page {
        items: page.items.into_iter().map(named).collect(),
        next: page.next,
    })
}

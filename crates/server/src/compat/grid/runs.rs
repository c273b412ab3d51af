//! Runs: asking for one, listing, stopping, deleting.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use grid_core::id::RunId;
use grid_engine::draft::{self, Found};
use grid_engine::run::{self, Filter};
use grid_engine::{Engine, experiment};
use serde::Deserialize;

use super::asked::{self, Parameters, Words};
use super::auth::Caller;
use super::create::Create;
use super::shapes::Empty;
use super::shapes::read::or_default;
use super::shapes::run::{Run, Runs, phase};
use super::transfer;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Path, Query};
use crate::rest::App;

/// Runs that are read at a time.
const PAGE: u32 = 1_000;

/// Runs in one answer when all are asked for: the client never asks for a second page.
/// Higher: one question holds memory of many; lower: a long history is shown cut.
const RUNS_MAX: usize = 10_000;

/// The largest request for a run.  The engine's own limit is lower and says more.
const BODY_BYTES_MAX: usize = 4 << 20;

/// What is in the trash, to the client.
const DELETED: &str = "RUN_STATE_DELETED";

pub(super) async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(create): JsonBody<Create, BODY_BYTES_MAX>,
) -> Result<Json<Run>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let is_sent_later = create.local_dir;
    let new = create.read(&app.engine.nodes().await?)?;
    if is_sent_later && !new.dry_run {
        let base = app.base(&uri, &headers)?;
        let (draft, ticket) = draft::create(&app.engine, &caller, new).await?;
        let mut shown = Run::of_draft(&draft, draft.row.name.clone(), cluster);
        shown.status.upload_url = transfer::upload_url(&base, &ticket, draft.row.id);
        return Ok(Json(shown));
    }
    let created = run::create(&app.engine, &caller, new).await?;
    let ids: Vec<_> = created
        .experiments
        .iter()
        .filter_map(|experiment| experiment.id)
        .collect();
    let name = created.run.row.name.clone();
    Run::new(&created.run, name, &ids, cluster).map(Json)
}

/// Which runs are asked for.
struct Asked<'q> {
    phases: Words<'q>,
    users: HashSet<&'q str>,
    /// `user` of `user:name`.
    user: Option<&'q str>,
    /// What the name begins with.
    prefix: &'q str,
}

impl<'q> Asked<'q> {
    fn read(parameters: &'q [(String, String)]) -> Self {
        let query = asked::one(parameters, "query").unwrap_or_default();
        let (user, prefix) = match query.split_once(':') {
            Some((user, name)) => (Some(user), name),
            None => (None, query),
        };
        Self {
            phases: Words::read(parameters, "phaseIn", "phaseNotIn"),
            users: asked::all(parameters, "userIds").collect(),
            user,
            prefix,
        }
    }

    fn filter(&self, limit: u32) -> Filter {
        Filter {
            deleted: self.phases.only(DELETED),
            global: self.user.is_some() || !self.users.is_empty(),
            created_by: self.user.map(str::to_owned),
            name: Some(self.prefix.to_owned()).filter(|prefix| !prefix.is_empty()),
            limit,
            ..Filter::default()
        }
    }

    /// Whether runs of this user with this name are asked for.
    fn names(&self, creator: &str, name: &str) -> bool {
        (self.users.is_empty() || self.users.contains(creator)) && name.starts_with(self.prefix)
    }

    /// A run under the name that it was asked for by.
    fn name(&self, name: &str) -> String {
        match self.user {
            Some(user) => format!("{user}:{name}"),
            None => name.to_owned(),
        }
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Runs>> {
    let engine = &app.engine;
    let cluster = asked::cluster(engine, &cluster)?;
    let asked = Asked::read(&parameters);
    let size = asked::page_size(&parameters, PAGE)?;
    let mut filter = asked.filter(size.unwrap_or(PAGE));
    filter.after = asked::one(&parameters, "pageToken")
        .map(asked::position)
        .transpose()?;
    let is_first = filter.after.is_none();
    let (found, next) = read(engine, &caller, &asked, filter, size.is_none()).await?;
    let ids: Vec<RunId> = found.iter().map(|run| run.row.id).collect();
    let ids = experiment::ids(engine, &ids).await?;
    let mut runs = Vec::with_capacity(found.len());
    for run in &found {
        let ids = ids.get(&run.row.id).map(Vec::as_slice).unwrap_or_default();
        runs.push(Run::new(run, asked.name(&run.row.name), ids, cluster)?);
    }
    if is_first {
        let drafts = drafts(engine, &caller, &asked, cluster).await?;
        runs.splice(0..0, drafts);
        // Times of one form and one zone: as text they sort as they are.
        runs.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    }
    Ok(Json(Runs {
        next_page_token: next.unwrap_or_default(),
        previous_page_token: String::new(),
        total_size: runs.len().to_string(),
        runs,
    }))
}

/// One page, or all there are.
async fn read(
    engine: &Engine,
    caller: &grid_engine::Caller,
    asked: &Asked<'_>,
    mut filter: Filter,
    all: bool,
) -> Result<(Vec<run::Run>, Option<String>)> {
    let mut found = Vec::new();
    loop {
        let page = run::list(engine, caller, &filter).await?;
        let wanted = page.items.into_iter().filter(|run| {
            let creator = run.row.creator.to_string();
            asked.names(&creator, &run.row.name) && asked.phases.allow(phase(run))
        });
        found.extend(wanted);
        let Some(next) = page.next else {
            return Ok((found, None));
        };
        if !all || found.len() >= RUNS_MAX {
            return Ok((found, Some(asked::page_token(&next))));
        }
        filter.after = Some(next);
    }
}

/// Runs of the caller's whose code is still on its way.
async fn drafts(
    engine: &Engine,
    caller: &grid_engine::Caller,
    asked: &Asked<'_>,
    cluster: &str,
) -> Result<Vec<Run>> {
    if asked.user.is_some_and(|user| user != caller.user.username) {
        return Ok(vec![]);
    }
    let me = caller.id().to_string();
    let drafts = draft::list(engine, caller).await?.into_iter();
    let wanted = drafts
        .filter(|draft| asked.names(&me, &draft.row.name))
        .map(|draft| Run::of_draft(&draft, asked.name(&draft.row.name), cluster));
    Ok(wanted
        .filter(|run| asked.phases.allow(run.status.phase))
        .collect())
}

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, run)): Path<(String, String)>,
) -> Result<Json<Run>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let found = draft::get(&app.engine, &caller, &run).await?;
    show(&app.engine, &caller, &found, cluster).await
}

/// A run by itself: of somebody else under a name by which it is found again.
async fn show(
    engine: &Engine,
    caller: &grid_engine::Caller,
    found: &Found,
    cluster: &str,
) -> Result<Json<Run>> {
    let run = match found {
        Found::Draft(draft) => {
            return Ok(Json(Run::of_draft(draft, draft.row.name.clone(), cluster)));
        }
        Found::Run(run) => run,
    };
    let name = if run.row.creator == caller.id() {
        run.row.name.clone()
    } else {
        format!("{}:{}", run.created_by, run.row.name)
    };
    let ids = experiment::ids(engine, &[run.row.id]).await?;
    let ids = ids.get(&run.row.id).map(Vec::as_slice).unwrap_or_default();
    Run::new(run, name, ids, cluster).map(Json)
}

/// What a run, or an experiment, is to come to.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Update {
    #[serde(deserialize_with = "or_default")]
    spec: Desired,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Desired {
    #[serde(deserialize_with = "or_default")]
    desired_state: String,
}

impl Update {
    /// Whether it is to stop.  Nothing else can be changed.
    pub(super) fn stops(&self, kind: &str) -> Result<bool> {
        let desired = self.spec.desired_state.as_str();
        let state = desired.strip_prefix(kind).unwrap_or(desired);
        match state {
            // The client writes it one way for runs and the other for experiments.
            "CANCELED" | "CANCELLED" => Ok(true),
            "" | "UNSPECIFIED" | "SUCCEEDED" | "RUNNING" | "PENDING" => Ok(false),
            _ => Err(
                Failure::invalid(format!("nobody can ask for the state '{desired}'"))
                    .hint("what runs can be stopped, and what is there can be deleted"),
            ),
        }
    }
}

pub(super) async fn update(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, run)): Path<(String, String)>,
    JsonBody(update): JsonBody<Update, BODY_BYTES_MAX>,
) -> Result<Json<Run>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let found = if update.stops("RUN_STATE_")? {
        draft::stop(&app.engine, &caller, &run).await?.0
    } else {
        draft::get(&app.engine, &caller, &run).await?
    };
    show(&app.engine, &caller, &found, cluster).await
}

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, run)): Path<(String, String)>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    draft::delete(&app.engine, &caller, &run).await?;
    Ok(Json(Empty {}))
}

//! Creating a run: everything is checked before anything is made.

use std::sync::Arc;
use std::time::Duration;

use grid_core::access::Action;
use grid_core::cluster::Need;
use grid_core::id::{RunId, WorkloadId};
use grid_core::name::{RunName, generate_run_name};
use grid_core::schedule::never_fits;
use grid_core::spec::{RunSpec, Source, split_command};
use grid_core::sweep::{Expansion, SweepError, expand};
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Event, Kind, Policy, Workload};
use grid_store::db;

use super::name::{self, Reserved};
use super::{Run, check, one};
use crate::access::Caller;
use crate::audit::{self, Thing};
use crate::book::{Details, Entry};
use crate::error::{Error, Result};
use crate::{Engine, datastore, git, to_the_end};

/// How many attempts of an experiment may be lost before it has failed.
const LOSSES_MAX: u32 = 3;

/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Names that are tried when none was given.  With 94 million names a third try is rare.
const NAME_TRIES_MAX: u32 = 8;

/// How often it is looked whether a commit whose answer was lost has happened, and the
/// pause between.  Less: a run that is there waits for a restart; more: a caller hangs.
const FIND_OUT_TRIES: u32 = 60;
const FIND_OUT_PAUSE: Duration = Duration::from_secs(1);

/// Experiments that a dry run shows.
const SHOWN_MAX: usize = 1_000;

/// What somebody wants to run.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Name; made up when absent.
    pub name: Option<String>,
    /// Team by name; the current one when absent.
    pub team: Option<String>,
    /// What to run.
    pub spec: RunSpec,
    /// The command as typed.
    pub invocation: String,
    /// Where the code comes from, for people.
    pub project: Option<String>,
    /// The run it is cloned from.
    pub cloned_from: Option<RunId>,
    /// Check and answer, but start nothing.
    pub dry_run: bool,
    /// With the same key and the same content, the same run is answered.
    pub idempotency_key: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Created {
    /// The run.
    pub run: Run,
    /// Its first experiments: id (`None` in a dry run), parameters, arguments.
    pub experiments: Vec<Planned>,
    /// The program, before the arguments.
    pub program: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// An experiment of a new run.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its id; `None` in a dry run.
    pub id: Option<WorkloadId>,
    /// Its parameters.
    pub params: Vec<(String, String)>,
    /// The arguments of its command.
    pub args: Vec<String>,
}

/// Creates a run with its experiments, all or nothing.
pub async fn create(engine: &Engine, caller: &Caller, new: NewRun) -> Result<Created> {
    let body_hash = body_hash(&new)?;
    let key = new.idempotency_key.clone();
    if let Some(done) = known(engine, caller, key.as_deref(), &body_hash).await? {
        return Ok(done);
    }
    match create_new(engine, caller, new, &body_hash, None).await {
        // The same wish may have come true a moment ago, sent twice at once.
        Err(conflict @ Error::Conflict { .. }) if key.is_some() => {
            let done = known(engine, caller, key.as_deref(), &body_hash).await?;
            done.ok_or(conflict)
        }
        other => other,
    }
}

/// Creates the run that a draft was for, and removes the draft, all or nothing.
pub(crate) async fn create_reserved(
    engine: &Engine,
    caller: &Caller,
    new: NewRun,
    reserved: Reserved,
) -> Result<Created> {
    let body_hash = body_hash(&new)?;
    create_new(engine, caller, new, &body_hash, Some(reserved)).await
}

/// What was found out about a run before anything of it is made.
pub(crate) struct Checked {
    pub(crate) team: db::team::Team,
    pub(crate) name: Option<RunName>,
    pub(crate) need: Need,
    pub(crate) expansion: Expansion,
}

/// Refuses what can never run.
pub(crate) async fn checked(
    engine: &Engine,
    caller: &Caller,
    new: &NewRun,
    reserved: Option<RunId>,
) -> Result<Checked> {
    let inner = &engine.inner;
    let team = caller.team_for_new(new.team.as_deref())?.clone();
    let name = new.name.as_deref().map(name::parse).transpose()?;
    if let Some(name) = &name {
        name::require_free(engine, caller, name, reserved).await?;
    }
    let need = check::spec(engine, &new.spec).await?;
    let expansion = expanded(engine, &new.spec).await?;
    let fit = {
        let book = inner.book();
        // Before the first machine has spoken nobody can say what fits.
        let is_known = book.board.nodes().next().is_some();
        let why = never_fits(&need, book.board.nodes());
        why.filter(|_| is_known)
    };
    if let Some(why) = fit {
        return Err(Error::invalid_hint(
            format!("no machine of '{}' can ever run this: {why}", inner.cluster),
            "ask for less with --cpus, --gpus, --memory or --instance_type",
        ));
    }
    Ok(Checked {
        team,
        name,
        need,
        expansion,
    })
}

async fn create_new(
    engine: &Engine,
    caller: &Caller,
    mut new: NewRun,
    body_hash: &str,
    reserved: Option<Reserved>,
) -> Result<Created> {
    let Checked {
        team,
        name,
        need,
        expansion,
    } = checked(engine, caller, &new, reserved.map(|reserved| reserved.id)).await?;
    let warnings = check::warnings(&new.spec);
    // Said rather than left open: a clone of it runs in the same place.
    let cluster = &mut new.spec.resources.cluster;
    cluster.get_or_insert_with(|| engine.inner.cluster.clone());
    datastore::resolve(engine, caller, &mut new.spec).await?;
    if !new.dry_run
        && let Source::Git { url, reference } = new.spec.source.clone()
    {
        let cloned = git::clone(engine, caller, &url, reference.as_deref()).await?;
        new.spec.source = Source::Snapshot {
            id: cloned.snapshot,
            git: Some(cloned.git),
        };
    }
    check::snapshot(engine, caller, &new.spec).await?;
    if new.dry_run {
        return dry(engine, caller, &new, &team, expansion, warnings);
    }
    let draft = Draft {
        new,
        team,
        expansion,
        need,
        body_hash: body_hash.to_owned(),
        warnings,
        reserved,
    };
    // Once it is committed it must be known here, whether or not the caller still listens.
    let (engine, caller) = (engine.clone(), caller.clone());
    to_the_end(async move { insert(&engine, &caller, draft, name).await }).await
}

struct Draft {
    new: NewRun,
    team: db::team::Team,
    expansion: Expansion,
    need: Need,
    body_hash: String,
    warnings: Vec<String>,
    reserved: Option<Reserved>,
}

fn body_hash(new: &NewRun) -> Result<String> {
    let spec = serde_json::to_string(&new.spec).map_err(Error::internal)?;
    let body = format!(
        "{:?}\n{:?}\n{:?}\n{}\n{spec}",
        new.name, new.team, new.cloned_from, new.invocation
    );
    Ok(blake3::hash(body.as_bytes()).to_hex().to_string())
}

/// The run that was made under this key before.
async fn known(
    engine: &Engine,
    caller: &Caller,
    key: Option<&str>,
    body_hash: &str,
) -> Result<Option<Created>> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "an idempotency key has 1 to {KEY_BYTES_MAX} bytes"
        )));
    }
    let mut tx = engine.inner.db.read().await?;
    let Some(done) = db::idempotency::get(&mut tx, caller.id(), key).await? else {
        return Ok(None);
    };
    if done.body_hash != body_hash {
        return Err(Error::conflict(
            "this idempotency key was used for another request; use a new one",
        ));
    }
    let row = db::run::by_id(&mut tx, done.run).await?;
    // Who left its team since is told what anybody is who asks for a new one.
    let Some(row) = row.filter(|row| caller.sees(row, Action::SeeRun)) else {
        return Ok(None);
    };
    let limit = u32::try_from(SHOWN_MAX).unwrap_or(u32::MAX);
    let page =
        db::workload::list_of_run(&mut tx, row.id, &[], db::Trash::With, None, limit).await?;
    let run = one(&mut tx, caller, row).await?;
    let program = split_command(&run.spec()?.command).0.to_vec();
    let experiments = page
        .items
        .into_iter()
        .map(|row| Planned {
            id: Some(row.workload.id),
            params: row.params,
            args: row.args,
        })
        .collect();
    Ok(Some(Created {
        run,
        experiments,
        program,
        warnings: vec![],
    }))
}

async fn expanded(engine: &Engine, spec: &RunSpec) -> Result<Expansion> {
    // 53 bits: people copy seeds through programs that keep them in floats.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "some bits of entropy are wanted"
    )]
    let seed = (engine.inner.clock.entropy() as u64) >> 11;
    let (args, params, sweep) = (
        split_command(&spec.command).1.to_vec(),
        spec.params.clone(),
        spec.sweep,
    );
    // A hundred thousand experiments take a while to write down.
    let result = tokio::task::spawn_blocking(move || expand(&args, &params, &sweep, seed)).await;
    result
        .map_err(Error::internal)?
        .map_err(|e: SweepError| Error::Invalid {
            message: e.to_string(),
            hint: e.hint().map(str::to_owned),
        })
}

fn dry(
    engine: &Engine,
    caller: &Caller,
    new: &NewRun,
    team: &db::team::Team,
    expansion: Expansion,
    warnings: Vec<String>,
) -> Result<Created> {
    let now = engine.inner.clock.now();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "some bits of entropy are wanted"
    )]
    let name = match &new.name {
        Some(name) => name::parse(name)?,
        None => generate_run_name(engine.inner.clock.entropy() as u64),
    };
    let total = expansion.experiments.len();
    let row = row(
        caller,
        new,
        team,
        &name,
        now,
        RunId::from_parts(now, 0),
        &expansion,
    )?;
    let mut counts = grid_core::run::Counts::default();
    counts.add(grid_core::workload::Status::Queued, total as u64);
    let run = Run {
        row,
        counts,
        span: db::run::Span::default(),
        created_by: caller.user.username.clone(),
        team: team.name.clone(),
        deleted_by: None,
        cloned_from: None,
        datastores: vec![],
    };
    let experiments = expansion
        .experiments
        .into_iter()
        .take(SHOWN_MAX)
        .map(|set| Planned {
            id: None,
            params: set.params,
            args: set.args,
        })
        .collect();
    Ok(Created {
        run,
        experiments,
        program: split_command(&new.spec.command).0.to_vec(),
        warnings,
    })
}

fn row(
    caller: &Caller,
    new: &NewRun,
    team: &db::team::Team,
    name: &RunName,
    now: Timestamp,
    id: RunId,
    expansion: &Expansion,
) -> Result<db::run::Run> {
    Ok(db::run::Run {
        id,
        team: team.id,
        creator: caller.id(),
        name: name.to_string(),
        created_at: now,
        spec: serde_json::to_string(&new.spec).map_err(Error::internal)?,
        seed: expansion.seed.to_string(),
        invocation: new.invocation.clone(),
        project: new.project.clone(),
        snapshot: match &new.spec.source {
            Source::Snapshot { id, .. } => Some(*id),
            Source::Git { .. } | Source::Nothing => None,
        },
        cloned_from: new.cloned_from,
        experiments: u32::try_from(expansion.experiments.len()).unwrap_or(u32::MAX),
        deleted: None,
    })
}

/// The experiments of a new run, waiting.
fn experiments(draft: &Draft, now: Timestamp, entropy: u128) -> Vec<db::run::NewExperiment> {
    let policy = Policy {
        losses_max: LOSSES_MAX,
        retries: draft.new.spec.retries,
        auto_resume: draft.new.spec.auto_resume,
    };
    let first = Event::Created {
        workload: Kind::Experiment,
        policy,
    };
    draft
        .expansion
        .experiments
        .iter()
        .zip(0_u128..)
        .map(|(set, index)| {
            // One draw and then counted up: ids of a run are neighbours in every index.
            let id = WorkloadId::from_parts(now, entropy.wrapping_add(index));
            db::run::NewExperiment {
                workload: Workload::created(id, &first, now),
                params: set.params.clone(),
                args: set.args.clone(),
            }
        })
        .collect()
}

async fn insert(
    engine: &Engine,
    caller: &Caller,
    draft: Draft,
    name: Option<RunName>,
) -> Result<Created> {
    let inner = &engine.inner;
    let now = inner.clock.now();
    // Experiments are as old as their run.
    let created_at = draft.reserved.map_or(now, |reserved| reserved.created_at);
    let made = experiments(&draft, created_at, inner.clock.entropy());
    for _ in 0..NAME_TRIES_MAX {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "some bits of entropy are wanted"
        )]
        let tried = name
            .clone()
            .unwrap_or_else(|| generate_run_name(inner.clock.entropy() as u64));
        let reserved = draft.reserved.unwrap_or_else(|| Reserved {
            id: RunId::from_parts(now, inner.clock.entropy()),
            created_at,
        });
        let id = reserved.id;
        let row = row(
            caller,
            &draft.new,
            &draft.team,
            &tried,
            reserved.created_at,
            id,
            &draft.expansion,
        )?;
        let mut tx = inner.db.write().await?;
        name::take(&mut tx, draft.reserved, caller, &tried, now).await?;
        match db::run::insert(&mut tx, &row, made.clone(), Actor::User(caller.id())).await {
            Ok(()) => {}
            Err(db::Error::Conflict { .. }) if name.is_none() => continue,
            Err(db::Error::Conflict { .. }) => return Err(name::taken(&tried)),
            Err(other) => return Err(other.into()),
        }
        mount(&mut tx, id, &draft.new.spec).await?;
        created_event(caller, &draft, &row)
            .write(engine, &mut tx)
            .await?;
        if let Some(key) = &draft.new.idempotency_key {
            let done = db::idempotency::Done {
                run: id,
                body_hash: draft.body_hash.clone(),
                created_at: now,
            };
            db::idempotency::put(&mut tx, caller.id(), key, &done).await?;
        }
        if let Err(error) = tx.commit().await {
            require_committed(engine, id, error.into()).await?;
        }
        return Ok(publish(engine, caller, draft, row, made));
    }
    Err(Error::Unavailable(
        "no free name was found; try again, or choose one with --name".to_owned(),
    ))
}

/// Notes which datastores a new run mounts: from here on they cannot be deleted.
async fn mount(tx: &mut db::Tx, run: RunId, spec: &RunSpec) -> Result<()> {
    for mount in &spec.datastores {
        let Some(mounted) = &mount.mounted else {
            continue;
        };
        if !db::mount::insert(tx, run, mounted.id).await? {
            return Err(Error::conflict(format!(
                "datastore '{}' was deleted a moment ago",
                mount.datastore
            )));
        }
    }
    Ok(())
}

/// The event that tells of a new run.
fn created_event(caller: &Caller, draft: &Draft, row: &db::run::Run) -> audit::Draft {
    let thing = Thing::run(row, &caller.user.username);
    let event = caller.did("run.create", Some(draft.team.id), thing);
    let copy = match row.cloned_from {
        Some(origin) => format!(", a copy of run {origin}"),
        None => String::new(),
    };
    let code = match row.snapshot {
        Some(snapshot) => format!(", code {snapshot}"),
        None => String::new(),
    };
    let noun = if row.experiments == 1 {
        "experiment"
    } else {
        "experiments"
    };
    event.detail(format!("{} {noun}{copy}{code}", row.experiments))
}

/// Finds out whether a commit that failed has happened all the same, as it can when the
/// connection breaks in the middle: then the run is there, and must be scheduled.
async fn require_committed(engine: &Engine, id: RunId, error: Error) -> Result<()> {
    for _ in 0..FIND_OUT_TRIES {
        if let Ok(mut tx) = engine.inner.db.read().await
            && let Ok(found) = db::run::by_id(&mut tx, id).await
        {
            return match found {
                Some(_) => Ok(()),
                None => Err(error),
            };
        }
        tokio::time::sleep(FIND_OUT_PAUSE).await;
    }
    Err(error)
}

/// What was committed is known to the control loop.
fn publish(
    engine: &Engine,
    caller: &Caller,
    draft: Draft,
    row: db::run::Run,
    made: Vec<db::run::NewExperiment>,
) -> Created {
    let inner = &engine.inner;
    let info = inner.remember_run(&row, draft.new.spec.clone(), caller.user.username.clone());
    debug_assert_eq!(
        info.need, draft.need,
        "the need that was checked is the one that is scheduled"
    );
    let total = made.len() as u64;
    let mut experiments = Vec::with_capacity(made.len().min(SHOWN_MAX));
    {
        let mut book = inner.book();
        for (one, index) in made.into_iter().zip(0_u32..) {
            if experiments.len() < SHOWN_MAX {
                let (params, args) = (one.params.clone(), one.args.clone());
                experiments.push(Planned {
                    id: Some(one.workload.id),
                    params,
                    args,
                });
            }
            let details = Details {
                index,
                params: one.params,
                args: one.args,
            };
            book.set(Entry {
                since: one.workload.created_at,
                workload: one.workload,
                version: 1,
                run: Arc::clone(&info),
                details: Some(Arc::new(details)),
            });
        }
    }
    inner.watch.changed([row.team]);
    engine.wake();
    let mut counts = grid_core::run::Counts::default();
    counts.add(grid_core::workload::Status::Queued, total);
    let run = Run {
        counts,
        span: db::run::Span::default(),
        created_by: caller.user.username.clone(),
        team: draft.team.name,
        deleted_by: None,
        cloned_from: None,
        datastores: vec![],
        row,
    };
    Created {
        run,
        experiments,
        program: info.program.clone(),
        warnings: draft.warnings,
    }
}

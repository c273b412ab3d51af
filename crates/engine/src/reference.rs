//! Finding what people name: `name`, `user:name`, or an id.
//!
//! Whoever may not know of a thing is answered as if there were none, and after the same
//! work: the same statements are made whether it is not there, belongs to others, or
//! belongs to nobody that exists.  What is noted of it is written later, beside the answer.

use grid_core::access::Action;
use grid_core::id::{RunId, UserId, WorkloadId};
use grid_core::name::{ExperimentName, RunName, UserName};
use grid_core::nearest::nearest;
use grid_core::time::Timestamp;
use grid_store::db::{self, Tx};

use crate::access::{Caller, Owned};
use crate::error::{Error, Result};

/// Names that are compared with one that is not there.  Higher: a mistyped name costs more;
/// lower: an older run is not suggested.
pub(crate) const NEAR_MAX: u32 = 500;

/// Whose names are meant.
enum Whose<'a> {
    Mine,
    Theirs(&'a str),
}

fn split(text: &str) -> (Whose<'_>, &str) {
    match text.split_once(':') {
        Some((user, name)) => (Whose::Theirs(user), name),
        None => (Whose::Mine, text),
    }
}

/// The run that `text` names, if the caller may see it; also from the trash when asked.
pub(crate) async fn run(
    tx: &mut Tx,
    caller: &Caller,
    text: &str,
    trash: bool,
) -> Result<db::run::Run> {
    if let Ok(id) = text.parse::<RunId>() {
        let found = db::run::by_id(tx, id)
            .await?
            .filter(|run| trash || run.deleted.is_none());
        return shown(caller, found).ok_or_else(|| Error::not_found(format!("no run '{text}'")));
    }
    let (whose, name) = split(text);
    let run_name =
        RunName::parse(name).map_err(|e| Error::not_found(format!("no run '{name}': {e}")))?;
    let creator = match whose {
        Whose::Mine => caller.id(),
        // Looked for like somebody who has no such run: who has an account here is not
        // everybody's business.
        Whose::Theirs(user) => user_or_nobody(tx, user).await?,
    };
    let found = db::run::by_name(tx, creator, run_name.as_str(), which(trash)).await?;
    if let Some(run) = shown(caller, found) {
        return Ok(run);
    }
    let mut hint = suggest(tx, caller, run_name.as_str()).await?;
    if hint.is_none() && matches!(whose, Whose::Mine) {
        hint = near(tx, caller, run_name.as_str()).await?;
    }
    if hint.is_none() && matches!(whose, Whose::Mine) {
        hint = Some("`grid status` and `grid history` list your runs".to_owned());
    }
    let what = match whose {
        Whose::Mine => format!("no run '{name}' of yours"),
        Whose::Theirs(_) => format!("no run '{text}'"),
    };
    Err(Error::NotFound { what, hint })
}

/// The experiment that `text` names and its run, if the caller may see them.
pub(crate) async fn experiment(
    tx: &mut Tx,
    caller: &Caller,
    text: &str,
    trash: bool,
) -> Result<(db::run::Run, db::workload::Stored)> {
    let none = || Error::not_found(format!("no experiment '{text}'"));
    if let Ok(id) = text.parse::<WorkloadId>() {
        let row = db::workload::get(tx, id).await?;
        let run = row.as_ref().and_then(|row| row.run).unwrap_or_else(no_run);
        let run = shown(caller, db::run::by_id(tx, run).await?);
        let (run, row) = run.zip(row).ok_or_else(none)?;
        let gone = run.deleted.is_some() || row.deleted.is_some();
        return if gone && !trash {
            Err(none())
        } else {
            Ok((run, row))
        };
    }
    let (whose, name) = split(text);
    let Ok(parsed) = ExperimentName::parse(name) else {
        return Err(Error::NotFound {
            what: format!("'{name}' is not the name of an experiment"),
            hint: Some(format!(
                "experiments are named RUN-exp0, RUN-exp1, …; try {name}-exp0"
            )),
        });
    };
    let prefix = match whose {
        Whose::Mine => String::new(),
        Whose::Theirs(user) => format!("{user}:"),
    };
    let run = run(tx, caller, &format!("{prefix}{}", parsed.run()), trash)
        .await
        .map_err(|e| match e {
            Error::NotFound { hint, .. } => Error::NotFound {
                what: format!("no experiment '{text}'"),
                hint: hint.map(|hint| match hint.strip_suffix('?') {
                    Some(run) => format!("{run}-exp{}?", parsed.index()),
                    None => hint,
                }),
            },
            other => other,
        })?;
    let row = db::workload::by_run_and_idx(tx, run.id, parsed.index()).await?;
    let row = row.ok_or_else(|| Error::NotFound {
        what: format!("no experiment '{text}'"),
        hint: last_of(&run).map(|last| {
            let name = &run.name;
            format!("the experiments of run '{name}' are {name}-exp0 to {name}-exp{last}")
        }),
    })?;
    if row.deleted.is_some() && !trash {
        return Err(none());
    }
    Ok((run, row))
}

fn which(trash: bool) -> db::Trash {
    if trash {
        db::Trash::With
    } else {
        db::Trash::Without
    }
}

/// A run that is none.
fn no_run() -> RunId {
    RunId::from_parts(Timestamp::from_millis(0), 0)
}

fn seen(caller: &Caller, run: Option<db::run::Run>) -> Option<db::run::Run> {
    run.filter(|run| caller.sees(run, Action::SeeRun))
}

/// What was asked for, if the caller may know of it; that they asked for what they may not
/// is noted.
fn shown(caller: &Caller, found: Option<db::run::Run>) -> Option<db::run::Run> {
    let run = found?;
    if caller.sees(&run, Action::SeeRun) {
        return Some(run);
    }
    caller.note_hidden(Action::SeeRun, run.team, run.thing(""));
    None
}

pub(crate) async fn user_by_name(tx: &mut Tx, name: &str) -> Result<Option<db::user::User>> {
    match UserName::parse(name) {
        Ok(name) => Ok(db::user::by_username(tx, name.as_str()).await?),
        Err(_) => Ok(None),
    }
}

/// Who has a name, or somebody who is nobody and has nothing: what is looked for among
/// theirs is not found, after the same work.
pub(crate) async fn user_or_nobody(tx: &mut Tx, name: &str) -> Result<UserId> {
    let user = user_by_name(tx, name).await?;
    Ok(user.map_or_else(|| UserId::from_entropy(0), |user| user.id))
}

/// That somebody of this name has nothing that the caller sees is said otherwise where, as far
/// as the caller may know, there is nobody of this name.  Who was in a team and left things
/// there has something, so this is asked when nothing was found.
pub(crate) async fn require_known(tx: &mut Tx, caller: &Caller, name: &str) -> Result<()> {
    let user = user_by_name(tx, name).await?;
    let nobody = UserId::from_entropy(0);
    let id = user.as_ref().map_or(nobody, |user| user.id);
    let mut is_known = id == caller.id() || (caller.user.operator && user.is_some());
    for (team, _) in &caller.teams {
        is_known |= db::team::role_of(tx, id, team.id).await?.is_some();
    }
    if is_known {
        return Ok(());
    }
    Err(Error::NotFound {
        what: format!("there is no user '{name}'"),
        hint: Some("`grid user list` lists the people that you can see".to_owned()),
    })
}

/// The number of the last experiment, if there are several.
fn last_of(run: &db::run::Run) -> Option<u64> {
    u64::from(run.experiments)
        .checked_sub(1)
        .filter(|last| *last > 0)
}

/// If the caller has a run with a name that is nearly this one: "did you mean".
async fn near(tx: &mut Tx, caller: &Caller, name: &str) -> Result<Option<String>> {
    let names = db::run::newest_names(tx, caller.id(), &caller.team_ids(), NEAR_MAX).await?;
    Ok(nearly(name, &names))
}

/// The name that was probably meant, as a hint.
pub(crate) fn nearly(name: &str, names: &[String]) -> Option<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nearest(name, &names).map(|meant| format!("did you mean {meant}?"))
}

/// If exactly one teammate has a run of this name: "did you mean".
async fn suggest(tx: &mut Tx, caller: &Caller, name: &str) -> Result<Option<String>> {
    let mut candidates = Vec::new();
    for (team, _) in caller.teams.iter().filter(|(team, _)| !team.personal) {
        for member in db::team::members(tx, team.id).await? {
            if member.user.id == caller.id() || candidates.contains(&member.user.username) {
                continue;
            }
            let found = db::run::by_name(tx, member.user.id, name, db::Trash::Without).await?;
            if seen(caller, found).is_some() {
                candidates.push(member.user.username);
            }
        }
    }
    Ok(match candidates.as_slice() {
        [only] => Some(format!("did you mean {only}:{name}?")),
        _ => None,
    })
}

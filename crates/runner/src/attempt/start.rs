//! Starting the processes of an attempt: the script with the actions before it, and
//! the actions after it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use grid_core::workload::{End, ReasonCode};

use super::command::{Places, argv, split_path};
use super::confine::Walls;
use super::end::failed;
use super::variables::{Seen, variables};
use super::{Attempt, end_key, mounts};
use crate::context::Context;
use crate::folder;
use crate::keeper::client::Error;
use crate::keeper::protocol::Spawn;
use crate::prepare::Prepared;
use crate::prepare::container::Container;
use crate::prepare::substitute::substitute;
use crate::table::Grant;

/// Runs the actions one after the other, then becomes the program.  The number of a
/// failing action and its exit code go to a file, since its exit code alone could
/// be the program's.
const ACTIONS_FIRST: &str = r#"
failed=$1 count=$2
shift 2
number=1
while [ "$number" -le "$count" ]; do
    /bin/sh -c "$1"
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "$number $code" >"$failed"
        exit "$code"
    fi
    shift
    number=$((number + 1))
done
exec "$@"
"#;

/// Runs the actions one after the other; ends with the first that fails.
const ACTIONS_ONLY: &str = r#"
for action in "$@"; do
    /bin/sh -c "$action" || exit
done
"#;

/// The file in the home folder that tells of a failed action.
const FAILED_ACTION_FILE: &str = ".grid-failed-action";

/// The file that keeps what was prepared, for the actions at the end.
const PREPARED_FILE: &str = "prepared.json";

/// Where a scratch volume may be mounted: below the process's own `/tmp`.
const SCRATCH_DEFAULT: &str = "/tmp/scratch";

/// Where clients ask for one whose user has not: the command line and the library of the
/// original product.
const SCRATCH_UNNAMED: [&str; 2] = [SCRATCH_DEFAULT, "/scratch"];

/// Starts the script, in its prepared folder.
pub(crate) async fn start(
    context: &Context,
    attempt: &Attempt,
    grant: &Grant,
    prepared: &Prepared,
) -> Result<(), End> {
    let cannot = |message: String| failed(ReasonCode::Start, message, None);
    let folders = |error: io::Error| cannot(format!("its folders cannot be made: {error}"));
    make_folders(context, attempt).map_err(folders)?;
    if is_linked(context, prepared) {
        mounts::link(attempt, prepared).map_err(folders)?;
    } else if let Some(why) = own_folder(context)
        .ok()
        .and_then(|own| mounts::obstacle(&prepared.mounts, &own))
    {
        return Err(cannot(why));
    }
    let actions = &attempt.launch.spec.actions;
    if !actions.on_experiment_end.is_empty() || prepared.container.is_some() {
        let text = serde_json::to_vec(prepared).unwrap_or_default();
        folder::write_whole(&attempt.folder.join(PREPARED_FILE), &text).map_err(folders)?;
    }
    let mut all = environment(context, attempt, grant, prepared);
    let argv = whole_command(context, attempt, prepared, &mut all).map_err(cannot)?;
    let spawn = spawn(context, attempt, prepared, attempt.key(), argv, all).map_err(cannot)?;
    context.folder.spare.furnish_spool(&spawn.spool_dir);
    match context.keeper.spawn(&spawn).await {
        Ok(()) => Ok(()),
        Err(Error::Refused { message, .. }) => Err(cannot(message)),
        Err(error) => Err(End::Lost {
            message: error.to_string(),
        }),
    }
}

fn make_folders(context: &Context, attempt: &Attempt) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    let make = |path: PathBuf| match builder.create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    make(attempt.home())?;
    make(attempt.tmp())?;
    let resources = &attempt.launch.spec.resources;
    if resources.scratch_gb.is_some() || resources.scratch_mount_path.is_some() {
        let mount = resources
            .scratch_mount_path
            .as_deref()
            .unwrap_or(SCRATCH_DEFAULT);
        let inside = mount
            .strip_prefix("/tmp/")
            .filter(|path| !path.split('/').any(|part| part == ".."));
        fs::create_dir_all(attempt.tmp().join(inside.unwrap_or("scratch")))?;
        // To people who named no place the line would say nothing.
        let is_elsewhere = inside.is_none() || !context.confinement.is_sandboxed();
        if is_elsewhere && !SCRATCH_UNNAMED.contains(&mount) {
            attempt.log.say(&format!(
                "The scratch folder is not at {mount} on this machine; use $GRID_SCRATCH."
            ));
        }
    }
    Ok(())
}

fn environment(
    context: &Context,
    attempt: &Attempt,
    grant: &Grant,
    prepared: &Prepared,
) -> BTreeMap<String, String> {
    let (home, tmp) = (attempt.home(), attempt.tmp());
    let seen = Seen {
        home: &home,
        tmp: context.confinement.tmp_inside(&tmp),
    };
    let mut all = variables(attempt, grant, prepared, &context.search_path, &seen);
    if !prepared.mounts.is_empty() {
        let folder = mounts::folder(attempt, is_linked(context, prepared));
        all.insert("GRID_DATASTORES".to_owned(), folder);
    }
    let resources = &attempt.launch.spec.resources;
    if resources.scratch_gb.is_some() || resources.scratch_mount_path.is_some() {
        let mount = resources
            .scratch_mount_path
            .as_deref()
            .unwrap_or(SCRATCH_DEFAULT);
        let inside = mount.strip_prefix("/tmp/").unwrap_or("scratch");
        all.insert(
            "GRID_SCRATCH".to_owned(),
            seen.tmp.join(inside).display().to_string(),
        );
    }
    all
}

/// The folder of this runner, as it really is.
fn own_folder(context: &Context) -> io::Result<PathBuf> {
    let attempts = context.folder.attempts();
    fs::canonicalize(attempts.parent().unwrap_or(&attempts))
}

/// Whether datastores are not where they are asked for, but linked beside the work folder.
fn is_linked(context: &Context, prepared: &Prepared) -> bool {
    let is_walled = context.confinement.is_sandboxed() || prepared.container.is_some();
    !is_walled && !prepared.mounts.is_empty()
}

/// The script, with the actions before it.
fn whole_command(
    context: &Context,
    attempt: &Attempt,
    prepared: &Prepared,
    all: &mut BTreeMap<String, String>,
) -> Result<Vec<String>, String> {
    let launch = &attempt.launch;
    let own_path = launch
        .spec
        .environment
        .variables
        .get("PATH")
        .map(|path| split_path(path));
    let places = Places {
        cwd: &attempt.work().join(&launch.spec.workdir),
        workdir: &launch.spec.workdir,
        prepared,
        path: own_path.as_deref().unwrap_or(&context.search_path),
        python: context.prepare.python(),
    };
    let program = match &prepared.container {
        Some(_) => Container::argv(&launch.program, &launch.args),
        None => argv(&launch.program, &launch.args, &places)?,
    };
    if program
        .first()
        .is_some_and(|program| program.ends_with("/julia"))
    {
        all.entry("JULIA_PROJECT".to_owned())
            .or_insert_with(|| "@.".to_owned());
        all.entry("JULIA_NUM_THREADS".to_owned())
            .or_insert_with(|| launch.placement.cpus.to_string());
    }
    let actions = &launch.spec.actions.on_experiment_start;
    let mut argv = Vec::new();
    if !actions.is_empty() {
        let failed = attempt
            .home()
            .join(FAILED_ACTION_FILE)
            .display()
            .to_string();
        argv.extend(["/bin/sh", "-c", ACTIONS_FIRST, "grid-actions"].map(str::to_owned));
        argv.extend([failed, actions.len().to_string()]);
        argv.extend(substituted(actions, all));
    }
    argv.extend(program);
    Ok(argv)
}

fn substituted(actions: &[String], all: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut commands = Vec::new();
    for action in actions {
        let done = substitute(action, all);
        commands.push(done.command);
        all.extend(done.variables);
    }
    commands
}

fn spawn(
    context: &Context,
    attempt: &Attempt,
    prepared: &Prepared,
    key: String,
    argv: Vec<String>,
    all: BTreeMap<String, String>,
) -> Result<Spawn, String> {
    let group = attempt.make_group(&context.confinement);
    let cwd = attempt.work().join(&attempt.launch.spec.workdir);
    if !cwd.is_dir() {
        return Err(format!(
            "there is no folder '{}' in the code",
            attempt.launch.spec.workdir
        ));
    }
    let spawn = Spawn {
        spool_dir: context.folder.spool(&key),
        key,
        argv,
        env: all.into_iter().collect(),
        cwd,
        cgroup: group.procs_paths(),
        ..Spawn::default()
    };
    let tmp = attempt.tmp();
    let mounts = mounts::with_names(&prepared.mounts);
    let walls = Walls {
        writable: vec![attempt.work(), attempt.home()],
        readable: &prepared.readable,
        mounts: &mounts,
        tmp: &tmp,
        gpus: &attempt.launch.placement.gpus,
    };
    Ok(match &prepared.container {
        Some(container) => container
            .enclose(spawn, attempt, &mounts, &context.search_path)
            .map_err(|error| format!("its variables cannot be written: {error}"))?,
        None => context.confinement.enclose(spawn, walls),
    })
}

/// The action before the script that failed, and its exit code.
pub(crate) fn failed_action(attempt: &Attempt) -> Option<(String, i32)> {
    let actions = &attempt.launch.spec.actions.on_experiment_start;
    if actions.is_empty() {
        return None;
    }
    let text = fs::read_to_string(attempt.home().join(FAILED_ACTION_FILE)).ok()?;
    let (number, code) = text.trim().split_once(' ')?;
    let number: usize = number.parse().ok()?;
    Some((
        actions.get(number.checked_sub(1)?)?.clone(),
        code.parse().ok()?,
    ))
}

/// What was prepared for the script, if that was noted.
fn prepared(attempt: &Attempt) -> Prepared {
    let text = fs::read(attempt.folder.join(PREPARED_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Ends what a process may have left outside of the keeper's reach.
pub(crate) async fn clean_up(attempt: &Attempt) {
    if attempt.launch.spec.environment.dockerfile.is_some()
        && let Some(container) = prepared(attempt).container
    {
        container.remove(attempt).await;
    }
}

/// Starts the actions after the script, or finds them started.
pub(crate) async fn start_end_actions(
    context: &Context,
    attempt: &Attempt,
    grant: &Grant,
    end: &End,
) -> Result<(), String> {
    let prepared = prepared(attempt);
    let mut all = environment(context, attempt, grant, &prepared);
    let status = match end {
        End::Succeeded => "succeeded",
        End::Stopped => "stopped",
        End::Interrupted | End::Returned => "interrupted",
        End::Failed { .. } | End::Lost { .. } => "failed",
    };
    all.insert("GRID_EXPERIMENT_STATUS".to_owned(), status.to_owned());
    let commands = substituted(&attempt.launch.spec.actions.on_experiment_end, &mut all);
    let mut argv: Vec<String> = ["/bin/sh", "-c", ACTIONS_ONLY, "grid-actions"]
        .map(str::to_owned)
        .into();
    argv.extend(commands);
    let spawn = spawn(context, attempt, &prepared, end_key(attempt.id), argv, all)?;
    context
        .keeper
        .spawn(&spawn)
        .await
        .map_err(|error| format!("on_experiment_end could not be started: {error}"))
}

/// A time limit as people write it.
pub(crate) fn millis_in_words(millis: u64) -> String {
    let parts = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
        (1, "ms"),
    ];
    let mut left = millis;
    let mut words = String::new();
    for (size, unit) in parts {
        if left >= size {
            words.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if words.is_empty() {
        "0s".to_owned()
    } else {
        words
    }
}

#[cfg(test)]
mod tests {
    use super::millis_in_words;

    #[test]
    fn limits_are_said_as_they_are_written() {
        for (millis, words) in [
            (1_500, "1s500ms"),
            (90_000, "1m30s"),
            (86_400_000, "1d"),
            (0, "0s"),
        ] {
            assert_eq!(millis_in_words(millis), words);
        }
    }
}

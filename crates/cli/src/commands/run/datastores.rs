//! Which datastores a run mounts, and where: names, versions and places are said side by
//! side, by flags or in the file.

use grid_core::name::DatastoreRef;
use grid_core::spec::DatastoreMount;

use super::args::RunArgs;
use crate::config::RunFile;
use crate::error::Problem;

/// Merges flags and file: names on the command line replace those of the file.
pub(super) fn mounts(args: &RunArgs, file: &RunFile) -> Result<Vec<DatastoreMount>, Problem> {
    let by_flags = !args.datastore_name.is_empty();
    let names = if by_flags {
        &args.datastore_name
    } else {
        &file.datastore_names
    };
    let versions: Vec<String> = if by_flags || !args.datastore_version.is_empty() {
        args.datastore_version
            .iter()
            .map(ToString::to_string)
            .collect()
    } else {
        file.datastore_versions.clone()
    };
    let places = if by_flags || !args.datastore_mount_dir.is_empty() {
        &args.datastore_mount_dir
    } else {
        &file.datastore_mount_dirs
    };
    if names.is_empty() {
        return if versions.is_empty() && places.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Problem::usage(
                "--datastore_version and --datastore_mount_dir need --datastore_name",
            ))
        };
    }
    side_by_side("--datastore_version", names.len(), versions.len())?;
    side_by_side("--datastore_mount_dir", names.len(), places.len())?;
    let mut mounts = Vec::with_capacity(names.len());
    let mut taken: Vec<String> = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let datastore = reference(name, versions.get(index))?;
        let mount_dir = places.get(index).cloned();
        let place = match &mount_dir {
            Some(dir) => checked_place(dir)?,
            None => datastore.name.mount_dir(),
        };
        if taken.contains(&place) {
            return Err(Problem::usage(format!(
                "two datastores cannot be both mounted at {place}"
            ))
            .hint("say where with --datastore_mount_dir, once for each --datastore_name"));
        }
        taken.push(place);
        mounts.push(DatastoreMount {
            datastore: datastore.to_string(),
            mount_dir,
            mounted: None,
        });
    }
    Ok(mounts)
}

fn side_by_side(flag: &str, names: usize, others: usize) -> Result<(), Problem> {
    if others == 0 || others == names {
        return Ok(());
    }
    Err(
        Problem::usage(format!("{flag} must be given as often as --datastore_name"))
            .hint("or write the version behind the name: NAME:VERSION"),
    )
}

fn reference(name: &str, version: Option<&String>) -> Result<DatastoreRef, Problem> {
    let wrong = |error: grid_core::name::NameError| Problem::usage(error.to_string());
    let mut datastore: DatastoreRef = name.parse().map_err(wrong)?;
    let Some(version) = version else {
        return Ok(datastore);
    };
    let number = version.parse().ok().filter(|number| *number > 0);
    let number: u32 = number.ok_or_else(|| {
        Problem::usage(format!("'{version}' is not a version of a datastore"))
            .hint("versions are 1, 2, 3, …; `grid datastore` lists them")
    })?;
    match datastore.version {
        Some(named) if named != number => Err(Problem::usage(format!(
            "'{name}' names version {named}, and --datastore_version {number}"
        ))),
        _ => {
            datastore.version = Some(number);
            Ok(datastore)
        }
    }
}

fn checked_place(dir: &str) -> Result<String, Problem> {
    let trimmed = dir.trim_end_matches('/');
    let is_good = trimmed
        .strip_prefix('/')
        .is_some_and(|path| !path.split('/').any(|part| matches!(part, "" | "." | "..")));
    if is_good {
        Ok(trimmed.to_owned())
    } else {
        let what = match dir.starts_with('/') {
            true => "is no place for data: it has to be below /, without '.' and '..'",
            false => "is not an absolute path",
        };
        Err(
            Problem::usage(format!("--datastore_mount_dir '{dir}' {what}"))
                .hint("write one like /datastores/NAME"),
        )
    }
}

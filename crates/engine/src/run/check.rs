//! Whether a run can be, before anything of it is made.

use grid_core::cluster::Need;
use grid_core::spec::{PackageManager, RunSpec, Source, split_command};
use grid_store::db;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, instance};

/// Most retries that can be asked for.
const RETRIES_MAX: u32 = 1_000;

/// Most bytes of a spec as JSON.  It is stored with the run and sent with each attempt.
const SPEC_BYTES_MAX: usize = 1 << 20;

/// Longest description, in bytes.  Higher: lists carry pages of prose; lower: a sentence or
/// two of why it was run do not fit.
const DESCRIPTION_BYTES_MAX: usize = 4_096;

/// Refuses a spec that cannot run, and says what it needs.
pub(super) async fn spec(engine: &Engine, spec: &RunSpec) -> Result<Need> {
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid_hint(
            "there is nothing to run",
            "name a script: grid run train.py",
        ));
    }
    if spec
        .command
        .iter()
        .chain(spec.environment.variables.values())
        .any(|text| text.contains('\0'))
    {
        return Err(Error::invalid(
            "arguments and variables cannot contain NUL characters",
        ));
    }
    if spec.workdir.starts_with('/') || spec.workdir.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!(
            "the working directory '{}' is outside the source",
            spec.workdir
        )));
    }
    for name in spec.environment.variables.keys() {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(good)
        {
            return Err(Error::invalid(format!(
                "'{name}' is not the name of an environment variable"
            )));
        }
    }
    settings(engine, spec)?;
    check_tools(engine, spec).await?;
    let shape = spec
        .resources
        .instance_type
        .as_deref()
        .map(instance::shape)
        .transpose()?;
    Ok(spec.resources.need(shape.as_ref()))
}

/// Refuses settings that no run can have.
fn settings(engine: &Engine, spec: &RunSpec) -> Result<()> {
    if spec.retries > RETRIES_MAX {
        return Err(Error::invalid(format!(
            "--retries may be at most {RETRIES_MAX}"
        )));
    }
    if spec.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(Error::invalid_hint(
            format!("a run's description has at most {DESCRIPTION_BYTES_MAX} bytes"),
            "put more into a file beside the code",
        ));
    }
    if spec.max_duration_ms == Some(0) {
        return Err(Error::invalid("--max-duration must be longer than nothing"));
    }
    if let Some(cluster) = &spec.resources.cluster
        && *cluster != engine.inner.cluster
    {
        return Err(Error::invalid_hint(
            format!("there is no cluster '{cluster}'"),
            format!(
                "leave --cluster out for '{}', or see `grid clusters`",
                engine.inner.cluster
            ),
        ));
    }
    let actions = &spec.actions;
    let build = [
        &actions.on_build_start,
        &actions.on_build,
        &actions.on_build_end,
    ];
    if spec.environment.dockerfile.is_some() && build.iter().any(|actions| !actions.is_empty()) {
        return Err(Error::invalid_hint(
            "build actions and a Dockerfile do not go together",
            "write the actions into the Dockerfile, as lines with RUN",
        ));
    }
    let bytes = serde_json::to_vec(spec).map_err(Error::internal)?.len();
    if bytes > SPEC_BYTES_MAX {
        return Err(Error::TooLarge {
            message: format!(
                "what is asked of the run has {bytes} bytes; the limit is {SPEC_BYTES_MAX}"
            ),
            hint: Some("put long values into a file".to_owned()),
        });
    }
    Ok(())
}

/// Refuses what no machine has the programs for, before anything starts.
async fn check_tools(engine: &Engine, spec: &RunSpec) -> Result<()> {
    let file = spec
        .environment
        .dependency_file
        .as_deref()
        .unwrap_or_default();
    let yaml = file.ends_with(".yml") || file.ends_with(".yaml");
    let script = split_command(&spec.command)
        .0
        .last()
        .map_or("", String::as_str);
    let manager = spec.environment.package_manager;
    let conda: &[&str] = &["micromamba", "mamba", "conda"];
    let mut wanted: Vec<(&str, &[&str])> = Vec::new();
    if manager == Some(PackageManager::Conda) || (manager.is_none() && yaml) {
        wanted.push(("a conda environment", conda));
    }
    if manager == Some(PackageManager::Julia)
        || file.ends_with("Project.toml")
        || script.ends_with(".jl")
    {
        wanted.push(("Julia", &["julia"]));
    }
    if spec.environment.dockerfile.is_some() {
        wanted.push(("a Dockerfile", &["podman", "docker"]));
    }
    if script.ends_with(".R") {
        wanted.push(("an R script", &["Rscript"]));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let nodes = engine
        .inner
        .executor
        .observe()
        .await
        .map_err(Error::internal)?;
    for (what, tools) in wanted {
        let has = nodes.iter().any(|node| {
            tools
                .iter()
                .any(|tool| node.tools.iter().any(|has| has == tool))
        });
        if !has && !nodes.is_empty() {
            return Err(Error::invalid_hint(
                format!(
                    "{what} needs {}, which no machine of '{}' has",
                    tools.join(" or "),
                    engine.inner.cluster
                ),
                format!(
                    "install {} there and run this again",
                    tools.first().copied().unwrap_or_default()
                ),
            ));
        }
    }
    Ok(())
}

pub(super) async fn snapshot(engine: &Engine, caller: &Caller, spec: &RunSpec) -> Result<()> {
    let Source::Snapshot { id, .. } = &spec.source else {
        return Ok(());
    };
    let mut tx = engine.inner.db.read().await?;
    let found = db::snapshot::by_id(&mut tx, *id).await?;
    // A tree of a team that one cannot run things in is no more there than one that never
    // was.  It need not be the team of the run: code was taken before that was chosen.
    if found.is_none_or(|snapshot| !caller.creates_in(snapshot.team)) {
        return Err(Error::not_found(format!("no snapshot '{id}'")));
    }
    Ok(())
}

pub(super) fn warnings(spec: &RunSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    if spec.resources.use_spot {
        warnings.push(
            "--use_spot has no effect here: this cluster has no interruptible machines".to_owned(),
        );
    }
    if spec.resources.scratch_gb.is_some() || spec.resources.disk_gb.is_some() {
        warnings.push("disk sizes are recorded but not enforced on this cluster".to_owned());
    }
    warnings
}

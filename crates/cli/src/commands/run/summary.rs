//! What a submit says when it is done.

use anyhow::Result;
use grid_api::run::RunCreated;
use grid_core::duration::format_size;
use grid_core::spec::{RunSpec, Source};

use crate::printer::Printer;
use crate::views;
use crate::words::counted;

/// Prints the run that was made, or that would be.
pub(crate) fn print(printer: &Printer, created: &RunCreated, dry_run: bool) -> Result<()> {
    if printer.is_json() {
        return printer.json(&serde_json::json!({
            "runs": [created.run],
            "experiments": created.experiments,
            "warnings": created.warnings,
        }));
    }
    if dry_run {
        return print_experiments(printer, created);
    }
    let run = &created.run;
    let name = &run.name;
    let mut text = format!(
        "Run submitted!\n`grid status` to list all runs\n\
         `grid status {name}` to see all experiments for this run\n\n"
    );
    text.push_str("----------------------\nSubmission summary\n----------------------\n");
    let mut pairs = vec![("name", name.clone())];
    if let Some(spec) = &run.spec {
        pairs.extend(of_spec(spec));
    }
    pairs.push((
        "project",
        run.project.clone().unwrap_or_else(|| "None".to_owned()),
    ));
    pairs.push(("seed", run.seed.clone()));
    pairs.push(("experiments", run.counts.total().to_string()));
    for (key, value) in pairs {
        text.push_str(&format!("{:<25}{value}\n", format!("{key}:")));
    }
    printer.text(&text)
}

fn print_experiments(printer: &Printer, created: &RunCreated) -> Result<()> {
    printer.table(&views::parameters(&created.experiments))?;
    let total = created
        .run
        .counts
        .total()
        .max(created.experiments.len() as u64);
    let shown = created.experiments.len() as u64;
    if shown < total {
        printer.line(&format!("The first {shown} of {total}."))?;
    }
    printer.line(&format!(
        "This run would launch {}; seed {}. Nothing was started.",
        counted(total, "experiment"),
        created.run.seed
    ))
}

fn of_spec(spec: &RunSpec) -> Vec<(&'static str, String)> {
    let none = || "None".to_owned();
    let resources = &spec.resources;
    let mut pairs = vec![
        ("script", crate::words::joined(&spec.command)),
        ("strategy", spec.sweep.strategy.to_string()),
        ("cluster", resources.cluster.clone().unwrap_or_else(none)),
        (
            "instance_type",
            resources.instance_type.clone().unwrap_or_else(none),
        ),
        (
            "use_spot",
            if resources.use_spot { "True" } else { "False" }.to_owned(),
        ),
    ];
    let optional = [
        ("cpus", resources.cpus.map(|n| n.to_string())),
        ("gpus", resources.gpus.map(|n| n.to_string())),
        ("memory", resources.memory_bytes.map(format_size)),
        ("disk_gb", resources.disk_gb.map(|n| n.to_string())),
        ("dependency_file", spec.environment.dependency_file.clone()),
        ("dockerfile", spec.environment.dockerfile.clone()),
    ];
    pairs.extend(
        optional
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    pairs.extend(spec.datastores.iter().map(|mount| {
        let place = mount.mount_dir.as_deref().unwrap_or_default();
        ("datastore", format!("{} at {place}", mount.datastore))
    }));
    let code = match &spec.source {
        Source::Snapshot { git: Some(git), .. } => {
            let commit = git.commit.get(..12).unwrap_or(&git.commit);
            let commit = if commit.is_empty() {
                "no commit"
            } else {
                commit
            };
            let changes = if git.dirty {
                " with uncommitted changes"
            } else {
                ""
            };
            format!("{commit}{changes}")
        }
        Source::Snapshot { git: None, .. } => "local folder".to_owned(),
        Source::Git {
            url,
            reference: Some(reference),
        } => format!("{url}#{reference}"),
        Source::Git {
            url,
            reference: None,
        } => url.clone(),
        Source::Nothing => none(),
    };
    pairs.push(("code", code));
    pairs
}

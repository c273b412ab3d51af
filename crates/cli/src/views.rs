//! Runs and experiments as rows of tables.

use grid_api::experiment::ExperimentView;
use grid_api::run::RunView;
use grid_core::time::Timestamp;

use crate::table::{Cell, Table};
use crate::time::duration;

/// Counts of experiments where there is no room.
const COUNTS: &[(&str, &str)] = &[
    ("Experiments", "Exp"),
    ("Running", "R"),
    ("Queued", "Q"),
    ("Completed", "C"),
    ("Failed", "F"),
    ("Stopped", "S"),
];

/// Runs that are going on.
pub(crate) fn active_runs(runs: &[RunView], with_creator: bool, now: Timestamp) -> Table {
    let mut head = vec!["Run"];
    head.extend(with_creator.then_some("Created by"));
    head.extend([
        "Project",
        "Status",
        "Duration",
        "Experiments",
        "Running",
        "Queued",
        "Completed",
        "Failed",
        "Stopped",
    ]);
    let mut table = Table::new(head).short(COUNTS).spare(&["Project"]);
    for run in runs {
        let counts = &run.counts;
        let mut row = vec![Cell::text(&run.name)];
        row.extend(with_creator.then(|| Cell::text(&run.created_by)));
        row.extend([
            Cell::maybe(run.project.as_deref()),
            run_status(run),
            Cell::text(duration(
                run.started_at.as_deref(),
                run.finished_at.as_deref(),
                now,
            )),
            Cell::number(counts.total()),
            Cell::number(counts.running + counts.stopping),
            Cell::number(counts.queued + counts.pending),
            Cell::number(counts.succeeded),
            Cell::number(counts.failed),
            Cell::number(counts.stopped),
        ]);
        table.row(row);
    }
    table
}

/// The status of a run; of one whose code is on its way, that.
fn run_status(run: &RunView) -> Cell {
    match &run.upload {
        Some(upload) if upload.waiting => Cell::text("uploading"),
        _ => Cell::status(run.status),
    }
}

/// Runs that are over, or in the trash.
pub(crate) fn past_runs(runs: &[RunView], with_creator: bool, in_trash: bool) -> Table {
    let mut head = vec!["Run"];
    head.extend(with_creator.then_some("Created by"));
    head.extend([
        "Created At",
        "Experiments",
        "Failed",
        "Stopped",
        "Completed",
    ]);
    if in_trash {
        head.extend(["Deleted At", "Deleted by"]);
    }
    let mut table = Table::new(head).short(COUNTS).spare(&["Deleted by"]);
    for run in runs {
        let counts = &run.counts;
        let mut row = vec![Cell::text(&run.name)];
        row.extend(with_creator.then(|| Cell::text(&run.created_by)));
        row.extend([
            Cell::time(&run.created_at),
            Cell::number(counts.total()),
            Cell::number(counts.failed),
            Cell::number(counts.stopped),
            Cell::number(counts.succeeded),
        ]);
        if in_trash {
            row.push(Cell::maybe_time(run.deleted_at.as_deref()));
            row.push(Cell::maybe(run.deleted_by.as_deref()));
        }
        table.row(row);
    }
    table
}

/// Experiments with a column for each parameter, and one for what there is to say
/// where anything is.
pub(crate) fn experiments<'e>(
    experiments: impl Iterator<Item = &'e ExperimentView> + Clone,
    now: Timestamp,
) -> Table {
    let names = parameter_names(experiments.clone());
    let with_message = experiments
        .clone()
        .any(|experiment| experiment.message.is_some());
    let mut head = vec!["Experiment", "Command", "Status", "Duration"];
    head.extend(&names);
    head.extend(with_message.then_some("Message"));
    let mut table = Table::new(head);
    if !names.is_empty() {
        // The parameters say the same.
        table = table.spare(&["Command"]);
    }
    for experiment in experiments {
        let mut row = vec![
            Cell::text(&experiment.name),
            Cell::text(crate::words::joined(&experiment.command)),
            Cell::status(experiment.status),
            Cell::text(duration(
                experiment.started_at.as_deref(),
                experiment.finished_at.as_deref(),
                now,
            )),
        ];
        row.extend(parameter_cells(experiment, &names));
        row.extend(
            with_message.then(|| sentence(experiment.message.as_deref().unwrap_or_default())),
        );
        table.row(row);
    }
    table
}

/// A message as one row shows it.  What a build printed follows in further lines, and
/// is in the log; in a table it would hide everything else.
pub(crate) fn sentence(message: &str) -> Cell {
    let first = message.lines().next().unwrap_or_default();
    if first.len() == message.len() {
        Cell::text(first)
    } else {
        Cell::text(format!("{} (see its log)", first.trim_end_matches(':')))
    }
}

/// Experiments that do not exist yet: name and parameters.
pub(crate) fn parameters(experiments: &[ExperimentView]) -> Table {
    let names = parameter_names(experiments.iter());
    let mut head = vec!["Experiment", "Command"];
    head.extend(&names);
    let mut table = Table::new(head);
    if !names.is_empty() {
        table = table.spare(&["Command"]);
    }
    for experiment in experiments {
        let mut row = vec![
            Cell::text(&experiment.name),
            Cell::text(crate::words::joined(&experiment.command)),
        ];
        row.extend(parameter_cells(experiment, &names));
        table.row(row);
    }
    table
}

/// In the order in which they first appear.
fn parameter_names<'e>(experiments: impl Iterator<Item = &'e ExperimentView>) -> Vec<&'e str> {
    let mut names: Vec<&str> = Vec::new();
    for experiment in experiments {
        for (name, _) in &experiment.parameters {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names
}

fn parameter_cells<'e>(
    experiment: &'e ExperimentView,
    names: &'e [&str],
) -> impl Iterator<Item = Cell> + 'e {
    names.iter().map(|name| {
        let value = experiment
            .parameters
            .iter()
            .find(|(known, _)| known == name);
        Cell::maybe(value.map(|(_, value)| value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_one_sentence() {
        assert_eq!(sentence("exit code 3"), Cell::text("exit code 3"));
        assert_eq!(
            sentence("installing packages: ended with exit code 1:\n==> a\n==> b"),
            Cell::text("installing packages: ended with exit code 1 (see its log)")
        );
        assert_eq!(sentence(""), Cell::text(""));
    }
}

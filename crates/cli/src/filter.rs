//! Which runs of a list are shown: by name, state and age.

use clap::Args;
use grid_api::run::{RunView, RunsQuery};
use grid_core::time::Timestamp;
use grid_core::workload::Status;

use crate::values;

/// Flags that narrow a list of runs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// Only runs whose name contains this
    #[arg(long = "name", value_name = "TEXT")]
    name: Option<String>,

    /// Only runs in this state: running, failed, …
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<Status>,

    /// Only runs created since: how long ago (7d, 12h), or a time (2026-11-22)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    since: Option<Timestamp>,
}

fn state(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| {
        let known = Status::ALL.map(Status::as_str).join(", ");
        format!("it has to be one of: {known}")
    })
}

impl Filter {
    /// Whether nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_none() && !self.is_after_the_server()
    }

    /// Whether runs are left out that the server gives.
    pub(crate) fn is_after_the_server(&self) -> bool {
        self.state.is_some() || self.since.is_some()
    }

    /// The state that is asked for.
    pub(crate) fn state(&self) -> Option<Status> {
        self.state
    }

    /// Adds to a query what the server looks for itself.
    pub(crate) fn narrow(&self, query: &mut RunsQuery) {
        query.name.clone_from(&self.name);
    }

    /// Whether a run that the server gave is wanted.
    pub(crate) fn keeps(&self, run: &RunView) -> bool {
        self.state.is_none_or(|state| run.status == state) && !self.is_past(run)
    }

    /// Whether a run is older than asked for; lists are sorted by age, so all behind it
    /// are, too.
    pub(crate) fn is_past(&self, run: &RunView) -> bool {
        match (self.since, Timestamp::parse(&run.created_at)) {
            (Some(since), Some(created)) => created < since,
            _ => false,
        }
    }
}

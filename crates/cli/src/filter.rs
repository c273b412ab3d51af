//! Which runs of a list are shown: by name, state and age.  The server does the looking.

use clap::Args;
use grid_api::run::RunsQuery;
use grid_core::time::Timestamp;
use grid_core::workload::Status;

use crate::values;

/// Flags that narrow a list of runs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// Only runs whose name contains this
    #[arg(long = "name", value_name = "TEXT")]
    name: Option<String>,

    /// Only runs in this state: running, failed, …; several times for several
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<Status>,

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
        self.name.is_none() && self.state.is_empty() && self.since.is_none()
    }

    /// Whether what is over is asked for.
    pub(crate) fn wants_final(&self) -> bool {
        self.state.iter().any(|state| state.is_final())
    }

    /// The same list, narrowed.
    pub(crate) fn narrow(&self, query: RunsQuery) -> RunsQuery {
        RunsQuery {
            name: self.name.clone(),
            state: self.state.clone(),
            since: self.since.map(|since| since.to_string()),
            ..query
        }
    }
}

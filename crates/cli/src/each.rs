//! Commands that do the same to several runs or experiments.
//!
//! One that is refused does not keep the others from it; the exit code tells.

use std::process::ExitCode;

use anyhow::Result;
use grid_api::client;
use serde::Serialize;
use serde_json::Value;

use crate::context::Ctx;
use crate::error::{EXIT_FAILED, Report};
use crate::target;

/// What the names name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Run,
    Experiment,
}

impl Kind {
    /// The word for one.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Experiment => "experiment",
        }
    }

    /// Checks all names before anything is done to the first.
    pub(crate) fn paths(self, names: &[String]) -> Result<Vec<String>> {
        let path = match self {
            Self::Run => target::run_path,
            Self::Experiment => target::experiment_path,
        };
        names.iter().map(|name| path(name)).collect()
    }
}

/// What became of each.
pub(crate) struct Each<'c> {
    ctx: &'c Ctx,
    kind: Kind,
    done: Vec<Value>,
    lines: Vec<String>,
    failed: bool,
}

impl<'c> Each<'c> {
    /// Nothing has been done yet.
    pub(crate) fn new(ctx: &'c Ctx, kind: Kind) -> Self {
        Self {
            ctx,
            kind,
            done: Vec::new(),
            lines: Vec::new(),
            failed: false,
        }
    }

    /// Notes what became of one: `describe` gives the line and the view.
    pub(crate) fn note<T, V: Serialize>(
        &mut self,
        name: &str,
        result: Result<T, client::Error>,
        describe: impl FnOnce(T) -> (String, V),
    ) {
        match result {
            Ok(answer) => {
                let (line, view) = describe(answer);
                self.lines.push(line);
                self.done.extend(serde_json::to_value(view));
            }
            Err(error) => self.fail(name, &error.into()),
        }
    }

    /// Notes that one was refused.
    pub(crate) fn fail(&mut self, name: &str, error: &anyhow::Error) {
        self.failed = true;
        let mut report = Report::of(error);
        // A refusal names the thing and its creator itself.
        if !report.is_refusal() && !report.message.contains(name) {
            report.message = format!("{} {name}: {}", self.kind.word(), report.message);
        }
        self.ctx.printer.error(&report);
    }

    /// Prints what was done; the exit code says whether all was.
    pub(crate) fn finish(self) -> Result<ExitCode> {
        if self.ctx.printer.is_json() {
            let body = serde_json::json!({ format!("{}s", self.kind.word()): self.done });
            self.ctx.printer.json(&body)?;
        } else {
            for line in &self.lines {
                self.ctx.printer.line(line)?;
            }
        }
        Ok(if self.failed {
            ExitCode::from(EXIT_FAILED)
        } else {
            ExitCode::SUCCESS
        })
    }
}

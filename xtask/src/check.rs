//! `cargo xtask check`: everything that has to hold before a change goes in.
//!
//! Continuous integration runs this and nothing else. The steps are data; cheap ones come
//! first, so that a forgotten `cargo fmt` is not told after ten minutes, and the tests come
//! last, so that their own summary is the last thing on the screen. A failing step does not
//! stop the others: one run tells everything that is wrong.

mod changed;
mod tests_step;

use std::time::Duration;

use anyhow::Result;

use crate::args::Args;
use crate::clock::{Stopwatch, human};
use crate::process::{self, cargo, run};
use crate::setup::{self, Tools};
use crate::{build, demo, fuzz, generate, interrupt, sim, tidy, ui};

/// Which checks a step belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Full,
    Quick,
}

/// What a step does.
#[derive(Clone, Copy)]
enum Work {
    /// One cargo command.
    Cargo(&'static [&'static str]),
    /// Something that this tool does itself; `false` when it did not pass.
    Inside(fn(&Tools) -> Result<bool>),
    /// The tests of these packages, or of all when none is named.
    Tests(&'static [&'static str]),
}

struct Step {
    name: &'static str,
    when: When,
    work: Work,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        when: When::Always,
        work: Work::Cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "tidy",
        when: When::Always,
        work: Work::Inside(|_| tidy::check()),
    },
    Step {
        name: "clippy",
        when: When::Quick,
        work: Work::Inside(|_| changed::clippy()),
    },
    Step {
        name: "clippy",
        when: When::Full,
        work: Work::Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Step {
        name: BUILD,
        when: When::Full,
        work: Work::Inside(|_| run(&mut build::everything())),
    },
    Step {
        name: "clients",
        when: When::Full,
        work: Work::Inside(|_| {
            run(setup::with_tools(&mut process::command(build::program(
                CLIENTS,
            ))))
        }),
    },
    Step {
        name: "generated",
        when: When::Full,
        work: Work::Inside(|_| generate::check()),
    },
    Step {
        name: "simulator",
        when: When::Full,
        work: Work::Inside(|_| sim::check()),
    },
    Step {
        name: "demo",
        when: When::Full,
        work: Work::Inside(|_| demo::check()),
    },
    Step {
        name: "fuzz",
        when: When::Full,
        work: Work::Inside(|_| fuzz::check()),
    },
    Step {
        name: "doctests",
        when: When::Full,
        work: Work::Cargo(&["test", "--workspace", "--doc", "--quiet"]),
    },
    Step {
        name: "tests",
        when: When::Full,
        work: Work::Tests(&[]),
    },
    Step {
        name: "tests",
        when: When::Quick,
        work: Work::Tests(&["grid-core", "xtask"]),
    },
];

/// The step without which those after it would look at an old program.
const BUILD: &str = "build";

/// Installs the original client, so that the first test that uses it does not have to.
const CLIENTS: &str = "original-client";

/// How one step went.
struct Outcome {
    name: &'static str,
    end: End,
    took: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// What it needs was not built.
    NotRun,
}

/// Runs the steps and says whether all of them passed.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let quick = args.flag("--quick");
    args.end()?;
    let whole = Stopwatch::start();
    let tools = setup::ensure()?;
    let mut outcomes = vec![Outcome {
        name: "setup",
        end: End::Passed,
        took: whole.elapsed(),
    }];
    let mut summary = Vec::new();
    for step in steps(quick) {
        let watch = Stopwatch::start();
        let not_built = outcomes
            .iter()
            .any(|it| it.name == BUILD && it.end != End::Passed);
        let end = if not_built {
            End::NotRun
        } else {
            settled(step.name, carried_out(step, &tools, &mut summary))?
        };
        let outcome = Outcome {
            name: step.name,
            end,
            took: watch.elapsed(),
        };
        ui::say(&line(&outcome));
        outcomes.push(outcome);
    }
    Ok(report(&outcomes, whole.elapsed(), &summary))
}

/// Does what the step says; what the test runner said last goes to `summary`.
fn carried_out(step: &Step, tools: &Tools, summary: &mut Vec<String>) -> Result<bool> {
    match step.work {
        Work::Cargo(args) => {
            ui::heading(step.name, &format!("cargo {}", args.join(" ")));
            run(setup::with_tools(cargo().args(args)))
        }
        Work::Inside(work) => {
            ui::heading(step.name, "");
            work(tools)
        }
        Work::Tests(packages) => {
            ui::heading(step.name, &packages.join(" "));
            let result = tests_step::run(tools, packages)?;
            *summary = result.summary;
            Ok(result.passed)
        }
    }
}

fn steps(quick: bool) -> impl Iterator<Item = &'static Step> {
    let other = if quick { When::Full } else { When::Quick };
    STEPS.iter().filter(move |step| step.when != other)
}

/// A step that could not even run has failed; only an interruption ends everything.
fn settled(name: &str, passed: Result<bool>) -> Result<End> {
    match passed {
        Ok(true) => Ok(End::Passed),
        Ok(false) => Ok(End::Failed),
        Err(error) if interrupt::requested() => Err(error),
        Err(error) => {
            ui::warn(&format!("{name}: {error:#}"));
            Ok(End::Failed)
        }
    }
}

fn line(outcome: &Outcome) -> String {
    let word = match outcome.end {
        End::Passed => "ok",
        End::Failed => "FAILED",
        End::NotRun => "not run",
    };
    format!("{:<12} {word:<7} {:>10}", outcome.name, human(outcome.took))
}

/// The table of all steps, then what the test runner said last; whether all passed.
fn report(outcomes: &[Outcome], took: Duration, summary: &[String]) -> bool {
    let passed = outcomes.iter().all(|outcome| outcome.end == End::Passed);
    let end = if passed { End::Passed } else { End::Failed };
    ui::say("");
    for outcome in outcomes.iter().chain([&Outcome {
        name: "all",
        end,
        took,
    }]) {
        ui::say(&line(outcome));
    }
    ui::say("");
    for text in summary {
        ui::say(text);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::{BUILD, STEPS, When, Work, steps};

    #[test]
    fn the_tests_come_last_so_that_their_summary_is_the_last_output() {
        for quick in [false, true] {
            let last = steps(quick).last().map(|step| step.work);
            assert!(matches!(last, Some(Work::Tests(_))));
        }
    }

    #[test]
    fn each_check_has_each_step_once() {
        for quick in [false, true] {
            let mut names: Vec<_> = steps(quick).map(|step| step.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
        assert!(STEPS.iter().any(|step| step.when == When::Always));
        assert!(steps(false).any(|step| step.name == BUILD));
    }
}

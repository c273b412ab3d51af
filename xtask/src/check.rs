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
use crate::process::{cargo, run};
use crate::setup::{self, Tools};
use crate::{build, demo, generate, interrupt, sim, tidy, ui};

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
        name: "build",
        when: When::Full,
        work: Work::Inside(|_| run(&mut build::everything())),
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

/// How one step went.
struct Outcome {
    name: &'static str,
    passed: bool,
    took: Duration,
}

/// Runs the steps and says whether all of them passed.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let quick = args.flag("--quick");
    args.end()?;
    let whole = Stopwatch::start();
    let tools = setup::ensure()?;
    let mut outcomes = vec![Outcome {
        name: "setup",
        passed: true,
        took: whole.elapsed(),
    }];
    let mut summary = Vec::new();
    for step in steps(quick) {
        let watch = Stopwatch::start();
        let passed = match step.work {
            Work::Cargo(args) => {
                let mut command = cargo();
                setup::with_tools(command.args(args));
                ui::heading(step.name, &format!("cargo {}", args.join(" ")));
                run(&mut command)
            }
            Work::Inside(work) => {
                ui::heading(step.name, "");
                work(&tools)
            }
            Work::Tests(packages) => {
                ui::heading(step.name, &packages.join(" "));
                tests_step::run(&tools, packages).map(|result| {
                    summary = result.summary;
                    result.passed
                })
            }
        };
        outcomes.push(Outcome {
            name: step.name,
            passed: settled(step.name, passed)?,
            took: watch.elapsed(),
        });
        if let Some(outcome) = outcomes.last() {
            ui::say(&line(outcome));
        }
    }
    report(&outcomes, whole.elapsed(), &summary);
    Ok(outcomes.iter().all(|outcome| outcome.passed))
}

fn steps(quick: bool) -> impl Iterator<Item = &'static Step> {
    let other = if quick { When::Full } else { When::Quick };
    STEPS.iter().filter(move |step| step.when != other)
}

/// A step that could not even run has failed; only an interruption ends everything.
fn settled(name: &str, passed: Result<bool>) -> Result<bool> {
    match passed {
        Ok(passed) => Ok(passed),
        Err(error) if interrupt::requested() => Err(error),
        Err(error) => {
            ui::warn(&format!("{name}: {error:#}"));
            Ok(false)
        }
    }
}

fn line(outcome: &Outcome) -> String {
    let word = if outcome.passed { "ok" } else { "FAILED" };
    format!("{:<12} {word:<7} {:>10}", outcome.name, human(outcome.took))
}

/// The table of all steps, then what the test runner said last.
fn report(outcomes: &[Outcome], took: Duration, summary: &[String]) {
    ui::say("");
    for outcome in outcomes {
        ui::say(&line(outcome));
    }
    let passed = outcomes.iter().all(|outcome| outcome.passed);
    ui::say(&line(&Outcome {
        name: "all",
        passed,
        took,
    }));
    ui::say("");
    for text in summary {
        ui::say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::{STEPS, When, Work, steps};

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
    }
}

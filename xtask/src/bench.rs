//! `cargo xtask bench`: how fast the product is, in a release build.
//!
//! The measurements are made by the program `bench` of the crate `grid-e2e`. It prints one
//! JSON object on a line for each figure: `name`, `value`, `unit`, and where there is one `goal`,
//! with `better` saying whether `higher` or `lower` is better. This module makes the table.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::args::Args;
use crate::process::{cargo, command as program, must, shown, wait};
use crate::{build, leftover, paths, setup, ui};

/// One figure and what it should be.
#[derive(Debug, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    goal: Option<f64>,
    higher_is_better: bool,
}

impl Figure {
    fn parse(line: &str) -> Result<Self> {
        let json: Value =
            serde_json::from_str(line).with_context(|| format!("reading the figure '{line}'"))?;
        let text = |name: &str| {
            json[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("'{line}' has no {name}"))
        };
        Ok(Self {
            name: text("name")?,
            value: json["value"]
                .as_f64()
                .with_context(|| format!("'{line}' has no value"))?,
            unit: text("unit")?,
            goal: json["goal"].as_f64(),
            higher_is_better: json["better"].as_str() == Some("higher"),
        })
    }

    /// How far the goal is met: 1 and above is met.
    fn ratio(&self) -> Option<f64> {
        let goal = self.goal?;
        Some(if self.higher_is_better {
            self.value / goal
        } else {
            goal / self.value
        })
    }

    /// A row of the table, with what was measured the time before.
    fn line(&self, before: Option<f64>) -> String {
        let dash = || "–".to_owned();
        let goal = self.goal.map_or_else(dash, short);
        let ratio = self
            .ratio()
            .map_or_else(dash, |ratio| format!("{ratio:.2}"));
        let before = before.map_or_else(dash, short);
        let word = match self.ratio() {
            Some(ratio) if ratio < 1.0 => "missed",
            Some(_) => "met",
            None => "",
        };
        format!(
            "{:<46} {:>10} {:<5} {before:>10} {goal:>8} {ratio:>7} {word}",
            self.name,
            short(self.value),
            self.unit
        )
        .trim_end()
        .to_owned()
    }
}

/// A number with as many digits as say something.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Measures everything, or what the names name, and says whether every goal is met.
///
/// The table shows beside each figure what it was the last time. With `--save FILE` the figures
/// are written there as well.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let save = args.value("--save")?;
    let names = args.rest();
    setup::ensure()?;
    let mut release = cargo();
    release.args([
        "build",
        "--release",
        "--package",
        "grid-cli",
        "--package",
        "grid-e2e",
        "--package",
        "grid-engine",
        "--bins",
        "--example",
        "bench_team",
    ]);
    must(&mut release)?;
    let (whole, text) = measure(&names)?;
    let figures = parsed(&text)?;
    if figures.is_empty() {
        bail!("nothing was measured");
    }
    let kept = paths::target().join("bench.jsonl");
    let before = std::fs::read_to_string(&kept).unwrap_or_default();
    for line in table(&figures, &parsed(&before).unwrap_or_default()) {
        ui::say(&line);
    }
    write(&kept, &keep(&before, &text))?;
    if let Some(path) = save {
        write(Path::new(path), &text)?;
    }
    Ok(whole
        && figures
            .iter()
            .all(|figure| figure.ratio().is_none_or(|ratio| ratio >= 1.0)))
}

/// Runs the benchmarks: whether all of them could be measured, and what they printed.
fn measure(names: &[&str]) -> Result<(bool, String)> {
    let release = paths::target().join("release");
    let grid = release.join("grid");
    // On the disk of the repository: many a /tmp is memory, and would flatter every figure.
    let folder = paths::target().join("bench");
    std::fs::create_dir_all(&folder).context("making a folder for the benchmarks")?;
    let mut bench = program(release.join("bench"));
    setup::with_tools(bench.args(names))
        .env(build::BINARY_VARIABLE, &grid)
        .env("TMPDIR", &folder);
    ui::say(&shown(&bench));
    let started = bench.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.context("starting the benchmarks")?;
    let mut out = child
        .stdout
        .take()
        .context("the benchmarks have no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let status = wait(child);
    leftover::end_all(&grid, &folder)?;
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("reading the figures failed"))?;
    Ok((status?.success(), text.context("reading the figures")?))
}

fn parsed(text: &str) -> Result<Vec<Figure>> {
    text.lines().map(Figure::parse).collect()
}

/// The rows of the table, with what was measured the time before.
fn table(figures: &[Figure], before: &[Figure]) -> Vec<String> {
    let head = format!(
        "{:<46} {:>10} {:<5} {:>10} {:>8} {:>7}",
        "what", "measured", "", "before", "goal", "ratio"
    );
    let row = |figure: &Figure| {
        let earlier = before.iter().find(|earlier| earlier.name == figure.name);
        figure.line(earlier.map(|earlier| earlier.value))
    };
    std::iter::once(head)
        .chain(figures.iter().map(row))
        .collect()
}

/// The new figures, and those of before that were not measured this time.
fn keep(before: &str, new: &str) -> String {
    let measured = parsed(new).unwrap_or_default();
    let is_old = |line: &&str| {
        Figure::parse(line).is_ok_and(|old| measured.iter().all(|figure| figure.name != old.name))
    };
    let lines = before.lines().filter(is_old).chain(new.lines());
    lines.map(|line| format!("{line}\n")).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Figure, keep, parsed, table};

    fn figure(line: &str) -> Figure {
        Figure::parse(line).unwrap()
    }

    #[test]
    fn a_ratio_of_one_meets_the_goal_whichever_way_is_better() {
        let fast = figure(
            r#"{"name":"experiments","value":1000,"unit":"/s","goal":500,"better":"higher"}"#,
        );
        assert_eq!(fast.ratio(), Some(2.0));
        let slow =
            figure(r#"{"name":"start p50","value":60,"unit":"ms","goal":30,"better":"lower"}"#);
        assert_eq!(slow.ratio(), Some(0.5));
        assert!(slow.line(Some(58.0)).ends_with("missed"));
        assert!(slow.line(Some(58.0)).contains(" 58.0 "));
        assert_eq!(figure(r#"{"name":"a","value":1,"unit":"s"}"#).ratio(), None);
    }

    #[test]
    fn figures_stand_beside_those_of_before() {
        let before = "{\"name\":\"a\",\"value\":4,\"unit\":\"s\"}\n{\"name\":\"b\",\"value\":1,\"unit\":\"s\"}\n";
        let new = "{\"name\":\"a\",\"value\":2,\"unit\":\"s\"}\n";
        let rows = table(&parsed(new).unwrap(), &parsed(before).unwrap());
        assert_eq!(rows.len(), 2);
        assert!(rows[1].contains("2.0") && rows[1].contains("4.0"));
        let names: Vec<_> = parsed(&keep(before, new))
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        assert!(Figure::parse("hello").is_err());
        assert!(Figure::parse(r#"{"name":"a"}"#).is_err());
    }
}

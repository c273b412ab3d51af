//! `cargo xtask bench`: how fast the product is, in a release build.
//!
//! The measurements are made by the program `bench` of the crate `grid-e2e`. It prints one
//! JSON object on a line for each figure: `name`, `value`, `unit`, and where there is one `goal`,
//! with `better` saying whether `higher` or `lower` is better. This module makes the table.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::args::Args;
use crate::process::{cargo, command as program, must, output_of};
use crate::{build, paths, setup, ui};

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

    fn line(&self) -> String {
        let goal = self
            .goal
            .map_or_else(|| "–".to_owned(), |goal| format!("{goal:.4}"));
        let ratio = self
            .ratio()
            .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let word = match self.ratio() {
            Some(ratio) if ratio < 1.0 => "missed",
            Some(_) => "met",
            None => "",
        };
        format!(
            "{:<44} {:>12.3} {:<8} {goal:>10} {ratio:>7} {word}",
            self.name, self.value, self.unit
        )
    }
}

/// Measures everything, or what NAME names, and says whether every goal is met.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let name = args.word();
    args.end()?;
    setup::ensure()?;
    must(cargo().args([
        "build",
        "--release",
        "--package",
        "grid-cli",
        "--package",
        "grid-e2e",
        "--bins",
    ]))?;
    let release = paths::target().join("release");
    let bench = release.join("bench");
    if !bench.exists() {
        bail!("there are no benchmarks yet: the crate grid-e2e has no program `bench`");
    }
    let mut bench = program(bench);
    setup::with_tools(&mut bench)
        .args(name)
        .env(build::BINARY_VARIABLE, release.join("grid"));
    let figures: Vec<Figure> = output_of(&mut bench)?
        .lines()
        .map(Figure::parse)
        .collect::<Result<_>>()?;
    ui::say(&format!(
        "{:<44} {:>12} {:<8} {:>10} {:>7}",
        "what", "measured", "", "goal", "ratio"
    ));
    for figure in &figures {
        ui::say(&figure.line());
    }
    Ok(figures
        .iter()
        .all(|figure| figure.ratio().is_none_or(|ratio| ratio >= 1.0)))
}

#[cfg(test)]
mod tests {
    use super::Figure;

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
        assert!(slow.line().ends_with("missed"));
        assert_eq!(figure(r#"{"name":"a","value":1,"unit":"s"}"#).ratio(), None);
    }

    #[test]
    fn what_is_no_figure_is_refused() {
        assert!(Figure::parse("hello").is_err());
        assert!(Figure::parse(r#"{"name":"a"}"#).is_err());
    }
}

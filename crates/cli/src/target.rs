//! Which thing is meant: a name, `user:name`, or an id.
//!
//! The forms of run names, experiment names and ids do not overlap, so what a
//! word means is known before the server is asked.

use anyhow::Result;
use grid_api::client::segment;
use grid_core::id::RunId;
use grid_core::name::RunOrExperimentRef;

use crate::error::Problem;

/// A run or an experiment as the caller named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// By its name.
    Run(String),
    /// By its name.
    Experiment(String),
    /// By an id; of which of the two is not to be seen.
    Id(String),
}

impl Target {
    /// Reads a word of the command line.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        if is_id(word) {
            return Ok(Self::Id(word.to_owned()));
        }
        match word.parse() {
            Ok(RunOrExperimentRef::Run(run)) => Ok(Self::Run(run.to_string())),
            Ok(RunOrExperimentRef::Experiment(experiment)) => {
                Ok(Self::Experiment(experiment.to_string()))
            }
            Err(error) => Err(Problem::usage(error.to_string())
                .hint("`grid status` and `grid history` list the names")
                .into()),
        }
    }
}

/// Checks the name of a run, and makes it a piece of a path.
pub(crate) fn run_path(word: &str) -> Result<String> {
    match Target::parse(word)? {
        Target::Run(_) | Target::Id(_) => Ok(format!("/runs/{}", segment(word))),
        Target::Experiment(_) => Err(Problem::usage(format!(
            "'{word}' is an experiment, not a run"
        ))
        .hint(format!("its run is '{}'", run_of(word)))
        .into()),
    }
}

/// Checks the name of an experiment, and makes it a piece of a path.
pub(crate) fn experiment_path(word: &str) -> Result<String> {
    match Target::parse(word)? {
        Target::Experiment(_) | Target::Id(_) => Ok(format!("/experiments/{}", segment(word))),
        Target::Run(_) => Err(
            Problem::usage(format!("'{word}' is a run, not an experiment"))
                .hint(format!(
                    "its experiments are '{word}-exp0' and so on; `grid status {word}` lists them"
                ))
                .into(),
        ),
    }
}

fn run_of(experiment: &str) -> &str {
    experiment
        .rsplit_once("-exp")
        .map_or(experiment, |(run, _)| run)
}

fn is_id(word: &str) -> bool {
    word.parse::<RunId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() -> Result<()> {
        let id = "01g40mbzw89j19p20000000000";
        assert_eq!(Target::parse("bert-1")?, Target::Run("bert-1".to_owned()));
        assert_eq!(
            Target::parse("ada:bert-1")?,
            Target::Run("ada:bert-1".to_owned())
        );
        assert_eq!(
            Target::parse("bert-1-exp0")?,
            Target::Experiment("bert-1-exp0".to_owned())
        );
        assert_eq!(Target::parse(id)?, Target::Id(id.to_owned()));
        assert_eq!(run_path("ada:bert-1")?, "/runs/ada:bert-1");
        assert_eq!(experiment_path(id)?, format!("/experiments/{id}"));
        Ok(())
    }

    #[test]
    fn the_wrong_kind_is_refused_before_the_server_is_asked() {
        for (checked, hint) in [
            (run_path("bert-1-exp0"), "an experiment, not a run"),
            (experiment_path("bert-1"), "a run, not an experiment"),
            (run_path("../x"), "not"),
            (run_path(""), "empty"),
        ] {
            let message = checked.map_err(|error| error.to_string());
            assert!(
                matches!(&message, Err(text) if text.contains(hint)),
                "{message:?}"
            );
        }
    }
}

//! Names that may be a teammate's: `NAME` or `USERNAME:NAME`.

use std::fmt;
use std::str::FromStr;

use super::{ExperimentName, NameError, RunName, UserName};

/// Something of one's own (`NAME`) or of a teammate (`USERNAME:NAME`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref<N = String> {
    /// Whose it is; none for the caller's own.
    pub user: Option<UserName>,
    /// What it is called there.
    pub name: N,
}

/// A run, of one's own or of a teammate.
pub type RunRef = Ref<RunName>;

/// An experiment, of one's own or of a teammate.
pub type ExperimentRef = Ref<ExperimentName>;

/// The commands that take either tell them apart by their form, which no two share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunOrExperimentRef {
    /// All experiments of a run.
    Run(RunRef),
    /// One of them.
    Experiment(ExperimentRef),
}

impl FromStr for Ref<String> {
    type Err = NameError;

    /// The name is what follows the first `:`; it may contain more of them, as
    /// the versions of datastores do.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some((user, name)) => Ok(Self {
                user: Some(UserName::parse(user)?),
                name: name.to_owned(),
            }),
            None => Ok(Self {
                user: None,
                name: text.to_owned(),
            }),
        }
    }
}

impl FromStr for RunRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Ref { user, name } = text.parse::<Ref>()?;
        Ok(Self {
            user,
            name: RunName::parse(&name)?,
        })
    }
}

impl FromStr for ExperimentRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Ref { user, name } = text.parse::<Ref>()?;
        Ok(Self {
            user,
            name: ExperimentName::parse(&name)?,
        })
    }
}

impl FromStr for RunOrExperimentRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(experiment) => Ok(Self::Experiment(experiment)),
            Err(_) => text.parse().map(Self::Run),
        }
    }
}

impl<N: fmt::Display> fmt::Display for Ref<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user}:{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl fmt::Display for RunOrExperimentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => run.fmt(f),
            Self::Experiment(experiment) => experiment.fmt(f),
        }
    }
}

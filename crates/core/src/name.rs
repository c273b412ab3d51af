//! Names that people type: of runs, experiments, users and teams.
//!
//! A value of one of these types is a name that is allowed; there is no other
//! way to make one than to parse it.  Displaying and parsing give it back.
//!
//! | what | form |
//! | --- | --- |
//! | run (and session) | `gifted-seahorse-583`: lowercase letters, digits, `-` |
//! | experiment | `gifted-seahorse-583-exp0` |
//! | user | `ada` as a GitHub handle, or `ada@example.org`; case does not count |
//! | team | `vision-lab`; case does not count |
//! | datastore | `cifar-10`: lowercase letters, digits, `-`, `_`, `.` |
//! | reference | `NAME` is mine, `USERNAME:NAME` is a teammate's |

mod datastore;
mod reference;
mod words;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use datastore::{DatastoreName, DatastoreRef};
pub use reference::{ExperimentRef, Ref, RunOrExperimentRef, RunRef};
use words::{ADJECTIVES, ANIMALS};

/// Characters of a run name.  Higher: names of experiments do not fit the 63
/// characters that machine and pod names may have, and tables get wide.  Lower:
/// descriptive names are refused.
pub const RUN_NAME_LEN_MAX: usize = 50;

/// Characters of a user name that is no e-mail address; GitHub's own limit.
/// Higher: tables get wide.  Lower: some people cannot use their handle.
pub const USER_NAME_LEN_MAX: usize = 39;

/// Characters of an e-mail address; the limit of the mail system.
pub const EMAIL_LEN_MAX: usize = 254;

/// Characters of a team name.  Higher: tables get wide.  Lower: names of
/// departments do not fit.
pub const TEAM_NAME_LEN_MAX: usize = 50;

/// Characters of the name of a datastore.  Higher: mount points and tables get wide.
/// Lower: names of archives do not fit.
pub const DATASTORE_NAME_LEN_MAX: usize = 63;

/// What stands between the name of a run and the number of an experiment.
const EXPERIMENT_MARK: &str = "-exp";

/// What stands between the name of a run and the digits of its clone.
const CLONE_MARK: &str = "-cl";

/// Text that is not a name of the kind it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text.
    #[error("the {kind} is empty; {form}")]
    Empty {
        /// What it should name.
        kind: NameKind,
        /// What is allowed.
        form: &'static str,
    },
    /// There is too much of it.
    #[error("the {kind} is {len} characters long; at most {max} are allowed")]
    TooLong {
        /// What it should name.
        kind: NameKind,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A character that is not allowed, there or anywhere.
    #[error(
        "`{name}` is not a {kind}: {character:?} is not allowed as character {position}; {form}"
    )]
    Character {
        /// What it should name.
        kind: NameKind,
        /// The text.
        name: String,
        /// The first character that is wrong.
        character: char,
        /// Counted from 1.
        position: usize,
        /// What is allowed.
        form: &'static str,
    },
    /// A run that could be mistaken for an experiment of another run.
    #[error(
        "`{name}` is not a run name: names that end in -exp and a number belong to experiments"
    )]
    LooksLikeExperiment {
        /// The text.
        name: String,
    },
    /// A datastore that could be mistaken for a version.
    #[error("`{name}` is not a datastore name: a number alone is a version; add a letter")]
    LooksLikeVersion {
        /// The text.
        name: String,
    },
    /// Not a version.
    #[error("`{text}` is not a version of a datastore: these are 1, 2, 3, …")]
    NotVersion {
        /// The text.
        text: String,
    },
    /// A colon, and nothing behind it.
    #[error(
        "the version is missing behind the colon: these are 1, 2, 3, …; without a colon, the newest is meant"
    )]
    NoVersion,
    /// Not the name of an experiment.
    #[error(
        "`{name}` is not an experiment name; these are RUN-expN, like gifted-seahorse-583-exp0"
    )]
    NotExperiment {
        /// The text.
        name: String,
    },
}

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A run, or a session.
    Run,
    /// A user.
    User,
    /// A team.
    Team,
    /// A datastore.
    Datastore,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run name",
            Self::User => "user name",
            Self::Team => "team name",
            Self::Datastore => "datastore name",
        })
    }
}

/// The traits that every name has, from its `parse` and its text.
macro_rules! name_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )*};
}

name_traits!(RunName, UserName, TeamName, DatastoreName);

/// The name of a run, unique among its owner's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(String);

impl RunName {
    const FORM: &str =
        "use lowercase letters, digits and `-`; start with a letter, end with a letter or digit";

    /// Reads a name, or says which character is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rules = Rules {
            kind: NameKind::Run,
            form: Self::FORM,
            max: RUN_NAME_LEN_MAX,
        };
        rules.check(
            text,
            |c| c.is_ascii_lowercase(),
            |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
        )?;
        if split_experiment(text)
            .is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(NameError::LooksLikeExperiment {
                name: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The name of one of its experiments.
    pub fn experiment(&self, index: u32) -> ExperimentName {
        ExperimentName {
            run: self.clone(),
            index,
        }
    }

    /// A name for a copy of this run: `<name>-cl<ten digits>`.  A copy of a copy
    /// is a copy of the first, and a name too long for the digits is cut.
    #[must_use]
    pub fn clone_name(&self, entropy: u64) -> Self {
        const DIGITS: usize = 10;
        let original = match self.0.rsplit_once(CLONE_MARK) {
            Some((original, digits)) if digits.len() == DIGITS && is_digits(digits) => original,
            _ => &self.0,
        };
        let room = RUN_NAME_LEN_MAX - CLONE_MARK.len() - DIGITS;
        let original = original
            .get(..room)
            .unwrap_or(original)
            .trim_end_matches('-');
        Self(format!(
            "{original}{CLONE_MARK}{:0DIGITS$}",
            entropy % 10_u64.pow(DIGITS as u32)
        ))
    }
}

/// A name that nobody had to think of: `gifted-seahorse-583`.  Different
/// entropy gives different names most of the time: there are over 90 million.
pub fn generate_run_name(entropy: u64) -> RunName {
    let (adjectives, animals) = (ADJECTIVES.len() as u64, ANIMALS.len() as u64);
    let adjective = ADJECTIVES[(entropy % adjectives) as usize];
    let animal = ANIMALS[(entropy / adjectives % animals) as usize];
    let number = 100 + entropy / adjectives / animals % 900;
    RunName(format!("{adjective}-{animal}-{number}"))
}

/// The name of an experiment: that of its run and its number, from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExperimentName {
    run: RunName,
    index: u32,
}

impl ExperimentName {
    /// Reads `<run>-exp<N>`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts =
            split_experiment(text).and_then(|(run, number)| Some((run, canonical_number(number)?)));
        let Some((run, index)) = parts else {
            return Err(NameError::NotExperiment {
                name: shortened(text),
            });
        };
        Ok(Self {
            run: RunName::parse(run)?,
            index,
        })
    }

    /// The run it belongs to.
    pub fn run(&self) -> &RunName {
        &self.run
    }

    /// Its number within the run.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl fmt::Display for ExperimentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{EXPERIMENT_MARK}{}", self.run, self.index))
    }
}

impl FromStr for ExperimentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ExperimentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<ExperimentName> for String {
    fn from(name: ExperimentName) -> Self {
        name.to_string()
    }
}

/// The name that a person signs in with: a GitHub handle or an e-mail address.
/// Upper case is read as lower case, so that nobody can pose as `Ada` beside `ada`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl UserName {
    const FORM: &str = "use letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, \
                        or an e-mail address";

    /// Reads a name, or says which character is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_email = text.contains('@');
        let max = if is_email {
            EMAIL_LEN_MAX
        } else {
            USER_NAME_LEN_MAX
        };
        let rules = Rules {
            kind: NameKind::User,
            form: Self::FORM,
            max,
        };
        if is_email {
            rules.check_email(text)?;
        } else {
            rules.check(text, |c| c.is_ascii_alphanumeric(), is_handle_character)?;
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// The name of a team.  Upper case is read as lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TeamName(String);

impl TeamName {
    const FORM: &str = "use letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";

    /// Reads a name, or says which character is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rules = Rules {
            kind: NameKind::Team,
            form: Self::FORM,
            max: TEAM_NAME_LEN_MAX,
        };
        rules.check(text, |c| c.is_ascii_alphanumeric(), is_handle_character)?;
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// What all names of a kind have in common.
struct Rules {
    kind: NameKind,
    form: &'static str,
    max: usize,
}

impl Rules {
    /// Every character must be allowed, the first must be a start, and the last
    /// a letter or digit.
    fn check(
        &self,
        text: &str,
        starts: impl Fn(char) -> bool,
        allowed: impl Fn(char) -> bool,
    ) -> Result<(), NameError> {
        let len = self.check_len(text)?;
        for (index, c) in text.chars().enumerate() {
            let at_end = index + 1 == len && !c.is_ascii_alphanumeric();
            if !allowed(c) || at_end || (index == 0 && !starts(c)) {
                return Err(self.wrong(text, index, c));
            }
        }
        Ok(())
    }

    /// Local part and domain; no attempt at the quoting that mail allows.
    fn check_email(&self, text: &str) -> Result<(), NameError> {
        let len = self.check_len(text)?;
        let at = text.chars().position(|c| c == '@').unwrap_or(len);
        let mut before = '.';
        for (index, c) in text.chars().enumerate() {
            let allowed = match c {
                '@' => index == at && index > 0 && before != '.' && index + 1 < len,
                '.' => before != '.' && before != '@' && index + 1 < len,
                '-' => index != at + 1 && index + 1 < len,
                '_' | '+' | '%' | '\'' => index < at,
                _ => c.is_ascii_alphanumeric(),
            };
            if !allowed {
                return Err(self.wrong(text, index, c));
            }
            before = c;
        }
        Ok(())
    }

    fn check_len(&self, text: &str) -> Result<usize, NameError> {
        let (kind, form, max) = (self.kind, self.form, self.max);
        match text.chars().count() {
            0 => Err(NameError::Empty { kind, form }),
            len if len > max => Err(NameError::TooLong { kind, len, max }),
            len => Ok(len),
        }
    }

    fn wrong(&self, text: &str, index: usize, character: char) -> NameError {
        let (kind, form) = (self.kind, self.form);
        NameError::Character {
            kind,
            name: shortened(text),
            character,
            position: index + 1,
            form,
        }
    }
}

fn is_handle_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The parts before and after the last mark, if both are there.
fn split_experiment(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once(EXPERIMENT_MARK)
        .filter(|(_, number)| !number.is_empty())
}

/// A number as it is written back: without zeros in front.
fn canonical_number(text: &str) -> Option<u32> {
    let canonical = is_digits(text) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Enough of a text to recognise it in a message.
fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;

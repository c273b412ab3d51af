//! The words after the script, told apart: flags, values, toggles, positionals.
//!
//! Nothing is ever dropped or moved: writing the words back in order gives the
//! command again.  Telling them apart only decides which are values (these may
//! sweep) and what they are called in tables.

use std::collections::HashSet;

use super::error::SweepError;

/// One argument of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument {
    /// `--flag value`
    Spaced { flag: String, value: String },
    /// `--flag=value`
    Joined { flag: String, value: String },
    /// `--flag`
    Toggle { flag: String },
    /// `value`; the number counts positionals from 1.
    Positional { number: usize, value: String },
    /// `--`: only positionals follow.
    Separator,
}

impl Argument {
    /// The text that may be an expression.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Spaced { value, .. }
            | Self::Joined { value, .. }
            | Self::Positional { value, .. } => Some(value),
            Self::Toggle { .. } | Self::Separator => None,
        }
    }

    /// How messages call it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Spaced { flag, .. } | Self::Joined { flag, .. } | Self::Toggle { flag } => {
                flag.clone()
            }
            Self::Positional { number, .. } => format!("argument {number}"),
            Self::Separator => "--".to_owned(),
        }
    }

    /// Adds the words for the script, with `value` in the place of the expression.
    pub(super) fn write(&self, value: &str, words: &mut Vec<String>) {
        match self {
            Self::Spaced { flag, .. } => words.extend([flag.clone(), value.to_owned()]),
            Self::Joined { flag, .. } => words.push(format!("{flag}={value}")),
            Self::Toggle { flag } => words.push(flag.clone()),
            Self::Positional { .. } => words.push(value.to_owned()),
            Self::Separator => words.push("--".to_owned()),
        }
    }

    fn flag(&self) -> Option<&str> {
        match self {
            Self::Spaced { flag, .. } | Self::Joined { flag, .. } | Self::Toggle { flag } => {
                Some(flag)
            }
            Self::Positional { .. } | Self::Separator => None,
        }
    }

    /// What tables call it: without leading dashes.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Positional { number, .. } => format!("arg{number}"),
            _ => {
                let flag = self.flag().unwrap_or_default();
                let name = flag.trim_start_matches('-');
                if name.is_empty() {
                    flag.to_owned()
                } else {
                    name.to_owned()
                }
            }
        }
    }
}

/// The arguments of the command line, then those of the configuration that the
/// command line does not have.  A `--` stays behind the latter, so that they
/// are flags.
pub(super) fn read(
    words: &[String],
    config: &[(String, String)],
) -> Result<Vec<Argument>, SweepError> {
    let mut arguments = read_words(words);
    let given: HashSet<String> = arguments
        .iter()
        .filter_map(Argument::flag)
        .map(comparable)
        .collect();
    let mut added = Vec::new();
    for (key, value) in config {
        let flag = config_flag(key)?;
        if !given.contains(&comparable(&flag)) {
            added.push(if value.is_empty() {
                Argument::Toggle { flag }
            } else {
                Argument::Spaced {
                    flag,
                    value: value.clone(),
                }
            });
        }
    }
    let end = arguments
        .iter()
        .position(|argument| *argument == Argument::Separator)
        .unwrap_or(arguments.len());
    arguments.splice(end..end, added);
    Ok(arguments)
}

fn read_words(words: &[String]) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut positionals = 0;
    let mut only_positionals = false;
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        if only_positionals || !is_flag(word) {
            positionals += 1;
            arguments.push(Argument::Positional {
                number: positionals,
                value: word.clone(),
            });
        } else if word == "--" {
            only_positionals = true;
            arguments.push(Argument::Separator);
        } else if let Some((flag, value)) = word.split_once('=') {
            arguments.push(Argument::Joined {
                flag: flag.to_owned(),
                value: value.to_owned(),
            });
        } else if let Some(value) = rest.next_if(|next| !is_flag(next)) {
            arguments.push(Argument::Spaced {
                flag: word.clone(),
                value: value.clone(),
            });
        } else {
            arguments.push(Argument::Toggle { flag: word.clone() });
        }
    }
    arguments
}

/// `-x` is a flag; `-1e-3`, `-.5`, `-inf` and the lone `-` (standard input) are values.
fn is_flag(word: &str) -> bool {
    let Some(after) = word.strip_prefix('-') else {
        return false;
    };
    !after.is_empty() && (after.starts_with(['-', '+']) || after.parse::<f64>().is_err())
}

/// `learning_rate` in the configuration means the flag `--learning_rate`: a bare
/// word before its value would be two positionals to every script.
fn config_flag(key: &str) -> Result<String, SweepError> {
    if key.trim_matches('-').is_empty() {
        let message = format!("`{key}` in hyper_params.params is not the name of an argument");
        return Err(SweepError::whole(
            message,
            "write it like `--lr: 0.1` or `lr: 0.1`",
        ));
    }
    Ok(if key.starts_with('-') {
        key.to_owned()
    } else {
        format!("--{key}")
    })
}

/// Scripts read `--batch-size` and `--batch_size` as the same argument.
fn comparable(flag: &str) -> String {
    flag.trim_start_matches('-').replace('-', "_")
}

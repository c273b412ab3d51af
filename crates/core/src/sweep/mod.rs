//! Sweeps: from the arguments of a script to its experiments.
//!
//! The value of an argument may stand for many: a list, a range, or numbers by
//! chance (the language is in `parser.rs`).  [`expand`] makes one
//! [`ParameterSet`] for each combination that the [`Strategy`] picks.
//!
//! Promises:
//! * The same arguments, spec and seed give the same experiments in the same
//!   order, on every machine and in every later version.  (The stream of random
//!   numbers is part of the stored format; `random.rs` fixes it.)
//! * Text is never evaluated, only read; no input makes this panic or run long.
//! * Nothing is built before it is known to be within the limits.
//!
//! How chance is used: the nth argument that draws (from 1) has stream n of the
//! seed, so an argument added behind others changes none of their values.
//! Stream 0 picks the experiments of a random search.
//!
//! ```
//! use grid_core::sweep::{SweepSpec, expand};
//!
//! let args = ["--lr", "[0.1, 0.01]", "--layers", "range(2, 5)"].map(str::to_owned);
//! let expansion = expand(&args, &[], &SweepSpec::default(), 42)?;
//! assert_eq!(expansion.experiments.len(), 6);
//! assert_eq!(expansion.experiments[1].args, ["--lr", "0.1", "--layers", "3"]);
//! # Ok::<(), grid_core::sweep::SweepError>(())
//! ```

mod command;
mod distribution;
mod error;
mod expression;
mod parser;
mod pick;
mod random;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use command::Argument;
use error::Problem;
pub use error::SweepError;
pub use expression::ARGUMENT_VALUES_MAX;
use expression::Expression;
use random::Random;

/// Experiments one sweep may have.  Higher: a typing error floods the queue and
/// the database.  Lower: real searches are refused.
pub const EXPERIMENTS_MAX: u64 = 100_000;

/// Values of all arguments of a sweep together.  Higher: a request with many
/// arguments takes a lot of memory before the first experiment exists.  Lower:
/// random searches over a few fine-grained arguments are refused.
pub const VALUES_MAX: u64 = 1_000_000;

/// Arguments of a sweep that stand for other than themselves.  Higher: each may
/// take milliseconds to prepare, and a request could keep the server busy for
/// minutes.  Lower: scripts with very many settings cannot be swept.
pub const SWEPT_ARGUMENTS_MAX: usize = 256;

/// Bytes of all argument lists of a sweep together, each word with its end
/// byte.  Higher: one request can fill the server's memory.  Lower: long
/// commands cannot be swept widely.
pub const ARGUMENT_BYTES_MAX: u64 = 64 << 20;

/// How combinations are picked from all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Strategy {
    /// All of them, the first argument outermost.
    #[default]
    GridSearch,
    /// Some, by chance, none twice.
    RandomSearch,
    /// No sweep: one experiment, the arguments as they are.
    None,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GridSearch => "grid_search",
            Self::RandomSearch => "random_search",
            Self::None => "none",
        })
    }
}

/// Text that names no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a strategy; use grid_search, random_search or none")]
pub struct UnknownStrategy(String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "grid_search" => Ok(Self::GridSearch),
            "random_search" => Ok(Self::RandomSearch),
            "none" => Ok(Self::None),
            other => Err(UnknownStrategy(expression::shortened(other))),
        }
    }
}

/// What a user asked for beside the arguments themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SweepSpec {
    /// How combinations are picked.
    pub strategy: Strategy,
    /// How many experiments a random search makes; the other strategies ignore it.
    pub num_trials: Option<u64>,
    /// Repeats an earlier sweep; without it the sweep gets a seed of its own.
    pub seed: Option<u64>,
}

/// What a sweep came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expansion {
    /// The seed that was used: with it in the spec the same experiments come again.
    pub seed: u64,
    /// How many combinations there are, whether picked or not; stops at the
    /// largest number there is.
    pub total: u64,
    /// The combinations that were picked, in the order of the experiments.
    pub experiments: Vec<ParameterSet>,
}

/// One experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterSet {
    /// Name and value for tables, in the order of the command: every flag
    /// (`True` for one without a value), and positionals that sweep, as
    /// `arg1`, `arg2`.  Names are unique: a repeated flag is `x`, `x#2`.
    pub params: Vec<(String, String)>,
    /// The words after the script, exactly.
    pub args: Vec<String>,
}

/// The distribution that was probably meant by a value that is passed as it is because it
/// is the call of none: `uniform` for `unifrom(0, 1, 3)`.
pub fn mistyped(value: &str) -> Option<&'static str> {
    let (name, rest) = value.trim().split_once('(')?;
    let is_word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    if !is_word || !rest.trim_end().ends_with(')') {
        return None;
    }
    let known = distribution::DISTRIBUTIONS.iter().map(|one| one.name);
    let known: Vec<&'static str> = known.chain(["range", "choice"]).collect();
    let lower = name.to_ascii_lowercase();
    if known.contains(&name) {
        return None;
    }
    crate::nearest::nearest(&lower, &known)
}

/// Makes the experiments of a run.
///
/// `args` are the words after the script as the shell gave them.
/// `config_params` are those of the configuration file: `--foo`, `-bar` or a
/// bare `foo` (which means `--foo`) with the text of its value, an empty one
/// for a toggle.  They are added behind the others; a flag that is on the
/// command line too is left out here.  `entropy_seed` is the seed when the spec
/// names none.
pub fn expand(
    args: &[String],
    config_params: &[(String, String)],
    spec: &SweepSpec,
    entropy_seed: u64,
) -> Result<Expansion, SweepError> {
    let seed = spec.seed.unwrap_or(entropy_seed);
    let arguments = command::read(args, config_params)?;
    let expressions = expressions(&arguments, spec.strategy)?;
    let sizes: Vec<u64> = expressions.iter().map(Expression::len).collect();
    let total = sizes.iter().fold(1_u128, |product, &size| {
        product.saturating_mul(u128::from(size))
    });
    let count = experiment_count(total, spec)?;
    check_work(&expressions, &sizes)?;

    let axes = axes(&arguments, expressions, seed)?;
    let picks = match spec.strategy {
        Strategy::RandomSearch => pick::by_chance(&sizes, total, count, Random::new(seed, 0)),
        Strategy::GridSearch | Strategy::None => Box::new(pick::all(&sizes, count)),
    };
    let mut experiments = Vec::new();
    let mut bytes = 0_u64;
    for pick in picks {
        let experiment = parameter_set(&axes, &pick);
        bytes += experiment
            .args
            .iter()
            .map(|word| word.len() as u64 + 1)
            .sum::<u64>();
        if bytes > ARGUMENT_BYTES_MAX {
            return Err(too_many_bytes(count));
        }
        experiments.push(experiment);
    }
    Ok(Expansion {
        seed,
        total: u64::try_from(total).unwrap_or(u64::MAX),
        experiments,
    })
}

/// An argument with all its values.
struct Axis<'a> {
    argument: &'a Argument,
    /// At least one; `True` for a toggle.
    values: Vec<String>,
    /// What tables call it; none when it is not shown there.
    name: Option<String>,
}

/// One for each argument, with at least one value.
fn expressions(arguments: &[Argument], strategy: Strategy) -> Result<Vec<Expression>, SweepError> {
    let read = |argument: &Argument| {
        let Some(text) = argument.value() else {
            return Ok(Expression::Scalar("True".to_owned()));
        };
        if strategy == Strategy::None {
            return Ok(Expression::Scalar(text.to_owned()));
        }
        let expression = Expression::parse(text)?;
        match expression.len() {
            0 => Err(Problem::new("there are no values to try")
                .with_hint("give at least one value, or leave the argument out")),
            1..=ARGUMENT_VALUES_MAX => Ok(expression),
            len => Err(Problem::new(format!(
                "{} values are more than the {} that one argument may have",
                grouped(u128::from(len)),
                grouped(u128::from(ARGUMENT_VALUES_MAX)),
            ))),
        }
    };
    arguments
        .iter()
        .map(|argument| {
            read(argument).map_err(|problem| SweepError::of(&argument.label(), problem))
        })
        .collect()
}

/// How many experiments there will be, within the limit.
fn experiment_count(total: u128, spec: &SweepSpec) -> Result<u64, SweepError> {
    let count = match (spec.strategy, spec.num_trials) {
        (Strategy::GridSearch | Strategy::None, _) => total,
        (Strategy::RandomSearch, Some(0)) => {
            return Err(SweepError::whole(
                "a random search of 0 trials tries nothing",
                "use --num_trials 1 or more",
            ));
        }
        (Strategy::RandomSearch, Some(trials)) => total.min(u128::from(trials)),
        (Strategy::RandomSearch, None) => {
            return Err(SweepError::whole(
                "a random search needs to know how many experiments to make",
                "add --num_trials N, or num_trials to hyper_params.settings.strategy_options",
            ));
        }
    };
    if count > u128::from(EXPERIMENTS_MAX) {
        let message = format!(
            "the sweep has {} experiments, more than the {} that one run may have",
            if count == u128::MAX {
                "countless".to_owned()
            } else {
                grouped(count)
            },
            grouped(u128::from(EXPERIMENTS_MAX)),
        );
        let hint = "try fewer values, or some of the combinations: --strategy random_search --num_trials N";
        return Err(SweepError::whole(message, hint));
    }
    Ok(count as u64)
}

/// Whether all values together are few enough to be made.
fn check_work(expressions: &[Expression], sizes: &[u64]) -> Result<(), SweepError> {
    let swept = expressions
        .iter()
        .filter(|expression| !expression.is_scalar())
        .count();
    if swept > SWEPT_ARGUMENTS_MAX {
        let message = format!(
            "{swept} arguments sweep, more than the {SWEPT_ARGUMENTS_MAX} that one run may have"
        );
        return Err(SweepError::whole(message, "give some of them one value"));
    }
    // Arguments with one value cost what the command itself costs.
    let values: u64 = sizes
        .iter()
        .filter(|&&size| size > 1)
        .fold(0, |sum, &size| sum.saturating_add(size));
    if values <= VALUES_MAX {
        return Ok(());
    }
    let message = format!(
        "all arguments together have {} values, more than the {} that one run may have",
        grouped(u128::from(values)),
        grouped(u128::from(VALUES_MAX)),
    );
    Err(SweepError::whole(
        message,
        "try fewer values of each argument",
    ))
}

fn too_many_bytes(count: u64) -> SweepError {
    let message = format!(
        "the command lines of {} experiments take more than {} MiB",
        grouped(u128::from(count)),
        ARGUMENT_BYTES_MAX >> 20,
    );
    SweepError::whole(
        message,
        "put long values into a file that the script reads, or try fewer combinations",
    )
}

fn axes(
    arguments: &[Argument],
    expressions: Vec<Expression>,
    seed: u64,
) -> Result<Vec<Axis<'_>>, SweepError> {
    let mut stream = 0;
    let mut taken = HashMap::new();
    let mut axes = Vec::with_capacity(arguments.len());
    for (argument, expression) in arguments.iter().zip(expressions) {
        stream += u64::from(expression.is_random());
        let is_shown = match argument {
            Argument::Separator => false,
            Argument::Positional { .. } => !expression.is_scalar(),
            Argument::Spaced { .. } | Argument::Joined { .. } | Argument::Toggle { .. } => true,
        };
        let values = expression
            .values(&mut Random::new(seed, stream))
            .map_err(|problem| SweepError::of(&argument.label(), problem))?;
        let name = is_shown.then(|| unique(&argument.name(), &mut taken));
        axes.push(Axis {
            argument,
            values,
            name,
        });
    }
    Ok(axes)
}

/// A name that is taken gets a number: `x`, `x#2`, `x#3`.
fn unique(name: &str, taken: &mut HashMap<String, usize>) -> String {
    let mut candidate = name.to_owned();
    while taken.contains_key(&candidate) {
        let count = taken.entry(name.to_owned()).or_insert(1);
        *count += 1;
        candidate = format!("{name}#{count}");
    }
    taken.insert(candidate.clone(), 1);
    candidate
}

fn parameter_set(axes: &[Axis<'_>], pick: &[u32]) -> ParameterSet {
    let mut params = Vec::new();
    let mut args = Vec::new();
    for (axis, &index) in axes.iter().zip(pick) {
        let value = axis.values.get(index as usize).map_or("", String::as_str);
        axis.argument.write(value, &mut args);
        if let Some(name) = &axis.name {
            params.push((name.clone(), value.to_owned()));
        }
    }
    ParameterSet { params, args }
}

/// `1234567` as people read it: `1,234,567`.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

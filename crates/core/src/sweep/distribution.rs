//! The distributions that a value may name: `uniform(1e-5, 1e-1, 3)`.
//!
//! Names, parameters and their order are those of `numpy.random`, except that
//! nothing has a default: the last number is always how many values to draw,
//! so `normal(0, 5)` could mean two things and is refused.

use super::error::Problem;
use super::random::{Random, Table};

/// One row of [`DISTRIBUTIONS`].
#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) name: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// What must hold between parameters; the text says it.
    together: Option<Together>,
    draw: Draw,
}

type Together = (fn(&[f64]) -> bool, &'static str);

#[derive(Debug, Clone, Copy)]
enum Draw {
    Real(fn(&[f64], &mut Random) -> f64),
    Whole(fn(&[f64], &mut Random) -> i64),
    /// Whole numbers between two parameters, which may be too large for a real.
    Between,
    /// Prepared once for all values of the argument; none when too wide.
    Table(fn(&[f64]) -> Option<Table>),
    /// A real number whose shape is itself drawn from a table.
    Mixed(
        fn(&[f64]) -> Option<Table>,
        fn(&[f64], i64, &mut Random) -> f64,
    ),
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    domain: Domain,
}

#[derive(Debug, Clone, Copy)]
enum Domain {
    Any,
    NotNegative,
    Positive,
    AboveOne,
    /// [0, 1]
    Probability,
    /// (0, 1]
    PositiveProbability,
    /// [0, 1)
    ProbabilityBelowOne,
    /// Any whole number that fits 64 bits.
    Whole,
    /// A whole number from 0 to [`COUNTED_MAX`].
    Counted,
}

/// The most things that a distribution counts (trials, good and bad ones), as
/// in numpy.  Higher: tables get too long and products inexact.
const COUNTED_MAX: i64 = 1_000_000_000;

/// A number as it was written: whole numbers stay exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    pub(super) fn parse(text: &str) -> Option<Self> {
        // `inf`, `nan` and `infinity` are numbers to the standard library, not here.
        if !text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        {
            return None;
        }
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        text.parse()
            .ok()
            .filter(|real: &f64| real.is_finite())
            .map(Self::Real)
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(whole) => write!(f, "{whole}"),
            Self::Real(real) => f.write_str(&real_text(*real)),
        }
    }
}

/// The shortest text that reads back as the same number; always with a point or
/// an exponent, so that a script sees a real number.
pub(super) fn real_text(value: f64) -> String {
    format!("{value:?}")
}

impl Domain {
    fn holds(self, number: Number) -> bool {
        let value = number.real();
        match self {
            Self::Any => true,
            Self::NotNegative => value >= 0.0,
            Self::Positive => value > 0.0,
            Self::AboveOne => value > 1.0,
            Self::Probability => (0.0..=1.0).contains(&value),
            Self::PositiveProbability => value > 0.0 && value <= 1.0,
            Self::ProbabilityBelowOne => (0.0..1.0).contains(&value),
            Self::Whole => matches!(number, Number::Whole(_)),
            Self::Counted => matches!(number, Number::Whole(0..=COUNTED_MAX)),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Any => "a number",
            Self::NotNegative => "0 or more",
            Self::Positive => "more than 0",
            Self::AboveOne => "more than 1",
            Self::Probability => "from 0 to 1",
            Self::PositiveProbability => "more than 0 and at most 1",
            Self::ProbabilityBelowOne => "0 or more and less than 1",
            Self::Whole => "a whole number",
            Self::Counted => "a whole number from 0 to 1,000,000,000",
        }
    }
}

impl Distribution {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        DISTRIBUTIONS
            .iter()
            .find(|distribution| distribution.name == name)
    }

    /// Whether its values are whole numbers.
    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.draw, Draw::Whole(_) | Draw::Between | Draw::Table(_))
    }

    /// How it is written, for messages: `uniform(low, high, count)`.
    pub(super) fn signature(&self) -> String {
        let names: Vec<&str> = self
            .parameters
            .iter()
            .map(|p| p.name)
            .chain(["count"])
            .collect();
        format!("{}({})", self.name, names.join(", "))
    }

    /// `parameters` with the position of each in the value; the count is not among them.
    pub(super) fn check(&self, parameters: &[(Number, usize)]) -> Result<(), Problem> {
        for (parameter, &(number, position)) in self.parameters.iter().zip(parameters) {
            if !parameter.domain.holds(number) {
                let (name, text) = (parameter.name, parameter.domain.text());
                let message = format!(
                    "`{name}` of {} must be {text}, not {number}",
                    self.signature()
                );
                return Err(Problem::new(message).at(position));
            }
        }
        let Some((holds, text)) = self.together else {
            return Ok(());
        };
        let numbers: Vec<Number> = parameters.iter().map(|&(number, _)| number).collect();
        let in_order = match (self.draw, &numbers[..]) {
            // As reals, large whole numbers that differ may be the same.
            (Draw::Between, &[Number::Whole(low), Number::Whole(high)]) => low < high,
            _ => holds(&reals(&numbers)),
        };
        if in_order {
            return Ok(());
        }
        let position = parameters.first().map_or(1, |&(_, position)| position);
        Err(Problem::new(format!("{} needs {text}", self.signature())).at(position))
    }

    /// `count` values as text.  The parameters have been checked.
    pub(super) fn sample(
        &self,
        parameters: &[Number],
        count: u64,
        random: &mut Random,
    ) -> Result<Vec<String>, Problem> {
        let p = reals(parameters);
        match self.draw {
            Draw::Real(draw) => (0..count).map(|_| self.finite(draw(&p, random))).collect(),
            Draw::Whole(draw) => Ok((0..count).map(|_| draw(&p, random).to_string()).collect()),
            Draw::Between => match *parameters {
                [Number::Whole(low), Number::Whole(high)] => {
                    let width = high.wrapping_sub(low) as u64;
                    Ok((0..count)
                        .map(|_| low.wrapping_add(random.below(width) as i64).to_string())
                        .collect())
                }
                _ => Err(Problem::new(format!(
                    "{} needs whole numbers",
                    self.signature()
                ))),
            },
            Draw::Table(prepare) => {
                let table = prepare(&p).ok_or_else(|| self.too_wide())?;
                Ok((0..count).map(|_| table.draw(random).to_string()).collect())
            }
            Draw::Mixed(prepare, draw) => {
                let table = prepare(&p).ok_or_else(|| self.too_wide())?;
                (0..count)
                    .map(|_| {
                        let shape = table.draw(random);
                        self.finite(draw(&p, shape, random))
                    })
                    .collect()
            }
        }
    }

    fn finite(&self, value: f64) -> Result<String, Problem> {
        if value.is_finite() {
            return Ok(real_text(value));
        }
        let message = format!("{} gave a value too large to write as a number", self.name);
        Err(Problem::new(message).with_hint("use parameters that are less extreme"))
    }

    fn too_wide(&self) -> Problem {
        let most = Table::LEN_MAX;
        Problem::new(format!(
            "with these parameters {} spreads over more than {most} numbers",
            self.name
        ))
        .with_hint("make the parameters smaller, or use normal(loc, scale, count)")
    }
}

fn reals(numbers: &[Number]) -> Vec<f64> {
    numbers.iter().map(|number| number.real()).collect()
}

const fn parameter(name: &'static str, domain: Domain) -> Parameter {
    Parameter { name, domain }
}

const LOC: Parameter = parameter("loc", Domain::Any);
const SCALE: Parameter = parameter("scale", Domain::NotNegative);
const SHAPE: Parameter = parameter("shape", Domain::Positive);
const FREEDOM: Parameter = parameter("df", Domain::Positive);
const EXPONENT: Parameter = parameter("a", Domain::Positive);

const fn real(
    name: &'static str,
    parameters: &'static [Parameter],
    draw: fn(&[f64], &mut Random) -> f64,
) -> Distribution {
    Distribution {
        name,
        parameters,
        together: None,
        draw: Draw::Real(draw),
    }
}

const fn whole(
    name: &'static str,
    parameters: &'static [Parameter],
    draw: fn(&[f64], &mut Random) -> i64,
) -> Distribution {
    Distribution {
        name,
        parameters,
        together: None,
        draw: Draw::Whole(draw),
    }
}

const fn table(
    name: &'static str,
    parameters: &'static [Parameter],
    prepare: fn(&[f64]) -> Option<Table>,
) -> Distribution {
    Distribution {
        name,
        parameters,
        together: None,
        draw: Draw::Table(prepare),
    }
}

impl Distribution {
    const fn needing(mut self, holds: fn(&[f64]) -> bool, text: &'static str) -> Self {
        self.together = Some((holds, text));
        self
    }

    const fn between(mut self) -> Self {
        self.draw = Draw::Between;
        self
    }
}

/// Every distribution, by name.  A draw gets its parameters in the order of the row.
pub(super) static DISTRIBUTIONS: &[Distribution] = &[
    real(
        "beta",
        &[EXPONENT, parameter("b", Domain::Positive)],
        |p, r| r.beta(p[0], p[1]),
    ),
    table(
        "binomial",
        &[
            parameter("n", Domain::Counted),
            parameter("p", Domain::Probability),
        ],
        binomial,
    ),
    real("chisquare", &[FREEDOM], |p, r| r.chi_square(p[0])),
    real("exponential", &[SCALE], |p, r| p[0] * r.exponential()),
    real(
        "f",
        &[
            parameter("dfnum", Domain::Positive),
            parameter("dfden", Domain::Positive),
        ],
        |p, r| (r.chi_square(p[0]) / p[0]) / (r.chi_square(p[1]) / p[1]),
    ),
    real("gamma", &[SHAPE, SCALE], |p, r| r.gamma(p[0]) * p[1]),
    whole(
        "geometric",
        &[parameter("p", Domain::PositiveProbability)],
        |p, r| r.geometric(p[0]),
    ),
    real("gumbel", &[LOC, SCALE], |p, r| {
        p[0] - p[1] * libm::log(r.exponential())
    }),
    table(
        "hypergeometric",
        &[
            parameter("ngood", Domain::Counted),
            parameter("nbad", Domain::Counted),
            parameter("nsample", Domain::Counted),
        ],
        hypergeometric,
    )
    .needing(
        |p| p[2] <= p[0] + p[1],
        "nsample to be at most ngood + nbad",
    ),
    real("laplace", &[LOC, SCALE], |p, r| {
        let size = r.exponential();
        p[0] + p[1] * if r.unit() < 0.5 { -size } else { size }
    }),
    real("logistic", &[LOC, SCALE], |p, r| {
        let u = r.unit();
        p[0] + p[1] * (libm::log(u) - libm::log1p(-u))
    }),
    real(
        "lognormal",
        &[
            parameter("mean", Domain::Any),
            parameter("sigma", Domain::NotNegative),
        ],
        |p, r| libm::exp(p[0] + p[1] * r.normal()),
    ),
    real(
        "loguniform",
        &[
            parameter("low", Domain::Positive),
            parameter("high", Domain::Positive),
        ],
        |p, r| {
            let (low, high) = (libm::log(p[0]), libm::log(p[1]));
            // Rounding must not lead outside of what was asked for.
            libm::exp(low + (high - low) * r.unit()).clamp(p[0], p[1])
        },
    )
    .needing(|p| p[0] <= p[1], "low to be at most high"),
    table(
        "logseries",
        &[parameter("p", Domain::ProbabilityBelowOne)],
        |p| Table::new(1, 1, i64::MAX, |k| p[0] * k / (k + 1.0)),
    ),
    table(
        "negative_binomial",
        &[
            parameter("n", Domain::Positive),
            parameter("p", Domain::PositiveProbability),
        ],
        negative_binomial,
    ),
    Distribution {
        name: "noncentral_chisquare",
        parameters: &[FREEDOM, parameter("nonc", Domain::NotNegative)],
        together: None,
        draw: Draw::Mixed(
            |p| poisson(p[1] / 2.0),
            |p, extra, r| r.chi_square(p[0] + 2.0 * extra as f64),
        ),
    },
    real("normal", &[LOC, SCALE], |p, r| p[0] + p[1] * r.normal()),
    real("pareto", &[EXPONENT], |p, r| {
        libm::expm1(r.exponential() / p[0])
    }),
    table("poisson", &[parameter("lam", Domain::NotNegative)], |p| {
        poisson(p[0])
    }),
    real("power", &[EXPONENT], |p, r| {
        libm::exp(-r.exponential() / p[0])
    }),
    real("rand", &[], |_, r| r.unit()),
    whole(
        "randint",
        &[
            parameter("low", Domain::Whole),
            parameter("high", Domain::Whole),
        ],
        |_, _| 0,
    )
    .between()
    .needing(|p| p[0] < p[1], "low to be less than high"),
    real("rayleigh", &[SCALE], |p, r| {
        p[0] * (2.0 * r.exponential()).sqrt()
    }),
    real("standard_cauchy", &[], |_, r| {
        libm::tan(std::f64::consts::PI * (r.unit() - 0.5))
    }),
    real("standard_exponential", &[], |_, r| r.exponential()),
    real("standard_gamma", &[SHAPE], |p, r| r.gamma(p[0])),
    real("standard_normal", &[], |_, r| r.normal()),
    real("standard_t", &[FREEDOM], |p, r| {
        let normal = r.normal();
        normal / (r.chi_square(p[0]) / p[0]).sqrt()
    }),
    real(
        "triangular",
        &[
            parameter("left", Domain::Any),
            parameter("mode", Domain::Any),
            parameter("right", Domain::Any),
        ],
        |p, r| triangular(p[0], p[1], p[2], r.unit()),
    )
    .needing(
        |p| p[0] <= p[1] && p[1] <= p[2] && p[0] < p[2],
        "left <= mode <= right, and left < right",
    ),
    real(
        "uniform",
        &[
            parameter("low", Domain::Any),
            parameter("high", Domain::Any),
        ],
        |p, r| p[0] + (p[1] - p[0]) * r.unit(),
    )
    .needing(|p| p[0] <= p[1], "low to be at most high"),
    real(
        "vonmises",
        &[
            parameter("mu", Domain::Any),
            parameter("kappa", Domain::NotNegative),
        ],
        |p, r| r.von_mises(p[0], p[1]),
    ),
    real(
        "wald",
        &[
            parameter("mean", Domain::Positive),
            parameter("scale", Domain::Positive),
        ],
        |p, r| r.wald(p[0], p[1]),
    ),
    real("weibull", &[EXPONENT], |p, r| {
        libm::exp(libm::log(r.exponential()) / p[0])
    }),
    whole("zipf", &[parameter("a", Domain::AboveOne)], |p, r| {
        r.zipf(p[0])
    }),
];

fn binomial(parameters: &[f64]) -> Option<Table> {
    let (n, p) = (parameters[0], parameters[1]);
    if p >= 1.0 {
        return Table::new(n as i64, n as i64, n as i64, |_| 0.0);
    }
    let odds = p / (1.0 - p);
    let mode = (((n + 1.0) * p).floor() as i64).clamp(0, n as i64);
    Table::new(mode, 0, n as i64, |k| (n - k) / (k + 1.0) * odds)
}

fn hypergeometric(parameters: &[f64]) -> Option<Table> {
    let (good, bad, sample) = (parameters[0], parameters[1], parameters[2]);
    let least = (sample - bad).max(0.0) as i64;
    let most = sample.min(good) as i64;
    let mode = ((sample + 1.0) * (good + 1.0) / (good + bad + 2.0)).floor() as i64;
    Table::new(mode.clamp(least, most), least, most, |k| {
        (good - k) * (sample - k) / ((k + 1.0) * (bad - sample + k + 1.0))
    })
}

fn negative_binomial(parameters: &[f64]) -> Option<Table> {
    let (n, p) = (parameters[0], parameters[1]);
    let mode = ((n - 1.0) * (1.0 - p) / p).floor().max(0.0) as i64;
    Table::new(mode, 0, i64::MAX, |k| (k + n) / (k + 1.0) * (1.0 - p))
}

fn poisson(lam: f64) -> Option<Table> {
    Table::new(lam.floor() as i64, 0, i64::MAX, |k| lam / (k + 1.0))
}

fn triangular(left: f64, mode: f64, right: f64, u: f64) -> f64 {
    let width = right - left;
    if u * width < mode - left {
        left + (u * width * (mode - left)).sqrt()
    } else {
        right - ((1.0 - u) * width * (right - mode)).sqrt()
    }
}

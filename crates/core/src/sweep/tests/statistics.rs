//! Whether chance is fair, and the same for ever.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::fmt::Write;

use super::*;

/// One call of every distribution, in the order of the table.
const CALLS: &[&str] = &[
    "beta(0.5, 3, 5)",
    "binomial(100, 0.3, 5)",
    "chisquare(3, 5)",
    "exponential(2, 5)",
    "f(5, 12, 5)",
    "gamma(2.5, 2, 5)",
    "geometric(0.05, 5)",
    "gumbel(1, 2, 5)",
    "hypergeometric(30, 70, 20, 5)",
    "laplace(1, 2, 5)",
    "logistic(1, 2, 5)",
    "lognormal(0, 0.5, 5)",
    "loguniform(1e-5, 1e-1, 5)",
    "logseries(0.9, 5)",
    "negative_binomial(5, 0.1, 5)",
    "noncentral_chisquare(3, 4, 5)",
    "normal(10, 3, 5)",
    "pareto(4, 5)",
    "poisson(50, 5)",
    "power(3, 5)",
    "rand(5)",
    "randint(-1000, 1000, 5)",
    "rayleigh(2, 5)",
    "standard_cauchy(5)",
    "standard_exponential(5)",
    "standard_gamma(0.3, 5)",
    "standard_normal(5)",
    "standard_t(5, 5)",
    "triangular(-1, 0, 4, 5)",
    "uniform(1e-5, 1e-1, 5)",
    "vonmises(1, 2, 5)",
    "wald(2, 3, 5)",
    "weibull(1.5, 5)",
    "zipf(2.5, 5)",
];

fn values(call: &str, seed: u64) -> Vec<String> {
    let spec = SweepSpec {
        seed: Some(seed),
        ..SweepSpec::default()
    };
    let expansion = expand(&words(&["--x", call]), &[], &spec, 0);
    let experiments = expansion
        .unwrap_or_else(|error| panic!("{call}: {error}"))
        .experiments;
    experiments
        .into_iter()
        .flat_map(|experiment| experiment.params)
        .map(|(_, value)| value)
        .collect()
}

/// If this fails, old seeds would mean other experiments: undo the change.
#[test]
fn the_stream_of_a_seed_never_changes() {
    let mut text = String::new();
    for call in CALLS
        .iter()
        .copied()
        .chain(["choice([a, b, c, d], 5)", "choice(range(1000), 5)"])
    {
        let _ = writeln!(text, "{call}: {}", values(call, 42).join(" "));
    }
    let searched = random_search(&["--x", "range(5)", "--y", "[a, b]"], Some(6), 42).unwrap();
    let dense: Vec<_> = searched
        .experiments
        .iter()
        .map(|e| e.args.join(" "))
        .collect();
    let _ = writeln!(text, "6 of 10: {}", dense.join(", "));
    let searched =
        random_search(&["--x", "range(1000)", "--y", "rand(1000)"], Some(3), 42).unwrap();
    let sparse: Vec<_> = searched
        .experiments
        .iter()
        .map(|e| e.args.join(" "))
        .collect();
    let _ = writeln!(text, "3 of 1,000,000: {}", sparse.join(", "));
    insta::assert_snapshot!(text);
}

#[test]
fn every_distribution_has_a_golden_call() {
    let called: Vec<&str> = CALLS
        .iter()
        .filter_map(|call| call.split_once('('))
        .map(|(name, _)| name)
        .collect();
    let known: Vec<&str> = distribution::DISTRIBUTIONS
        .iter()
        .map(|row| row.name)
        .collect();
    assert_eq!(called, known);
}

const DRAWS: usize = 20_000;

fn sample(call: &str) -> Vec<f64> {
    let all: Vec<f64> = values(&call.replace('#', &DRAWS.to_string()), 42)
        .iter()
        .filter_map(|v| v.parse().ok())
        .collect();
    assert_eq!(all.len(), DRAWS, "{call}");
    all
}

/// Mean and, where it is finite, variance; the tolerance of the mean is four of
/// its standard errors, so that a right sampler passes for nearly every seed.
fn check_moments(call: &str, mean: f64, variance: f64) {
    let all = sample(call);
    let found = all.iter().sum::<f64>() / DRAWS as f64;
    let tolerance = 4.0 * (variance / DRAWS as f64).sqrt() + 1e-12;
    assert!(
        (found - mean).abs() < tolerance,
        "{call}: mean {found}, not {mean}"
    );
    let spread = all.iter().map(|x| (x - found).powi(2)).sum::<f64>() / DRAWS as f64;
    assert!(
        (spread / variance - 1.0).abs() < 0.25,
        "{call}: variance {spread}, not {variance}"
    );
}

#[test]
fn means_and_variances_are_those_of_the_books() {
    const EULER: f64 = 0.577_215_664_901_532_9;
    for (call, mean, variance) in [
        ("beta(0.5, 3, #)", 1.0 / 7.0, 1.5 / (12.25 * 4.5)),
        ("beta(5, 2, #)", 5.0 / 7.0, 10.0 / (49.0 * 8.0)),
        ("binomial(100, 0.3, #)", 30.0, 21.0),
        ("binomial(1000000000, 0.5, #)", 5e8, 2.5e8),
        ("chisquare(3, #)", 3.0, 6.0),
        ("exponential(2, #)", 2.0, 4.0),
        ("f(5, 12, #)", 1.2, 2.0 * 144.0 * 15.0 / (5.0 * 100.0 * 8.0)),
        ("gamma(2.5, 2, #)", 5.0, 10.0),
        ("geometric(0.05, #)", 20.0, 380.0),
        ("gumbel(1, 2, #)", 1.0 + 2.0 * EULER, PI * PI / 6.0 * 4.0),
        (
            "hypergeometric(30, 70, 20, #)",
            6.0,
            20.0 * 0.3 * 0.7 * 80.0 / 99.0,
        ),
        ("hypergeometric(900000000, 100000000, 1000, #)", 900.0, 90.0),
        (
            "hypergeometric(5, 2, 6, #)",
            30.0 / 7.0,
            6.0 * 5.0 / 7.0 * 2.0 / 7.0 / 6.0,
        ),
        ("laplace(1, 2, #)", 1.0, 8.0),
        ("logistic(1, 2, #)", 1.0, 4.0 * PI * PI / 3.0),
        (
            "lognormal(0, 0.5, #)",
            0.125_f64.exp(),
            (0.25_f64.exp() - 1.0) * 0.25_f64.exp(),
        ),
        (
            "logseries(0.9, #)",
            9.0 / 10.0_f64.ln(),
            0.9 * (10.0_f64.ln() - 0.9) / (0.01 * 10.0_f64.ln().powi(2)),
        ),
        ("negative_binomial(5, 0.1, #)", 45.0, 450.0),
        ("negative_binomial(0.5, 0.5, #)", 0.5, 1.0),
        ("noncentral_chisquare(3, 4, #)", 7.0, 22.0),
        ("noncentral_chisquare(0.5, 4, #)", 4.5, 17.0),
        ("normal(10, 3, #)", 10.0, 9.0),
        ("pareto(6, #)", 0.2, 6.0 / (25.0 * 4.0)),
        ("poisson(50, #)", 50.0, 50.0),
        ("poisson(0.1, #)", 0.1, 0.1),
        ("power(3, #)", 0.75, 0.6 - 0.5625),
        ("rand(#)", 0.5, 1.0 / 12.0),
        ("randint(0, 10, #)", 4.5, 99.0 / 12.0),
        ("rayleigh(2, #)", 2.0 * (PI / 2.0).sqrt(), (4.0 - PI) * 2.0),
        ("standard_exponential(#)", 1.0, 1.0),
        ("standard_gamma(0.3, #)", 0.3, 0.3),
        ("standard_normal(#)", 0.0, 1.0),
        ("standard_t(10, #)", 0.0, 1.25),
        (
            "triangular(-1, 0, 4, #)",
            1.0,
            (1.0 + 0.0 + 16.0 - 0.0 + 4.0 - 0.0) / 18.0,
        ),
        ("uniform(-3, 5, #)", 1.0, 64.0 / 12.0),
        ("wald(2, 3, #)", 2.0, 8.0 / 3.0),
        ("zipf(6, #)", 1.019_264_3, 0.024_829_6),
    ] {
        check_moments(call, mean, variance);
    }
}

/// Where a distribution has no mean, or a skewed one, the part below a point.
#[test]
fn distribution_functions_are_those_of_the_books() {
    for (call, point, part) in [
        ("standard_cauchy(#)", 1.0, 0.75),
        ("standard_cauchy(#)", 0.0, 0.5),
        ("standard_t(1, #)", 1.0, 0.75),
        ("loguniform(1e-5, 1e-1, #)", 1e-3, 0.5),
        ("weibull(1.5, #)", 1.0, 1.0 - (-1.0_f64).exp()),
        ("pareto(1, #)", 1.0, 0.5),
        ("zipf(2, #)", 1.5, 6.0 / (PI * PI)),
        ("zipf(2, #)", 2.5, 7.5 / (PI * PI)),
        ("vonmises(0, 2, #)", 0.0, 0.5),
        ("vonmises(1, 0, #)", 0.0, 0.5),
        ("vonmises(1, 1e8, #)", 1.0, 0.5),
        ("geometric(1, #)", 1.5, 1.0),
    ] {
        let below =
            sample(call).iter().filter(|&&value| value < point).count() as f64 / DRAWS as f64;
        let tolerance = 4.0 * (part * (1.0 - part) / DRAWS as f64).sqrt() + 1e-12;
        assert!(
            (below - part).abs() < tolerance,
            "{call}: {below} below {point}, not {part}"
        );
    }
}

/// The mean direction of a von Mises distribution is I1(kappa) / I0(kappa) long.
#[test]
fn angles_gather_as_they_should() {
    let length = sample("vonmises(1, 2, #)")
        .iter()
        .map(|angle| (angle - 1.0).cos())
        .sum::<f64>()
        / DRAWS as f64;
    assert!((length - 0.697_774_66).abs() < 0.015, "{length}");
}

#[test]
fn choices_are_equally_likely() {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for value in values("choice([a, b, c, d], 20000)", 42) {
        *counts.entry(value).or_default() += 1;
    }
    assert_eq!(counts.len(), 4);
    // Four standard deviations of a count around a quarter.
    assert!(
        counts.values().all(|&count| count.abs_diff(5_000) < 250),
        "{counts:?}"
    );
}

#[test]
fn every_combination_is_picked_equally_often() {
    for (args, trials) in [
        (["--x", "range(4)", "--y", "range(3)"], 5),
        (["--x", "range(10)", "--y", "range(5)"], 5),
    ] {
        let mut counts: HashMap<String, u64> = HashMap::new();
        let rounds = 4_000;
        for seed in 0..rounds {
            for experiment in random_search(&args, Some(trials), seed)
                .unwrap()
                .experiments
            {
                *counts.entry(experiment.args.join(" ")).or_default() += 1;
            }
        }
        let total = grid(&args).unwrap().len() as f64;
        let part = trials as f64 / total;
        let (expected, tolerance) = (
            rounds as f64 * part,
            5.0 * (rounds as f64 * part * (1.0 - part)).sqrt(),
        );
        assert_eq!(counts.len() as f64, total);
        assert!(
            counts
                .values()
                .all(|&count| (count as f64 - expected).abs() < tolerance),
            "{counts:?}"
        );
    }
}

#[test]
fn whole_numbers_print_as_such_and_reals_as_reals() {
    for call in CALLS {
        let row = call
            .split_once('(')
            .and_then(|(name, _)| distribution::Distribution::named(name));
        let is_whole = row.is_some_and(distribution::Distribution::is_whole);
        for value in values(call, 1) {
            assert_eq!(value.parse::<i64>().is_ok(), is_whole, "{call}: {value}");
            assert!(
                is_whole
                    || value
                        .parse()
                        .is_ok_and(|read: f64| format!("{read:?}") == value),
                "{call}: {value}"
            );
        }
    }
}

#[test]
fn wide_whole_numbers_stay_exact() {
    let low = i64::MIN;
    for value in values(&format!("randint({low}, {}, 20)", low + 3), 1) {
        assert!(
            value.parse::<i64>().is_ok_and(|value| value < low + 3),
            "{value}"
        );
    }
    let spread = values(&format!("randint({low}, {}, 20)", i64::MAX), 1);
    assert!(
        spread.iter().any(|value| value.starts_with('-'))
            && spread.iter().any(|value| !value.starts_with('-'))
    );
}

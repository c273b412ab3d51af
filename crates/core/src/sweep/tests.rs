//! Command lines that people type, and what must come of them.

mod properties;
mod statistics;
mod values;

use super::*;

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|&word| word.to_owned()).collect()
}

fn spec(strategy: Strategy) -> SweepSpec {
    SweepSpec {
        strategy,
        num_trials: None,
        seed: None,
    }
}

/// The argument lists of a grid search, joined with `|` so that a value with a
/// space is seen to be one word.
fn grid(args: &[&str]) -> Result<Vec<String>, SweepError> {
    let expansion = expand(&words(args), &[], &spec(Strategy::GridSearch), 7)?;
    assert_eq!(expansion.total, expansion.experiments.len() as u64);
    Ok(expansion
        .experiments
        .iter()
        .map(|experiment| experiment.args.join("|"))
        .collect())
}

fn check(args: &[&str], expected: &[&str]) {
    match grid(args) {
        Ok(found) => assert_eq!(found, expected, "{args:?}"),
        Err(error) => panic!("{args:?}: {error}"),
    }
}

/// The value comes through as one experiment with exactly this text.
fn check_scalar(value: &str, expected: &str) {
    check(&["--x", value], &[&format!("--x|{expected}")]);
}

fn check_error(args: &[&str], argument: Option<&str>, message: &str) {
    match grid(args) {
        Ok(found) => panic!("{args:?}: {found:?}"),
        Err(error) => {
            assert_eq!(error.argument(), argument, "{args:?}: {error}");
            assert!(error.message().contains(message), "{args:?}: {error}");
        }
    }
}

/// The message for `--x VALUE`.
fn check_refused(value: &str, message: &str) {
    check_error(&["--x", value], Some("--x"), message);
}

fn params(args: &[&str]) -> Vec<(String, String)> {
    let expansion = expand(&words(args), &[], &spec(Strategy::GridSearch), 7);
    expansion
        .map(|expansion| expansion.experiments[0].params.clone())
        .unwrap_or_default()
}

fn check_params(args: &[&str], expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(params(args), expected, "{args:?}");
}

#[test]
fn the_first_argument_is_outermost() {
    check(
        &["--a", "[1, 2]", "--b", "fixed", "--c", "['x', 'y']"],
        &[
            "--a|1|--b|fixed|--c|x",
            "--a|1|--b|fixed|--c|y",
            "--a|2|--b|fixed|--c|x",
            "--a|2|--b|fixed|--c|y",
        ],
    );
}

#[test]
fn flags_values_and_positionals_are_told_apart() {
    check(&[], &[""]);
    check(
        &["--do_x", "--lr", "[1, 2]"],
        &["--do_x|--lr|1", "--do_x|--lr|2"],
    );
    check(
        &["--lr", "[1, 2]", "--do_x"],
        &["--lr|1|--do_x", "--lr|2|--do_x"],
    );
    check(&["--lr=[1, 2]"], &["--lr=1", "--lr=2"]);
    check(
        &["--lr='a b'", "--eq=a=b", "--empty="],
        &["--lr=a b|--eq=a=b|--empty="],
    );
    check(
        &["--lr", "-1e-3", "-x", "-.5", "--"],
        &["--lr|-1e-3|-x|-.5|--"],
    );
    check(
        &["[a, b]", "--", "--lr", "[1, 2]"],
        &["a|--|--lr|1", "a|--|--lr|2", "b|--|--lr|1", "b|--|--lr|2"],
    );
    check(
        &["--x", "[1, 2]", "--x", "3"],
        &["--x|1|--x|3", "--x|2|--x|3"],
    );
    check(
        &["--m", "hot dog", "--n", "['a b', c]"],
        &["--m|hot dog|--n|a b", "--m|hot dog|--n|c"],
    );
}

#[test]
fn parameters_have_names_for_tables() {
    check_params(
        &["--lr", "[0.1, 0.2]", "-b", "32", "--flag"],
        &[("lr", "0.1"), ("b", "32"), ("flag", "True")],
    );
    check_params(&["--lr", "-1e-3", "-x"], &[("lr", "-1e-3"), ("x", "True")]);
    check_params(&["--clip", "-inf"], &[("clip", "-inf")]);
    check_params(
        &["--lr='a b'", "--model", "'bert'"],
        &[("lr", "a b"), ("model", "bert")],
    );
    check_params(
        &["in.csv", "[a, b]", "--", "--deep", "[7]"],
        &[("arg2", "a"), ("arg4", "7")],
    );
    check_params(
        &["--x", "1", "--x", "2", "-x", "3"],
        &[("x", "1"), ("x#2", "2"), ("x#3", "3")],
    );
    check_params(
        &["--x#2", "1", "--x", "2", "--x", "3"],
        &[("x#2", "1"), ("x", "2"), ("x#3", "3")],
    );
    check_params(
        &["[a, b]", "--arg1", "c"],
        &[("arg1", "a"), ("arg1#2", "c")],
    );
    check_params(&["-", "---"], &[("---", "True")]);
}

#[test]
fn the_configuration_adds_what_the_command_line_lacks() {
    let config = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let expanded = |args: &[&str], pairs: &[(&str, &str)]| {
        let expansion = expand(&words(args), &config(pairs), &SweepSpec::default(), 7)?;
        Ok::<_, SweepError>(
            expansion
                .experiments
                .iter()
                .map(|e| e.args.join("|"))
                .collect::<Vec<_>>(),
        )
    };
    let pairs = [
        ("--foo", "1"),
        ("-bar", "something"),
        ("learning_rate", "[0.1, 0.2]"),
    ];
    assert_eq!(
        expanded(&["--a", "b"], &pairs).unwrap(),
        [
            "--a|b|--foo|1|-bar|something|--learning_rate|0.1",
            "--a|b|--foo|1|-bar|something|--learning_rate|0.2"
        ]
    );
    assert_eq!(
        expanded(&["--learning-rate=3", "-foo", "2", "--", "x"], &pairs).unwrap(),
        ["--learning-rate=3|-foo|2|-bar|something|--|x"]
    );
    assert_eq!(
        expanded(&[], &[("lr", "-1"), ("do_x", "")]).unwrap(),
        ["--lr|-1|--do_x"]
    );
    let error = expanded(&[], &[("--", "1")]).unwrap_err();
    assert!(
        error
            .message()
            .contains("`--` in hyper_params.params is not the name")
    );
    assert_eq!(
        expanded(&[], &[("lr", "[1")]).unwrap_err().argument(),
        Some("--lr")
    );
}

#[test]
fn no_strategy_means_no_sweep() {
    let args = words(&["--x", "[1, 2]", "'quoted'", "--y=range(", "--do"]);
    let expansion = expand(&args, &[], &spec(Strategy::None), 7).unwrap();
    assert_eq!((expansion.total, expansion.experiments.len()), (1, 1));
    assert_eq!(expansion.experiments[0].args, args);
    let names: Vec<_> = expansion.experiments[0]
        .params
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["x", "y", "do"]);
}

fn random_search(args: &[&str], trials: Option<u64>, seed: u64) -> Result<Expansion, SweepError> {
    let spec = SweepSpec {
        strategy: Strategy::RandomSearch,
        num_trials: trials,
        seed: Some(seed),
    };
    expand(&words(args), &[], &spec, 0)
}

#[test]
fn a_random_search_needs_trials_and_takes_no_more_than_there_are() {
    let missing = random_search(&["--x", "[1, 2]"], None, 1).unwrap_err();
    assert_eq!(missing.argument(), None);
    assert!(
        missing
            .hint()
            .is_some_and(|hint| hint.contains("--num_trials N"))
    );
    assert!(
        random_search(&["--x", "[1, 2]"], Some(0), 1)
            .unwrap_err()
            .message()
            .contains("0 trials")
    );
    let clamped = random_search(&["--x", "[1, 2]"], Some(1_000_000), 1).unwrap();
    assert_eq!((clamped.total, clamped.experiments.len()), (2, 2));
    let refused = random_search(
        &["--x", "range(1000)", "--y", "range(1000)"],
        Some(200_000),
        1,
    )
    .unwrap_err();
    assert!(
        refused
            .message()
            .contains("the sweep has 200,000 experiments, more than the 100,000")
    );
}

#[test]
fn a_random_search_of_a_huge_product_is_quick_and_has_no_repeats() {
    let args: Vec<String> = (0..9)
        .flat_map(|n| [format!("--x{n}"), "range(100000)".to_owned()])
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = random_search(&args, Some(50), 3).unwrap();
    assert_eq!((found.total, found.experiments.len()), (u64::MAX, 50));
    let small = random_search(&["--x", "range(30)", "--y", "range(30)"], Some(440), 3).unwrap();
    let different: std::collections::HashSet<_> =
        small.experiments.iter().map(|e| e.args.clone()).collect();
    assert_eq!((small.total, different.len()), (900, 440));
}

#[test]
fn limits_hold_before_anything_is_built() {
    check_error(
        &["--x", "range(1000)", "--y", "range(101)"],
        None,
        "the sweep has 101,000 experiments, more than the 100,000",
    );
    check_refused(
        "range(100001)",
        "100,001 values are more than the 100,000 that one argument may have",
    );
    check_refused(
        "range(0, 9223372036854775807)",
        "9,223,372,036,854,775,807 values",
    );
    check_refused(
        "normal(0, 1, 9000000000000000000)",
        "9,000,000,000,000,000,000 values",
    );
    check_refused(
        &format!("[{}]", "1,".repeat(100_001)),
        "the list has more than 100000 values",
    );
    let wide: Vec<String> = (0..64)
        .flat_map(|n| [format!("--x{n}"), "range(100000)".to_owned()])
        .collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    check_error(&wide, None, "the sweep has countless experiments");
    let error = random_search(&wide, Some(1), 1).unwrap_err();
    assert!(
        error
            .message()
            .contains("have 6,400,000 values, more than the 1,000,000"),
        "{error}"
    );
    let many = vec!["[1]"; 257];
    check_error(&many, None, "257 arguments sweep, more than the 256");
    let long = "y".repeat(1_000);
    check_error(
        &["--x", "range(100000)", &long],
        None,
        "take more than 64 MiB",
    );
}

#[test]
fn the_seed_decides() {
    let run = |seed, entropy| {
        let spec = SweepSpec {
            strategy: Strategy::GridSearch,
            num_trials: None,
            seed,
        };
        expand(&words(&["--x", "normal(0, 1, 3)"]), &[], &spec, entropy).unwrap()
    };
    assert_eq!(run(Some(5), 1), run(Some(5), 2));
    assert_eq!(run(None, 5), run(Some(5), 2));
    assert_ne!(run(Some(5), 1).experiments, run(Some(6), 1).experiments);
}

#[test]
fn arguments_added_behind_change_no_values() {
    let values = |args: &[&str], name: &str| -> Vec<String> {
        let expansion = expand(&words(args), &[], &SweepSpec::default(), 9).unwrap();
        let all = expansion
            .experiments
            .iter()
            .flat_map(|experiment| experiment.params.clone());
        all.filter(|(param, _)| param == name)
            .map(|(_, value)| value)
            .collect()
    };
    let alone = values(&["--a", "rand(2)"], "a");
    let beside = values(&["--z", "[1]", "--a", "rand(2)", "--b", "rand(1)"], "a");
    assert_eq!(alone, beside);
    assert_ne!(alone, values(&["--b", "rand(1)", "--a", "rand(2)"], "a"));
}

#[test]
fn specs_travel_as_text() {
    let spec: SweepSpec =
        serde_json::from_str(r#"{"strategy":"random_search","num_trials":4}"#).unwrap();
    assert_eq!(
        spec,
        SweepSpec {
            strategy: Strategy::RandomSearch,
            num_trials: Some(4),
            seed: None
        }
    );
    for strategy in [Strategy::GridSearch, Strategy::RandomSearch, Strategy::None] {
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
        assert_eq!(
            serde_json::to_string(&strategy).unwrap(),
            format!("\"{strategy}\"")
        );
    }
    let unknown = "bayes"
        .parse::<Strategy>()
        .map_err(|error| error.to_string());
    assert_eq!(
        unknown,
        Err("`bayes` is not a strategy; use grid_search, random_search or none".to_owned())
    );
}

#[test]
fn slips_in_the_names_of_distributions_are_recognised() {
    for (value, meant) in [
        ("unifrom(0, 1, 3)", Some("uniform")),
        ("Uniform(0, 1, 3)", Some("uniform")),
        ("rnage(3)", Some("range")),
        ("uniform(0, 1, 3)", None),
        ("lambda(x)", None),
        ("unifrom", None),
        ("f(1", None),
        ("(1, 2)", None),
    ] {
        assert_eq!(mistyped(value), meant, "{value}");
    }
}

//! What must hold for everything that anybody types.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

use super::super::expression::literal;
use super::*;
use crate::sweep::Strategy;

/// Values that lean towards the language: brackets, quotes, known names.
fn value() -> impl Generator<Value = String> {
    let piece = prop_oneof![
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(", ".to_owned()),
        Just("'".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just("range(".to_owned()),
        Just("choice([".to_owned()),
        Just("uniform(".to_owned()),
        Just("f(".to_owned()),
        "[0-9]{1,3}",
        "-?[0-9]\\.[0-9]",
        "[a-zé ]{0,4}",
        ".{0,3}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn expression() -> impl Generator<Value = String> {
    let item = prop_oneof!["-?[0-9]{1,5}", "[a-z '\"\\\\,\\[\\]]{0,6}"];
    let list = proptest::collection::vec(item, 1..5).prop_map(|items| {
        format!(
            "[{}]",
            items
                .iter()
                .map(|item| quoted(item))
                .collect::<Vec<_>>()
                .join(", ")
        )
    });
    prop_oneof![
        list.clone(),
        (any::<i64>(), any::<i64>(), any::<i64>())
            .prop_map(|(a, b, c)| format!("range({a}, {b}, {})", if c == 0 { 1 } else { c })),
        (list, 0..50_u64).prop_map(|(list, count)| format!("choice({list}, {count})")),
        (-1e9..1e9_f64, 0.0..1e9_f64, 0..50_u64)
            .prop_map(|(a, b, n)| format!("normal({a:?}, {b:e}, {n})")),
        value(),
    ]
}

fn quoted(item: &str) -> String {
    format!("'{}'", item.replace('\\', "\\\\").replace('\'', "\\'"))
}

proptest! {
    #[test]
    fn an_expression_reads_back(text in expression()) {
        if let Ok(expression) = Expression::parse(&text) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }

    #[test]
    fn quoted_items_come_through(items in proptest::collection::vec(".{0,6}", 1..6)) {
        let text = format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(","));
        // The escapes for white space are the only ones that change a text here.
        prop_assume!(!items.iter().any(|item| item.contains('\\')));
        prop_assert_eq!(Expression::parse(&text), Ok(Expression::List(items)));
    }

    #[test]
    fn a_literal_reaches_the_script(text in value()) {
        prop_assert_eq!(grid(&["--x", &literal(&text)]), Ok(vec![format!("--x|{text}")]));
    }

    #[test]
    fn nothing_typed_makes_it_panic(args in proptest::collection::vec(prop_oneof![value(), "-{0,2}[a-z]{0,2}=?"], 0..4), seed: u64) {
        for strategy in [Strategy::GridSearch, Strategy::RandomSearch, Strategy::None] {
            let spec = SweepSpec { strategy, num_trials: Some(5), seed: None };
            let first = expand(&args, &[], &spec, seed);
            prop_assert_eq!(&first, &expand(&args, &[], &spec, seed));
            let Ok(first) = first else { continue };
            for experiment in &first.experiments {
                prop_assert_eq!(experiment.args.len(), args.len());
                let names: HashSet<_> = experiment.params.iter().map(|(name, _)| name).collect();
                prop_assert_eq!(names.len(), experiment.params.len());
            }
            if strategy == Strategy::None {
                prop_assert_eq!(&first.experiments[0].args, &args);
            }
        }
    }

    #[test]
    fn extreme_parameters_neither_panic_nor_hang(
        which in 0..distribution::DISTRIBUTIONS.len(),
        parameters in proptest::array::uniform3(prop_oneof![
            any::<f64>().prop_map(|x| format!("{x:e}")),
            any::<i64>().prop_map(|x| x.to_string()),
            Just("0".to_owned()), Just("1".to_owned()), Just("1e-300".to_owned()), Just("1e300".to_owned()),
            Just("0.9999999999999999".to_owned()), Just("1.0000000000000002".to_owned()), Just("1e9".to_owned()),
            Just("1000000000".to_owned()), Just("1e-9".to_owned()),
        ]),
        seed: u64,
    ) {
        let row = &distribution::DISTRIBUTIONS[which];
        let numbers = parameters[..row.parameters.len()].join(", ");
        let separator = if numbers.is_empty() { "" } else { ", " };
        let value = format!("{}({numbers}{separator}3)", row.name);
        let spec = SweepSpec { seed: Some(seed), ..SweepSpec::default() };
        if let Ok(expansion) = expand(&words(&["--x", &value]), &[], &spec, 0) {
            prop_assert_eq!(expansion.experiments.len(), 3);
        }
    }

    #[test]
    fn a_grid_is_the_product_in_order(sizes in proptest::collection::vec(1..5_u64, 0..5)) {
        let args: Vec<String> =
            sizes.iter().enumerate().flat_map(|(n, size)| [format!("--x{n}"), format!("range({size})")]).collect();
        let expansion = expand(&args, &[], &SweepSpec::default(), 0).unwrap();
        prop_assert_eq!(expansion.experiments.len() as u64, sizes.iter().product::<u64>());
        let values: Vec<Vec<u64>> = expansion
            .experiments
            .iter()
            .map(|experiment| experiment.params.iter().filter_map(|(_, value)| value.parse().ok()).collect())
            .collect();
        prop_assert!(values.is_sorted());
        prop_assert!(values.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_random_search_picks_from_the_grid_without_repeats(
        sizes in proptest::collection::vec(1..6_u64, 0..4), trials in 1..200_u64, seed: u64,
    ) {
        let args: Vec<String> = sizes.iter().flat_map(|size| ["--x".to_owned(), format!("range({size})")]).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let all: HashSet<String> = grid(&args).unwrap().into_iter().collect();
        let found = random_search(&args, Some(trials), seed).unwrap();
        let picked: HashSet<String> = found.experiments.iter().map(|e| e.args.join("|")).collect();
        prop_assert_eq!(picked.len() as u64, trials.min(all.len() as u64));
        prop_assert_eq!(picked.len(), found.experiments.len());
        prop_assert!(picked.is_subset(&all));
    }
}

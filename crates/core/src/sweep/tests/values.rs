//! Values that people type: what they stand for, and what is refused.

use super::*;

#[test]
fn scalars_pass_as_they_are() {
    for text in [
        "1e-2",
        "32",
        "bert",
        "",
        " ",
        "True",
        "f(x)",
        "f (x, 1)",
        "(1, 10, 2)",
        "http://x/[a]",
        "key=[1,2]",
        "unknown(1, 2, 3)",
        "Uniform(0, 1, 3)",
        "np.random.uniform(0, 1, 3)",
        "uniform",
        "uniform_x(1)",
        "rangefinder(1)",
        "{\"a\": [1, 2]}",
        "don't",
        "'a' and 'b'",
        "'tis",
        "\\d+",
        "-",
        "größe",
        "a\nb",
    ] {
        check_scalar(text, text);
    }
}

#[test]
fn quotes_around_a_value_are_taken_off() {
    check_scalar("'bert'", "bert");
    check_scalar("\"bert\"", "bert");
    check_scalar("'hot dog'", "hot dog");
    check_scalar("''", "");
    check_scalar("'[1, 2]'", "[1, 2]");
    check_scalar("\"'bert'\"", "'bert'");
    check_scalar(r"'it\'s'", "it's");
    check_scalar(r"'\d+\\n\n'", "\\d+\\n\n");
    check_scalar("'uniform(0, 1, 3)'", "uniform(0, 1, 3)");
}

#[test]
fn lists() {
    check(&["--x", "[32, 64, 128]"], &["--x|32", "--x|64", "--x|128"]);
    check(
        &["--x", " [ 1e-2 ,.5, -3 ] "],
        &["--x|1e-2", "--x|.5", "--x|-3"],
    );
    check(
        &["--x", "['resnet18', \"transformer\"]"],
        &["--x|resnet18", "--x|transformer"],
    );
    check(
        &["--x", "[True, False, None]"],
        &["--x|True", "--x|False", "--x|None"],
    );
    check(
        &["--x", "[resnet18, hot dog]"],
        &["--x|resnet18", "--x|hot dog"],
    );
    check(
        &["--x", "['a, b', '[c]', ' d ', '']"],
        &["--x|a, b", "--x|[c]", "--x| d ", "--x|"],
    );
    check(
        &["--x", r#"['it\'s', "say \"hi\"", 'a\\b', 'a\tb']"#],
        &["--x|it's", "--x|say \"hi\"", "--x|a\\b", "--x|a\tb"],
    );
    check(&["--x", "[\"'a'\", '\"b\"']"], &["--x|'a'", "--x|\"b\""]);
    check(&["--x", "[1, 28, 28]"], &["--x|1", "--x|28", "--x|28"]);
    check(&["--x", "[[1, 28], [28]]"], &["--x|1", "--x|28", "--x|28"]);
    check(&["--x", "[[1, 2], 'a', []]"], &["--x|1", "--x|2", "--x|a"]);
    check(&["--x", "[1, 2,]"], &["--x|1", "--x|2"]);
    check(&["--x", "[7]"], &["--x|7"]);
    check(
        &["--x", "[(1, 2), {'a': [3, 4]}, t[0]]"],
        &["--x|(1, 2)", "--x|{'a': [3, 4]}", "--x|t[0]"],
    );
    check(
        &["--x", "[don't, uniform(0, 1, 3)]"],
        &["--x|don't", "--x|uniform(0, 1, 3)"],
    );
    check(&["--x", "[{'a': ']'}]"], &["--x|{'a': ']'}"]);
    check(&["--x", "[é, 'ü,']"], &["--x|é", "--x|ü,"]);
}

#[test]
fn ranges() {
    check(&["--x", "range(3)"], &["--x|0", "--x|1", "--x|2"]);
    check(
        &["--x", "range(1, 10, 2)"],
        &["--x|1", "--x|3", "--x|5", "--x|7", "--x|9"],
    );
    check(&["--x", "range(3, 0, -1)"], &["--x|3", "--x|2", "--x|1"]);
    check(&["--x", " range ( -1 , 1 ) "], &["--x|-1", "--x|0"]);
    check(
        &[
            "--x",
            "range(-9223372036854775808, 9223372036854775807, 9223372036854775807)",
        ],
        &[
            "--x|-9223372036854775808",
            "--x|-1",
            "--x|9223372036854775806",
        ],
    );
}

#[test]
fn what_looks_like_a_list_must_be_one() {
    check_refused(
        "[unclosed",
        "the list is not closed: `]` is missing, at character 1",
    );
    check_refused(
        "  [1, [2, 3]",
        "the list is not closed: `]` is missing, at character 3",
    );
    check_refused("['a' 'b']", "a comma or `]` is missing, at character 6");
    check_refused("['a', 'b]", "the quote is not closed, at character 7");
    check_refused(
        "[1,,2]",
        "a value is missing before the comma, at character 4",
    );
    check_refused("[,]", "a value is missing before the comma, at character 2");
    check_refused(
        "[[[1]]]",
        "lists in lists in lists are not possible, at character 3",
    );
    check_refused("[(1, 2]", "`)` is missing in this item, at character 2");
    check_refused(
        "[a-z]+",
        "there is more text after the closing bracket, at character 6",
    );
    check_refused("[ü, 'b' c]", "a comma or `]` is missing, at character 9");
}

#[test]
fn what_looks_like_a_call_must_be_one() {
    check_refused(
        "range(0, 1, 0.1)",
        "range takes whole numbers, and 0.1 is not one, at character 13",
    );
    check_refused(
        "range(1, 5, 0)",
        "the step of a range cannot be 0, at character 13",
    );
    check_refused(
        "range()",
        "range takes 1 to 3 numbers (start, stop, step), 0 are given, at character 6",
    );
    check_refused("range(1, 2, 3, 4)", "4 are given");
    check_refused("range(1, x)", "`x` is not a number, at character 10");
    check_refused("range(1,)", "a number is missing, at character 9");
    check_refused("range(5", "`)` is missing, at character 6");
    check_refused(
        "range(5)x",
        "there is more text after the closing bracket, at character 9",
    );
    check_refused("range(99999999999999999999)", "range takes whole numbers");
    check_refused(
        "uniform(0, 1)",
        "uniform(low, high, count) takes 3 numbers, 2 given, at character 8",
    );
    check_refused("rand()", "rand(count) takes 1 number, 0 given");
    check_refused(
        "uniform(0, 1, 2.5)",
        "is how many values to draw; 2.5 is not a count, at character 15",
    );
    check_refused("uniform(0, 1, -1)", "-1 is not a count");
    check_refused(
        "uniform(0, inf, 3)",
        "`inf` is not a number, at character 12",
    );
    check_refused("uniform(low=0, high=1, size=3)", "`low=0` is not a number");
    check_refused("f(1, 2)", "f(dfnum, dfden, count) takes 3 numbers");
    check_refused(
        "choice(3, 2)",
        "choice takes a list and how many values to draw",
    );
    check_refused("choice([1, 2])", "choice takes a list");
    check_refused("choice([1, 2], 3, 4)", "choice takes a list");
    check_refused("choice([], 3)", "there is nothing to choose from");
    check_refused(&format!("range({}1)", "1,".repeat(40)), "too many numbers");
}

#[test]
fn parameters_have_domains() {
    check_refused(
        "beta(0, 1, 3)",
        "`a` of beta(a, b, count) must be more than 0, not 0, at character 6",
    );
    check_refused(
        "binomial(10, 1.5, 3)",
        "`p` of binomial(n, p, count) must be from 0 to 1, not 1.5, at character 14",
    );
    check_refused(
        "binomial(1.5, 0.5, 3)",
        "must be a whole number from 0 to 1,000,000,000, not 1.5",
    );
    check_refused("geometric(0, 3)", "more than 0 and at most 1");
    check_refused("logseries(1, 3)", "0 or more and less than 1");
    check_refused("zipf(1, 3)", "more than 1");
    check_refused(
        "normal(0, -1, 3)",
        "`scale` of normal(loc, scale, count) must be 0 or more, not -1",
    );
    check_refused(
        "randint(0, 1.5, 3)",
        "`high` of randint(low, high, count) must be a whole number, not 1.5",
    );
    check_refused("randint(5, 5, 3)", "low to be less than high");
    check_refused("uniform(2, 1, 3)", "low to be at most high, at character 9");
    check_refused(
        "loguniform(0, 1, 3)",
        "`low` of loguniform(low, high, count) must be more than 0",
    );
    check_refused("triangular(0, 5, 1, 3)", "left <= mode <= right");
    check_refused(
        "hypergeometric(5, 5, 11, 3)",
        "nsample to be at most ngood + nbad",
    );
    check_refused("lognormal(1000, 1, 3)", "too large to write as a number");
    check_refused("poisson(1e18, 3)", "spreads over more than");
    check_refused("poisson(1e300, 3)", "spreads over more than");
}

#[test]
fn a_sweep_without_values_is_refused() {
    for value in [
        "[]",
        "[[]]",
        "range(5, 5)",
        "range(5, 0)",
        "range(0, 5, -1)",
        "uniform(0, 1, 0)",
        "choice([1], 0)",
    ] {
        check_refused(value, "there are no values to try");
    }
    check_error(&["data.csv", "[]"], Some("argument 2"), "no values");
    check_error(&["--flag=[]"], Some("--flag"), "no values");
}

#[test]
fn errors_say_how_to_pass_the_text() {
    let error = grid(&["--pattern", "[a-z]+"]).unwrap_err();
    assert_eq!(error.argument(), Some("--pattern"));
    assert_eq!(
        error.message(),
        "there is more text after the closing bracket, at character 6"
    );
    let hint = "to pass it to the script as it is, put it in quotes within quotes (\"'[a-z]+'\"), \
                or run with --strategy none to pass every argument as it is";
    assert_eq!(error.hint(), Some(hint));
    assert_eq!(
        error.to_string(),
        "--pattern: there is more text after the closing bracket, at character 6"
    );
    check(&["--pattern", "'[a-z]+'"], &["--pattern|[a-z]+"]);
}

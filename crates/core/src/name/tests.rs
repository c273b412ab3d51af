//! Names that are allowed, names that are not, and why.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn check<N: FromStr<Err = NameError> + fmt::Display + fmt::Debug>(
    text: &str,
    expected: Result<&str, &str>,
) {
    let parsed = text
        .parse::<N>()
        .map(|name| name.to_string())
        .map_err(|error| error.to_string());
    match (&parsed, expected) {
        (Ok(name), Ok(expected)) => assert_eq!(name, expected),
        (Err(message), Err(expected)) => assert!(message.contains(expected), "{text}: {message}"),
        _ => panic!("{text}: {parsed:?}, not {expected:?}"),
    }
}

#[test]
fn run_names() {
    check::<RunName>("gifted-seahorse-83", Ok("gifted-seahorse-83"));
    check::<RunName>("a", Ok("a"));
    check::<RunName>("my-exp", Ok("my-exp"));
    check::<RunName>("expert-exposed", Ok("expert-exposed"));
    check::<RunName>("nice-exp-3", Ok("nice-exp-3"));
    check::<RunName>("", Err("the run name is empty; use lowercase letters"));
    check::<RunName>("My", Err("'M' is not allowed as character 1"));
    check::<RunName>("a b", Err("' ' is not allowed as character 2"));
    check::<RunName>("4u", Err("'4' is not allowed as character 1"));
    check::<RunName>("a-", Err("'-' is not allowed as character 2"));
    check::<RunName>("naïve", Err("'ï' is not allowed as character 3"));
    check::<RunName>("a_b", Err("'_' is not allowed"));
    check::<RunName>("nice-exp0", Err("belong to experiments"));
    check::<RunName>("nice-exp007", Err("belong to experiments"));
    check::<RunName>(&"a".repeat(50), Ok(&"a".repeat(50)));
    check::<RunName>(&"a".repeat(51), Err("51 characters long; at most 50"));
}

#[test]
fn experiment_names() {
    check::<ExperimentName>("nice-exp0", Ok("nice-exp0"));
    check::<ExperimentName>("nice-exp99999", Ok("nice-exp99999"));
    check::<ExperimentName>("my-exp-run-exp4", Ok("my-exp-run-exp4"));
    check::<ExperimentName>("nice", Err("`nice` is not an experiment name"));
    check::<ExperimentName>("nice-exp", Err("not an experiment name"));
    check::<ExperimentName>("nice-exp01", Err("not an experiment name"));
    check::<ExperimentName>("nice-exp+1", Err("not an experiment name"));
    check::<ExperimentName>("nice-exp4294967296", Err("not an experiment name"));
    check::<ExperimentName>("-exp0", Err("the run name is empty"));
    check::<ExperimentName>("a-exp1-exp2", Err("belong to experiments"));
    let name = ExperimentName::parse("nice-exp12").unwrap();
    assert_eq!((name.run().as_str(), name.index()), ("nice", 12));
    assert_eq!(name.run().experiment(12), name);
}

#[test]
fn user_names() {
    check::<UserName>("ada", Ok("ada"));
    check::<UserName>("Ada-L", Ok("ada-l"));
    check::<UserName>("j.von_neumann", Ok("j.von_neumann"));
    check::<UserName>("ada@example.org", Ok("ada@example.org"));
    check::<UserName>("Ada.L+grid@Example.org", Ok("ada.l+grid@example.org"));
    check::<UserName>("", Err("the user name is empty"));
    check::<UserName>("-ada", Err("'-' is not allowed as character 1"));
    check::<UserName>("ada-", Err("'-' is not allowed as character 4"));
    check::<UserName>("a:b", Err("':' is not allowed"));
    check::<UserName>("a/b", Err("'/' is not allowed"));
    check::<UserName>("@example.org", Err("'@' is not allowed as character 1"));
    check::<UserName>("ada@", Err("'@' is not allowed as character 4"));
    check::<UserName>("a@b@c", Err("'@' is not allowed as character 4"));
    check::<UserName>("a..b@c", Err("'.' is not allowed as character 3"));
    check::<UserName>("a.@c", Err("'@' is not allowed as character 3"));
    check::<UserName>("a@-c", Err("'-' is not allowed as character 3"));
    check::<UserName>("a@b_c", Err("'_' is not allowed"));
    check::<UserName>("a@c.", Err("'.' is not allowed as character 4"));
    check::<UserName>(&"a".repeat(40), Err("at most 39"));
    check::<UserName>(&format!("{}@c", "a".repeat(253)), Err("at most 254"));
}

#[test]
fn team_names() {
    check::<TeamName>("Vision-Lab", Ok("vision-lab"));
    check::<TeamName>(
        "vision lab",
        Err("`vision lab` is not a team name: ' ' is not allowed as character 7"),
    );
    check::<TeamName>(&"a".repeat(51), Err("at most 50"));
}

#[test]
fn references() {
    check::<Ref>("data", Ok("data"));
    check::<Ref>("Ada:data:3", Ok("ada:data:3"));
    check::<Ref>(":data", Err("the user name is empty"));
    check::<RunRef>("ada@example.org:nice", Ok("ada@example.org:nice"));
    check::<RunRef>("ada:", Err("the run name is empty"));
    check::<RunRef>("ada:nice:2", Err("':' is not allowed"));
    check::<ExperimentRef>("ada:nice-exp3", Ok("ada:nice-exp3"));
    check::<ExperimentRef>("nice", Err("not an experiment name"));
    let which = |text: &str| {
        text.parse::<RunOrExperimentRef>()
            .map(|r| matches!(r, RunOrExperimentRef::Run(_)))
    };
    assert_eq!(which("ada:nice"), Ok(true));
    assert_eq!(which("ada:nice-exp3"), Ok(false));
    check::<RunOrExperimentRef>("Nice", Err("`Nice` is not a run name"));
}

#[test]
fn names_travel_as_text() {
    let name = RunName::parse("nice").unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), "\"nice\"");
    assert_eq!(
        serde_json::from_str::<ExperimentName>("\"nice-exp1\"").unwrap(),
        name.experiment(1)
    );
    let refused = serde_json::from_str::<UserName>("\"a b\"").map_err(|error| error.to_string());
    assert!(refused.is_err_and(|message| message.contains("' ' is not allowed as character 2")));
}

#[test]
fn clones_are_told_from_their_original() {
    let original = RunName::parse("nice-nightingale-152").unwrap();
    let clone = original.clone_name(8_102_124_654);
    assert_eq!(clone.as_str(), "nice-nightingale-152-cl8102124654");
    assert_eq!(
        clone.clone_name(7).as_str(),
        "nice-nightingale-152-cl0000000007"
    );
    assert_eq!(
        RunName::parse("a-cl12").unwrap().clone_name(7).as_str(),
        "a-cl12-cl0000000007"
    );
}

#[test]
fn words_are_many_and_plain() {
    let all: Vec<&str> = ADJECTIVES.iter().chain(&ANIMALS).copied().collect();
    assert!(ADJECTIVES.len() >= 200 && ANIMALS.len() >= 200);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert!(
        all.iter()
            .all(|word| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase()))
    );
    // The longest name fits, and so does the longest with the digits of a clone.
    let longest = |words: &[&str]| words.iter().map(|word| word.len()).max().unwrap_or(0);
    assert!(
        longest(&ADJECTIVES) + longest(&ANIMALS) + "--999-cl0123456789".len() <= RUN_NAME_LEN_MAX
    );
}

proptest! {
    #[test]
    fn generated_names_are_names(entropy: u64) {
        let name = generate_run_name(entropy);
        prop_assert_eq!(RunName::parse(name.as_str()), Ok(name));
    }

    #[test]
    fn clones_have_names_that_are_allowed(text in "[a-z][a-z0-9-]{0,48}[a-z0-9]", entropy: u64) {
        if let Ok(name) = RunName::parse(&text) {
            let clone = name.clone_name(entropy);
            prop_assert_eq!(RunName::parse(clone.as_str()), Ok(clone));
        }
    }

    #[test]
    fn what_parses_reads_back(text in "[a-zA-Z0-9@:._-]{0,20}(-exp[0-9]{1,3})?") {
        if let Ok(reference) = text.parse::<RunOrExperimentRef>() {
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }
        if let Ok(user) = UserName::parse(&text) {
            prop_assert_eq!(UserName::parse(user.as_str()), Ok(user));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}") {
        let _ = (text.parse::<RunOrExperimentRef>(), text.parse::<Ref>(), TeamName::parse(&text));
    }
}

use super::*;

fn refusal(text: &str) -> String {
    match read("run.yml", text) {
        Ok(run) => panic!("{text:?} was taken as {run:?}"),
        Err(problem) => {
            let report = crate::error::Report::of(&anyhow::Error::new(problem));
            assert_eq!(report.exit, crate::error::EXIT_USAGE);
            format!("{} ({})", report.message, report.hint.unwrap_or_default())
        }
    }
}

const WHOLE: &str = r#"
compute:
  provider:
    cluster: local
  train:
    framework: lightning
    environment:
      MY_VARIABLE: "example"
      COUNT: 3
    dependency_file_info:
      package_manager: pip
      path: requirements-gpu.txt
    instance: m5a.large
    use_spot: False
    storage_gb: 200
    localdir: True
    dockerfile: null
    auto_resume: False
    datastore_name: null
    datastore_version: null
    cpus: 1
    gpus: 0
    memory: 10G
    retries: 2
    max_duration: 2h
    actions:
      on_build_start: null
      on_experiment_start:
        - echo ${GRID_EXPERIMENT_ID:0:4}
        - |
          first
          second
      on_experiment_end: echo done
    scratch:
      size_gb: 100
      mount_path: /tmp/scratch
hyper_params:
  settings:
    strategy: random_search
    strategy_options:
      num_trials: 5
      seed: 0
  params:
    --foo: 1e-5
    -bar: something
    learning_rate: uniform(0.001, 0.008, 20)
    --layers: [32, 64]
    --model: ['resnet 18', bert, "it's"]
    --flag: True
    --toggle:
"#;

#[test]
fn the_whole_file_is_understood() -> Result<(), Problem> {
    let run = read("run.yml", WHOLE)?;
    assert_eq!(run.cluster.as_deref(), Some("local"));
    assert_eq!(run.variables.get("COUNT").map(String::as_str), Some("3"));
    assert_eq!(run.package_manager, Some(PackageManager::Pip));
    assert_eq!(
        (run.use_spot, run.localdir, run.dockerfile),
        (Some(false), Some(true), None)
    );
    assert_eq!(
        (run.disk_gb, run.cpus, run.gpus, run.retries),
        (Some(200), Some(1), Some(0), Some(2))
    );
    assert_eq!(run.actions.on_build_start, Vec::<String>::new());
    assert_eq!(
        run.actions.on_experiment_start,
        ["echo ${GRID_EXPERIMENT_ID:0:4}", "first\nsecond\n"]
    );
    assert_eq!(run.actions.on_experiment_end, ["echo done"]);
    assert_eq!(
        (run.strategy, run.num_trials, run.seed),
        (Some(Strategy::RandomSearch), Some(5), Some(0))
    );
    let params: Vec<(&str, &str)> = run
        .params
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        params,
        [
            ("--foo", "1e-5"),
            ("-bar", "something"),
            ("learning_rate", "uniform(0.001, 0.008, 20)"),
            ("--layers", "[32, 64]"),
            ("--model", r"['resnet 18', bert, 'it\'s']"),
            ("--flag", "True"),
            ("--toggle", ""),
        ]
    );
    assert_eq!(run.warnings, Vec::<String>::new());
    Ok(())
}

#[test]
fn lists_of_the_file_are_sweeps() -> Result<(), Problem> {
    let run = read("run.yml", WHOLE)?;
    let model: Vec<_> = run
        .params
        .into_iter()
        .filter(|(key, _)| key == "--model")
        .collect();
    let spec = grid_core::sweep::SweepSpec::default();
    let expansion =
        grid_core::sweep::expand(&[], &model, &spec, 0).map_err(|e| Problem::new(e.to_string()))?;
    let values: Vec<&str> = expansion
        .experiments
        .iter()
        .map(|e| e.params[0].1.as_str())
        .collect();
    assert_eq!(values, ["resnet 18", "bert", "it's"]);
    Ok(())
}

#[test]
fn keys_of_old_files_are_understood_or_reported() -> Result<(), Problem> {
    let run = read(
        "old.yml",
        "compute:\n  provider:\n    vendor: aws\n  train:\n    nodes: 2\n    disk_size: 50\n    \
         actions:\n      on_image_build: make\n\
         hyper_params:\n  settings:\n    trials: 4\n",
    )?;
    assert_eq!((run.disk_gb, run.num_trials), (Some(50), Some(4)));
    assert_eq!(run.actions.on_build, ["make"]);
    assert_eq!(
        run.warnings,
        [
            "old.yml:3:13: 'vendor' has no effect",
            "old.yml:5:12: 'nodes' has no effect",
            "old.yml:6:16: 'disk_size' is called 'storage_gb' now",
            "old.yml:8:23: 'on_image_build' is called 'on_build' now",
            "old.yml:11:13: 'trials' is called 'strategy_options.num_trials' now",
        ]
    );
    Ok(())
}

#[test]
fn mistakes_are_named_with_their_place_and_what_is_allowed() {
    for (text, expected) in [
        (
            "compute:\n  trian: {}\n",
            "run.yml:2:3: compute has no key 'trian' (did you mean 'train'? Its keys are provider, train)",
        ),
        (
            "compute:\n  train:\n    cpus: many\n",
            "run.yml:3:11: 'cpus' must be a whole number, not 'many' ()",
        ),
        (
            "compute:\n  train:\n    cpus: -1\n",
            "run.yml:3:11: 'cpus' must be a whole number, not '-1' ()",
        ),
        (
            "compute:\n  train:\n    use_spot: maybe\n",
            "run.yml:3:15: 'use_spot' must be True or False, not 'maybe' ()",
        ),
        (
            "hyper_params:\n  settings:\n    strategy: bayes\n",
            "run.yml:3:15: 'strategy' must be one of grid_search, random_search, none, not 'bayes' ()",
        ),
        (
            "compute: 5\n",
            "run.yml:1:10: compute must hold `key: value` lines (its keys are provider, train)",
        ),
        (
            "hyper_params:\n  params:\n    --x: {a: 1}\n",
            "run.yml:3:10: the value of an argument must be a word, a number or a list of them ()",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
    assert_eq!(
        refusal("compute: [1,\n"),
        "run.yml:1:10: unclosed bracket '[' (the file is YAML: `key: value`, indented by spaces)"
    );
}

#[test]
fn an_empty_file_says_nothing() -> Result<(), Problem> {
    assert_eq!(read("x", "")?, RunFile::default());
    assert_eq!(read("x", "# nothing\n")?, RunFile::default());
    assert_eq!(read("x", "compute:\nhyper_params:\n")?, RunFile::default());
    Ok(())
}

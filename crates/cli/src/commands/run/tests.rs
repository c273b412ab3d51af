use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;
use grid_core::spec::PackageManager;
use grid_core::sweep::Strategy;

use super::merge::{Code, Wanted, merge};
use super::*;
use crate::config::RunFile;
use crate::error::Report;

/// `grid run` alone.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

fn wanted(line: &str, file: RunFile) -> Result<Wanted, String> {
    let words = std::iter::once("run").chain(line.split(' '));
    let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
    merge(line.args, file, Some("settings")).map_err(|problem| {
        let report = Report::of(&problem.into());
        assert_eq!(report.exit, crate::error::EXIT_USAGE, "{report:?}");
        report.message
    })
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() -> Result<(), String> {
    let file = || RunFile {
        cluster: Some("file".to_owned()),
        cpus: Some(2),
        gpus: Some(1),
        use_spot: Some(true),
        disk_gb: Some(200),
        memory: Some("8G".to_owned()),
        strategy: Some(Strategy::RandomSearch),
        num_trials: Some(3),
        dependency_file: Some("env.txt".to_owned()),
        package_manager: Some(PackageManager::Conda),
        variables: [
            ("A".to_owned(), "file".to_owned()),
            ("B".to_owned(), "file".to_owned()),
        ]
        .into(),
        ..RunFile::default()
    };
    let flags = "--cluster flag --cpus 4 --use_spot=false --strategy grid_search --memory 300 \
                 --dependency_file environment.yml --env A=flag t.py";
    let both = wanted(
        &flags.replace("  ", " ").replace("                 ", ""),
        file(),
    )?;
    assert_eq!(both.resources.cluster.as_deref(), Some("flag"));
    assert_eq!(
        (
            both.resources.cpus,
            both.resources.gpus,
            both.resources.use_spot
        ),
        (Some(4), Some(1), false)
    );
    assert_eq!(
        (both.resources.disk_gb, both.resources.memory_bytes),
        (Some(300), Some(8 << 30))
    );
    assert_eq!(
        (both.sweep.strategy, both.sweep.num_trials),
        (Strategy::GridSearch, Some(3))
    );
    assert_eq!(both.environment.variables["A"], "flag");
    assert_eq!(both.environment.variables["B"], "file");
    assert_eq!(
        both.environment.dependency_file.as_deref(),
        Some("environment.yml")
    );
    assert_eq!(
        both.environment.package_manager,
        Some(PackageManager::Conda)
    );

    let only_file = wanted("t.py", file())?;
    assert_eq!(only_file.resources.cluster.as_deref(), Some("file"));
    assert!(only_file.resources.use_spot);
    assert_eq!(
        only_file.environment.dependency_file.as_deref(),
        Some("env.txt")
    );

    let nothing = wanted("t.py", RunFile::default())?;
    assert_eq!(nothing.resources.cluster.as_deref(), Some("settings"));
    assert_eq!(
        (
            nothing.resources.cpus,
            nothing.retries,
            nothing.max_duration_ms
        ),
        (None, 0, None)
    );
    assert_eq!(nothing.code, Code::Here(capture::How::Automatic));
    Ok(())
}

#[test]
fn words_are_understood() -> Result<(), String> {
    let all = wanted(
        "--memory 10G --max-duration 2h --retries 2 --localdir t.py -x [1,2]",
        RunFile::default(),
    )?;
    assert_eq!(
        (all.resources.memory_bytes, all.resources.disk_gb),
        (Some(10 << 30), None)
    );
    assert_eq!((all.max_duration_ms, all.retries), (Some(7_200_000), 2));
    assert_eq!(all.code, Code::Here(capture::How::Folder));
    assert_eq!(all.command, ["t.py", "-x", "[1,2]"]);
    let git = wanted("--git https://h/o/n#v1 t.py", RunFile::default())?;
    let expected = Code::Git {
        url: "https://h/o/n".to_owned(),
        reference: Some("v1".to_owned()),
    };
    assert_eq!(git.code, expected);
    let old = wanted("--description hello --max_nodes 3 t.py", RunFile::default())?;
    assert_eq!(old.warnings.len(), 1, "{:?}", old.warnings);
    assert_eq!(old.description, "hello");
    Ok(())
}

#[test]
fn mistakes_are_found_before_anybody_is_asked() {
    for (line, expected) in [
        ("--name Bert t.py", "is not a run name"),
        ("--name bert-exp0 t.py", "belong to experiments"),
        ("--team !x t.py", "is not a team name"),
        ("--memory lots t.py", "memory: `lots` is not a size"),
        (
            "--max-duration soon t.py",
            "max-duration: `soon` is not a length of time",
        ),
        ("--max-duration 0 t.py", "would end every experiment"),
        ("--env A t.py", "--env A sets nothing"),
        (
            "--env 1A=x t.py",
            "'1A' is not the name of an environment variable",
        ),
        ("--framework mxnet t.py", "'mxnet' is not a framework"),
        ("--git #x t.py", "is not the address of a repository"),
        ("--datastore_name D t.py", "is not a datastore name"),
        ("--datastore_version 1 t.py", "need --datastore_name"),
        (
            "--datastore_name d --datastore_mount_dir x t.py",
            "is not an absolute path",
        ),
        (
            "--datastore_name d:1 --datastore_version 2 t.py",
            "names version 1",
        ),
        (
            "--datastore_name d --datastore_name bob:d t.py",
            "both mounted at /datastores/d",
        ),
        (
            "--datastore_name d --datastore_name e --datastore_version 2 t.py",
            "as often as --datastore_name",
        ),
        (
            "--strategy random_search t.py --x [1,2]",
            "needs to know how many experiments",
        ),
        (
            "t.py --x range(1000) --y range(1000)",
            "1,000,000 experiments, more than the 100,000",
        ),
        ("t.py --x []", "no values"),
        ("--strategy bayes t.py", "`bayes` is not a strategy"),
        ("--gpus many t.py", "invalid value 'many'"),
    ] {
        let said = wanted(line, RunFile::default());
        assert!(
            matches!(&said, Err(text) if text.contains(expected)),
            "{line}: {said:?}"
        );
    }
}

#[test]
fn the_command_is_recorded_as_it_can_be_typed() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        invocation(&words("t.py --lr [1,2]")),
        "grid run t.py --lr '[1,2]'"
    );
    assert_eq!(invocation(&words("-weird x")), "grid run -- -weird x");
}

#[test]
fn a_script_that_is_not_sent_is_found_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["train.py", "notes.tmp", "prog"] {
        std::fs::write(folder.path().join(name), "x")?;
    }
    std::fs::write(folder.path().join("plain"), "x")?;
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("prog"), runs)?;
    std::fs::write(folder.path().join(".gitignore"), "*.tmp\n")?;
    let captured = capture::scan(folder.path(), capture::How::Folder, 1 << 20)?;
    let check = |line: &str| {
        let words = line.split(' ').map(str::to_owned).collect();
        checked_command(words, &captured, folder.path()).map_err(|error| error.to_string())
    };
    let absolute = folder.path().join("train.py").display().to_string();
    assert_eq!(
        check(&format!("{absolute} -x")),
        Ok(vec!["train.py".to_owned(), "-x".to_owned()])
    );
    for line in [
        "train.py",
        "./prog",
        "prog x",
        "python train.py",
        "bash plain",
        "python -m pkg",
        "true",
        "/bin/true",
    ] {
        assert_eq!(
            check(line),
            Ok(line.split(' ').map(str::to_owned).collect()),
            "{line}"
        );
    }
    for (line, expected) in [
        ("trian.py", "there is no file 'trian.py'"),
        ("./nope", "there is no file './nope'"),
        ("python nope.py", "there is no file 'nope.py'"),
        ("./notes.tmp", "is there, but is not sent"),
        ("../x.py", "there is no file '../x.py'"),
        ("./plain", "'./plain' is not executable"),
    ] {
        let said = check(line);
        assert!(
            matches!(&said, Err(text) if text.contains(expected)),
            "{line}: {said:?}"
        );
    }
    Ok(())
}

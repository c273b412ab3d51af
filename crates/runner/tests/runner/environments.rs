//! Environments, actions, and what experiments see of the machine.

use serde_json::json;

use crate::support::Rig;

const WHERE: &[u8] = b"import sys, os\nprint(sys.prefix)\nprint(open('built.txt').read().strip())\n\
                       print('bytecode' if not os.environ.get('PYTHONDONTWRITEBYTECODE') else 'none')\n\
                       open('result.txt', 'w').write('1')\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_built_once_and_shared() {
    let mut rig = Rig::new(json!({})).await;
    let files: &[(&str, u32, &[u8])] = &[
        ("train.py", 0o644, WHERE),
        ("requirements.txt", 0o644, b"# nothing\n"),
    ];
    let mut launch = rig.with_code(&["train.py"], files);
    launch.spec.actions.on_build_start = vec!["echo one >>built.txt".to_owned()];
    launch.spec.actions.on_build_end =
        vec!["python -c 'import sys; print(sys.prefix)' >>prefix.txt".to_owned()];
    let first = rig.launch(launch);
    let launch = rig.again(first);
    let second = rig.launch(launch);
    let mut build_logs = String::new();
    for attempt in [first, second] {
        assert_eq!(
            rig.end_in_words(attempt).await,
            "Succeeded",
            "{}",
            rig.runner_log()
        );
        let text = rig.text(attempt);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("/cache/envs/") && lines[0].ends_with("/venv"),
            "{text}"
        );
        assert_eq!(lines[1..], ["one", "bytecode"]);
        let names: Vec<String> = rig.fake.artifacts(attempt).into_keys().collect();
        assert_eq!(
            names,
            ["result.txt"],
            "what the build made was there before"
        );
        build_logs.push_str(&String::from_utf8_lossy(
            &rig.fake.text(attempt, "build", None),
        ));
    }
    assert_eq!(
        build_logs.matches("Building environment").count(),
        1,
        "{build_logs}"
    );
    assert_eq!(
        build_logs.matches("Using cached environment").count(),
        1,
        "{build_logs}"
    );
    assert_eq!(
        build_logs.matches("==> installing packages").count(),
        1,
        "{build_logs}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_says_where() {
    let mut rig = Rig::new(json!({})).await;
    let files: &[(&str, u32, &[u8])] = &[
        ("train.py", 0o644, b""),
        ("requirements.txt", 0o644, b"./missing-1.0.whl\n"),
    ];
    let launch = rig.with_code(&["train.py"], files);
    let attempt = rig.launch(launch);
    let end = rig.end_in_words(attempt).await;
    assert!(
        end.starts_with("Build: installing packages: ended with exit code ")
            && end.contains("missing-1.0"),
        "{end}"
    );
    let mut launch = rig.with_code(&["train.py"], &[("train.py", 0o644, b"")]);
    launch.spec.actions.on_build = vec!["echo why it fails; exit 4".to_owned()];
    let attempt = rig.launch(launch);
    let end = rig.end_in_words(attempt).await;
    assert_eq!(
        end,
        "Action: on_build: echo why it fails; exit 4: ended with exit code 4:\n==> on_build: echo why it fails; exit 4\nwhy it fails"
    );
    let build_log = rig.fake.text(attempt, "build", None);
    assert!(String::from_utf8_lossy(&build_log).contains("why it fails"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_build_is_taken_over_by_the_next() {
    let mut rig = Rig::new(json!({})).await;
    let mut launch = rig.with_code(&["sh", "-c", "cat built"], &[("x", 0o644, b"")]);
    let go = rig.dir.path().join("go");
    launch.spec.actions.on_build = vec![format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo yes >built",
        go.display()
    )];
    let first = rig.launch(launch);
    rig.until("it builds", |fake| !fake.log(first, "build").is_empty())
        .await;
    let launch = rig.again(first);
    let second = rig.launch(launch);
    rig.until("the other waits", |fake| {
        !fake.log(second, "build").is_empty()
    })
    .await;
    rig.fake.stop(first, 1_000, true);
    assert_eq!(rig.end_in_words(first).await, "Stopped");
    std::fs::write(go, "").expect("written");
    assert_eq!(rig.end_in_words(second).await, "Succeeded");
    assert_eq!(rig.text(second), "yes\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_goes_on_when_the_runner_is_killed() {
    let mut rig = Rig::new(json!({})).await;
    let mut launch = rig.with_code(&["sh", "-c", "cat built"], &[("x", 0o644, b"")]);
    let go = rig.dir.path().join("go");
    launch.spec.actions.on_build = vec![format!(
        "echo once; while [ ! -e {} ]; do sleep 0.02; done; echo yes >>built",
        go.display()
    )];
    let attempt = rig.launch(launch);
    let talks = |fake: &crate::fake::Fake| {
        String::from_utf8_lossy(&fake.text(attempt, "build", None)).contains("\nonce")
    };
    rig.until("it builds", talks).await;
    rig.kill_runner();
    std::fs::write(go, "").expect("written");
    rig.start_runner();
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    assert_eq!(rig.text(attempt), "yes\n");
    let build_log = String::from_utf8(rig.fake.text(attempt, "build", None)).expect("text");
    assert_eq!(build_log.matches("\nonce").count(), 1, "{build_log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_run_around_the_script() {
    let mut rig = Rig::new(json!({})).await;
    let mut launch = rig.shell("cat start; echo script >made");
    launch.spec.actions.on_experiment_start = vec![
        "echo ${GRID_USERNAME^^} >start".to_owned(),
        "echo started".to_owned(),
    ];
    launch.spec.actions.on_experiment_end = vec![
        "cat made".to_owned(),
        "echo $GRID_EXPERIMENT_STATUS ${GRID_RUN_NAME/quick/slow}".to_owned(),
        "echo 1 >after".to_owned(),
    ];
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    assert_eq!(
        rig.text(attempt),
        "started\nADA\nscript\nsucceeded slow-fox\n"
    );
    let names: Vec<String> = rig.fake.artifacts(attempt).into_keys().collect();
    assert_eq!(names, ["after", "made", "start"]);

    let mut launch = rig.shell("echo never");
    launch.spec.actions.on_experiment_start = vec![
        "true".to_owned(),
        "exit 9".to_owned(),
        "echo never".to_owned(),
    ];
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "Action: on_experiment_start failed with exit code 9: exit 9"
    );
    assert_eq!(rig.text(attempt), "");

    let mut launch = rig.shell("exit 0");
    launch.spec.actions.on_experiment_end = vec!["exit 6".to_owned()];
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "Action: on_experiment_end ended with exit code 6"
    );

    let mut launch = rig.shell("exit 3");
    launch.spec.actions.on_experiment_end = vec!["exit 6".to_owned()];
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "ExitCode: exit code 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxed_experiment_sees_its_own_things() {
    if let Err(reason) =
        grid_runner::detect::bubblewrap(&std::env::var_os("PATH").unwrap_or_default())
    {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut rig = Rig::new(json!({"sandbox": "require"})).await;
    let script = b"import os, sys\nprint(sys.prefix.rsplit('/', 1)[1])\nprint(os.listdir(os.environ['OUTSIDE']))\n\
                   open('made', 'w').write('1')\nopen('/tmp/x', 'w').write('2')\nopen(os.path.expanduser('~/y'), 'w')\n";
    let files: &[(&str, u32, &[u8])] = &[
        ("train.py", 0o644, script),
        ("requirements.txt", 0o644, b"# none\n"),
    ];
    let mut launch = rig.with_code(&["train.py"], files);
    let outside = rig.runner_dir().display().to_string();
    launch
        .spec
        .environment
        .variables
        .insert("OUTSIDE".to_owned(), outside);
    launch.spec.actions.on_experiment_end = vec!["cat /tmp/x".to_owned()];
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "Succeeded",
        "{}{}",
        rig.text(attempt),
        String::from_utf8_lossy(&rig.fake.text(attempt, "build", None))
    );
    let text = rig.text(attempt);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "venv");
    let mut seen: Vec<&str> = lines[1]
        .split(['[', ']', ',', '\'', ' '])
        .filter(|part| !part.is_empty())
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        ["attempts", "cache"],
        "only what its own folders lie in"
    );
    assert_eq!(lines[2], "2");
    assert_eq!(
        rig.fake.artifacts(attempt).into_keys().collect::<Vec<_>>(),
        ["made"]
    );
    let stopped =
        rig.shell("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    let stopped = rig.launch(stopped);
    rig.until("it is ready", |fake| {
        !fake.log(stopped, "experiment").is_empty()
    })
    .await;
    rig.fake.stop(stopped, 30_000, true);
    assert_eq!(rig.end_in_words(stopped).await, "Stopped");
    assert!(
        rig.text(stopped).contains("saved\n"),
        "{}",
        rig.text(stopped)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_uses_too_much_memory_is_told_so() {
    use grid_runner::limits::{Driver, Kind};
    if !Driver::detect("probe").enforced().contains(&Kind::Memory) {
        eprintln!("skipped: limits of memory are not enforced here");
        return;
    }
    let mut rig = Rig::new(json!({})).await;
    let script = b"print('begin')\nx = bytearray(200 << 20)\nprint('end')\n";
    let mut launch = rig.with_code(&["train.py"], &[("train.py", 0o644, script)]);
    launch.placement.memory_bytes = 64 << 20;
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "OutOfMemory: out of memory: limit 64 MiB"
    );
    assert_eq!(rig.text(attempt), "begin\nOut of memory: limit 64 MiB\n");
}

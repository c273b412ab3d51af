//! The life of an experiment.

use std::collections::BTreeMap;

use grid_core::logframe::Source;
use serde_json::json;

use crate::support::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_trivial_experiment_runs_to_its_end() {
    let mut rig = Rig::new(json!({})).await;
    let hello = rig.shell("echo hello; echo oh >&2; exit 3");
    let hello = rig.launch(hello);
    let nothing = rig.order(&["true"]);
    let nothing = rig.launch(nothing);
    let missing = rig.order(&["train.py"]);
    let missing = rig.launch(missing);
    let killed = rig.shell("kill -SEGV $$");
    let killed = rig.launch(killed);
    assert_eq!(rig.end_in_words(hello).await, "ExitCode: exit code 3");
    assert_eq!(rig.text(hello), "hello\noh\n");
    assert_eq!(rig.end_in_words(nothing).await, "Succeeded");
    assert_eq!(
        rig.end_in_words(missing).await,
        "Start: there is no file 'train.py' in the top of the code"
    );
    assert_eq!(rig.end_in_words(killed).await, "Signal: killed by SIGSEGV");
    let all = [hello, nothing, missing, killed];
    rig.until("they are forgotten", |fake| {
        all.iter().all(|attempt| !fake.is_present(*attempt))
    })
    .await;
    for part in ["attempts", "spools"] {
        let folder = rig.runner_dir().join(part);
        rig.until("nothing is left on disk", |_| {
            std::fs::read_dir(&folder).expect("there").count() == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_trivial_experiments_need_few_requests() {
    const COUNT: usize = 300;
    let mut rig = Rig::new(json!({"cpus": 8})).await;
    let begin = tokio::time::Instant::now();
    for _ in 0..COUNT {
        let launch = rig.order(&["true"]);
        rig.launch(launch);
    }
    rig.until("all have ended", |fake| fake.n_ended() == COUNT)
        .await;
    eprintln!(
        "{COUNT} in {:?}: {:?}",
        begin.elapsed(),
        rig.fake.requests()
    );
    assert_eq!(
        rig.fake.requests().keys().copied().collect::<Vec<_>>(),
        ["sync"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_holds_what_was_said_and_no_more() {
    let mut rig = Rig::new(json!({})).await;
    let mut launch = rig.order(&["env"]);
    launch.spec.environment.variables = BTreeMap::from([
        ("MINE".to_owned(), "a b".to_owned()),
        ("GRID_CPUS".to_owned(), "64".to_owned()),
    ]);
    let id = launch.workload.to_string();
    let attempt = rig.launch(launch);
    rig.end(attempt).await;
    let text = rig.text(attempt);
    let all: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    for (name, value) in [
        ("GRID_EXPERIMENT_ID", id.as_str()),
        ("GRID_USERNAME", "ada"),
        ("GRID_CPUS", "1"),
        ("GRID_SLOT", "0"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("MINE", "a b"),
        ("PYTHONUNBUFFERED", "1"),
    ] {
        assert_eq!(all.get(name).copied(), Some(value), "{name}");
    }
    assert!(
        !text.contains("secret") && !all.contains_key("PYTHONDONTWRITEBYTECODE"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_laid_out_and_new_files_are_kept() {
    let mut rig = Rig::new(json!({})).await;
    let script = br#"
mkdir -p "out/a b" && echo 1 >"out/a b/100%.txt" && echo 2 >"out/$(printf '\303\274')"
echo 3 >"$(printf 'odd\377')" && echo changed >data.txt && ln -s data.txt link
mkfifo pipe && truncate -s 3000000 sparse && echo private >"$HOME/x" && cat lib/helper
"#;
    let files: &[(&str, u32, &[u8])] = &[
        ("run.sh", 0o644, script),
        ("data.txt", 0o644, b"old"),
        ("lib/helper", 0o600, b"helped\n"),
    ];
    let launch = rig.with_code(&["run.sh"], files);
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "Succeeded",
        "{}",
        rig.text(attempt)
    );
    let names: Vec<String> = rig.fake.artifacts(attempt).into_keys().collect();
    assert_eq!(names, ["odd%FF", "out/a b/100%.txt", "out/ü", "sparse"]);
    assert_eq!(
        rig.fake.artifact(attempt, "out/a b/100%.txt").as_deref(),
        Some(&b"1\n"[..])
    );
    assert_eq!(
        rig.fake.artifact(attempt, "sparse"),
        Some(vec![0; 3_000_000])
    );
    let said = String::from_utf8(rig.fake.text(attempt, "experiment", Some(Source::Platform)))
        .expect("text");
    assert!(said.contains("kept as 'odd%FF'"), "{said}");
    let stdout = rig.fake.text(attempt, "experiment", Some(Source::Stdout));
    assert_eq!(stdout, b"helped\n");

    // The second experiment of the same code fetches nothing, and sends nothing twice.
    let before = rig.fake.requests();
    let launch = rig.again(attempt);
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    let after = rig.fake.requests();
    for what in ["fetch", "snapshot", "blobs"] {
        assert_eq!(before.get(what), after.get(what), "{what}");
    }
    assert_eq!(rig.fake.artifacts(attempt).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_while_the_script_runs_and_of_stopped_ones() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig
        .shell("echo 1 >first; trap 'echo saved >last; exit 0' TERM; while :; do sleep 0.05; done");
    let attempt = rig.launch(launch);
    rig.until("the first file is kept", |fake| {
        fake.artifact(attempt, "first").is_some()
    })
    .await;
    assert_eq!(rig.fake.end(attempt), None);
    rig.fake.stop(attempt, 30_000, true);
    assert_eq!(rig.end_in_words(attempt).await, "Stopped");
    assert_eq!(
        rig.fake.artifact(attempt, "last").as_deref(),
        Some(&b"saved\n"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_want_to_end_is_killed() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let attempt = rig.launch(launch);
    rig.until("it is ready", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.fake.stop(attempt, 200, true);
    assert_eq!(rig.end_in_words(attempt).await, "Stopped");
    let mut launch = rig.shell("sleep 1000");
    launch.spec.max_duration_ms = Some(300);
    let attempt = rig.launch(launch);
    assert_eq!(
        rig.end_in_words(attempt).await,
        "MaxDuration: ran longer than 300ms"
    );
    assert_eq!(rig.text(attempt), "Ran longer than 300ms\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn cpus_are_handed_out_in_order() {
    let mut rig = Rig::new(json!({"cpus": 2})).await;
    let first = rig.shell("while [ ! -e go ]; do sleep 0.02; done");
    let first = rig.launch(first);
    let mut large = rig.order(&["true"]);
    large.placement.cpus = 2;
    let large = rig.launch(large);
    let small = rig.order(&["true"]);
    let small = rig.launch(small);
    rig.until("the first runs", |fake| {
        fake.phases(first)
            .last()
            .is_some_and(|phase| phase == "running")
    })
    .await;
    rig.until("the others wait", |fake| {
        fake.phases(small) == ["waiting"] && fake.phases(large) == ["waiting"]
    })
    .await;
    std::fs::write(
        rig.runner_dir()
            .join("attempts")
            .join(first.to_string())
            .join("work/go"),
        "",
    )
    .expect("written");
    for attempt in [first, large, small] {
        assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_log_arrives_whole_and_in_order() {
    const LINES: u32 = 1_000_000;
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell(&format!(
        "seq -f 'line %012.0f of very many lines in this log' {LINES}"
    ));
    let attempt = rig.launch(launch);
    let begin = tokio::time::Instant::now();
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    let text = rig.fake.text(attempt, "experiment", Some(Source::Stdout));
    eprintln!(
        "{} bytes in {:?}: {:?}",
        text.len(),
        begin.elapsed(),
        rig.fake.requests()
    );
    assert!(text.len() > 45_000_000);
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    for (number, line) in (1..).zip(lines) {
        assert!(
            line.starts_with(format!("line {number:012} ").as_bytes()),
            "line {number}"
        );
        assert!(number <= LINES);
    }
}

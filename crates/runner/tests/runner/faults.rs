//! What may go wrong around an experiment.

use grid_core::logframe::Source;
use grid_core::workload::End;
use serde_json::json;

use crate::support::Rig;

/// Writes numbered lines, some of them before and some after a file appears.
const TALKS: &str = "for i in $(seq 2000); do echo $i; done; while [ ! -e go ]; do sleep 0.02; done; \
                     for i in $(seq 2001 4000); do echo $i; done; echo x >made; exit 5";

fn numbers() -> Vec<u8> {
    (1..=4_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_is_followed_by_one_that_goes_on() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell(TALKS);
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        fake.text(attempt, "experiment", None).ends_with(b"2000\n")
    })
    .await;
    rig.kill_runner();
    std::fs::write(rig.work(attempt).join("go"), "").expect("written");
    rig.start_runner();
    assert_eq!(rig.end_in_words(attempt).await, "ExitCode: exit code 5");
    assert_eq!(rig.fake.text(attempt, "experiment", None), numbers());
    assert!(rig.fake.artifact(attempt, "made").is_some());
    assert_eq!(
        rig.fake
            .phases(attempt)
            .iter()
            .filter(|phase| *phase == "running")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_asked_to_end_leaves_what_runs() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell(TALKS);
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.signal_runner(libc::SIGTERM);
    assert!(rig.wait_for_runner().success());
    // It ends while nobody looks.
    std::fs::write(rig.work(attempt).join("go"), "").expect("written");
    let exit = rig
        .runner_dir()
        .join("spools")
        .join(attempt.to_string())
        .join("exit.json");
    rig.until("it has ended", |_| exit.exists()).await;
    rig.start_runner();
    assert_eq!(rig.end_in_words(attempt).await, "ExitCode: exit code 5");
    assert_eq!(rig.fake.text(attempt, "experiment", None), numbers());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_server_is_away() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell(TALKS);
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.stop_server().await;
    std::fs::write(rig.work(attempt).join("go"), "").expect("written");
    let exit = rig
        .runner_dir()
        .join("spools")
        .join(attempt.to_string())
        .join("exit.json");
    rig.until("it has ended", |_| exit.exists()).await;
    // It comes back at another address.
    rig.start_server().await;
    assert_eq!(rig.end_in_words(attempt).await, "ExitCode: exit code 5");
    assert_eq!(rig.fake.text(attempt, "experiment", None), numbers());
    assert!(rig.fake.artifact(attempt, "made").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_attempt_ends_and_leaves_nothing() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell("while :; do head -c 200000 /dev/zero; sleep 0.05; done");
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.fake.supersede(attempt);
    assert_eq!(rig.end(attempt).await, End::Stopped);
    rig.until("it is forgotten", |fake| !fake.is_present(attempt))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_loses_its_processes_and_nothing_else() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell("echo before; sleep 1000");
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.kill_keeper();
    assert!(matches!(rig.end(attempt).await, End::Lost { .. }));
    assert_eq!(rig.text(attempt), "before\n");
    let next = rig.order(&["true"]);
    let next = rig.launch(next);
    assert_eq!(rig.end_in_words(next).await, "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_ends_what_runs_where_that_is_wanted() {
    let mut rig = Rig::new(json!({"silence_max_ms": 500})).await;
    let launch = rig.shell("echo hello; sleep 1000");
    let attempt = rig.launch(launch);
    rig.until("it talks", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.stop_server().await;
    let exit = rig
        .runner_dir()
        .join("spools")
        .join(attempt.to_string())
        .join("exit.json");
    rig.until("it has ended", |_| exit.exists()).await;
    rig.start_server().await;
    assert!(matches!(rig.end(attempt).await, End::Lost { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_experiment_saves_and_is_resumed() {
    let mut rig = Rig::new(json!({})).await;
    let script = "cat saved 2>/dev/null && exit 7; trap 'echo state >saved; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let mut launch = rig.shell(script);
    launch.spec.auto_resume = true;
    let mut again = launch.clone();
    let attempt = rig.launch(launch);
    rig.until("it is ready", |fake| {
        !fake.log(attempt, "experiment").is_empty()
    })
    .await;
    rig.signal_runner(libc::SIGUSR1);
    assert_eq!(rig.end(attempt).await, End::Interrupted);
    assert!(rig.wait_for_runner().success(), "it goes once all is told");
    rig.start_runner();
    again.attempt.number = 2;
    again.resume = true;
    let attempt = rig.launch(again);
    assert_eq!(rig.end_in_words(attempt).await, "ExitCode: exit code 7");
    assert_eq!(
        rig.fake.text(attempt, "experiment", Some(Source::Stdout)),
        b"state\n"
    );
    assert!(
        rig.fake
            .text(attempt, "experiment", Some(Source::Platform))
            .starts_with(b"Restoring ")
    );
    assert!(
        rig.fake.artifact(attempt, "saved").is_some(),
        "what was restored is an artifact still"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_retires_finishes_first() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.shell("while [ ! -e go ]; do sleep 0.02; done");
    let attempt = rig.launch(launch);
    rig.until("it runs", |fake| {
        fake.phases(attempt)
            .last()
            .is_some_and(|phase| phase == "running")
    })
    .await;
    rig.fake.retire();
    std::fs::write(rig.work(attempt).join("go"), "").expect("written");
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    assert!(rig.wait_for_runner().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_without_a_server_and_without_work_ends() {
    let mut rig = Rig::new(json!({"idle_max_ms": 300})).await;
    let launch = rig.shell("while [ ! -e go ]; do sleep 0.02; done");
    let attempt = rig.launch(launch);
    rig.until("it runs", |fake| {
        fake.phases(attempt)
            .last()
            .is_some_and(|phase| phase == "running")
    })
    .await;
    rig.stop_server().await;
    std::fs::write(rig.work(attempt).join("go"), "").expect("written");
    let exit = rig
        .runner_dir()
        .join("spools")
        .join(attempt.to_string())
        .join("exit.json");
    rig.until("it has ended", |_| exit.exists()).await;
    // What is not told keeps it: the server may come back and ask.
    rig.start_server().await;
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    rig.until("it is forgotten", |fake| !fake.is_present(attempt))
        .await;
    rig.stop_server().await;
    assert!(rig.wait_for_runner().success());
}

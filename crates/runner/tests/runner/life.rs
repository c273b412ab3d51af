//! The life of an experiment.

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
    assert_eq!(rig.end_in_words(hello).await, "ExitCode: exit code 3");
    assert_eq!(rig.text(hello), "hello\noh\n");
    assert_eq!(rig.end_in_words(nothing).await, "Succeeded");
    assert_eq!(
        rig.end_in_words(missing).await,
        "Start: there is no file 'train.py' in the top of the code"
    );
    rig.until("they are forgotten", |fake| {
        ![hello, nothing, missing]
            .iter()
            .any(|attempt| fake.is_present(*attempt))
    })
    .await;
    let attempts = rig.runner_dir().join("attempts");
    rig.until("nothing is left on disk", |_| {
        std::fs::read_dir(&attempts).expect("there").count() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_trivial_experiments_need_few_requests() {
    const COUNT: usize = 300;
    let mut rig = Rig::new(json!({"cpus": 8})).await;
    let begin = std::time::Instant::now();
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

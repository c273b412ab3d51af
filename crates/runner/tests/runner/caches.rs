//! What is cached, after the machine lost power or something lost bytes.
//!
//! Nobody pulls a plug here.  What is on the disk after one was pulled is made by hand: names
//! without their bytes, no note that they had been written, and another boot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use grid_core::id::AttemptId;
use serde_json::json;

use crate::support::Rig;

const READ: &str = "cd $GRID_DATASTORES/data && cat a/plain && ./tool && cat far 2>/dev/null; true";
const TOOL: &[u8] = b"#!/bin/sh\necho tool\n";
const PLAIN: &[u8] = b"plain\n";

const ALL: [(&str, u32, &[u8]); 3] = [
    ("a/plain", 0o644, PLAIN),
    ("far", 0, b"from afar\n"),
    ("tool", 0o755, TOOL),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(folder).into_iter().flatten();
    all.filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().to_owned())
        .collect()
}

/// Takes all bytes from a file that nobody may write to.
fn empty(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("opened");
    let file = File::options().write(true).open(path).expect("opened");
    file.set_len(0).expect("emptied");
}

fn cache(rig: &Rig, part: &str) -> PathBuf {
    rig.runner_dir().join("cache").join(part)
}

/// Waits until all that a cache has is noted.
async fn until_noted(rig: &Rig, part: &str) -> PathBuf {
    let (things, notes) = (cache(rig, part), cache(rig, &format!("{part}.noted")));
    rig.until("it is on the disk", |_| {
        let names = fs::read_dir(&things).expect("there").flatten();
        let mut names =
            names.filter(|name| name.path().extension().is_none_or(|kind| kind != "new"));
        names.all(|name| notes.join(name.file_name()).exists())
    })
    .await;
    notes
}

/// The power fails and comes back; before that, nothing had been written to the disk.
async fn lose_power(rig: &mut Rig, parts: &[&str]) {
    for part in parts {
        until_noted(rig, part).await;
    }
    rig.kill_runner();
    for part in parts {
        let notes = cache(rig, &format!("{part}.noted"));
        for note in files(&notes) {
            fs::remove_file(note).expect("removed");
        }
        fs::write(notes.join(".boot"), "another").expect("written");
    }
    rig.start_runner();
}

/// The same order once more: what it says.
async fn again(rig: &mut Rig, attempt: AttemptId) -> String {
    let launch = rig.again(attempt);
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    rig.text(attempt)
}

fn without_notes(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("The datastore"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_was_not_on_the_disk_is_fetched_again() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.with_data(READ, &ALL);
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    let right = "plain\ntool\nfrom afar\n";
    assert_eq!(without_notes(&rig.text(attempt)), right);
    until_noted(&rig, "data/versions").await;
    for path in files(&cache(&rig, "data/blobs")) {
        empty(&path);
    }
    lose_power(&mut rig, &["data/versions"]).await;
    assert_eq!(without_notes(&again(&mut rig, attempt).await), right);
    assert_eq!(rig.fake.n_fetched(PLAIN), 2);
    // What was noted stays.
    until_noted(&rig, "data/versions").await;
    rig.kill_runner();
    let boot = cache(&rig, "data/versions.noted/.boot");
    fs::write(boot, "a third").expect("written");
    rig.start_runner();
    assert_eq!(without_notes(&again(&mut rig, attempt).await), right);
    assert_eq!(rig.fake.n_fetched(PLAIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_version_from_before_the_machine_went_down_is_not_gone_on_with() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.with_data(READ, &ALL);
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    until_noted(&rig, "data/versions").await;
    // As if it had never been whole; and its bytes were lost, but not their length.
    rig.kill_runner();
    let versions = cache(&rig, "data/versions");
    for entry in fs::read_dir(&versions).expect("there").flatten() {
        let fresh = format!("{}.0.new", entry.path().display());
        fs::rename(entry.path(), fresh).expect("renamed");
    }
    for path in files(&cache(&rig, "data/blobs")) {
        let length = fs::metadata(&path).expect("there").len();
        empty(&path);
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_len(length).expect("as long");
    }
    let boot = cache(&rig, "data/versions.noted/.boot");
    fs::write(boot, "another").expect("written");
    rig.start_runner();
    let right = "plain\ntool\nfrom afar\n";
    assert_eq!(without_notes(&again(&mut rig, attempt).await), right);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_cache_does_not_get_into_other_versions() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.with_data(READ, &ALL[..1]);
    let first = rig.launch(launch);
    rig.end(first).await;
    let launch = rig.with_data(READ, &ALL[2..]);
    let second = rig.launch(launch);
    rig.end(second).await;
    // Every file, and every list.
    for path in files(&cache(&rig, "data/blobs")) {
        empty(&path);
    }
    let launch = rig.with_data(READ, &ALL);
    let both = rig.launch(launch);
    assert_eq!(rig.end_in_words(both).await, "Succeeded");
    let right = "plain\ntool\nfrom afar\n";
    assert_eq!(without_notes(&rig.text(both)), right);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_not_on_the_disk_is_fetched_again() {
    let mut rig = Rig::new(json!({})).await;
    let files_of = [("lib.sh", 0o644, b"echo lib\n".as_slice())];
    let launch = rig.with_code(&["sh", "lib.sh"], &files_of);
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    assert_eq!(rig.text(attempt), "lib\n");
    until_noted(&rig, "trees").await;
    for path in files(&cache(&rig, "blobs")) {
        // As long as before, and nothing of it right.
        fs::write(path, b"exit 0 #\n").expect("written");
    }
    lose_power(&mut rig, &["trees"]).await;
    assert_eq!(again(&mut rig, attempt).await, "lib\n");
    // And what only lost its length, whyever.
    until_noted(&rig, "trees").await;
    rig.kill_runner();
    for path in files(&cache(&rig, "blobs")) {
        empty(&path);
    }
    rig.start_runner();
    assert_eq!(again(&mut rig, attempt).await, "lib\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_was_not_on_the_disk_is_built_again() {
    let mut rig = Rig::new(json!({})).await;
    let mut launch = rig.with_code(&["sh", "-c", "cat built"], &[("x", 0o644, b"")]);
    launch.spec.actions.on_build = vec!["echo yes >built".to_owned()];
    let attempt = rig.launch(launch);
    assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    assert_eq!(rig.text(attempt), "yes\n");
    until_noted(&rig, "envs").await;
    let built = files(&cache(&rig, "envs"));
    let built = built.iter().find(|path| path.ends_with("tree/built"));
    empty(built.expect("it was built"));
    lose_power(&mut rig, &["envs"]).await;
    assert_eq!(again(&mut rig, attempt).await, "yes\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_somebody_removed_while_nothing_ran_is_made_again() {
    let mut rig = Rig::new(json!({})).await;
    let launch = rig.with_data(READ, &ALL);
    let data = rig.launch(launch);
    let files_of = [("lib.sh", 0o644, b"echo lib\n".as_slice())];
    let launch = rig.with_code(&["sh", "lib.sh"], &files_of);
    let code = rig.launch(launch);
    let mut launch = rig.with_code(&["sh", "-c", "cat built"], &[("x", 0o644, b"")]);
    launch.spec.actions.on_build = vec!["echo yes >built".to_owned()];
    let built = rig.launch(launch);
    for attempt in [data, code, built] {
        assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
    }
    for part in ["data/versions", "trees", "envs"] {
        until_noted(&rig, part).await;
    }
    for part in ["data", ""] {
        fs::remove_dir_all(cache(&rig, part)).expect("removed");
        let said = again(&mut rig, data).await;
        assert_eq!(without_notes(&said), "plain\ntool\nfrom afar\n");
        assert_eq!(again(&mut rig, code).await, "lib\n");
        assert_eq!(again(&mut rig, built).await, "yes\n");
        for part in ["data/versions", "trees", "envs"] {
            until_noted(&rig, part).await;
        }
    }
}

/// The files of one of several versions, most of which all of them have.
fn many(version: usize) -> Vec<(String, String)> {
    let content = |number: usize| match number % 4 {
        0 => format!("{number} of version {version}\n"),
        _ => format!("{number} of all\n"),
    };
    let names = (0..200).map(|number| (format!("{}/{number:03}", number / 50), content(number)));
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mounted_data_is_whole_while_versions_come_and_go_and_the_runner_is_killed() {
    const VERSIONS: usize = 6;
    const ROUNDS: usize = 12;
    // There is never room for what nobody uses.
    let mut rig = Rig::new(json!({"data_cache_bytes": 1, "cpus": 3})).await;
    let mut launches = Vec::new();
    for version in 0..VERSIONS {
        let files = many(version);
        let files: Vec<(&str, u32, &[u8])> = files
            .iter()
            .map(|(path, text)| (path.as_str(), 0o644, text.as_bytes()))
            .collect();
        launches.push(rig.with_data("cat $GRID_DATASTORES/data/*/*", &files));
    }
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        for step in 0..5 {
            let version = (round * 7 + step * step) % VERSIONS;
            let fresh = rig.order(&["true"]);
            let launch = grid_api::runner::Launch {
                attempt: fresh.attempt,
                workload: fresh.workload,
                experiment: fresh.experiment,
                ..launches[version].clone()
            };
            all.push((version, rig.launch(launch)));
        }
        // Sooner or later in what it does.
        let wanted = all.len() - 5 + round % 5;
        rig.until("some have ended", |fake| fake.n_ended() >= wanted)
            .await;
        rig.kill_runner();
        rig.start_runner();
    }
    for (version, attempt) in all {
        assert_eq!(rig.end_in_words(attempt).await, "Succeeded");
        let expected: String = many(version).into_iter().map(|(_, text)| text).collect();
        assert_eq!(without_notes(&rig.text(attempt)), expected);
    }
}

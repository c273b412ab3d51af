//! Limits with real control groups, where the tests may make some.

use std::collections::HashSet;
use std::fs;

use grid_runner::keeper::protocol::{Ending, Exit, Spawn};
use grid_runner::limits::{Driver, Group, Kind, Limits};

use crate::support::{Keeper, eventually, is_alive, skipped};

/// The limits of a node that exists for one test.
struct Node(Driver);

impl Node {
    /// `None`, with a message, where this cannot be enforced.
    fn new(test: &str, kind: Kind) -> Option<Self> {
        let driver = Driver::detect(&format!("test-{}-{test}", std::process::id()));
        if driver.enforced().contains(&kind) {
            return Some(Self(driver));
        }
        skipped(&driver.describe().unwrap_or_default());
        None
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.0.clean_up(&HashSet::new());
        self.0.retire();
    }
}

async fn run(keeper: &Keeper, group: &Group, key: &str, script: &str) -> Exit {
    let spawn = Spawn {
        cgroup: group.procs_paths(),
        ..keeper.shell(key, script)
    };
    keeper.client.spawn(spawn).await.unwrap();
    keeper.wait(key).await
}

#[tokio::test]
async fn too_much_memory_is_the_end_and_is_known_as_such() {
    let Some(Node(driver)) = &Node::new("memory", Kind::Memory) else {
        return;
    };
    let keeper = Keeper::start().await;
    let limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    let group = driver.create("greedy", &limits).unwrap();
    let exit = run(&keeper, &group, "greedy", "exec tail /dev/zero").await;
    assert_eq!(exit.how, Ending::Signal { signal: 9 });
    let used = group.used();
    assert!(used.oom_kills >= 1, "{used:?}");
    assert!(
        used.peak_memory_bytes
            .is_none_or(|peak| peak <= 33 << 20 && peak > 16 << 20),
        "{used:?}"
    );
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(!driver.open("greedy").exists());

    let group = driver.create("modest", &limits).unwrap();
    assert!(
        run(&keeper, &group, "modest", "true")
            .await
            .how
            .is_success()
    );
    assert_eq!(group.used().oom_kills, 0);
    group.remove().unwrap();
}

#[tokio::test]
async fn too_many_processes_are_refused() {
    let Some(Node(driver)) = &Node::new("pids", Kind::Pids) else {
        return;
    };
    let keeper = Keeper::start().await;
    let group = driver
        .create(
            "many",
            &Limits {
                pids: Some(8),
                ..Limits::default()
            },
        )
        .unwrap();
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1008 & done; echo all";
    let exit = run(&keeper, &group, "many", script).await;
    assert!(!exit.how.is_success(), "{exit:?}");
    assert!(
        keeper.text("many").contains("fork"),
        "{}",
        keeper.text("many")
    );
    group.remove().unwrap();
}

#[tokio::test]
async fn too_much_cpu_is_slowed_down() {
    let Some(Node(driver)) = &Node::new("cpu", Kind::Cpu) else {
        return;
    };
    let keeper = Keeper::start().await;
    let group = driver
        .create(
            "busy",
            &Limits {
                cpus: Some(0.2),
                ..Limits::default()
            },
        )
        .unwrap();
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    assert!(run(&keeper, &group, "busy", script).await.how.is_success());
    let throttled = group.procs_paths().iter().any(|procs| {
        let stat = fs::read_to_string(procs.with_file_name("cpu.stat")).unwrap_or_default();
        stat.lines().any(|line| {
            line.strip_prefix("nr_throttled ")
                .is_some_and(|count| count != "0")
        })
    });
    assert!(throttled);
    assert!(
        group.used().cpu_us.is_none_or(|used| used > 10_000),
        "{:?}",
        group.used()
    );
    group.remove().unwrap();
}

#[tokio::test]
async fn nobody_leaves_a_group_and_a_former_runner_leaves_nothing() {
    let Some(Node(driver)) = &Node::new("left", Kind::Pids) else {
        return;
    };
    let mut keeper = Keeper::start().await;
    // Out of the session and without its environment, but not out of the group.
    let script = "setsid env -i /bin/sh -c 'echo $$; exec /bin/sleep 1009' & sleep 0.3";
    let group = driver.create("ended", &Limits::default()).unwrap();
    assert!(run(&keeper, &group, "ended", script).await.how.is_success());
    let pid = keeper.text("ended").trim().parse().unwrap();
    assert!(!is_alive(pid), "the end was announced too early");

    let script = "setsid env -i /bin/sh -c 'echo $$; exec /bin/sleep 1010' & sleep 1011";
    let left = driver.create("left", &Limits::default()).unwrap();
    let spawn = Spawn {
        cgroup: left.procs_paths(),
        ..keeper.shell("left", script)
    };
    keeper.client.spawn(spawn).await.unwrap();
    eventually("it wrote", || keeper.text("left").lines().count() == 1).await;
    let pid: i32 = keeper.text("left").trim().parse().unwrap();
    keeper.kill();
    while keeper.events.next().await.is_some() {}
    assert!(is_alive(pid));
    keeper.reconnect().await;
    assert_eq!(keeper.wait("left").await.how, Ending::Lost);
    assert!(!is_alive(pid));

    let kept = driver.create("kept", &Limits::default()).unwrap();
    let problems = driver.clean_up(&HashSet::from(["kept".to_owned()]));
    assert!(problems.is_empty(), "{problems:?}");
    assert!(
        driver.open("kept").exists()
            && !driver.open("left").exists()
            && !driver.open("ended").exists()
    );
    kept.remove().unwrap();
}

#[test]
fn what_is_not_enforced_is_said() {
    let driver = Driver::none("a reason");
    let said = driver.describe().unwrap();
    assert_eq!(
        said,
        "limits of CPU, memory, number of processes are not enforced: a reason"
    );
    let group = driver
        .create(
            "any",
            &Limits {
                pids: Some(1),
                ..Limits::default()
            },
        )
        .unwrap();
    assert!(!group.exists() && group.procs_paths().is_empty() && group.remove().is_ok());
}

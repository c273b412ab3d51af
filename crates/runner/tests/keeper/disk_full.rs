//! The keeper on a disk that is full: nothing is lost, and it goes on when there is room.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Keeper, read, skipped};
use grid_runner::keeper::client::Event;
use grid_runner::keeper::protocol::{Ending, Spawn};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with a message, where disks cannot be mounted.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        match mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=1m")) {
            Ok(()) => Some(Self(at.to_owned())),
            Err(error) => {
                skipped(&format!(
                    "a full disk needs the right to mount one: {error}"
                ));
                None
            }
        }
    }

    fn grow(&self) {
        mount_remount(&self.0, MountFlags::empty(), c"size=64m").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn numbers(count: usize) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

async fn stalled(keeper: &mut Keeper, key: &str) -> String {
    loop {
        let event = tokio::time::timeout(crate::support::PATIENCE, keeper.events.next()).await;
        match event.unwrap().unwrap() {
            Event::Stalled { key: of, reason } if of == key => return reason,
            Event::Ended { key: of, exit } => assert_ne!(of, key, "{exit:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let mut keeper = Keeper::start().await;
    let Some(disk) = Disk::mount(&keeper.dir.path().join("small")) else {
        return;
    };
    let on_disk = |spawn: Spawn| Spawn {
        spool_dir: disk.0.join(&spawn.key),
        ..spawn
    };
    // More than the disk and the pipe hold together: this one blocks.
    let long = on_disk(keeper.shell("long", "seq 1 700000; exit 3"));
    keeper.client.spawn(long.clone()).await.unwrap();
    let reason = stalled(&mut keeper, "long").await;
    assert!(
        reason.contains("No space left") && reason.contains("long"),
        "{reason}"
    );
    let views = keeper.client.list().await.unwrap();
    assert_eq!(views[0].stalled, Some(reason));

    // Less than a pipe holds: this one ends, and what it wrote waits.
    let short = on_disk(keeper.shell("short", "seq 1 5000; exit 4"));
    keeper
        .client
        .spawn(Spawn {
            spool_dir: keeper.spool("elsewhere"),
            ..keeper.shell("other", "true")
        })
        .await
        .unwrap();
    let started = keeper.client.spawn(short.clone()).await;
    assert!(keeper.wait("other").await.how.is_success());
    let longer_than_any_end = Duration::from_millis(2_500);
    assert!(
        tokio::time::timeout(longer_than_any_end, keeper.client.wait("long"))
            .await
            .is_err()
    );

    disk.grow();
    assert_eq!(keeper.wait("long").await.how, Ending::Code { code: 3 });
    let all: Vec<u8> = read(&long.spool_dir)
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    assert!(String::from_utf8(all).unwrap() == numbers(700_000));
    if started.is_err() {
        keeper.client.spawn(short.clone()).await.unwrap();
    }
    assert_eq!(keeper.wait("short").await.how, Ending::Code { code: 4 });
    let all: Vec<u8> = read(&short.spool_dir)
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    assert!(String::from_utf8(all).unwrap() == numbers(5_000));
}

#[tokio::test]
async fn an_ended_task_waits_for_room_with_what_it_wrote() {
    let mut keeper = Keeper::start().await;
    let Some(disk) = Disk::mount(&keeper.dir.path().join("small")) else {
        return;
    };
    let spool_dir = disk.0.join("a");
    // The pipe holds what the disk does not: the process ends all the same.
    let script = "seq 1 160000; sleep 0.5; seq 1 10000; exit 5";
    let spawn = Spawn {
        spool_dir: spool_dir.clone(),
        ..keeper.shell("a", script)
    };
    keeper.client.spawn(spawn).await.unwrap();
    stalled(&mut keeper, "a").await;
    let longer_than_any_end = Duration::from_millis(4_000);
    assert!(
        tokio::time::timeout(longer_than_any_end, keeper.client.wait("a"))
            .await
            .is_err()
    );
    disk.grow();
    assert_eq!(keeper.wait("a").await.how, Ending::Code { code: 5 });
    let all: Vec<u8> = read(&spool_dir)
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    assert!(String::from_utf8(all).unwrap() == numbers(160_000) + &numbers(10_000));
}

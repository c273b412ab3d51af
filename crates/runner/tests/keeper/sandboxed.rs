//! What sandboxed processes see, and how signals and exit codes pass.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use grid_runner::detect;
use grid_runner::keeper::protocol::{Ending, Spawn};
use grid_runner::keeper::reader::Stream;
use grid_runner::sandbox::{Isolation, Room, Sandbox};

use crate::support::{Keeper, eventually, is_alive, skipped};

/// Bubblewrap; `None`, with a message, where it does not work.
fn bubblewrap() -> Option<Isolation> {
    match detect::bubblewrap(OsStr::new("/usr/bin:/bin:/usr/local/bin")) {
        Ok(program) => Some(Isolation::Bubblewrap(program)),
        Err(reason) => {
            skipped(&reason);
            None
        }
    }
}

/// A script in a room: `work` may be written to, `data` may be read, all else in the
/// keeper's folder is hidden.
fn enclosed(isolation: &Isolation, keeper: &Keeper, key: &str, script: &str) -> Spawn {
    let root = keeper.dir.path();
    let work = root.join("work");
    for folder in ["work", "data", "others"] {
        if !root.join(folder).exists() {
            fs::create_dir(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("file"), folder).unwrap();
            let owner = fs::metadata(root).unwrap();
            let (uid, gid) = {
                use std::os::unix::fs::MetadataExt;
                (owner.uid(), owner.gid())
            };
            std::os::unix::fs::chown(root.join(folder), Some(uid), Some(gid)).unwrap();
        }
    }
    let room = Room {
        writable: vec![work.clone()],
        readable: vec![root.join("data")],
        hidden: vec![root.to_owned()],
        ..Room::default()
    };
    isolation.enclose(
        Spawn {
            cwd: work,
            ..keeper.shell(key, script)
        },
        &room,
    )
}

async fn run(isolation: &Isolation, keeper: &Keeper, key: &str, script: &str) -> (Ending, String) {
    keeper
        .client
        .spawn(enclosed(isolation, keeper, key, script))
        .await
        .unwrap();
    let exit = keeper.wait(key).await;
    (exit.how, keeper.text(key))
}

async fn check_view(isolation: &Isolation, keeper: &Keeper) {
    let host_file = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let root = keeper.dir.path().display();
    let script = format!(
        "cat file {root}/data/file; echo; echo x > new; ls {root}; echo --
         ls -A /root /home /run /tmp | grep -v -e : -e resolv -e '^$'; echo --
         touch /usr/x {root}/data/x 2>&1 | grep -c Read-only
         ls /proc | grep -c '^[0-9]'
         grep CapEff /proc/self/status; cat /etc/shadow >/dev/null 2>&1; echo $?
         echo y > /tmp/y && echo z > /dev/shm/z && cat /tmp/y /dev/shm/z; pwd; env"
    );
    let (how, text) = run(isolation, keeper, "view", &script).await;
    assert_eq!(how, Ending::Code { code: 0 }, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let top = root.to_string().split('/').nth(2).unwrap().to_owned();
    assert_eq!(
        lines[..6],
        ["workdata", "data", "work", "--", top.as_str(), "--"],
        "{text}"
    );
    assert_eq!(lines[6], "2", "{text}");
    assert!(lines[7].parse::<u32>().unwrap() <= 6, "{text}");
    assert_eq!(
        lines[8..12],
        ["CapEff:\t0000000000000000", "1", "y", "z"],
        "{text}"
    );
    assert_eq!(lines[12], format!("{root}/work"));
    let names: Vec<&str> = lines[13..]
        .iter()
        .map(|line| line.split('=').next().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| ["PATH", "PWD", "OLDPWD", "GRID_KEEPER_TASK", "_", "SHLVL"].contains(name)),
        "{names:?}"
    );
    assert!(host_file.path().exists() && keeper.dir.path().join("work/new").exists());
    assert!(!std::path::Path::new("/tmp/y").exists());
}

async fn check_ends(isolation: &Isolation, keeper: &Keeper) {
    let ended = |key, script| run(isolation, keeper, key, script);
    assert_eq!(ended("zero", "true").await.0, Ending::Code { code: 0 });
    assert_eq!(ended("three", "exit 3").await.0, Ending::Code { code: 3 });
    assert_eq!(ended("one", "exit 1").await.0, Ending::Code { code: 1 });
    let killed = Ending::CodeOrSignal {
        code: 137,
        signal: 9,
    };
    assert_eq!(ended("killed", "kill -9 $$").await.0, killed);
    assert_eq!(killed.signal(), Some(9));

    let mut missing = enclosed(isolation, keeper, "missing", "");
    let last = missing.argv.len() - 3;
    missing.argv.splice(last.., ["/no/such/program".to_owned()]);
    keeper.client.spawn(missing).await.unwrap();
    assert_eq!(
        keeper.wait("missing").await.how,
        Ending::SandboxFailed { code: 1 }
    );
    assert!(keeper.text("missing").contains("/no/such/program"));

    // Who stays behind goes with the sandbox.
    let sleeper = "1000.017";
    ended(
        "behind",
        &format!("setsid env -i sleep {sleeper} & sleep 0.2"),
    )
    .await;
    eventually("it is dead", || !is_running(sleeper)).await;
}

async fn check_signals(isolation: &Isolation, keeper: &Keeper) {
    let script = "trap 'echo saved > saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    for (key, whole_group) in [("group", true), ("main", false)] {
        keeper
            .client
            .spawn(enclosed(isolation, keeper, key, script))
            .await
            .unwrap();
        eventually("it is ready", || keeper.text(key).contains("ready")).await;
        keeper.client.signal(key, 15, whole_group).await.unwrap();
        assert_eq!(keeper.wait(key).await.how, Ending::Code { code: 0 });
        let saved = keeper.dir.path().join("work/saved");
        assert_eq!(fs::read_to_string(&saved).unwrap(), "saved\n");
        fs::remove_file(saved).unwrap();
    }
    // The whole group: a child that does not know of the signal gets it, too.
    let script = "sleep 1000.018 & trap 'wait; echo all gone; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    keeper
        .client
        .spawn(enclosed(isolation, keeper, "child", script))
        .await
        .unwrap();
    eventually("it is ready", || keeper.text("child").contains("ready")).await;
    keeper.client.signal("child", 15, true).await.unwrap();
    assert_eq!(keeper.wait("child").await.how, Ending::Code { code: 5 });
    assert!(
        keeper
            .stream("child", Stream::Stdout)
            .ends_with(b"all gone\n")
    );

    // At any moment of the start: it ends, and is not left behind.
    for number in 0..10 {
        let key = format!("early-{number}");
        keeper
            .client
            .spawn(enclosed(isolation, keeper, &key, "sleep 1000.019"))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(number)).await;
        keeper.client.signal(&key, 15, true).await.unwrap();
        let how = keeper.wait(&key).await.how;
        assert_eq!(how.signal(), Some(15), "{how:?}");
    }
    keeper
        .client
        .spawn(enclosed(
            isolation,
            keeper,
            "deaf",
            "trap '' TERM; echo ready; sleep 1000.020",
        ))
        .await
        .unwrap();
    eventually("it is ready", || keeper.text("deaf").contains("ready")).await;
    let exit = keeper
        .client
        .stop("deaf", Duration::from_millis(200))
        .await
        .unwrap();
    assert_eq!(exit.how, Ending::Signal { signal: 9 });
    eventually("it is dead", || !is_running("1000.020")).await;
}

/// Whether a `sleep` with this argument runs.
fn is_running(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_it = words == format!("sleep\0{argument}\0").into_bytes();
        is_it
            && entry
                .file_name()
                .to_str()
                .and_then(|pid| pid.parse().ok())
                .is_some_and(is_alive)
    })
}

#[tokio::test]
async fn as_the_user_of_the_tests() {
    let Some(isolation) = bubblewrap() else {
        return;
    };
    let keeper = Keeper::start().await;
    check_view(&isolation, &keeper).await;
    check_ends(&isolation, &keeper).await;
    check_signals(&isolation, &keeper).await;
}

#[tokio::test]
async fn as_an_ordinary_user() {
    let Some(isolation) = bubblewrap() else {
        return;
    };
    let Some(keeper) = Keeper::start_as_nobody().await else {
        return;
    };
    check_view(&isolation, &keeper).await;
    check_ends(&isolation, &keeper).await;
    check_signals(&isolation, &keeper).await;
}

#[tokio::test]
async fn a_library_to_preload_is_not_loaded_outside() {
    let Some(isolation) = bubblewrap() else {
        return;
    };
    let keeper = Keeper::start().await;
    let mut spawn = keeper.shell("a", "echo $LD_PRELOAD");
    spawn
        .env
        .push(("LD_PRELOAD".to_owned(), "/no/such/library.so".to_owned()));
    spawn.cwd = "/".into();
    keeper
        .client
        .spawn(isolation.enclose(spawn, &Room::default()))
        .await
        .unwrap();
    assert!(keeper.wait("a").await.how.is_success());
    // Programs inside complain, once each; bubblewrap would have been one more.
    let text = keeper.text("a");
    assert_eq!(text.matches("cannot be preloaded").count(), 1, "{text}");
    assert_eq!(keeper.stream("a", Stream::Stdout), b"/no/such/library.so\n");
}

#[tokio::test]
async fn a_sandbox_dies_with_its_keeper() {
    let Some(isolation) = bubblewrap() else {
        return;
    };
    let mut keeper = Keeper::start().await;
    keeper
        .client
        .spawn(enclosed(
            &isolation,
            &keeper,
            "a",
            "echo ready; sleep 1000.021",
        ))
        .await
        .unwrap();
    eventually("it is ready", || keeper.text("a").contains("ready")).await;
    keeper.kill();
    eventually("it is dead", || !is_running("1000.021")).await;
    while keeper.events.next().await.is_some() {}
    keeper.reconnect().await;
    assert_eq!(keeper.wait("a").await.how, Ending::Lost);
    assert_eq!(keeper.text("a"), "ready\n");
}

#[test]
fn plain_is_warned_of() {
    let plain = Sandbox::Off.resolve(&Err(String::new())).unwrap();
    assert!(
        plain
            .warning()
            .is_some_and(|warning| warning.contains("bubblewrap"))
    );
}

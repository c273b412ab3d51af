//! The keeper with real processes: what they wrote is kept, how they ended is known,
//! and nothing is left behind.

use std::fs;
use std::time::Duration;

use grid_runner::keeper::client::{Error, Event};
use grid_runner::keeper::protocol::{Ending, Refused, Spawn, TaskState};
use grid_runner::keeper::reader::Stream;

use crate::support::{Keeper, children, eventually, is_alive};

#[tokio::test]
async fn output_and_codes() {
    let keeper = Keeper::start().await;
    let exit = keeper.run("a", "echo out; echo err >&2; exit 7").await;
    assert_eq!(exit.how, Ending::Code { code: 7 });
    assert!(exit.started_at_ms > 1_600_000_000_000 && exit.ended_at_ms >= exit.started_at_ms);
    assert!(exit.usage.max_rss_bytes > 100_000, "{exit:?}");
    assert_eq!(keeper.stream("a", Stream::Stdout), b"out\n");
    assert_eq!(keeper.stream("a", Stream::Stderr), b"err\n");

    for (key, script, how) in [
        ("b", "true", Ending::Code { code: 0 }),
        ("c", "kill -9 $$", Ending::Signal { signal: 9 }),
        ("d", "kill -TERM $$", Ending::Signal { signal: 15 }),
        ("e", "exit 255", Ending::Code { code: 255 }),
    ] {
        assert_eq!(keeper.run(key, script).await.how, how, "{script}");
        assert!(keeper.read(key).is_empty());
    }
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_nothing_else() {
    let keeper = Keeper::start().await;
    let script = "env; pwd; cat /proc/self/status; ls -l /proc/self/fd; umask; \
                  cut -d ' ' -f 19 /proc/self/stat";
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let inherited = own.lines().find_map(|line| line.strip_prefix("Umask:\t"));
    // With something to do before the program is executed, it is started another way.
    let ways = [
        ("plain", None, None, [inherited.unwrap(), "0"]),
        ("set", Some(0o027), Some(3), ["0027", "3"]),
    ];
    for (key, umask, nice, last) in ways {
        let mut spawn = Spawn {
            umask,
            nice,
            ..keeper.shell(key, script)
        };
        spawn.env.push(("GIVEN".to_owned(), "a b\nc".to_owned()));
        keeper.client.spawn(spawn).await.unwrap();
        assert!(keeper.wait(key).await.how.is_success());
        let text = keeper.text(key);
        assert!(text.contains("GIVEN=a b\nc\n"), "{text}");
        assert!(
            !text.contains("GRID_TEST_KEEPER_DIR") && !text.contains("HOME="),
            "{text}"
        );
        assert!(
            text.contains(&format!("\n{}\n", keeper.dir.path().display())),
            "{text}"
        );
        for mask in ["SigBlk:\t", "SigIgn:\t"] {
            let signals = text
                .lines()
                .find_map(|line| line.strip_prefix(mask))
                .unwrap();
            // Those beyond 31 are inherited from whoever started the tests.
            let signals = u64::from_str_radix(signals, 16).unwrap() & 0x7fff_ffff;
            assert_eq!(signals, 0, "{mask}");
        }
        // Standard input, output and error, and the folder that `ls` reads.
        let files: Vec<&str> = text.lines().filter(|line| line.contains(" -> ")).collect();
        assert_eq!(files.len(), 4, "{files:?}");
        assert!(files[0].ends_with("/dev/null"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[lines.len() - 2..], last, "umask and nice");
    }
}

#[tokio::test]
async fn programs_are_found_as_a_shell_finds_them() {
    let keeper = Keeper::start().await;
    let script = keeper.dir.path().join("script");
    fs::write(&script, "echo plain $0 $1").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (key, program, expected) in [
        ("looked-up", "echo", "x\n".to_owned()),
        ("relative", "./script", "plain ./script x\n".to_owned()),
        (
            "absolute",
            script.to_str().unwrap(),
            format!("plain {} x\n", script.display()),
        ),
    ] {
        let argv = vec![program.to_owned(), "x".to_owned()];
        keeper
            .client
            .spawn(Spawn {
                argv,
                ..keeper.shell(key, "")
            })
            .await
            .unwrap();
        assert!(keeper.wait(key).await.how.is_success());
        assert_eq!(keeper.text(key), expected);
    }
}

#[tokio::test]
async fn what_cannot_start_is_said_and_can_be_tried_again() {
    let keeper = Keeper::start().await;
    let refused = |result| match result {
        Err(Error::Refused { why, message }) => (why, message),
        other => panic!("{other:?}"),
    };
    let program = Spawn {
        argv: vec!["/no/such/program".to_owned()],
        ..keeper.shell("a", "")
    };
    let (why, message) = refused(keeper.client.spawn(program).await);
    assert_eq!(why, Refused::CannotStart);
    assert!(
        message.contains("/no/such/program") && message.contains("No such file"),
        "{message}"
    );
    let lookup = Spawn {
        argv: vec!["no-such-program".to_owned()],
        ..keeper.shell("a", "")
    };
    let (why, message) = refused(keeper.client.spawn(lookup).await);
    assert!(
        why == Refused::CannotStart && message.contains("in PATH"),
        "{message}"
    );
    let folder = Spawn {
        cwd: "/no/such/folder".into(),
        ..keeper.shell("a", "")
    };
    assert!(
        refused(keeper.client.spawn(folder).await)
            .1
            .contains("/no/such/folder")
    );
    let cgroup = Spawn {
        cgroup: vec!["/no/such/cgroup.procs".into()],
        ..keeper.shell("a", "")
    };
    assert!(
        refused(keeper.client.spawn(cgroup).await)
            .1
            .contains("/no/such/cgroup.procs")
    );
    let nothing = Spawn {
        argv: Vec::new(),
        ..keeper.shell("a", "")
    };
    assert_eq!(
        refused(keeper.client.spawn(nothing).await).0,
        Refused::Invalid
    );
    assert_eq!(refused(keeper.client.look("a").await).0, Refused::Unknown);
    assert_eq!(
        keeper.run("a", "exit 3").await.how,
        Ending::Code { code: 3 }
    );
    let none_left = fs::read_dir(format!("/proc/{}/task", keeper.pid())).is_ok()
        && children(keeper.pid()).is_empty();
    assert!(none_left);
}

#[tokio::test]
async fn the_same_key_is_started_once() {
    let keeper = Keeper::start().await;
    let marker = keeper.dir.path().join("marker");
    let spawn = keeper.shell("a", &format!("echo x >> {}; sleep 1000", marker.display()));
    let (first, second) = tokio::join!(
        keeper.client.spawn(spawn.clone()),
        keeper.client.spawn(spawn.clone())
    );
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    assert_eq!(first, keeper.client.spawn(spawn.clone()).await.unwrap());
    assert!(matches!(first, TaskState::Running { .. }), "{first:?}");
    assert!(matches!(
        keeper.client.forget("a").await,
        Err(Error::Refused {
            why: Refused::Running,
            ..
        })
    ));
    let exit = keeper
        .client
        .stop("a", Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(exit.how, Ending::Signal { signal: 15 });
    assert_eq!(
        keeper.client.spawn(spawn.clone()).await.unwrap(),
        TaskState::Ended { exit }
    );
    assert!(fs::read_to_string(&marker).unwrap_or_default().len() <= 2);
    keeper.client.forget("a").await.unwrap();
    keeper.client.forget("a").await.unwrap();
    assert!(keeper.client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn every_byte_in_order_though_clients_come_and_go() {
    let mut keeper = Keeper::start().await;
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 300)) = 0 ] && sleep 0.02; done";
    keeper
        .client
        .spawn(keeper.shell("a", script))
        .await
        .unwrap();
    let keeper_pid = keeper.pid();
    for _ in 0..20 {
        keeper.reconnect().await;
    }
    assert_eq!(keeper.pid(), keeper_pid);
    assert!(keeper.wait("a").await.how.is_success());
    let expected: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(keeper.text("a"), expected);
}

#[tokio::test]
async fn events_come_without_being_asked_for() {
    let mut keeper = Keeper::start().await;
    keeper
        .client
        .spawn(keeper.shell("a", "echo one; read x; echo two"))
        .await
        .unwrap();
    let mut grown = 0;
    let exit = loop {
        match tokio::time::timeout(crate::support::PATIENCE, keeper.events.next())
            .await
            .unwrap()
            .unwrap()
        {
            Event::Grew { key, total_bytes } => {
                assert_eq!(key, "a");
                assert!(total_bytes > grown);
                grown = total_bytes;
            }
            Event::Ended { exit, .. } => break exit,
            Event::Stalled { reason, .. } => panic!("{reason}"),
        }
    };
    assert_eq!(grown, 8);
    assert!(exit.how.is_success());
}

#[tokio::test]
async fn a_lot_of_output_arrives_whole_beside_others() {
    let keeper = Keeper::start().await;
    let script = "head -c 200000000 /dev/zero | tr '\\0' 'x'; echo end >&2";
    keeper
        .client
        .spawn(keeper.shell("big", script))
        .await
        .unwrap();
    assert!(keeper.run("small", "echo hi").await.how.is_success());
    assert_eq!(keeper.text("small"), "hi\n");
    assert!(keeper.wait("big").await.how.is_success());
    let out = keeper.stream("big", Stream::Stdout);
    assert_eq!(out.len(), 200_000_000);
    assert!(out.iter().all(|byte| *byte == b'x'));
    assert_eq!(keeper.stream("big", Stream::Stderr), b"end\n");
}

#[tokio::test]
async fn who_stays_behind_is_killed() {
    let keeper = Keeper::start().await;
    let exit = keeper.run("fork", "sleep 1001 & echo $!; exit 4").await;
    assert_eq!(exit.how, Ending::Code { code: 4 });
    let exit = keeper
        .run(
            "left",
            "setsid sh -c 'echo $$; exec sleep 1002' & sleep 0.3; exit 5",
        )
        .await;
    assert_eq!(exit.how, Ending::Code { code: 5 });
    let exit = keeper
        .run(
            "twice",
            "(setsid sh -c 'sleep 1003 & echo $!' &) ; sleep 0.3",
        )
        .await;
    assert!(exit.how.is_success());
    for key in ["fork", "left", "twice"] {
        let pid: i32 = keeper.text(key).trim().parse().unwrap();
        eventually("it is dead", || !is_alive(pid)).await;
    }
    eventually("orphans are reaped", || children(keeper.pid()).is_empty()).await;
}

#[tokio::test]
async fn who_hides_and_holds_the_pipe_does_not_hold_up_the_end() {
    let keeper = Keeper::start().await;
    let script =
        "setsid env -i /bin/sh -c 'echo $$; exec /bin/sleep 1004' & sleep 0.3; echo done; exit 6";
    let exit = keeper.run("a", script).await;
    assert_eq!(exit.how, Ending::Code { code: 6 });
    let text = keeper.text("a");
    assert!(text.ends_with("done\n"), "{text}");
    crate::support::kill(text.lines().next().unwrap().parse().unwrap());
}

#[tokio::test]
async fn closed_streams_are_no_end() {
    let keeper = Keeper::start().await;
    let file = keeper.dir.path().join("later");
    let script = format!(
        "echo before; exec >&- 2>&-; sleep 0.2; echo later > {}; exit 9",
        file.display()
    );
    assert_eq!(keeper.run("a", &script).await.how, Ending::Code { code: 9 });
    assert_eq!(keeper.text("a"), "before\n");
    assert_eq!(fs::read_to_string(file).unwrap(), "later\n");
}

#[tokio::test]
async fn stop_is_gentle_first_and_reaches_the_whole_group() {
    let keeper = Keeper::start().await;
    let script = "trap '' TERM; sleep 1005 & echo $!; trap 'echo got it; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    keeper
        .client
        .spawn(keeper.shell("kind", script))
        .await
        .unwrap();
    eventually("it is ready", || keeper.text("kind").contains("ready")).await;
    let exit = keeper
        .client
        .stop("kind", Duration::from_secs(50))
        .await
        .unwrap();
    assert_eq!(exit.how, Ending::Code { code: 0 });
    let text = String::from_utf8(keeper.stream("kind", Stream::Stdout)).unwrap();
    assert!(text.ends_with("got it\n"), "{text}");
    let pid = text.lines().next().unwrap().parse().unwrap();
    eventually("its child is dead", || !is_alive(pid)).await;

    keeper
        .client
        .spawn(keeper.shell("deaf", "trap '' TERM; echo ready; sleep 1006"))
        .await
        .unwrap();
    eventually("it is ready", || keeper.text("deaf").contains("ready")).await;
    let exit = keeper
        .client
        .stop("deaf", Duration::from_millis(200))
        .await
        .unwrap();
    assert_eq!(exit.how, Ending::Signal { signal: 9 });
    assert!(keeper.client.signal("deaf", 15, true).await.is_ok());
    assert!(keeper.client.signal("nobody", 15, true).await.is_err());
}

#[tokio::test]
async fn five_hundred_tasks_leave_nothing() {
    let keeper = Keeper::start().await;
    keeper.run("warm", "echo x").await;
    let files = || {
        fs::read_dir(format!("/proc/{}/fd", keeper.pid()))
            .unwrap()
            .count()
    };
    let threads = || {
        fs::read_dir(format!("/proc/{}/task", keeper.pid()))
            .unwrap()
            .count()
    };
    let before = (files(), threads());
    let mut running = tokio::task::JoinSet::new();
    for number in 0..500 {
        let (client, spawn) = (
            keeper.client.clone(),
            keeper.shell(&number.to_string(), "echo $0; echo e >&2"),
        );
        running.spawn(async move {
            let key = spawn.key.clone();
            client.spawn(spawn).await.unwrap();
            let exit = client.wait(&key).await.unwrap();
            assert!(exit.how.is_success());
        });
        if running.len() >= 16 {
            running.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    for number in 0..500 {
        assert_eq!(keeper.stream(&number.to_string(), Stream::Stderr), b"e\n");
        keeper.client.forget(&number.to_string()).await.unwrap();
    }
    assert_eq!(keeper.client.list().await.unwrap().len(), 1);
    assert_eq!((files(), threads()), before);
    assert_eq!(children(keeper.pid()), Vec::<i32>::new());
}

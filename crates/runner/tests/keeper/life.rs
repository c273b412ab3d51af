//! Keepers come and go: told to, killed, started by many at once, spoken to badly.

use std::fs;

use grid_runner::keeper::client::Error;
use grid_runner::keeper::protocol::{Ending, Spawn, TaskState};

use crate::support::{Keeper, eventually, is_alive};

#[tokio::test]
async fn an_idle_keeper_goes_and_the_next_one_knows_what_ended() {
    let mut keeper = Keeper::start().await;
    let exit = keeper.run("a", "echo kept; exit 2").await;
    keeper
        .client
        .spawn(keeper.shell("b", "read x; sleep 0.2; exit 1"))
        .await
        .unwrap();
    keeper.run("forgotten", "true").await;
    keeper.client.forget("forgotten").await.unwrap();
    keeper.client.stop_when_idle().await.unwrap();
    let old = keeper.pid();
    while keeper.events.next().await.is_some() {}
    eventually("the keeper is gone", || !is_alive(old)).await;
    keeper.reconnect().await;
    assert_ne!(keeper.pid(), old);
    assert_eq!(
        keeper.client.look("a").await.unwrap(),
        TaskState::Ended { exit }
    );
    assert_eq!(keeper.wait("b").await.how, Ending::Code { code: 1 });
    assert!(keeper.client.look("forgotten").await.is_err());
    assert_eq!(keeper.text("a"), "kept\n");
}

#[tokio::test]
async fn a_killed_keeper_is_replaced_and_its_tasks_are_lost() {
    let mut keeper = Keeper::start().await;
    let ended = keeper.run("ended", "echo fine").await;
    let script =
        "setsid sleep 1007 & echo $!; echo $$; trap '' TERM PIPE; while :; do sleep 0.1; done";
    keeper
        .client
        .spawn(keeper.shell("lost", script))
        .await
        .unwrap();
    eventually("it wrote", || keeper.text("lost").lines().count() == 2).await;
    let pids: Vec<i32> = keeper
        .text("lost")
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    let old = keeper.pid();
    keeper.kill();
    while keeper.events.next().await.is_some() {}
    assert!(matches!(keeper.client.list().await, Err(Error::Gone)));
    eventually("the keeper is gone", || !is_alive(old)).await;
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    keeper.reconnect().await;
    assert_eq!(keeper.wait("lost").await.how, Ending::Lost);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(
        keeper.client.look("ended").await.unwrap(),
        TaskState::Ended { exit: ended }
    );
    assert_eq!(keeper.text("lost").lines().count(), 2);
    // A lost task is forgotten like any other.
    keeper.client.forget("lost").await.unwrap();
    keeper.reconnect().await;
    assert!(keeper.client.look("lost").await.is_err());
}

#[tokio::test]
async fn a_keeper_killed_in_the_middle_of_a_start_leaves_nobody() {
    let mut keeper = Keeper::start().await;
    let script = "echo $$; while :; do sleep 0.1; done";
    keeper
        .client
        .spawn(keeper.shell("a", script))
        .await
        .unwrap();
    eventually("it wrote", || keeper.text("a").lines().count() == 1).await;
    let pid: i32 = keeper.text("a").trim().parse().unwrap();
    keeper.kill();
    while keeper.events.next().await.is_some() {}
    // As it is before the keeper has noted who the process is.
    let record = keeper.spool("a").join("task.json");
    let text = fs::read_to_string(&record).unwrap();
    let before = text.replace(&format!("\"pid\":{pid}"), "\"pid\":0");
    assert_ne!(before, text);
    fs::write(&record, before).unwrap();
    assert!(is_alive(pid));
    keeper.reconnect().await;
    assert_eq!(keeper.wait("a").await.how, Ending::Lost);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn asked_to_terminate_it_stays_until_nothing_runs() {
    let mut keeper = Keeper::start().await;
    let go = keeper.dir.path().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo done",
        go.display()
    );
    keeper
        .client
        .spawn(keeper.shell("a", &script))
        .await
        .unwrap();
    let pid = rustix::process::Pid::from_raw(keeper.pid()).unwrap();
    for signal in ["TERM", "INT", "HUP", "QUIT", "PIPE", "XFSZ"] {
        let named = std::process::Command::new("/bin/kill")
            .args(["-s", signal, &keeper.pid().to_string()])
            .status();
        assert!(named.unwrap().success());
    }
    keeper.reconnect().await;
    assert!(rustix::process::test_kill_process(pid).is_ok());
    keeper.run("b", "true").await;
    fs::write(go, "").unwrap();
    while keeper.events.next().await.is_some() {}
    assert_eq!(keeper.text("a"), "done\n");
    eventually("the keeper is gone", || !is_alive(keeper.pid())).await;
}

#[tokio::test]
async fn a_spool_that_is_removed_holds_nobody_up() {
    let keeper = Keeper::start().await;
    let script = "echo x; while [ -e x ] || ! echo y 2>/dev/null; do sleep 0.02; done";
    let cwd = keeper.dir.path().join("cwd");
    fs::create_dir(&cwd).unwrap();
    fs::write(cwd.join("x"), "").unwrap();
    keeper
        .client
        .spawn(Spawn {
            cwd: cwd.clone(),
            ..keeper.shell("a", script)
        })
        .await
        .unwrap();
    eventually("it wrote", || !keeper.read("a").is_empty()).await;
    fs::remove_dir_all(keeper.spool("a")).unwrap();
    fs::remove_file(cwd.join("x")).unwrap();
    keeper.wait("a").await;
    keeper.client.forget("a").await.unwrap();
}

#[tokio::test]
async fn many_who_connect_at_once_get_one_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let connections: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { crate::support::connect(&path).await.0.hello().pid })
        })
        .collect();
    let keeper = Keeper::start_in(dir).await;
    for connection in connections {
        assert_eq!(connection.await.unwrap(), keeper.pid());
    }
    eventually("the others have gone", || {
        crate::support::keepers_of(keeper.dir.path()) == [keeper.pid()]
    })
    .await;
}

#[tokio::test]
async fn nonsense_from_a_client_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let keeper = Keeper::start().await;
    let mut stream = tokio::net::UnixStream::connect(keeper.dir.path().join("keeper.sock"))
        .await
        .unwrap();
    stream
        .write_all(b"nonsense\n{\"id\":3,\"ask\":{\"dance\":{}}}\n{\"id\":4,\"ask\":\"list\"}\n")
        .await
        .unwrap();
    let mut heard = String::new();
    while !heard.contains("\"id\":4") {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(heard.matches("invalid").count(), 2, "{heard}");
    let endless = vec![b'x'; 8 * 1024 * 1024];
    assert!(
        stream.write_all(&endless).await.is_err()
            || stream.read_to_end(&mut Vec::new()).await.is_ok()
    );
    assert!(keeper.run("a", "true").await.how.is_success());
}

#[tokio::test]
async fn a_long_folder_name_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(90)).join("b".repeat(90));
    let (client, _events) = crate::support::connect(&deep).await;
    assert!(client.list().await.unwrap().is_empty());
    client.stop_when_idle().await.unwrap();
    eventually("the keeper is gone", || !is_alive(client.hello().pid)).await;
    assert!(!deep.join("keeper.sock").exists());
}

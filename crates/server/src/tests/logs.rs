//! Logs over HTTP: pages, bytes, and live.

use grid_core::logframe::Source;
use serde_json::{Value, json};

use super::world::{Event, Runner, Stream, World};

fn texts(page: &Value) -> Vec<&str> {
    page["lines"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line["text"].as_str().expect("text"))
        .collect()
}

/// A world in which an experiment runs.
async fn running() -> (World, Runner, String) {
    let world = World::new().await;
    world.run(&world.ada, "talk", &[]).await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    (world, runner, attempt)
}

#[tokio::test]
async fn a_log_is_read_in_pages_and_from_its_end() {
    let (world, mut runner, attempt) = running().await;
    runner
        .write(
            &world,
            &attempt,
            Source::Stdout,
            "one\ntwo\nthree\n10%\r20%",
        )
        .await;
    let path = "/experiments/talk-exp0/logs";
    let first = world.get(&world.ada, &format!("{path}?limit=2")).await.ok();
    assert_eq!(texts(&first), ["one", "two"]);
    let next = first["next"].as_str().expect("more");
    let second = world
        .get(&world.ada, &format!("{path}?cursor={next}"))
        .await
        .ok();
    assert_eq!(texts(&second), ["three", "20%"]);
    assert_eq!(second["lines"][1]["partial"], true);
    let tail = world.get(&world.ada, &format!("{path}?tail=2")).await.ok();
    assert_eq!(
        (texts(&tail).last(), &tail["truncated"]),
        (Some(&"20%"), &json!(true))
    );
    runner
        .write(&world, &attempt, Source::Stderr, "oops\n")
        .await;
    runner.end(&world, &attempt).await;
    let next = second["next"].as_str().expect("more");
    let last = world
        .get(&world.ada, &format!("{path}?cursor={next}"))
        .await
        .ok();
    assert_eq!(texts(&last), ["oops", "20%"]);
    assert!(
        last["lines"][1].get("partial").is_none(),
        "what an ended process wrote stays as it is"
    );
    assert!(last.get("next").is_none(), "nothing comes any more");
    let build = world
        .get(&world.ada, &format!("{path}?stream=build"))
        .await
        .ok();
    assert!(texts(&build).is_empty());
    let beyond = world
        .get(&world.ada, &format!("{path}?cursor=1:18446744073709551615"))
        .await
        .ok();
    assert!(
        texts(&beyond).is_empty() || texts(&beyond) == ["20%"],
        "{beyond}"
    );
    let beyond = world
        .get(&world.ada, &format!("{path}?cursor=4294967295:0"))
        .await
        .ok();
    assert!(texts(&beyond).is_empty());
}

#[tokio::test]
async fn the_bytes_of_a_log_are_those_that_were_written() {
    let (world, runner, attempt) = running().await;
    runner
        .write(&world, &attempt, Source::Stdout, "10%\r20%\n")
        .await;
    runner
        .write(&world, &attempt, Source::Platform, "note\n")
        .await;
    runner
        .write(&world, &attempt, Source::Stdout, "no end")
        .await;
    let path = "/experiments/talk-exp0/logs/raw";
    let all = world.get(&world.ada, path).await;
    assert_eq!(all.header("content-type"), "text/plain; charset=utf-8");
    assert!(
        all.header("content-disposition")
            .contains("talk-exp0-experiment.log")
    );
    assert_eq!(&all.bytes[..], b"10%\r20%\nnote\nno end");
    let own = world
        .get(&world.ada, &format!("{path}?source=stdout"))
        .await;
    assert_eq!(&own.bytes[..], b"10%\r20%\nno end");
    assert!(
        world
            .get(&world.ada, &format!("{path}?stream=build"))
            .await
            .bytes
            .is_empty()
    );
}

#[tokio::test]
async fn a_follower_sees_lines_status_and_end() {
    let (world, mut runner, attempt) = running().await;
    runner
        .write(&world, &attempt, Source::Stdout, "before\n")
        .await;
    let mut stream = Stream::open(
        &world,
        &world.ada,
        "/experiments/talk-exp0/logs/follow",
        None,
    )
    .await;
    let status = stream.next().await.expect("a status");
    assert_eq!(
        (status.name.as_str(), &status.data["status"]),
        ("status", &json!("running"))
    );
    let before = stream.next().await.expect("a line");
    assert_eq!(
        (before.name.as_str(), &before.data["text"]),
        ("log", &json!("before"))
    );
    runner.write(&world, &attempt, Source::Stdout, "10%").await;
    let partial = stream.next().await.expect("a line");
    assert_eq!(
        (&partial.data["text"], &partial.data["partial"], &partial.id),
        (&json!("10%"), &json!(true), &None)
    );
    runner
        .write(&world, &attempt, Source::Stdout, "\r20%")
        .await;
    let partial = stream.next().await.expect("a line");
    assert_eq!(
        (&partial.data["text"], &partial.data["partial"]),
        (&json!("20%"), &json!(true))
    );
    runner
        .write(&world, &attempt, Source::Stdout, "\r100%\nlast")
        .await;
    let done = stream.next().await.expect("a line");
    assert_eq!(
        (&done.data["text"], done.data.get("partial")),
        (&json!("100%"), None)
    );
    runner.end(&world, &attempt).await;
    let mut rest = Vec::new();
    while let Some(event) = stream.next().await {
        rest.push(event);
    }
    let end = rest.last().expect("an end");
    assert_eq!(
        (end.name.as_str(), &end.data["status"]),
        ("end", &json!("succeeded"))
    );
    let finished: Vec<_> = rest
        .iter()
        .filter(|event| event.name == "log" && event.data.get("partial").is_none())
        .collect();
    assert_eq!(finished.len(), 1, "{rest:?}");
    assert_eq!(finished[0].data["text"], "last");
    assert!(
        rest.iter()
            .any(|event| event.name == "status" && event.data["status"] == "succeeded")
    );
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was() {
    let (world, mut runner, attempt) = running().await;
    runner
        .write(&world, &attempt, Source::Stdout, "one\ntwo\nthree\n")
        .await;
    let path = "/experiments/talk-exp0/logs/follow";
    let mut stream = Stream::open(&world, &world.ada, path, None).await;
    let two = loop {
        let event = stream.next_of("log").await;
        if event.data["text"] == "two" {
            break event;
        }
    };
    drop(stream);
    runner
        .write(&world, &attempt, Source::Stdout, "four\n")
        .await;
    runner.end(&world, &attempt).await;
    let resumed = async |path: &str, last: Option<&str>| -> Vec<String> {
        let mut stream = Stream::open(&world, &world.ada, path, last).await;
        let mut texts = Vec::new();
        while let Some(Event { name, data, .. }) = stream.next().await {
            if name == "log" {
                texts.push(data["text"].as_str().expect("text").to_owned());
            }
        }
        texts
    };
    let id = two.id.expect("an id");
    assert_eq!(resumed(path, Some(&id)).await, ["three", "four"]);
    assert_eq!(
        resumed(&format!("{path}?tail=1"), Some(&id)).await,
        ["three", "four"],
        "the header wins"
    );
    assert_eq!(resumed(&format!("{path}?tail=1"), None).await, ["four"]);
    assert_eq!(
        resumed(&format!("{path}?tail=0"), None).await,
        Vec::<String>::new()
    );
    assert_eq!(
        resumed(&format!("{path}?cursor={id}"), None).await,
        ["three", "four"]
    );
    assert_eq!(resumed(path, None).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_long_log_is_followed_whole() {
    let (world, mut runner, attempt) = running().await;
    let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    for piece in text.as_bytes().chunks(60_000) {
        runner
            .write(
                &world,
                &attempt,
                Source::Stdout,
                std::str::from_utf8(piece).expect("ASCII"),
            )
            .await;
    }
    runner.end(&world, &attempt).await;
    let mut stream = Stream::open(
        &world,
        &world.ada,
        "/experiments/talk-exp0/logs/follow",
        None,
    )
    .await;
    let mut count = 0;
    while let Some(event) = stream.next().await {
        if event.name == "log" {
            assert_eq!(event.data["text"], format!("line {count}"));
            count += 1;
        }
    }
    assert_eq!(count, 10_000);
}

#[tokio::test]
async fn following_a_queued_experiment_tells_why_it_waits() {
    let world = World::new().await;
    world.run(&world.ada, "first", &["--x", "range(30)"]).await;
    let mut stream = Stream::open(
        &world,
        &world.ada,
        "/experiments/first-exp29/logs/follow",
        None,
    )
    .await;
    let status = stream.next().await.expect("a status");
    assert_eq!(status.data["status"], "queued");
    assert!(status.data["message"].is_string(), "{status:?}");
    world
        .post(&world.ada, "/runs/first/stop", &json!({}))
        .await
        .ok();
    let end = stream.next_of("end").await;
    assert_eq!(end.data["status"], "stopped");
}

#[tokio::test]
async fn a_follower_ends_with_the_server_and_with_the_right_to_read() {
    let (world, _runner, _attempt) = running().await;
    let path = "/experiments/talk-exp0/logs/follow";
    let mut deleted = Stream::open(&world, &world.ada, path, None).await;
    deleted.next_of("status").await;
    world.delete(&world.ada, "/runs/talk").await.ok();
    let error = deleted.next_of("error").await;
    assert_eq!(error.data["error"]["code"], "not_found");
    assert_eq!(deleted.next().await, None);
    world
        .post(&world.ada, "/runs/talk/restore", &json!({}))
        .await
        .ok();
    let mut stopped = Stream::open(&world, &world.ada, path, None).await;
    stopped.next_of("status").await;
    world.app.stop.cancel();
    while stopped
        .next()
        .await
        .is_some_and(|event| event.name != "end")
    {}
}

#[tokio::test]
async fn a_key_that_is_replaced_ends_what_it_opened() {
    let (world, _runner, _attempt) = running().await;
    let path = "/experiments/talk-exp0/logs/follow";
    let mut stream = Stream::open(&world, &world.ada, path, None).await;
    stream.next_of("status").await;
    world
        .post(&world.ada, "/user/rotate-key", &json!({}))
        .await
        .ok();
    let error = stream.next_of("error").await;
    assert_eq!(error.data["error"]["code"], "unauthenticated");
}

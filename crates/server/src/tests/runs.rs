//! Runs and experiments over HTTP: made, listed, paged, changed.

use axum::body::Body;
use axum::http::{Method, header};
use serde_json::{Value, json};

use super::world::{Runner, Stream, World, new_run};

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn a_sweep_is_made_seen_and_run() {
    let world = World::new().await;
    let made = world
        .run(&world.ada, "sweep", &["--lr", "[0.1,0.01]"])
        .await;
    assert_eq!(names(&made["experiments"]), ["sweep-exp0", "sweep-exp1"]);
    assert_eq!(
        made["experiments"][1]["parameters"],
        json!([["lr", "0.01"]])
    );
    assert_eq!(made["run"]["counts"]["queued"], 2);
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    let run = &world.get(&world.ada, "/runs/ada:sweep").await.ok()["run"];
    assert_eq!(
        (&run["status"], &run["created_by"]),
        (&json!("running"), &json!("ada"))
    );
    assert_eq!(run["spec"]["command"][0], "true");
    runner.end(&world, &attempt).await;
    let page = world
        .get(&world.ada, "/runs/sweep/experiments?status=succeeded")
        .await
        .ok();
    let experiment = &page["experiments"][0];
    assert_eq!(experiment["command"].as_array().expect("words")[0], "true");
    assert!(
        experiment["finished_at"].is_string() && experiment["attempts"] == 1,
        "{experiment}"
    );
    let id = experiment["id"].as_str().expect("an id");
    let events = world
        .get(&world.ada, &format!("/experiments/{id}/events"))
        .await
        .ok();
    let kinds: Vec<_> = events["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| &e["kind"])
        .collect();
    assert_eq!(kinds, ["created", "placed", "started", "finished"]);
    assert_eq!(events["events"][0]["actor"], "ada");
    let clusters = world.get(&world.ada, "/clusters").await.ok();
    assert_eq!(clusters["clusters"][0]["nodes"][0]["cpus"], 4);
}

#[tokio::test]
async fn lists_are_paged_without_gap_or_repeat() {
    let world = World::new().await;
    let mut made = Vec::new();
    for number in 0..7 {
        let name = format!("run{number}");
        world.run(&world.ada, &name, &[]).await;
        made.insert(0, name);
    }
    let mut listed = Vec::new();
    let mut path = "/runs?limit=3".to_owned();
    loop {
        let page = world.get(&world.ada, &path).await.ok();
        listed.extend(names(&page["runs"]).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/runs?limit=3&cursor={next}");
    }
    assert_eq!(listed, made);
    world.run(&world.ada, "wide", &["--x", "range(5)"]).await;
    let first = world
        .get(&world.ada, "/runs/wide/experiments?limit=3")
        .await
        .ok();
    assert_eq!(
        names(&first["experiments"]),
        ["wide-exp0", "wide-exp1", "wide-exp2"]
    );
    let next = first["next"].as_str().expect("more");
    let rest = world
        .get(
            &world.ada,
            &format!("/runs/wide/experiments?limit=3&cursor={next}"),
        )
        .await
        .ok();
    assert_eq!(names(&rest["experiments"]), ["wide-exp3", "wide-exp4"]);
    assert!(rest.get("next").is_none());
    world
        .get(&world.ada, &format!("/runs?cursor={next}"))
        .await
        .refused(400);
    let found = world
        .get(&world.ada, "/runs?name=wid&active=true")
        .await
        .ok();
    assert_eq!(names(&found["runs"]), ["wide"]);
}

#[tokio::test]
async fn lists_are_narrowed_by_state_and_age() {
    let world = World::new().await;
    // It takes the whole machine: what comes behind it waits, and can be stopped at once.
    let filler = &["--x", "range(4)"];
    world.run(&world.ada, "filler", filler).await;
    for name in ["first", "second"] {
        world.run(&world.ada, name, &["--x", "range(2)"]).await;
    }
    world
        .post(&world.ada, "/runs/first/stop", &json!({}))
        .await
        .ok();
    let list = async |query: &str| {
        let listed = world.get(&world.ada, &format!("/runs?{query}")).await.ok();
        names(&listed["runs"]).join(" ")
    };
    assert_eq!(list("state=stopped").await, "first");
    assert_eq!(list("state=queued,pending").await, "second filler");
    assert_eq!(
        list("state=failed,stopped,queued,pending").await,
        "second first filler"
    );
    assert_eq!(list("state=failed").await, "");
    assert_eq!(list("active=false&state=queued").await, "");
    assert_eq!(
        list("since=2020-01-31T12:00:00Z&state=stopped").await,
        "first"
    );
    assert_eq!(list("since=2120-01-31T12:00:00Z").await, "");
    let path = "/runs/first/experiments?status=stopped,failed";
    let experiments = world.get(&world.ada, path).await.ok();
    assert_eq!(names(&experiments["experiments"]).len(), 2);
    let path = "/runs/first/experiments?status=queued";
    let experiments = world.get(&world.ada, path).await.ok();
    assert!(names(&experiments["experiments"]).is_empty());
}

#[tokio::test]
async fn sending_a_run_twice_makes_it_once() {
    let world = World::new().await;
    let send = async |body: &Value| {
        let request = world
            .ada
            .request(Method::POST, "/runs")
            .header("Idempotency-Key", "once");
        let request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        world
            .answer(
                request
                    .body(Body::from(body.to_string()))
                    .expect("a request"),
            )
            .await
    };
    let mut body = new_run("", &["--x", "[1,2]"]);
    body.as_object_mut().expect("an object").remove("name");
    let first = send(&body).await;
    assert_eq!(first.status, 201);
    let (first, second) = (first.ok(), send(&body).await.ok());
    assert_eq!(first["run"]["id"], second["run"]["id"]);
    assert_eq!(first["experiments"], second["experiments"]);
    assert!(
        send(&new_run("other", &[]))
            .await
            .refused(409)
            .contains("another request")
    );
    assert_eq!(
        names(&world.get(&world.ada, "/runs").await.ok()["runs"]).len(),
        1
    );
}

#[tokio::test]
async fn a_dry_run_makes_nothing() {
    let world = World::new().await;
    let mut body = new_run("try", &["--x", "[1,2]"]);
    body["dry_run"] = json!(true);
    let answer = world.post(&world.ada, "/runs", &body).await;
    assert_eq!(answer.status, 200);
    let answer = answer.ok();
    assert_eq!(names(&answer["experiments"]), ["try-exp0", "try-exp1"]);
    assert_eq!(answer["experiments"][0]["id"], "");
    assert!(names(&world.get(&world.ada, "/runs").await.ok()["runs"]).is_empty());
}

#[tokio::test]
async fn a_run_is_stopped_retried_cloned_deleted_and_restored() {
    let world = World::new().await;
    world.run(&world.ada, "walk", &["--x", "[1,2]"]).await;
    world
        .post(&world.ada, "/experiments/walk-exp1/stop", &json!({}))
        .await
        .ok();
    let stopped = world
        .post(&world.ada, "/runs/walk/stop", &json!({}))
        .await
        .ok();
    assert_eq!(stopped["changed"], 1);
    Runner::new(&world)
        .work_until(&world, "walk", "stopped")
        .await;
    let retried = world
        .post(&world.ada, "/runs/walk/retry", &json!({ "failed": false }))
        .await
        .ok();
    assert_eq!(retried["changed"], 2);
    let cloned = world
        .post(&world.ada, "/runs/walk/clone", &json!({ "set": ["--x=9"] }))
        .await;
    assert_eq!(cloned.status, 201);
    let cloned = cloned.ok();
    assert_eq!(cloned["experiments"][0]["parameters"], json!([["x", "9"]]));
    let id = cloned["run"]["id"].as_str().expect("an id");
    let found = world.get(&world.ada, &format!("/runs/{id}")).await.ok();
    assert_eq!(found["run"]["cloned_from"], "walk");
    let deleted = world.delete(&world.ada, "/runs/walk").await.ok();
    assert!(deleted["run"]["deleted_at"].is_string() && deleted["run"]["deleted_by"] == "ada");
    assert!(!names(&world.get(&world.ada, "/runs").await.ok()["runs"]).contains(&"walk"));
    assert_eq!(
        names(&world.get(&world.ada, "/runs?deleted=true").await.ok()["runs"]),
        ["walk"]
    );
    world
        .post(&world.ada, "/runs/walk/restore", &json!({}))
        .await
        .ok();
    assert!(names(&world.get(&world.ada, "/runs").await.ok()["runs"]).contains(&"walk"));
    world
        .delete(&world.ada, "/experiments/walk-exp0")
        .await
        .ok();
    let left = world.get(&world.ada, "/runs/walk/experiments").await.ok();
    assert_eq!(names(&left["experiments"]), ["walk-exp1"]);
    world
        .post(&world.ada, "/experiments/walk-exp0/restore", &json!({}))
        .await
        .ok();
}

#[tokio::test]
async fn changes_are_told_and_end_with_the_server() {
    let world = World::new().await;
    let mut changes = Stream::open(&world, &world.ada, "/changes", None).await;
    assert_eq!(changes.next().await.expect("at once").name, "changed");
    world.run(&world.ada, "news", &[]).await;
    assert_eq!(changes.next().await.expect("a change").data, json!({}));
    world.app.stop.cancel();
    while changes.next().await.is_some() {}
}

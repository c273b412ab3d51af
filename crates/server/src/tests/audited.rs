//! What was done is written down, and who may not know does not read it.

use axum::http::Method;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::place::on_both;
use super::teams::{invite, join, post, team};
use super::world::{Person, World, new_run};

on_both!(
    every_change_and_every_refusal_is_written_down,
    the_log_is_read_in_pages_and_exported_whole,
    what_is_not_ones_business_is_not_told,
    changes_of_others_wake_nobody,
);

fn actions(log: &Value) -> Vec<(String, String, String)> {
    let text = |one: &Value, field: &str| one[field].as_str().expect("text").to_owned();
    let all = log["events"].as_array().expect("events").iter();
    all.map(|one| (text(one, "actor"), text(one, "action"), text(one, "result")))
        .rev()
        .collect()
}

async fn every_change_and_every_refusal_is_written_down(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Viewer).await;
    world.run(&bob, "bert", &[]).await;
    post(&world, &bob, "/runs/bert/shares", &json!({}))
        .await
        .ok();
    world
        .post(&eve, "/runs/bob:bert/stop", &json!({}))
        .await
        .refused(403);
    world
        .post(&bob, "/experiments/bert-exp0/stop", &json!({}))
        .await
        .ok();
    world
        .post(&bob, "/experiments/bert-exp0/stop", &json!({}))
        .await
        .ok();
    world.post(&bob, "/runs/bert/retry", &json!({})).await.ok();
    world.post(&bob, "/runs/bert/stop", &json!({})).await.ok();
    world.delete(&bob, "/runs/bert").await.ok();
    world
        .post(&bob, "/runs/bert/restore", &json!({}))
        .await
        .ok();
    world.get(&world.ada, "/runs/bob:bert").await.ok();
    world.delete(&world.ada, "/runs/bob:bert").await.ok();
    let log = world.get(&bob, "/teams/lab/audit").await.ok();
    let expected = [
        ("bob", "team.create", "done"),
        ("bob", "invitation.create", "done"),
        ("eve", "member.join", "done"),
        ("bob", "run.create", "done"),
        ("bob", "run.share", "done"),
        ("eve", "run.stop", "refused"),
        ("bob", "run.stop", "done"),
        ("bob", "run.stop", "done"),
        ("bob", "run.retry", "done"),
        ("bob", "run.stop", "done"),
        ("bob", "run.delete", "done"),
        ("bob", "run.restore", "done"),
        ("ada", "run.see", "done"),
        ("ada", "run.delete", "done"),
    ];
    let own = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(actions(&log), expected.map(own).to_vec());
    let shared = &log["events"][9];
    assert_eq!(shared["client"], "grid-test/1");
    assert_eq!(shared["thing"], "bob:bert");
    assert_eq!(log["events"][0]["actor_kind"], "operator");
    // A viewer reads what they did themselves, and no more.
    let hers = world.get(&eve, "/teams/lab/audit").await.ok();
    assert!(actions(&hers).iter().all(|(actor, _, _)| actor == "eve"));
    assert_eq!(actions(&hers).len(), 2);
    world
        .get(&eve, "/teams/lab/audit?user=bob")
        .await
        .refused(403);
    world.get(&eve, "/audit?user=bob").await.refused(403);
    world.get(&eve, "/audit?all=true").await.refused(403);
    let refused = world
        .get(&bob, "/teams/lab/audit?result=refused&user=eve")
        .await
        .ok();
    assert_eq!(
        actions(&refused).len(),
        2,
        "the stop, and looking into the log"
    );
    let about = world
        .get(&bob, "/teams/lab/audit?resource=bob:bert&action=run.delete")
        .await
        .ok();
    assert_eq!(actions(&about).len(), 2);
    let later = world
        .get(&bob, "/teams/lab/audit?since=2999-01-01T00:00:00Z")
        .await
        .ok();
    assert_eq!(later["events"], json!([]));
    world
        .get(&bob, "/teams/lab/audit?since=yesterday")
        .await
        .refused(400);
}

async fn the_log_is_read_in_pages_and_exported_whole(world: World) {
    let bob = world.user("bob").await;
    team(&world, &bob, "lab").await;
    for n in 0..5 {
        invite(&world, &bob, "lab", &format!("u{n}"), Role::Member)
            .await
            .ok();
    }
    let mut seen = Vec::new();
    let mut path = "/teams/lab/audit?limit=2".to_owned();
    loop {
        let page = world.get(&bob, &path).await.ok();
        seen.extend(page["events"].as_array().expect("events").clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/teams/lab/audit?limit=2&cursor={next}");
    }
    assert_eq!(seen.len(), 6);
    let export = world.get(&bob, "/teams/lab/audit/export").await;
    assert_eq!(export.header("content-type"), "application/jsonl");
    let text = String::from_utf8(export.bytes.to_vec()).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines, seen);
    world
        .get(&world.user("eve").await, "/teams/lab/audit/export")
        .await
        .refused(404);
    world.app.engine.keep_audit_for(0);
    assert_eq!(
        world.app.engine.shorten_audit().await.expect("shortened"),
        0
    );
}

async fn what_is_not_ones_business_is_not_told(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("zoe").await);
    let kim = world.user("kim").await;
    // Kim is in both teams; nothing of one may reach the other through her.
    team(&world, &bob, "red").await;
    team(&world, &eve, "blue").await;
    join(&world, &bob, "red", "kim", &kim, Role::Member).await;
    join(&world, &eve, "blue", "kim", &kim, Role::Member).await;
    for (person, team, name) in [
        (&bob, "red", "rosa"),
        (&eve, "blue", "azur"),
        (&kim, "blue", "kims"),
        (&bob, "red", "rubin"),
    ] {
        let mut run = new_run(name, &["--n", "[1, 2, 3]"]);
        run["team"] = json!(team);
        world.post(person, "/runs", &run).await.ok();
    }
    let shared = post(&world, &kim, "/runs/kims/shares", &json!({}))
        .await
        .ok();
    let token = shared["token"].as_str().expect("a token").to_owned();
    let secrets = ["blue", "azur", "kims", "zoe"];
    for path in [
        "/user",
        "/users",
        "/teams",
        "/runs?global=true",
        "/runs?global=true&created_by=kim",
        "/runs/rosa",
        "/runs/rosa/experiments",
        "/runs/rubin/experiments",
        "/experiments/rosa-exp2",
        "/teams/red",
        "/teams/red/audit",
        "/teams/red/policy",
        "/teams/red/service-accounts",
        "/shares?global=true",
        "/audit",
        "/invitations",
        "/clusters",
    ] {
        let answer = world.get(&bob, path).await.ok().to_string();
        for secret in secrets {
            assert!(
                !answer.contains(secret),
                "{path} tells of {secret}: {answer}"
            );
        }
    }
    // What is not there and what is not theirs are answered alike, but for the name asked.
    for (theirs, none) in [
        ("/runs/azur", "/runs/azul"),
        ("/runs/zoe:azur", "/runs/zoe:azul"),
        ("/runs/kim:kims", "/runs/kim:kimz"),
        ("/runs/kims", "/runs/kimz"),
        ("/experiments/kim:kims-exp0", "/experiments/kim:kimz-exp0"),
        (
            "/experiments/kim:kims-exp0/artifacts",
            "/experiments/kim:kimz-exp0/artifacts",
        ),
        ("/teams/blue", "/teams/blau"),
        ("/teams/blue/audit", "/teams/blau/audit"),
    ] {
        let (one, other) = (world.get(&bob, theirs).await, world.get(&bob, none).await);
        let same = |text: String| {
            text.replace("azul", "azur")
                .replace("kimz", "kims")
                .replace("blau", "blue")
        };
        assert_eq!(one.refused(404), same(other.refused(404)), "{theirs}");
    }
    let made_up = "0".repeat(32);
    assert_eq!(
        world
            .get(&bob, &format!("/shared/{token}"))
            .await
            .refused(404),
        world
            .get(&bob, &format!("/shared/{made_up}"))
            .await
            .refused(404)
    );
    // Kim herself is told of both, with the names.
    let hint = world.get(&kim, "/runs/rosa").await.refused(404);
    assert!(hint.contains("did you mean bob:rosa"), "{hint}");
    let both = world.get(&kim, "/runs?global=true").await.ok();
    assert_eq!(both["runs"].as_array().expect("runs").len(), 4);
    let nobody = Person::Nobody.request(Method::GET, "/shared/x");
    let nobody = nobody.body(axum::body::Body::empty()).expect("a request");
    world.answer(nobody).await.refused(401);
}

async fn changes_of_others_wake_nobody(world: World) {
    use futures::StreamExt;
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    let request = bob
        .request(Method::GET, "/changes")
        .body(axum::body::Body::empty());
    let response = world.send(request.expect("a request")).await;
    let mut stream = response.into_body().into_data_stream();
    let mut next = async || {
        let piece = tokio::time::timeout(super::world::LIMIT, stream.next()).await;
        let bytes = piece.expect("in time").expect("a piece").expect("bytes");
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    };
    assert!(next().await.contains("changed"), "once at the beginning");
    world.run(&eve, "theirs", &[]).await;
    // Nothing but a word that it is still there.
    assert_eq!(next().await, ":\n\n");
    world.run(&bob, "mine", &[]).await;
    loop {
        if next().await.contains("changed") {
            break;
        }
    }
}

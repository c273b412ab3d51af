//! What somebody may do ends when their standing does: on streams that are open, on links
//! that they made, for each role.

use grid_core::logframe::Source;
use grid_core::team::Role;
use serde_json::json;

use super::place::on_both;
use super::teams::{join, post, team};
use super::world::{Event, Person, Runner, Stream, World, new_run};

on_both!(
    a_stream_lasts_as_long_as_the_right_to_it,
    a_stream_ends_with_the_key_and_the_account,
    links_of_each_role_end_with_the_membership,
);

const FOLLOW: &str = "/experiments/bob:talk-exp0/logs/follow";

/// Bob's team with a run that goes on.
async fn talking(world: &World) -> (Person, Runner, String) {
    let bob = world.user("bob").await;
    team(world, &bob, "lab").await;
    let mut run = new_run("talk", &[]);
    run["team"] = json!("lab");
    world.post(&bob, "/runs", &run).await.ok();
    let mut runner = Runner::new(world);
    let attempt = runner.launch(world).await;
    (bob, runner, attempt)
}

/// The last event of a stream, which is to end.
async fn last(stream: &mut Stream) -> Event {
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event);
    }
    last.expect("an event")
}

async fn a_stream_lasts_as_long_as_the_right_to_it(world: World) {
    let (bob, runner, attempt) = talking(&world).await;
    let mut open = Vec::new();
    for (name, role) in [
        ("viewer", Role::Viewer),
        ("member", Role::Member),
        ("admin", Role::Admin),
        ("owner", Role::Owner),
    ] {
        let person = world.user(name).await;
        join(&world, &bob, "lab", name, &person, role).await;
        let mut stream = Stream::open(&world, &person, FOLLOW, None).await;
        assert_eq!(stream.next().await.expect("an event").name, "status");
        open.push((name, person, stream));
    }
    // Whatever somebody is in the team, they may read: changing that cuts nobody off.
    for (round, role) in [Role::Admin, Role::Member, Role::Owner, Role::Viewer]
        .into_iter()
        .enumerate()
    {
        let body = json!({ "role": role }).to_string();
        for (name, _, _) in &open {
            let path = format!("/teams/lab/members/{name}");
            world.put(&bob, &path, body.clone()).await.ok();
        }
        let text = format!("round {round}");
        let line = format!("{text}\n");
        runner.write(&world, &attempt, Source::Stdout, &line).await;
        for (name, _, stream) in &mut open {
            let event = stream.next_of("log").await;
            assert_eq!(event.data["text"], text, "{name} as {role}");
        }
    }
    // One after the other leaves or is removed; those who are still in it read on.
    while let Some((name, person, mut stream)) = open.pop() {
        let path = format!("/teams/lab/members/{name}");
        if name == "owner" {
            let leave = json!({});
            world.post(&person, "/teams/lab/leave", &leave).await.ok();
        } else {
            world.delete(&bob, &path).await.ok();
        }
        let end = last(&mut stream).await;
        assert_eq!(end.name, "error", "{name}: {end:?}");
        assert_eq!(end.data["error"]["code"], "not_found", "{name}");
        world.get(&person, FOLLOW).await.refused(404);
        let line = format!("without {name}\n");
        runner.write(&world, &attempt, Source::Stdout, &line).await;
        for (other, _, stream) in &mut open {
            let event = stream.next_of("log").await;
            assert_eq!(event.data["text"], line.trim_end(), "{other}");
        }
    }
}

async fn a_stream_ends_with_the_key_and_the_account(world: World) {
    let (bob, _runner, _) = talking(&world).await;
    let key = json!({ "name": "screen", "scope": "read" });
    let made = world.post(&bob, "/user/keys", &key).await.ok();
    let screen = Person::Token(made["api_key"].as_str().expect("a key").to_owned());
    let mut by_key = Stream::open(&world, &screen, FOLLOW, None).await;
    let account = json!({ "name": "lab-ci", "scope": "read" });
    let made = world
        .post(&bob, "/teams/lab/service-accounts", &account)
        .await;
    let robot = Person::Token(made.ok()["api_key"].as_str().expect("a key").to_owned());
    let mut by_account = Stream::open(&world, &robot, FOLLOW, None).await;
    let mut by_owner = Stream::open(&world, &bob, FOLLOW, None).await;
    assert_eq!(by_owner.next().await.expect("an event").name, "status");

    world.delete(&bob, "/user/keys/screen").await.ok();
    let end = last(&mut by_key).await;
    assert_eq!(end.data["error"]["code"], "unauthenticated", "{end:?}");
    world
        .delete(&bob, "/teams/lab/service-accounts/lab-ci")
        .await
        .ok();
    let end = last(&mut by_account).await;
    let code = end.data["error"]["code"].as_str().unwrap_or_default();
    assert!(["unauthenticated", "not_found"].contains(&code), "{end:?}");
    world.post(&bob, "/runs/talk/stop", &json!({})).await.ok();
    let told = by_owner.next_of("status").await;
    assert_eq!(told.data["status"], "stopping", "his own goes on");
}

async fn links_of_each_role_end_with_the_membership(world: World) {
    let (bob, mut runner, attempt) = talking(&world).await;
    runner.leave(&world, &attempt, &[("a.txt", b"a")]).await;
    runner.end(&world, &attempt).await;
    for (name, role) in [
        ("viewer", Role::Viewer),
        ("member", Role::Member),
        ("admin", Role::Admin),
        ("owner", Role::Owner),
    ] {
        let person = world.user(name).await;
        join(&world, &bob, "lab", name, &person, role).await;
        let path = "/experiments/bob:talk-exp0/artifact-links";
        let made = post(&world, &person, path, &json!({ "paths": ["a.txt"] })).await;
        let url = made.ok()["links"][0]["url"]
            .as_str()
            .expect("a link")
            .to_owned();
        let url = url.replace("http://grid.example:8080/api/v1", "");
        let shared = post(&world, &person, "/runs/bob:talk/shares", &json!({})).await;
        let shared = shared.ok()["token"].as_str().expect("a token").to_owned();
        let shared = format!("/shared/{shared}");
        assert_eq!(
            &world.get(&Person::Nobody, &url).await.bytes[..],
            b"a",
            "{name}"
        );
        world.get(&bob, &shared).await.ok();
        let path = format!("/teams/lab/members/{name}");
        for role in [Role::Viewer, role] {
            let body = json!({ "role": role }).to_string();
            world.put(&bob, &path, body).await.ok();
            world.get(&bob, &shared).await.ok();
        }
        world.delete(&bob, &path).await.ok();
        world.get(&Person::Nobody, &url).await.refused(404);
        world.get(&bob, &shared).await.refused(404);
    }
}

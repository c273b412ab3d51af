//! What is started again is decided again, with what whoever asks may do then, and whoever it
//! belongs to: data of a team that one left is not handed out by what was asked for before.

use std::time::Duration;

use grid_core::team::Role;
use serde_json::{Value, json};

use super::matrix_data::{id, ready};
use super::place::on_both;
use super::teams::{join, team};
use super::world::{Person, Runner, World, new_run};

on_both!(
    who_left_a_team_gets_no_more_of_its_data,
    who_retries_for_another_needs_the_right_and_so_do_they,
    a_run_shows_what_its_data_is_called_now,
    what_was_made_before_with_a_key_is_told_to_members_only,
);

/// Longest that something is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Ada's team, in which bob is, with data of hers.
async fn lab(world: &World) -> (Person, Value) {
    let bob = world.user("bob").await;
    team(world, &world.ada, "lab").await;
    join(world, &world.ada, "lab", "bob", &bob, Role::Member).await;
    let cats = ready(world, &world.ada, "cats").await;
    (bob, cats)
}

/// A run that mounts ada's data.
async fn mounting(world: &World, person: &Person, team: &str, name: &str) {
    let mut run = new_run(name, &[]);
    run["team"] = json!(team);
    run["spec"]["datastores"] = json!([{ "datastore": "ada:cats" }]);
    world.post(person, "/runs", &run).await.ok();
}

fn failed() -> Value {
    json!({ "end": "failed", "reason":
        { "code": "exit_code", "message": "exit code 3", "exit_code": 3 } })
}

/// Waits until a run has failed; says why.
async fn why(world: &World, runner: &mut Runner, person: &Person, run: &str) -> String {
    let path = format!("/experiments/{run}-exp0");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let orders = runner.sync(world).await;
        let seen = world.get(person, &path).await.ok()["experiment"].take();
        if seen["status"] == "failed" {
            return seen["message"].as_str().unwrap_or_default().to_owned();
        }
        let launched = orders["launch"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        assert!(!launched, "{run} was launched");
        assert!(tokio::time::Instant::now() < deadline, "{run}: {seen}");
    }
}

async fn who_left_a_team_gets_no_more_of_its_data(world: World) {
    let (bob, cats) = lab(&world).await;
    let mut runner = Runner::new(&world);
    mounting(&world, &bob, "bob", "over").await;
    let over = runner.launch(&world).await;
    runner.end_as(&world, &over, failed()).await;
    mounting(&world, &bob, "bob", "returned").await;
    let returned = runner.launch(&world).await;

    let path = "/teams/lab/members/bob";
    world.delete(&world.ada, path).await.ok();
    mounting_is_refused(&world, &bob, &cats).await;
    // What the server begins again by itself: the attempt was given back, the machine lost.
    let given_back = json!({ "end": "returned" });
    runner.end_as(&world, &returned, given_back).await;
    let message = why(&world, &mut runner, &bob, "returned").await;
    assert!(
        message.contains("cannot use datastore 'ada:cats:1'"),
        "{message}"
    );

    join(&world, &world.ada, "lab", "bob", &bob, Role::Member).await;
    let again = json!({});
    world.post(&bob, "/runs/over/retry", &again).await.ok();
    let over = runner.launch(&world).await;
    runner.end(&world, &over).await;
    // Who may only look on any more begins nothing either.
    world.post(&bob, "/runs/returned/retry", &again).await.ok();
    let returned = runner.launch(&world).await;
    let viewer = json!({ "role": "viewer" }).to_string();
    world.put(&world.ada, path, viewer).await.ok();
    runner.end_as(&world, &returned, failed()).await;
    let text = world
        .post(&bob, "/runs/returned/retry", &again)
        .await
        .refused(403);
    assert!(text.contains("datastore 'cats'"), "{text}");
}

async fn mounting_is_refused(world: &World, bob: &Person, cats: &Value) {
    let nothing = json!({});
    for path in ["/runs/over/retry", "/runs/over/clone"] {
        let text = world.post(bob, path, &nothing).await.refused(404);
        assert!(text.contains("no datastore 'ada:cats:1'"), "{path}: {text}");
        assert!(!text.contains(id(cats)), "{path}: {text}");
    }
}

async fn who_retries_for_another_needs_the_right_and_so_do_they(world: World) {
    let (bob, _) = lab(&world).await;
    team(&world, &bob, "shop").await;
    let (carol, dave) = (world.user("carol").await, world.user("dave").await);
    for (name, person) in [("carol", &carol), ("dave", &dave)] {
        join(&world, &bob, "shop", name, person, Role::Member).await;
    }
    join(&world, &world.ada, "lab", "dave", &dave, Role::Member).await;
    let mut runner = Runner::new(&world);
    mounting(&world, &bob, "shop", "sales").await;
    let attempt = runner.launch(&world).await;
    runner.end_as(&world, &attempt, failed()).await;

    let again = json!({});
    let text = world
        .post(&carol, "/runs/bob:sales/retry", &again)
        .await
        .refused(404);
    assert!(text.contains("no datastore 'ada:cats:1'"), "{text}");
    world
        .delete(&world.ada, "/teams/lab/members/bob")
        .await
        .ok();
    let text = world
        .post(&dave, "/runs/bob:sales/retry", &again)
        .await
        .refused(409);
    assert!(text.contains("in the name of whoever made it"), "{text}");
    // In his own name he may.
    world
        .post(&dave, "/runs/bob:sales/clone", &again)
        .await
        .ok();
    runner.launch(&world).await;
}

async fn a_run_shows_what_its_data_is_called_now(world: World) {
    let (bob, cats) = lab(&world).await;
    let ada = world.ada.clone();
    mounting(&world, &bob, "bob", "before").await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    runner.end_as(&world, &attempt, failed()).await;
    let rename = json!({ "name": "tigers" }).to_string();
    let path = format!("/datastores/{}", id(&cats));
    world.put(&ada, &path, rename).await.ok();
    ready(&world, &ada, "cats").await;
    let mounts = async |person: &Person, run: &str| {
        let run = world.get(person, &format!("/runs/{run}")).await.ok();
        let mount = &run["run"]["spec"]["datastores"][0];
        assert_eq!(mount["mount_dir"], "/datastores/cats", "{mount}");
        mount["datastore"].as_str().expect("a name").to_owned()
    };
    assert_eq!(mounts(&bob, "before").await, "ada:tigers:1");
    // To whom it is not shown any more, its new name is not told.
    world.delete(&ada, "/teams/lab/members/bob").await.ok();
    assert_eq!(mounts(&bob, "before").await, "ada:cats:1");
    join(&world, &ada, "lab", "bob", &bob, Role::Member).await;
    world.delete(&ada, &path).await.ok();
    let text = world
        .post(&bob, "/runs/before/retry", &json!({}))
        .await
        .refused(409);
    assert!(
        text.contains("grid datastore restore ada:tigers:1"),
        "{text}"
    );
    let emptied = grid_engine::trash::empty_now(&world.app.engine).await;
    emptied.expect("emptied");
    assert_eq!(mounts(&bob, "before").await, "ada:cats:1 (deleted)");
    let retry = world.post(&bob, "/runs/before/retry", &json!({})).await;
    let text = retry.refused(404);
    assert!(text.contains("no datastore 'ada:cats:1'"), "{text}");
}

async fn what_was_made_before_with_a_key_is_told_to_members_only(world: World) {
    let (bob, _) = lab(&world).await;
    let mut run = new_run("once", &[]);
    run["team"] = json!("lab");
    let body = run.to_string();
    let ask = async || {
        let request = bob
            .request(axum::http::Method::POST, "/runs")
            .header("content-type", "application/json")
            .header("idempotency-key", "k1");
        let request = request.body(axum::body::Body::from(body.clone()));
        world.answer(request.expect("a request")).await
    };
    let made = ask().await.ok();
    assert_eq!(made["run"]["id"], ask().await.ok()["run"]["id"]);
    world
        .delete(&world.ada, "/teams/lab/members/bob")
        .await
        .ok();
    let text = ask().await.refused(404);
    assert!(text.contains("no team 'lab' of yours"), "{text}");
}

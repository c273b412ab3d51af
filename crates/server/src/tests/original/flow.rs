//! What people do with the client, request by request.

use axum::http::Method;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::{ask, begin, code, get, post, put, refused, upload_path};
use crate::tests::place::on_both;
use crate::tests::teams::{join, team};
use crate::tests::world::{HOST, Person, Runner, World};

on_both!(
    a_run_waits_for_its_code,
    our_own_client_sees_what_waits_for_its_code,
    what_is_said_of_a_run_is_kept,
    somebody_signs_in_by_name,
    teammates_are_named_with_their_name,
    what_is_stopped_before_it_began_never_begins,
    credentials_are_kept_for_the_team,
);

const RUNS: &str = "/v1/core/local/runs";

fn names(list: &Value) -> Vec<&str> {
    let runs = list["runs"].as_array().expect("runs").iter();
    runs.map(|run| run["name"].as_str().expect("a name"))
        .collect()
}

async fn a_run_waits_for_its_code(world: World) {
    let ada = &world.ada;
    let begun = begin(&world, ada, "my-run", "train.py  --lr '[0.1,0.2]'").await;
    assert_eq!(begun["status"]["phase"], "RUN_STATE_PENDING");
    assert_eq!(begun["status"]["experimentCounts"]["pending"], 2);
    assert_eq!(begun["status"]["experimentIds"], json!([]));
    let id = begun["id"].as_str().expect("an id");
    let path = format!("{RUNS}/{id}");
    let shown = get(&world, ada, &path).await;
    assert_eq!(shown["status"]["phase"], "RUN_STATE_PENDING");
    assert_eq!(
        shown["spec"]["runControllerCommand"],
        "train.py  --lr '[0.1,0.2]'"
    );
    let query = format!("{RUNS}?query=my-run&phaseNotIn=RUN_STATE_DELETED");
    assert_eq!(names(&get(&world, ada, &query).await), ["my-run"]);
    // It is its creator's alone, and has its name.
    let bob = world.user("bob").await;
    refused(&ask(&world, &bob, Method::GET, &path, None).await, 404);
    let again = post(&world, ada, RUNS, &super::new_run("my-run", "x.py")).await;
    assert!(refused(&again, 409).contains("my-run"));
    let same = crate::tests::world::new_run("my-run", &[]);
    world.post(ada, "/runs", &same).await.refused(409);

    // What is not its code fails, visibly, and the right one may still come.
    let upload = upload_path(&begun);
    let text = refused(&put(&world, &upload, "no archive").await, 400);
    assert!(text.contains(".tar.gz"), "{text}");
    let failed = get(&world, ada, &path).await;
    assert_eq!(failed["status"]["phase"], "RUN_STATE_FAILED");
    let message = failed["status"]["message"].as_str().expect("why");
    assert!(message.contains(".tar.gz"), "{message}");
    let sent = put(&world, &upload, code()).await;
    assert!(sent.header("etag").len() > 60, "{:?}", sent.headers);
    sent.ok();

    let shown = get(&world, ada, &path).await;
    assert_eq!(shown["id"], id, "the id it was promised");
    assert_eq!(shown["createdAt"], begun["createdAt"]);
    assert_eq!(shown["status"]["phase"], "RUN_STATE_PENDING");
    let ids = shown["status"]["experimentIds"].as_array().expect("ids");
    assert_eq!(ids.len(), 2);
    let code_of = shown["spec"]["sourceCode"].as_str().expect("a place");
    assert!(code_of.starts_with("s3://local/"), "{code_of}");
    let listed = get(&world, ada, RUNS).await;
    assert_eq!(names(&listed), ["my-run"], "once");
    // A second upload brings no second code into it.
    refused(&put(&world, &upload, code()).await, 409);

    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    let mib = vec![7; 1 << 20];
    let files: [(&str, &[u8]); 2] = [("a b/ü.ckpt", b"0123"), ("z", &mib)];
    runner.leave(&world, &attempt, &files).await;
    runner.end(&world, &attempt).await;
    artifacts_are_fetched(&world, ids).await;

    let experiment = get(&world, ada, "/v1/core/local/experiments?names=my-run-exp0").await;
    let experiment = &experiment["experiments"][0];
    assert_eq!(experiment["name"], "my-run-exp0");
    assert_eq!(
        experiment["spec"]["command"],
        json!(["python", "train.py", "--lr", "0.1"])
    );
    let stop = json!({ "name": "my-run", "spec": { "desiredState": "RUN_STATE_CANCELED",
        "resources": { "cpu": "0" } } });
    ask(&world, ada, Method::PUT, &path, Some(&stop)).await.ok();
    runner.work_until(&world, "my-run", "stopped").await;
    let shown = get(&world, ada, &path).await;
    let counts = &shown["status"]["experimentCounts"];
    assert_eq!(
        counts["cancelled"]
            .as_u64()
            .zip(counts["succeeded"].as_u64()),
        Some((1, 1))
    );
    assert_eq!(shown["status"]["phase"], "RUN_STATE_CANCELED");
    assert_eq!(shown["spec"]["desiredState"], "RUN_STATE_CANCELED");
    ask(&world, ada, Method::DELETE, &path, Some(&json!({})))
        .await
        .ok();
    assert_eq!(names(&get(&world, ada, RUNS).await), Vec::<&str>::new());
    let gone = format!(
        "/v1/core/local/experiments/{}",
        ids[0].as_str().expect("an id")
    );
    let answer = ask(&world, ada, Method::GET, &gone, None).await;
    refused(&answer, 404);
    assert_eq!(
        answer.json()["details"],
        json!([]),
        "the client goes on without it"
    );
}

async fn artifacts_are_fetched(world: &World, ids: &[Value]) {
    let mut found = Vec::new();
    for id in ids {
        let path = format!(
            "/v1/core/local/experiments/{}/artifacts",
            id.as_str().expect("an id")
        );
        let mut token = String::new();
        loop {
            let page = format!("{path}?pageToken={token}&pageSize=1");
            let page = get(world, &world.ada, &page.replace(' ', "%20")).await;
            found.extend(page["artifacts"].as_array().expect("a list").clone());
            let next = page["nextPageToken"].as_str().expect("a token");
            if next.is_empty() {
                break;
            }
            token = grid_api::client::segment(next);
        }
    }
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0]["filename"], "a b/ü.ckpt");
    assert_eq!(found[0]["sizeBytes"], "4");
    let url = found[0]["url"].as_str().expect("an address");
    let path = url
        .strip_prefix(&format!("http://{HOST}"))
        .expect("of this server");
    let answer = ask(world, &Person::Nobody, Method::GET, path, None).await;
    assert_eq!(&answer.bytes[..], b"0123");
    assert_eq!(answer.header("content-length"), "4");
    let other = path.replace("ckpt?", "z?");
    refused(
        &ask(world, &Person::Nobody, Method::GET, &other, None).await,
        403,
    );
}

async fn our_own_client_sees_what_waits_for_its_code(world: World) {
    let (ada, bob) = (&world.ada, world.user("bob").await);
    let begun = begin(&world, ada, "my-run", "train.py  --lr '[0.1,0.2]'").await;
    let id = begun["id"].as_str().expect("an id");
    let shown = world.get(ada, "/runs/my-run").await.ok();
    assert_eq!(shown["run"]["status"], "queued");
    assert_eq!(shown["run"]["counts"]["queued"], 2);
    assert_eq!(shown["run"]["upload"]["waiting"], true, "{shown}");
    let listed = world.get(ada, "/runs?active=true&name=my").await.ok();
    assert_eq!(listed["runs"][0]["id"], id, "{listed}");
    for query in ["active=false", "name=other", "deleted=true", "state=failed"] {
        let listed = world.get(ada, &format!("/runs?{query}")).await.ok();
        assert_eq!(listed["runs"], json!([]), "{query}");
    }
    world.get(&bob, &format!("/runs/{id}")).await.refused(404);
    let upload = upload_path(&begun);
    refused(&put(&world, &upload, "no archive").await, 400);
    let over = world.get(ada, "/runs?active=false").await.ok();
    let message = over["runs"][0]["upload"]["message"].as_str().expect("why");
    assert!(message.contains(".tar.gz"), "{message}");
    put(&world, &upload, code()).await.ok();
    let listed = world.get(ada, "/runs").await.ok();
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "once");
    assert!(listed["runs"][0].get("upload").is_none(), "{listed}");
}

async fn what_is_said_of_a_run_is_kept(world: World) {
    let mut body = super::new_run("told", "train.py");
    body["description"] = json!("why it was run");
    let begun = post(&world, &world.ada, RUNS, &body).await.ok();
    assert_eq!(begun["description"], "why it was run");
    put(&world, &upload_path(&begun), code()).await.ok();
    let shown = get(&world, &world.ada, &format!("{RUNS}?query=told")).await;
    assert_eq!(shown["runs"][0]["description"], "why it was run");
    let shown = world.get(&world.ada, "/runs/told").await.ok();
    assert_eq!(shown["run"]["spec"]["description"], "why it was run");
    body["description"] = json!("x".repeat(4_097));
    body["name"] = json!("long");
    let text = refused(&post(&world, &world.ada, RUNS, &body).await, 400);
    assert!(text.contains("description"), "{text}");
}

async fn somebody_signs_in_by_name(world: World) {
    let Person::User { id, key } = world.ada.clone() else {
        panic!("ada has a key")
    };
    let login = json!({ "username": "ada", "apiKey": key });
    let token = post(&world, &Person::Nobody, "/v1/auth/login", &login)
        .await
        .ok();
    let token = Person::Token(token["token"].as_str().expect("a token").to_owned());
    let user = get(&world, &token, "/v1/auth/user").await;
    assert_eq!(
        (&user["id"], &user["username"]),
        (&json!(id), &json!("ada"))
    );
    assert_eq!(user["apiKey"], "", "never told");
    let Person::Token(text) = &token else {
        panic!("a token")
    };
    assert!(!text.contains(&key), "the key is not in it");
    let changed = Person::Token(format!("{}0", &text[..text.len() - 1]));
    let answer = ask(&world, &changed, Method::GET, "/v1/auth/user", None).await;
    if text.ends_with('0') {
        answer.ok();
    } else {
        refused(&answer, 401);
    }
    for (username, key) in [("ada", "wrong"), ("nobody", key.as_str()), ("", "")] {
        let login = json!({ "username": username, "apiKey": key });
        let answer = post(&world, &Person::Nobody, "/v1/auth/login", &login).await;
        refused(&answer, 401);
    }
    // With the key goes what stood for it.
    world
        .post(&world.ada, "/user/rotate-key", &json!({}))
        .await
        .ok();
    refused(
        &ask(&world, &token, Method::GET, "/v1/auth/user", None).await,
        401,
    );
}

async fn teammates_are_named_with_their_name(world: World) {
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    team(&world, &ada, "lab").await;
    join(&world, &ada, "lab", "bob", &bob, Role::Member).await;
    let mut run = crate::tests::world::new_run("bert", &[]);
    run["team"] = json!("lab");
    world.post(&ada, "/runs", &run).await.ok();
    world.run(&bob, "own", &[]).await;
    let list = |query: String| {
        let (world, bob) = (&world, bob.clone());
        async move { get(world, &bob, &format!("{RUNS}?{query}")).await }
    };
    assert_eq!(
        names(&list("query=bert".to_owned()).await),
        Vec::<&str>::new()
    );
    let named = list("query=ada:bert".to_owned()).await;
    assert_eq!(names(&named), ["ada:bert"], "as it was asked for");
    let run = named["runs"][0]["id"].as_str().expect("an id");
    let Person::User { id: ada_id, .. } = &ada else {
        panic!("ada has an id")
    };
    let Person::User { id: bob_id, .. } = &bob else {
        panic!("bob has an id")
    };
    let both = list(format!("userIds={ada_id}&userIds={bob_id}")).await;
    assert_eq!(names(&both), ["own", "bert"]);
    assert_eq!(both["runs"][1]["spec"]["userId"], ada_id.as_str());
    assert_eq!(names(&list(format!("userIds={bob_id}")).await), ["own"]);
    assert_eq!(
        names(&list("phaseIn=RUN_STATE_FAILED".to_owned()).await),
        Vec::<&str>::new()
    );
    let experiments = "/v1/core/local/experiments";
    let found = get(&world, &bob, &format!("{experiments}?names=ada:bert-exp0")).await;
    assert_eq!(found["experiments"][0]["name"], "ada:bert-exp0");
    let id = found["experiments"][0]["id"].as_str().expect("an id");
    let shown = get(&world, &bob, &format!("{experiments}/{id}")).await;
    assert_eq!(shown["name"], "ada:bert-exp0", "a name that finds it again");
    assert_eq!(shown["spec"]["runId"], run);
    let none = get(&world, &bob, &format!("{experiments}?names=bert-exp0")).await;
    assert_eq!(none["experiments"], json!([]));
    let eve = world.user("eve").await;
    let hidden = get(&world, &eve, &format!("{RUNS}?query=ada:bert")).await;
    assert_eq!(names(&hidden), Vec::<&str>::new());
}

async fn what_is_stopped_before_it_began_never_begins(world: World) {
    let ada = &world.ada;
    let begun = begin(&world, ada, "never", "train.py").await;
    let path = format!("{RUNS}/{}", begun["id"].as_str().expect("an id"));
    let stop = json!({ "name": "never", "spec": { "desiredState": "RUN_STATE_CANCELED" } });
    let stopped = ask(&world, ada, Method::PUT, &path, Some(&stop)).await.ok();
    assert_eq!(stopped["status"]["phase"], "RUN_STATE_CANCELED");
    let text = refused(&put(&world, &upload_path(&begun), code()).await, 409);
    assert!(text.contains("stopped"), "{text}");
    let shown = get(&world, ada, &path).await;
    assert_eq!(shown["status"]["phase"], "RUN_STATE_CANCELED");
    ask(&world, ada, Method::DELETE, &path, None).await.ok();
    refused(&ask(&world, ada, Method::GET, &path, None).await, 404);
    refused(&put(&world, &upload_path(&begun), code()).await, 404);
    // Its name is free again, and a run that waits takes it.
    let begun = begin(&world, ada, "never", "train.py").await;
    put(&world, &upload_path(&begun), code()).await.ok();
    world.get(ada, "/runs/never").await.ok();
    // Also by our own client.
    let begun = begin(&world, ada, "native", "train.py --n [1,2]").await;
    let nobody = world.user("bob").await;
    for path in ["/runs/native/stop", "/runs/ada:native/stop"] {
        world.post(&nobody, path, &json!({})).await.refused(404);
    }
    let stopped = world.post(ada, "/runs/native/stop", &json!({})).await.ok();
    assert_eq!(
        (&stopped["changed"], &stopped["run"]["status"]),
        (&json!(2), &json!("stopped"))
    );
    refused(&put(&world, &upload_path(&begun), code()).await, 409);
    let gone = world.delete(ada, "/runs/native").await.ok();
    assert_eq!(gone["run"]["upload"]["waiting"], false, "{gone}");
    world.get(ada, "/runs/native").await.refused(404);
}

async fn credentials_are_kept_for_the_team(world: World) {
    let (ada, path) = (&world.ada, "/v1/core/local/credentials");
    let secret = "eyJhd3MiOiB7InJvbGVBcm4iOiAiYXJuOmF3czppYW06OjEyMzQ1Njc4OTAxMjpyb2xlL2dyaWQtczMtYWNjZXNzLXgiLCAiZXh0ZXJuYWxJZCI6ICJleHQxIn19";
    let body = json!({ "credential": { "clusterId": "prod-2",
        "type": "CREDENTIAL_TYPE_BUCKET_ACCESS", "credential": secret } });
    let made = post(&world, ada, path, &body).await.ok();
    let listed = get(
        &world,
        ada,
        &format!("{path}?credentialTypeIn=C&credentialTypeIn=R"),
    )
    .await;
    let [one] = listed["credentials"].as_array().expect("a list").as_slice() else {
        panic!("one: {listed}")
    };
    assert_eq!(one["id"], made["id"]);
    assert_eq!(one["clusterId"], "local");
    let bob = world.user("bob").await;
    let none = get(&world, &bob, path).await;
    assert_eq!(none["credentials"], json!([]));
    let id = made["id"].as_str().expect("an id");
    let own = format!("{path}/{id}");
    refused(&ask(&world, &bob, Method::DELETE, &own, None).await, 404);
    ask(&world, ada, Method::DELETE, &own, Some(&json!({})))
        .await
        .ok();
    assert_eq!(get(&world, ada, path).await["credentials"], json!([]));
    let mut wrong = body;
    wrong["credential"]["credential"] = json!("c2VjcmV0");
    let text = refused(&post(&world, ada, path, &wrong).await, 400);
    assert!(!text.contains("secret") && !text.contains("c2Vj"), "{text}");
}

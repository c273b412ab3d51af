//! Every route: a change that somebody makes is in the audit log.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Method;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::audited_routes::newest;
use super::matrix::operations;
use super::place::on_both;
use super::teams::{invite, join, team};
use super::world::{Person, World, new_run};

on_both!(
    every_change_on_every_route_is_written_down,
    an_operator_is_one_only_where_it_takes_one,
);

/// What changes nothing that anybody else could see: signing in; asking; and bytes, trees
/// and parts of uploads, which do nothing until a run or a version names them, and go by
/// themselves when none does.
const NO_CHANGE: [&str; 9] = [
    "blob_missing",
    "blob_near_upload",
    "blob_recipes",
    "blob_upload",
    "datastore_file_fetch",
    "datastore_part_put",
    "datastore_parts_put",
    "snapshot_create",
    "user_login",
];

struct Changes {
    world: World,
    done: BTreeSet<String>,
}

impl Changes {
    /// Makes a change, and finds that it is written down.
    async fn make(
        &mut self,
        operation: &str,
        (name, person): (&str, &Person),
        path: &str,
        body: impl ToString,
        action: &str,
    ) -> Value {
        let (_, method, _) = operations()
            .into_iter()
            .find(|(id, _, _)| id == operation)
            .expect("an operation");
        let world = &self.world;
        let before = newest(world, name, action).await;
        let request = person
            .request(method, path)
            .header("content-type", "application/json");
        let request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        let answer = world.answer(request).await.ok();
        let after = newest(world, name, action).await;
        assert_ne!(
            before["id"], after["id"],
            "{operation} left no event {action}"
        );
        assert_eq!(after["result"], "done", "{operation}: {after}");
        self.done.insert(operation.to_owned());
        answer
    }
}

async fn every_change_on_every_route_is_written_down(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    let ada = world.ada.clone();
    let done = BTreeSet::new();
    let mut all = Changes { world, done };
    let none = || json!({});
    let (b, e, a) = (("bob", &bob), ("eve", &eve), ("ada", &ada));
    all.make(
        "user_create",
        a,
        "/users",
        json!({ "username": "kim" }),
        "user.create",
    )
    .await;
    all.make(
        "team_create",
        b,
        "/teams",
        json!({ "name": "lab" }),
        "team.create",
    )
    .await;
    let to = json!({ "to": "eve" });
    all.make(
        "invitation_create",
        b,
        "/teams/lab/invitations",
        to.clone(),
        "invitation.create",
    )
    .await;
    let lab = json!({ "team": "lab" });
    all.make(
        "invitation_decline",
        e,
        "/invitations/decline",
        lab.clone(),
        "invitation.decline",
    )
    .await;
    all.make(
        "invitation_create",
        b,
        "/teams/lab/invitations",
        to.clone(),
        "invitation.create",
    )
    .await;
    all.make(
        "invitation_revoke",
        b,
        "/teams/lab/invitations/eve",
        none(),
        "invitation.revoke",
    )
    .await;
    all.make(
        "invitation_create",
        b,
        "/teams/lab/invitations",
        to,
        "invitation.create",
    )
    .await;
    all.make(
        "invitation_accept",
        e,
        "/invitations/accept",
        lab.clone(),
        "member.join",
    )
    .await;
    let open = invite(&all.world, &bob, "lab", "n@example.org", Role::Member)
        .await
        .ok();
    let register = json!({ "token": open["token"], "username": "newcomer" });
    let nobody = Person::Nobody;
    all.make(
        "invitation_register",
        ("newcomer", &nobody),
        "/invitations/register",
        register,
        "user.register",
    )
    .await;
    all.make(
        "member_update",
        b,
        "/teams/lab/members/newcomer",
        json!({ "role": "viewer" }),
        "member.role",
    )
    .await;
    all.make(
        "member_remove",
        b,
        "/teams/lab/members/newcomer",
        none(),
        "member.remove",
    )
    .await;
    let policy = json!({ "run_control": "creator" });
    all.make(
        "team_set_policy",
        b,
        "/teams/lab/policy",
        policy,
        "team.policy",
    )
    .await;
    all.make(
        "team_rename",
        b,
        "/teams/lab/rename",
        json!({ "name": "zoo" }),
        "team.rename",
    )
    .await;
    all.make(
        "user_set_team",
        e,
        "/user/team",
        json!({ "team": "eve" }),
        "user.team",
    )
    .await;
    all.make("team_leave", e, "/teams/zoo/leave", none(), "member.leave")
        .await;
    let account = json!({ "name": "zoo-ci" });
    let path = "/teams/zoo/service-accounts";
    all.make(
        "service_account_create",
        b,
        path,
        account,
        "service_account.create",
    )
    .await;
    let path = "/teams/zoo/service-accounts/zoo-ci";
    let key = json!({ "name": "second", "scope": "run" });
    all.make(
        "service_account_key_create",
        b,
        &format!("{path}/keys"),
        key,
        "key.create",
    )
    .await;
    all.make(
        "service_account_remove",
        b,
        path,
        none(),
        "service_account.remove",
    )
    .await;
    changes_of_runs(&mut all, b).await;
    changes_of_credentials(&mut all, b).await;
    changes_of_datastores(&mut all, b).await;
    all.make(
        "key_create",
        b,
        "/user/keys",
        json!({ "name": "ci" }),
        "key.create",
    )
    .await;
    all.make("key_revoke", b, "/user/keys/ci", none(), "key.revoke")
        .await;
    all.make(
        "user_rotate_key",
        b,
        "/user/rotate-key",
        none(),
        "key.rotate",
    )
    .await;

    let mut changing: BTreeSet<String> = operations()
        .into_iter()
        .filter(|(_, method, _)| *method != Method::GET)
        .map(|(id, _, _)| id)
        .collect();
    changing.retain(|id| !NO_CHANGE.contains(&id.as_str()));
    assert_eq!(all.done, changing, "make each new change here, too");
}

async fn changes_of_credentials(all: &mut Changes, bob: (&str, &Person)) {
    let key = json!({ "name": "laptop", "public_key": super::graphql::KEY });
    let path = "/user/ssh-keys";
    all.make("ssh_key_create", bob, path, key, "ssh_key.add")
        .await;
    let path = "/user/ssh-keys/laptop";
    all.make("ssh_key_remove", bob, path, json!({}), "ssh_key.remove")
        .await;
    let content =
        json!({ "kind": "s3_key", "access_key_id": "AKIA", "secret_access_key": "secret" });
    let new = json!({ "name": "lab", "content": content });
    all.make(
        "credential_create",
        bob,
        "/credentials",
        new,
        "credential.create",
    )
    .await;
    let path = "/credentials/lab";
    let change = json!({ "content": content });
    all.make("credential_update", bob, path, change, "credential.change")
        .await;
    all.make(
        "credential_delete",
        bob,
        path,
        json!({}),
        "credential.delete",
    )
    .await;
}

/// A tar archive of one small file.
fn archive() -> String {
    let mut head = format!("{:\0<100}0000644\0{:0<14}\0", "a.txt", "0000000\x00000000");
    head.push_str("\x0000000000002\x0000000000000\0");
    head.push_str(&format!("{:<8}0{:\0<100}ustar\x0000", "", ""));
    let sum: u32 = head.bytes().map(u32::from).sum();
    let sum = format!("{sum:06o}\0 ");
    head.replace_range(148..156, &sum);
    format!("{head:\0<512}{:\0<512}{:\0<1024}", "a\n", "")
}

async fn changes_of_datastores(all: &mut Changes, bob: (&str, &Person)) {
    let none = || json!({});
    let new = |kind: &str| json!({ "name": "digits", "source": "here", "source_kind": kind });
    let path = "/datastores";
    all.make(
        "datastore_create",
        bob,
        path,
        new("folder"),
        "datastore.create",
    )
    .await;
    let path = "/datastores/digits:1/parts/0";
    let part = json!({ "entries": [{ "path": "empty", "kind": "folder" }] }).to_string();
    all.world.put(bob.1, path, part).await.ok();
    let path = "/datastores/digits:1/commit";
    let parts = json!({ "parts": 1 });
    all.make("datastore_commit", bob, path, parts, "datastore.commit")
        .await;
    let describe = json!({ "description": "of the post office" });
    let path = "/datastores/digits:1";
    all.make(
        "datastore_update",
        bob,
        path,
        describe,
        "datastore.describe",
    )
    .await;
    all.make("datastore_delete", bob, path, none(), "datastore.delete")
        .await;
    let back = format!("{path}/restore");
    all.make("datastore_restore", bob, &back, none(), "datastore.restore")
        .await;
    let stream = new("stream");
    all.world.post(bob.1, "/datastores", &stream).await.ok();
    let path = "/datastores/digits:2/archive";
    all.make(
        "datastore_archive_put",
        bob,
        path,
        archive(),
        "datastore.commit",
    )
    .await;
}

async fn changes_of_runs(all: &mut Changes, bob: (&str, &Person)) {
    let none = || json!({});
    let tree = json!({ "entries": [] });
    let tree = all.world.post(bob.1, "/snapshots", &tree).await.ok();
    let mut run = new_run("bert", &["--n", "[1, 2]"]);
    run["spec"]["source"] = json!({ "kind": "snapshot", "id": tree["snapshot"] });
    all.make("run_create", bob, "/runs", run, "run.create")
        .await;
    // The code that a run is made of is named by the event of the run.
    let event = newest(&all.world, "bob", "run.create").await;
    let code = tree["snapshot"].as_str().expect("an id");
    assert_eq!(event["detail"], format!("2 experiments, code {code}"));
    all.make(
        "run_clone",
        bob,
        "/runs/bert/clone",
        json!({ "name": "copy" }),
        "run.create",
    )
    .await;
    all.make(
        "experiment_stop",
        bob,
        "/experiments/bert-exp0/stop",
        none(),
        "run.stop",
    )
    .await;
    all.make("run_retry", bob, "/runs/bert/retry", none(), "run.retry")
        .await;
    all.make("run_stop", bob, "/runs/bert/stop", none(), "run.stop")
        .await;
    all.make(
        "experiment_delete",
        bob,
        "/experiments/bert-exp0",
        none(),
        "run.delete",
    )
    .await;
    all.make(
        "experiment_restore",
        bob,
        "/experiments/bert-exp0/restore",
        none(),
        "run.restore",
    )
    .await;
    all.make("run_delete", bob, "/runs/bert", none(), "run.delete")
        .await;
    all.make(
        "run_restore",
        bob,
        "/runs/bert/restore",
        none(),
        "run.restore",
    )
    .await;
    let shared = all
        .make(
            "share_create",
            bob,
            "/runs/bert/shares",
            none(),
            "run.share",
        )
        .await;
    let share = format!("/shares/{}", shared["share"]["id"].as_str().expect("an id"));
    all.make("share_revoke", bob, &share, none(), "share.revoke")
        .await;
    let links = json!({ "paths": [] });
    all.make(
        "link_create",
        bob,
        "/experiments/bert-exp0/artifact-links",
        links,
        "share.create",
    )
    .await;
}

async fn an_operator_is_one_only_where_it_takes_one(world: World) {
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    team(&world, &ada, "own").await;
    team(&world, &bob, "lab").await;
    world
        .post(&ada, "/user/keys", &json!({ "name": "x" }))
        .await
        .ok();
    world.run(&ada, "mine", &[]).await;
    join(&world, &bob, "lab", "ada", &ada, Role::Viewer).await;
    world.get(&ada, "/teams/lab").await.ok();
    world.post(&ada, "/teams/lab/leave", &json!({})).await.ok();
    let rename = json!({ "name": "zoo" });
    world.post(&ada, "/teams/lab/rename", &rename).await.ok();
    for (action, kind) in [
        ("team.create", "user"),
        ("key.create", "user"),
        ("run.create", "user"),
        ("member.join", "user"),
        ("member.leave", "user"),
        ("user.create", "operator"),
        ("team.rename", "operator"),
        ("team.audit", "operator"),
    ] {
        newest(&world, "ada", action).await;
        let event = newest(&world, "ada", action).await;
        assert_eq!(event["actor_kind"], kind, "{event}");
    }
}

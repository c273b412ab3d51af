//! Teams as people use them: inviting, joining, roles, leaving, and what ends with it.

use axum::body::Body;
use axum::http::Method;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::place::on_both;
use super::world::{Answer, Person, Runner, Stream, World, new_run};

on_both!(
    a_team_is_made_and_joined_by_name,
    a_link_brings_somebody_in_once,
    an_invitation_is_worth_what_its_maker_may,
    a_team_always_has_an_owner,
    owners_who_leave_together_leave_one,
    who_is_removed_is_out_at_once,
    links_end_for_good_with_a_membership,
    links_are_listed_and_revoked,
    the_rules_are_told_in_plain_words,
);

/// Makes a team.
pub(super) async fn team(world: &World, owner: &Person, name: &str) {
    world
        .post(owner, "/teams", &json!({ "name": name }))
        .await
        .ok();
}

/// A request that says which host it asks, as those do that are answered with a link.
pub(super) async fn post(world: &World, person: &Person, path: &str, body: &Value) -> Answer {
    let request = person
        .request(Method::POST, path)
        .header("user-agent", "grid-test/1")
        .header("content-type", "application/json");
    world
        .answer(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
}

pub(super) async fn invite(world: &World, by: &Person, team: &str, to: &str, role: Role) -> Answer {
    let body = json!({ "to": to, "role": role });
    post(world, by, &format!("/teams/{team}/invitations"), &body).await
}

/// Invites somebody by name, who accepts.
pub(super) async fn join(
    world: &World,
    by: &Person,
    team: &str,
    name: &str,
    person: &Person,
    role: Role,
) {
    invite(world, by, team, name, role).await.ok();
    let body = json!({ "team": team });
    world.post(person, "/invitations/accept", &body).await.ok();
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| one[field].as_str().expect("text").to_owned())
        .collect()
}

async fn run_in(world: &World, person: &Person, team: &str, name: &str) -> Value {
    let mut run = new_run(name, &[]);
    run["team"] = json!(team);
    world.post(person, "/runs", &run).await.ok()
}

async fn a_team_is_made_and_joined_by_name(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "Vision-Lab").await;
    let taken = world
        .post(&eve, "/teams", &json!({ "name": "vision-lab" }))
        .await;
    taken.refused(409);
    let mine = world.get(&bob, "/teams").await.ok();
    assert_eq!(names(&mine["teams"], "name"), ["bob", "vision-lab"]);
    assert_eq!(
        mine["teams"][1]["current"], true,
        "the first joined is the current one"
    );
    let invited = invite(&world, &bob, "vision-lab", "eve", Role::Admin)
        .await
        .ok();
    assert_eq!(invited["token"], Value::Null, "she is asked by name");
    // A name that nobody has is answered alike.
    let nobody = invite(&world, &bob, "vision-lab", "nobody", Role::Admin)
        .await
        .ok();
    assert_eq!(
        nobody
            .as_object()
            .expect("an object")
            .keys()
            .collect::<Vec<_>>(),
        invited
            .as_object()
            .expect("an object")
            .keys()
            .collect::<Vec<_>>()
    );
    let waiting = world.get(&eve, "/invitations").await.ok();
    assert_eq!(waiting["invitations"][0]["team"], "vision-lab");
    assert_eq!(waiting["invitations"][0]["invited_by"], "bob");
    world.get(&eve, "/teams/vision-lab").await.refused(404);
    let accept = json!({ "team": "vision-lab" });
    let joined = world.post(&eve, "/invitations/accept", &accept).await.ok();
    assert_eq!(
        (&joined["team"]["role"], &joined["team"]["current"]),
        (&json!("admin"), &json!(true))
    );
    assert_eq!(
        names(&joined["team"]["members"], "username"),
        ["bob", "eve"]
    );
    world
        .post(&eve, "/invitations/accept", &accept)
        .await
        .refused(404);
    let me = world.get(&eve, "/user").await.ok();
    assert_eq!(me["user"]["current_team"], "vision-lab");
    let made = world.run(&eve, "bert", &[]).await;
    assert_eq!(made["run"]["team"], "vision-lab");
    let back = json!({ "team": "eve" }).to_string();
    world.put(&eve, "/user/team", back).await.ok();
    assert_eq!(world.run(&eve, "gpt", &[]).await["run"]["team"], "eve");
    let renamed = world
        .post(&bob, "/teams/vision-lab/rename", &json!({ "name": "zoo" }))
        .await
        .ok();
    assert_eq!(renamed["team"]["name"], "zoo");
    world.get(&eve, "/teams/vision-lab").await.refused(404);
    assert_eq!(
        world.get(&eve, "/runs/bert").await.ok()["run"]["team"],
        "zoo"
    );
}

async fn a_link_brings_somebody_in_once(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    let made = invite(&world, &bob, "lab", "new@example.org", Role::Member)
        .await
        .ok();
    let url = made["url"].as_str().expect("a link").to_owned();
    assert!(url.starts_with("http://grid.example:8080/join/"), "{url}");
    let register = json!({ "token": url, "username": "newcomer", "first_name": "New" });
    let key = world
        .post(&Person::Nobody, "/invitations/register", &register)
        .await
        .ok();
    let newcomer = Person::User {
        id: key["user_id"].as_str().expect("an id").to_owned(),
        key: key["api_key"].as_str().expect("a key").to_owned(),
    };
    let me = world.get(&newcomer, "/user").await.ok();
    assert_eq!(me["user"]["current_team"], "lab");
    assert_eq!(
        me["user"]["email"], "new@example.org",
        "the address that was invited"
    );
    let again = json!({ "token": url, "username": "another" });
    let once = world
        .post(&Person::Nobody, "/invitations/register", &again)
        .await
        .refused(404);
    let made_up = json!({ "token": "0".repeat(32), "username": "another" });
    let never = world
        .post(&Person::Nobody, "/invitations/register", &made_up)
        .await
        .refused(404);
    assert_eq!(
        once, never,
        "whatever is wrong with it, the answer is the same"
    );
    world
        .post(&eve, "/invitations/accept", &json!({ "token": url }))
        .await
        .refused(404);

    let made = invite(&world, &bob, "lab", "e@example.org", Role::Viewer)
        .await
        .ok();
    let token = json!({ "token": made["token"] });
    world
        .delete(&bob, "/teams/lab/invitations/e@example.org")
        .await
        .ok();
    world
        .post(&eve, "/invitations/accept", &token)
        .await
        .refused(404);
    let made = invite(&world, &bob, "lab", "e@example.org", Role::Viewer)
        .await
        .ok();
    let declined = json!({ "token": made["token"] });
    world
        .post(&eve, "/invitations/decline", &declined)
        .await
        .ok();
    world
        .post(&eve, "/invitations/accept", &declined)
        .await
        .refused(404);
    let open = world.get(&bob, "/teams/lab/invitations").await.ok();
    assert_eq!(open["invitations"], json!([]));
}

async fn an_invitation_is_worth_what_its_maker_may(world: World) {
    let bob = world.user("bob").await;
    let (eve, kim) = (world.user("eve").await, world.user("kim").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Admin).await;
    invite(&world, &eve, "lab", "kim", Role::Owner)
        .await
        .refused(403);
    invite(&world, &eve, "lab", "kim", Role::Admin).await.ok();
    let member = json!({ "role": "member" }).to_string();
    world.put(&bob, "/teams/lab/members/eve", member).await.ok();
    let accept = json!({ "team": "lab" });
    world
        .post(&kim, "/invitations/accept", &accept)
        .await
        .refused(404);
    invite(&world, &eve, "lab", "kim", Role::Viewer)
        .await
        .refused(403);
}

async fn a_team_always_has_an_owner(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Admin).await;
    let leave = json!({});
    let last = world
        .post(&bob, "/teams/lab/leave", &leave)
        .await
        .refused(409);
    assert!(last.contains("last owner"), "{last}");
    let role = |role: &str| json!({ "role": role }).to_string();
    world
        .put(&bob, "/teams/lab/members/bob", role("member"))
        .await
        .refused(409);
    world
        .put(&eve, "/teams/lab/members/eve", role("owner"))
        .await
        .refused(403);
    world
        .put(&eve, "/teams/lab/members/bob", role("member"))
        .await
        .refused(403);
    world
        .delete(&eve, "/teams/lab/members/bob")
        .await
        .refused(403);
    world
        .put(&bob, "/teams/lab/members/eve", role("owner"))
        .await
        .ok();
    let left = world.post(&bob, "/teams/lab/leave", &leave).await.ok();
    assert_eq!(left, json!({ "team": "lab", "current": "bob" }));
    world.get(&bob, "/teams/lab").await.refused(404);
    for (method, path) in [
        (Method::POST, "/teams/eve/leave"),
        (Method::DELETE, "/teams/eve/members/eve"),
    ] {
        let request = eve
            .request(method, path)
            .body(Body::empty())
            .expect("a request");
        world.answer(request).await.refused(409);
    }
    world
        .post(&eve, "/teams/eve/rename", &json!({ "name": "x" }))
        .await
        .refused(409);
    invite(&world, &eve, "eve", "bob", Role::Member)
        .await
        .refused(409);
    // An operator can put things right, and is seen doing it.
    world
        .put(&world.ada, "/teams/lab/members/eve", role("member"))
        .await
        .refused(409);
    let renamed = json!({ "name": "lab-2" });
    world
        .post(&world.ada, "/teams/lab/rename", &renamed)
        .await
        .ok();
    let log = world
        .get(&eve, "/teams/lab-2/audit?action=team.rename")
        .await
        .ok();
    assert_eq!(log["events"][0]["actor"], "ada");
    assert_eq!(log["events"][0]["actor_kind"], "operator");
}

async fn owners_who_leave_together_leave_one(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    for n in 0..8 {
        let name = format!("lab-{n}");
        team(&world, &bob, &name).await;
        join(&world, &bob, &name, "eve", &eve, Role::Owner).await;
        let path = format!("/teams/{name}/leave");
        let nothing = json!({});
        let both = tokio::join!(
            world.post(&bob, &path, &nothing),
            world.post(&eve, &path, &nothing)
        );
        let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

async fn who_is_removed_is_out_at_once(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
    run_in(&world, &bob, "lab", "bert").await;
    run_in(&world, &eve, "lab", "mine").await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    runner.leave(&world, &attempt, &[("a.txt", b"a")]).await;
    runner.end(&world, &attempt).await;
    let links = json!({ "paths": ["a.txt"] });
    let link = async |person: &Person| {
        let path = "/experiments/bob:bert-exp0/artifact-links";
        let made = post(&world, person, path, &links).await.ok();
        let url = made["links"][0]["url"].as_str().expect("a link");
        url.replace("http://grid.example:8080/api/v1", "")
    };
    let (hers, his) = (link(&eve).await, link(&bob).await);
    assert_eq!(&world.get(&Person::Nobody, &hers).await.bytes[..], b"a");
    let shared = post(&world, &bob, "/runs/bert/shares", &json!({}))
        .await
        .ok();
    let shared = format!("/shared/{}", shared["token"].as_str().expect("a token"));
    world.get(&eve, &shared).await.ok();
    // She follows a run that is still open.
    let path = "/experiments/mine-exp0/logs/follow";
    let mut stream = Stream::open(&world, &eve, path, None).await;
    assert_eq!(stream.next().await.expect("an event").name, "status");

    world.delete(&bob, "/teams/lab/members/eve").await.ok();
    let end = loop {
        let event = stream.next().await.expect("a last event");
        if event.name != "status" {
            break event;
        }
    };
    assert_eq!(end.name, "error", "{end:?}");
    assert_eq!(end.data["error"]["code"], "not_found");
    world.get(&Person::Nobody, &hers).await.refused(404);
    assert_eq!(&world.get(&Person::Nobody, &his).await.bytes[..], b"a");
    world.get(&eve, &shared).await.refused(404);
    for path in [
        "/runs/bob:bert",
        "/runs/mine",
        "/teams/lab",
        "/teams/lab/audit",
    ] {
        world.get(&eve, path).await.refused(404);
    }
    assert_eq!(
        world.get(&eve, "/runs?global=true").await.ok()["runs"],
        json!([])
    );
    assert_eq!(
        world.get(&eve, "/user").await.ok()["user"]["current_team"],
        "eve"
    );
    // What she made stays in the team.
    assert_eq!(
        world.get(&bob, "/runs/eve:mine").await.ok()["run"]["team"],
        "lab"
    );
}

async fn links_end_for_good_with_a_membership(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
    run_in(&world, &bob, "lab", "bert").await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    runner.leave(&world, &attempt, &[("a.txt", b"a")]).await;
    runner.end(&world, &attempt).await;
    let newest = async |action: &str| {
        let log = format!("/teams/lab/audit?limit=1&action={action}");
        world.get(&bob, &log).await.ok()["events"][0]["detail"].clone()
    };
    // Once she is removed, and once she leaves.
    for goes in ["removed", "leaves"] {
        let paths = json!({ "paths": ["a.txt"] });
        let path = "/experiments/bob:bert-exp0/artifact-links";
        let made = post(&world, &eve, path, &paths).await.ok();
        let url = made["links"][0]["url"].as_str().expect("a link");
        let file = url.replace("http://grid.example:8080/api/v1", "");
        let path = "/runs/bob:bert/shares";
        let made = post(&world, &eve, path, &json!({})).await.ok();
        let run = format!("/shared/{}", made["token"].as_str().expect("a token"));
        let found = world.get(&Person::Nobody, &file).await;
        assert_eq!(&found.bytes[..], b"a", "{goes}");
        world.get(&bob, &run).await.ok();
        let action = if goes == "removed" {
            world.delete(&bob, "/teams/lab/members/eve").await.ok();
            "member.remove"
        } else {
            let path = "/teams/lab/leave";
            world.post(&eve, path, &json!({})).await.ok();
            "member.leave"
        };
        let said = json!("was member; 2 links of theirs ended");
        assert_eq!(newest(action).await, said, "{goes}");
        for back in [false, true] {
            if back {
                join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
            }
            world.get(&Person::Nobody, &file).await.refused(404);
            for person in [&bob, &eve] {
                world.get(person, &run).await.refused(404);
            }
            let listed = world.get(&bob, "/shares?global=true").await.ok();
            assert_eq!(listed["shares"], json!([]), "{goes}, back: {back}");
        }
    }
    // What was not theirs goes on, and so does what they make from now on.
    let made = post(&world, &eve, "/runs/bob:bert/shares", &json!({}))
        .await
        .ok();
    let run = format!("/shared/{}", made["token"].as_str().expect("a token"));
    world.get(&bob, &run).await.ok();
}

async fn links_are_listed_and_revoked(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    let kim = world.user("kim").await;
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
    join(&world, &bob, "lab", "kim", &kim, Role::Member).await;
    run_in(&world, &eve, "lab", "bert").await;
    let made = post(
        &world,
        &eve,
        "/runs/bert/shares",
        &json!({ "expires_in_s": 60 }),
    )
    .await
    .ok();
    let id = made["share"]["id"].as_str().expect("an id");
    assert_eq!(world.get(&kim, "/shares").await.ok()["shares"], json!([]));
    let seen = world
        .get(&kim, "/shares?global=true&run=eve:bert")
        .await
        .ok();
    assert_eq!(seen["shares"][0]["thing"], "eve:bert");
    assert_eq!(seen["shares"][0]["created_by"], "eve");
    assert!(
        !seen
            .to_string()
            .contains(made["token"].as_str().expect("a token"))
    );
    world
        .delete(&kim, &format!("/shares/{id}"))
        .await
        .refused(403);
    world
        .delete(&world.user("out").await, &format!("/shares/{id}"))
        .await
        .refused(404);
    world.delete(&bob, &format!("/shares/{id}")).await.ok();
    world
        .delete(&eve, &format!("/shares/{id}"))
        .await
        .refused(404);
    let path = format!("/shared/{}", made["token"].as_str().expect("a token"));
    world.get(&kim, &path).await.refused(404);
    let endless = json!({ "expires_in_s": 0 });
    post(&world, &eve, "/runs/bert/shares", &endless)
        .await
        .refused(400);
}

async fn the_rules_are_told_in_plain_words(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Member).await;
    let closed = json!({ "run_control": "creator" }).to_string();
    world
        .put(&eve, "/teams/lab/policy", closed.clone())
        .await
        .refused(403);
    world.put(&bob, "/teams/lab/policy", closed).await.ok();
    let rules = world.get(&eve, "/teams/lab/policy").await.ok();
    assert_eq!(rules["role"], "member");
    assert_eq!(rules["policy"]["run_control"], "creator");
    let all = rules["rules"].as_array().expect("rules");
    let stop = all
        .iter()
        .find(|rule| rule["action"] == "stop_run")
        .expect("a rule");
    assert_eq!(
        (&stop["what"], &stop["mine"], &stop["theirs"]),
        (
            &json!("stop a run or an experiment"),
            &json!("yes"),
            &json!("no: only its creator or a team admin can")
        )
    );
    run_in(&world, &bob, "lab", "bert").await;
    let refused = world
        .post(&eve, "/runs/bob:bert/stop", &json!({}))
        .await
        .refused(403);
    assert!(
        refused.starts_with("run 'bert' belongs to bob. You can see it, read its logs,"),
        "{refused}"
    );
    assert!(
        refused.contains("only bob or a team admin can stop it."),
        "{refused}"
    );
    assert!(refused.contains("admins of the team: bob"), "{refused}");
}

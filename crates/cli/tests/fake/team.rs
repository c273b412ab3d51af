//! Teams, keys, links and filters: what is asked for, and how answers are shown.

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use serde_json::{Value, json};

use super::support::{Fake, counts, experiment, run};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn team() -> Value {
    let member = |name: &str, role: &str, service: bool| {
        json!({ "username": name, "display_name": format!("{name} display"), "role": role,
                "service_account": service, "since": "2026-11-22T05:50:30.000Z" })
    };
    json!({
        "id": "t-1", "name": "vision", "personal": false, "created_at": "2026-11-22T05:50:30.000Z",
        "role": "owner", "current": true, "member_count": 2,
        "policy": { "run_control": "creator", "jupyter_access": "team" },
        "members": [member("ada", "owner", false), member("vision-ci", "member", true)],
    })
}

fn answer(value: Value) -> impl Fn() -> std::future::Ready<Json<Value>> + Clone {
    move || std::future::ready(Json(value.clone()))
}

fn echo(answer: Value) -> impl Fn(Json<Value>) -> std::future::Ready<Json<Value>> + Clone {
    // What was sent comes back in a place where the test finds it.
    move |Json(body): Json<Value>| {
        let mut answer = answer.clone();
        answer["team"]["id"] = json!(body.to_string());
        std::future::ready(Json(answer))
    }
}

#[test]
fn a_team_is_shown_with_its_members_and_switches() {
    let routes = Router::new()
        .route("/teams", get(answer(json!({ "teams": [team()] }))))
        .route("/teams/vision", get(answer(json!({ "team": team() }))));
    let fake = Fake::serve(routes);
    for words in [["team", "vision"], ["teams", "vision"]] {
        let said = fake.grid(&words).ok().stdout;
        for text in [
            "Team            : vision",
            "My role         : owner",
            "run_control     : creator",
            "jupyter_access  : team",
            "ada display",
            "service account",
        ] {
            assert!(said.contains(text), "{text}: {said}");
        }
    }
    let listed = fake.grid(&["team"]).ok().stdout;
    assert!(
        listed.contains("vision") && listed.contains("My role"),
        "{listed}"
    );
    fake.grid(&["team", "--all"]).ok();
    assert_eq!(
        fake.lines(),
        [
            "GET /teams/vision",
            "GET /teams/vision",
            "GET /teams",
            "GET /teams?all=true"
        ]
    );
    assert_eq!(
        fake.grid(&["teams", "vision", "-o", "json"]).json()["team"]["name"],
        "vision"
    );
    fake.grid(&["team", "create", "not a name"]).fails(2);
}

#[test]
fn inviting_shows_what_the_invited_types() {
    let invitation = |to: &str| {
        json!({ "id": "i-1", "team": "vision", "to": to, "role": "member", "invited_by": "ada",
                "created_at": "2026-11-22T05:50:30.000Z", "expires_at": "2026-11-29T05:50:30.000Z" })
    };
    let invite = move |Json(body): Json<Value>| async move {
        let to = body["to"].as_str().unwrap_or_default().to_owned();
        let mut created = json!({ "invitation": invitation(&to) });
        if to.contains('@') {
            created["token"] = json!(TOKEN);
            created["url"] = json!(format!("https://grid.example/join/{TOKEN}"));
        }
        (StatusCode::CREATED, Json(created))
    };
    let open = json!({ "invitations": [invitation("bob"), invitation("eve@example.org")] });
    let routes = Router::new()
        .route("/teams/vision/invitations", post(invite).get(answer(open)))
        .route(
            "/teams/vision/invitations/{id}",
            delete(answer(json!({ "invitation": invitation("bob") }))),
        )
        .route("/invitations/accept", post(echo(json!({ "team": team() }))));
    let fake = Fake::serve(routes);
    let said = fake.grid(&["team", "invite", "vision", "bob"]).ok();
    assert_eq!(said.stdout, "bob can join with: grid team join vision\n");
    let said = fake
        .grid(&[
            "team",
            "invite",
            "vision",
            "eve@example.org",
            "--role",
            "viewer",
        ])
        .ok();
    assert!(
        said.stdout.contains(&format!(
            "grid team join https://grid.example/join/{TOKEN}\n"
        )),
        "{said:?}"
    );
    assert!(said.stderr.contains("shown this once"), "{said:?}");
    fake.grid(&["team", "invite", "vision", "bob", "--role", "boss"])
        .fails(2);
    // A name and a token are sent as what they are.
    for (word, sent) in [
        ("vision", json!({ "team": "vision" })),
        (TOKEN, json!({ "token": TOKEN })),
    ] {
        let joined = fake.grid(&["team", "join", word, "-o", "json"]).json();
        assert_eq!(joined["team"]["id"], sent.to_string());
    }
    let said = fake
        .grid(&["team", "uninvite", "vision", "BOB"])
        .ok()
        .stdout;
    assert_eq!(
        said,
        "The invitation of bob into team vision is taken back\n"
    );
    fake.grid(&["team", "uninvite", "vision", "mallory"])
        .fails(1);
}

#[test]
fn whoever_has_no_account_makes_one_with_the_token() {
    let key = json!({ "username": "eve", "user_id": "u-9", "api_key": "fresh" });
    let routes = Router::new().route("/invitations/register", post(answer(key)));
    let fake = Fake::serve(routes);
    let words = ["team", "join", TOKEN, "--username", "eve"];
    let said = fake.grid(&words).fails(1);
    assert!(said.stderr.contains("has signed in"), "{said:?}");
    let kept = fake.home.path().join(".grid/credentials.json");
    std::fs::remove_file(&kept).expect("signed out");
    let said = fake.grid(&["team", "join", TOKEN]).fails(1);
    assert!(said.stderr.contains("--username"), "{said:?}");
    fake.grid(&["team", "join", "vision", "--username", "eve"])
        .fails(2);
    assert!(fake.asked().is_empty(), "nothing was sent so far");
    fake.grid(&words).ok();
    let text = std::fs::read_to_string(&kept).expect("kept");
    assert!(text.contains("u-9") && text.contains("fresh"), "{text}");
    assert_eq!(fake.asked()[0].header("authorization"), None);
}

#[test]
fn the_rules_are_shown_and_switched() {
    let rules = json!({
        "team": "vision", "role": "member", "policy": { "run_control": "creator", "jupyter_access": "team" },
        "rules": [
            { "action": "stop_run", "what": "stop a run or an experiment", "mine": "yes",
              "theirs": "no: only its creator or a team admin can", "mine_allowed": true, "theirs_allowed": false },
            { "action": "manage_team", "what": "invite and remove members",
              "theirs": "no: only a team admin can", "mine_allowed": false, "theirs_allowed": false },
        ],
    });
    let routes = Router::new()
        .route("/teams", get(answer(json!({ "teams": [team()] }))))
        .route(
            "/teams/vision/policy",
            get(answer(rules.clone())).put(answer(rules)),
        );
    let fake = Fake::serve(routes);
    let said = fake.grid(&["team", "policy"]).ok().stdout;
    for text in [
        "run_control     : creator",
        "stop a run or an experiment",
        "only a team admin can",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    fake.grid(&["team", "policy", "vision", "--set", "run_control=creator"])
        .ok();
    assert_eq!(
        fake.lines(),
        [
            "GET /teams",
            "GET /teams/vision/policy",
            "PUT /teams/vision/policy"
        ]
    );
    let said = fake
        .grid(&["team", "policy", "vision", "--set", "run_contrl=team"])
        .fails(2);
    assert!(
        said.stderr.contains("did you mean run_control?"),
        "{said:?}"
    );
}

#[test]
fn a_refusal_is_a_warning_and_everything_else_an_error() {
    let refuse = |code: &'static str, status: StatusCode, message: &'static str| {
        move || {
            std::future::ready((
                status,
                Json(json!({ "error": { "code": code, "message": message } })),
            ))
        }
    };
    let words =
        "run 'bert-1' belongs to ada. You can see it; only ada or a team admin can stop it.";
    let routes = Router::new()
        .route(
            "/runs/{run}/stop",
            post(refuse("forbidden", StatusCode::FORBIDDEN, words)),
        )
        .route(
            "/teams/vision/members/bob",
            put(refuse(
                "forbidden",
                StatusCode::FORBIDDEN,
                "team 'vision': only a team owner can make or unmake owners.",
            ))
            .delete(refuse(
                "not_found",
                StatusCode::NOT_FOUND,
                "bob is not in team 'vision'",
            )),
        );
    let fake = Fake::serve(routes);
    let said = fake.grid(&["stop", "run", "ada:bert-1"]).fails(1);
    assert_eq!(said.stderr, format!("warning: {words}\n"));
    let said = fake
        .grid(&["team", "role", "vision", "bob", "owner"])
        .fails(1);
    assert!(
        said.stderr.starts_with("warning: team 'vision': only"),
        "{said:?}"
    );
    let said = fake.grid(&["team", "remove", "vision", "bob"]).fails(1);
    assert_eq!(said.stderr, "error: bob is not in team 'vision'\n");
    let said = fake
        .grid(&["-o", "json", "stop", "run", "ada:bert-1"])
        .fails(1);
    let error: Value = serde_json::from_str(&said.stderr).expect("JSON");
    assert_eq!(error["error"]["code"], "forbidden");
}

fn event(n: u64) -> Value {
    json!({ "id": format!("e-{n}"), "at": "2026-11-22T05:50:30.123Z", "actor_kind": "operator",
            "actor": "root", "team": "vision", "action": "run.stop", "thing_kind": "run",
            "thing_id": "r-1", "thing": "ada:bert-1", "result": "refused" })
}

#[test]
fn the_audit_log_is_asked_for_as_typed_and_exported_line_by_line() {
    let lines = format!("{}\n{}\n", event(2), event(1));
    let exported = lines.clone();
    let routes = Router::new()
        .route(
            "/teams/vision/audit",
            get(answer(
                json!({ "events": [event(2), event(1)], "next": "more" }),
            )),
        )
        .route(
            "/teams/vision/audit/export",
            get(move || std::future::ready(lines.clone())),
        )
        .route("/audit", get(answer(json!({ "events": [] }))));
    let fake = Fake::serve(routes);
    let said = fake
        .grid(&[
            "team",
            "audit",
            "vision",
            "--since",
            "2026-11-01",
            "--user",
            "bob",
            "--resource",
            "ada:bert-1",
            "--result",
            "refused",
            "--limit",
            "2",
        ])
        .ok();
    for text in [
        "root (operator)",
        "run ada:bert-1",
        "2026-11-22 05:50:30+0000",
    ] {
        assert!(said.stdout.contains(text), "{text}: {said:?}");
    }
    assert!(said.stderr.contains("the newest 2"), "{said:?}");
    assert_eq!(
        fake.lines(),
        [
            "GET /teams/vision/audit?since=2026-11-01T00%3A00%3A00.000Z&user=bob\
          &resource=ada%3Abert-1&result=refused&limit=2"
        ]
    );
    let said = fake.grid(&["team", "audit", "vision", "--jsonl"]).ok();
    assert_eq!(said.stdout, exported);
    let json = fake
        .grid(&["team", "audit", "vision", "--limit", "1", "-o", "json"])
        .json();
    assert_eq!(json["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        fake.grid(&["team", "audit", "--mine"]).ok().stdout,
        "No events.\n"
    );
}

#[test]
fn keys_are_listed_made_and_revoked() {
    let key = json!({ "id": "k-1", "name": "ci", "scope": "run", "created_at": "2026-11-22T05:50:30.000Z",
                      "expires_at": "2026-12-22T05:50:30.000Z", "current": false });
    let created = json!({ "username": "ada", "user_id": "u-1", "key": key, "api_key": "fresh" });
    let routes = Router::new()
        .route(
            "/user/keys",
            get(answer(json!({ "keys": [key] }))).post(answer(created.clone())),
        )
        .route("/user/keys/{key}", delete(answer(json!({ "key": key }))))
        .route("/teams/vision/service-accounts", post(answer(created)));
    let fake = Fake::serve(routes);
    let said = fake.grid(&["user", "keys"]).ok().stdout;
    assert!(said.contains("ci") && said.contains("2026-12-22"), "{said}");
    let said = fake
        .grid(&[
            "user",
            "keys",
            "create",
            "ci",
            "--scope",
            "run",
            "--expires",
            "30d",
        ])
        .ok();
    assert!(said.stdout.contains("API key         : fresh"), "{said:?}");
    assert_eq!(
        fake.grid(&["user", "keys", "revoke", "ci"]).ok().stdout,
        "Key ci no longer works\n"
    );
    let account = ["team", "service-account", "create", "vision", "vision-ci"];
    assert!(fake.grid(&account).ok().stdout.contains("fresh"));
    fake.grid(&["user", "keys", "create", "ci", "--scope", "write"])
        .fails(2);
    assert_eq!(
        fake.lines(),
        [
            "GET /user/keys",
            "POST /user/keys",
            "DELETE /user/keys/ci",
            "POST /teams/vision/service-accounts"
        ]
    );
}

#[test]
fn a_link_is_made_opened_listed_and_revoked() {
    let share = json!({ "id": "s-1", "kind": "run", "thing": "ada:bert-1", "team": "vision",
                        "created_by": "ada", "created_at": "2026-11-22T05:50:30.000Z" });
    let url = format!("https://grid.example/s/{TOKEN}");
    let created = json!({ "share": share, "token": TOKEN, "url": url });
    let id = "01g40mbzw89j19p20000000000";
    let mut bert = run("bert-1", &counts(0, 1, 0));
    bert["id"] = json!(id);
    let one = json!({ "run": bert });
    let experiments = json!({ "experiments": [experiment("bert-1", 0, "succeeded")] });
    let routes = Router::new()
        .route("/runs/ada:bert-1/shares", post(answer(created)))
        .route("/shared/{token}", get(answer(one.clone())))
        .route("/runs/{run}", get(answer(one)))
        .route("/runs/{run}/experiments", get(answer(experiments)))
        .route("/shares", get(answer(json!({ "shares": [share] }))))
        .route("/shares/s-1", delete(answer(json!({ "share": share }))));
    let fake = Fake::serve(routes);
    let said = fake.grid(&["share", "ada:bert-1"]).ok();
    assert_eq!(said.stdout, format!("{url}\n"));
    assert!(
        fake.grid(&["status", &url])
            .ok()
            .stdout
            .contains("bert-1-exp0")
    );
    let asked = fake.lines();
    assert!(asked.contains(&format!("GET /shared/{TOKEN}")), "{asked:?}");
    assert!(asked.contains(&format!("GET /runs/{id}")), "{asked:?}");
    assert!(
        fake.grid(&["share", "--list"])
            .ok()
            .stdout
            .contains("run ada:bert-1")
    );
    fake.grid(&["share", "revoke", "s-1"]).ok();
    fake.grid(&["share"]).fails(2);
    fake.grid(&["status", "https://grid.example/elsewhere"])
        .fails(2);
}

#[test]
fn lists_of_runs_are_narrowed_by_name_state_and_age() {
    let make = |name: &str, status: &str, created: &str| {
        let mut made = run(name, &counts(0, 1, 0));
        made["status"] = json!(status);
        made["created_at"] = json!(created);
        made
    };
    let runs = json!({ "runs": [
        make("bert-3", "failed", "2026-11-03T00:00:00.000Z"),
        make("bert-2", "stopped", "2026-11-02T00:00:00.000Z"),
    ] });
    let fake = Fake::serve(Router::new().route("/runs", get(answer(runs))));
    let said = fake
        .grid(&[
            "history",
            "--global",
            "ada",
            "--name",
            "bert",
            "--state",
            "failed",
            "--state",
            "stopped",
            "--since",
            "2026-11-01",
        ])
        .ok()
        .stdout;
    assert!(
        said.contains("bert-3") && said.contains("bert-2") && said.contains("Created by"),
        "{said}"
    );
    // All of it is the server's to look for.
    let since = "2026-11-01T00%3A00%3A00.000Z";
    let asked = format!(
        "GET /runs?active=false&global=true&created_by=ada&name=bert\
         &state=failed%2Cstopped&since={since}&limit=100"
    );
    assert_eq!(fake.lines(), [asked]);
    fake.grid(&["status", "--state", "running,queued"]).ok();
    assert_eq!(
        fake.lines().last().map(String::as_str),
        Some("GET /runs?active=true&state=running%2Cqueued&limit=1000")
    );
    fake.grid(&["status", "--state", "failing"]).fails(2);
    fake.grid(&["status", "bert-1", "--state", "failed"])
        .fails(2);
}

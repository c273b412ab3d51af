//! People of one team, and one who is not in it: what each of them sees and may do.
//!
//! Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.

use std::io::BufRead;
use std::process::Stdio;

use grid_e2e::{Ran, Server, wait_for};
use serde_json::Value;

/// The scenes: a run that is over with an artifact, and one that goes on.
fn team() -> Server {
    let server = Server::start(&[]);
    server.person("bob");
    server.person("eve");
    server.grid("ada", &["team", "create", "vision"]).ok();
    server
        .grid("ada", &["team", "invite", "vision", "bob"])
        .ok();
    server.grid("bob", &["team", "join", "vision"]).ok();
    server.script(
        "makes.sh",
        "#!/bin/bash\necho made by $1\necho weights > model.ckpt\n",
    );
    server.script(
        "talks.sh",
        "#!/bin/bash\nwhile true; do echo talking; sleep 0.05; done\n",
    );
    server.run("bert-1", &["makes.sh", "ada"]);
    server.run("long-1", &["talks.sh"]);
    server.finished("bert-1");
    server.reaches("long-1-exp0", "running");
    server
}

/// The names of the runs of a list, with their creators.
fn runs(listed: &Value) -> Vec<String> {
    let name = |run: &Value| {
        let word = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
        format!("{}:{}", word("created_by"), word("name"))
    };
    let mut names: Vec<String> = listed["runs"]
        .as_array()
        .map(|runs| runs.iter().map(name).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Runs a command as whoever has this key.
fn with_key(server: &Server, key: &Value, arguments: &[&str]) -> Ran {
    let text = |name: &str| key[name].as_str().expect("text").to_owned();
    let mut command = server.command("program", arguments);
    command
        .env("GRID_USER_ID", text("user_id"))
        .env("GRID_API_KEY", text("api_key"));
    Ran::of(&command.output().expect("grid starts"))
}

#[test]
fn a_team_sees_the_work_of_its_members_and_nobody_else_does() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    let list = |who: &str, line: &str| runs(&grid(who, &format!("-o json {line}")).json());

    assert_eq!(list("bob", "status --global"), ["ada:long-1"]);
    assert_eq!(list("bob", "history --global"), ["ada:bert-1"]);
    assert_eq!(list("bob", "status --global ada --all").len(), 2);
    assert_eq!(
        list("bob", "status --global --name long --state running").len(),
        1
    );
    assert_eq!(
        list("bob", "history --global --since 1h --state succeeded").len(),
        1
    );
    assert_eq!(
        list("bob", "history --global --state failed --state succeeded"),
        ["ada:bert-1"]
    );
    assert_eq!(
        list("bob", "status --global --all --state running,succeeded").len(),
        2
    );
    for line in [
        "status",
        "history",
        "status --global bob",
        "status --global --state queued,stopping",
        "status --global --state failed",
        "history --global --state failed",
        "history --global --state failed --state stopped",
        "history --global --since 2120-01-31",
        "history --global --name long",
    ] {
        assert!(list("bob", line).is_empty(), "{line}");
    }
    for line in ["status --global", "history --global"] {
        let table = grid("bob", line).ok();
        assert!(
            table.contains("Created by") && table.contains("ada"),
            "{table}"
        );
        assert!(list("eve", line).is_empty(), "{line}");
    }
    assert!(!grid("bob", "status").ok().contains("Created by"));

    server.doctor();
}

#[test]
fn a_teammate_reads_downloads_and_clones() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    let list = |who: &str, line: &str| runs(&grid(who, &format!("-o json {line}")).json());
    for line in ["team vision", "teams vision"] {
        let shown = grid("bob", line).ok();
        assert!(shown.contains("ada") && shown.contains("owner"), "{shown}");
    }
    assert!(
        grid("bob", "logs ada:bert-1-exp0")
            .ok()
            .contains("made by ada")
    );
    assert!(
        grid("bob", "status ada:bert-1")
            .ok()
            .contains("bert-1-exp0")
    );
    grid("bob", "view ada:bert-1").ok();
    let files = server.work().join("of-run/bert-1/bert-1-exp0/model.ckpt");
    grid("bob", "artifacts ada:bert-1 --download_dir of-run").ok();
    assert_eq!(
        std::fs::read_to_string(files).ok().as_deref(),
        Some("weights\n")
    );
    let files = server.work().join("of-exp/bert-1-exp0/model.ckpt");
    grid("bob", "artifacts ada:bert-1-exp0 --download_dir of-exp").ok();
    assert_eq!(
        std::fs::read_to_string(files).ok().as_deref(),
        Some("weights\n")
    );
    grid("bob", "clone ada:bert-1 --name mine").ok();
    wait_for("Bob's clone to end", || {
        (list("bob", "history") == ["bob:mine"]).then_some(())
    });
    assert!(
        grid("ada", "logs bob:mine-exp0")
            .ok()
            .contains("made by ada")
    );

    server.doctor();
}

#[test]
fn a_slip_is_told_to_teammates_only() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    // A slip is told to a teammate; to everybody else there is nothing of that name.
    let said = grid("bob", "status bert-1").fails(1);
    assert!(
        said.contains("no run 'bert-1' of yours") && said.contains("did you mean ada:bert-1?"),
        "{said}"
    );
    let unlike = |said: String| said.replace("bert-1", "NAME").replace("nothing-1", "NAME");
    for (there, not_there) in [
        ("status bert-1", "status nothing-1"),
        ("status ada:bert-1", "status ada:nothing-1"),
        ("logs ada:bert-1-exp0", "logs ada:nothing-1-exp0"),
        ("artifacts ada:bert-1", "artifacts ada:nothing-1"),
        ("clone ada:bert-1", "clone ada:nothing-1"),
        ("stop run ada:bert-1", "stop run ada:nothing-1"),
        (
            "delete run --yes ada:bert-1",
            "delete run --yes ada:nothing-1",
        ),
        ("share ada:bert-1", "share ada:nothing-1"),
        ("team vision", "team nothing-1"),
    ] {
        let (one, other) = (grid("eve", there).fails(1), grid("eve", not_there).fails(1));
        assert!(!one.contains("ada:bert-1?"), "{one}");
        assert_eq!(
            unlike(one).replace("vision", "NAME"),
            unlike(other),
            "{there} tells that it exists"
        );
    }
    server.doctor();
}

#[test]
fn the_rules_decide_who_stops_deletes_and_restores() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    let said = grid("bob", "team policy vision --set run_control=creator").fails(1);
    assert!(
        said.starts_with("warning: ") && said.contains("admin"),
        "{said}"
    );
    let table = grid("ada", "team policy vision --set run_control=creator").ok();
    assert!(table.contains("run_control     : creator"), "{table}");
    let rules = grid("bob", "team policy vision").ok();
    assert!(
        rules.contains("only its creator or a team admin can"),
        "{rules}"
    );
    for line in ["stop run ada:long-1", "delete run --yes ada:bert-1"] {
        let said = grid("bob", line).fails(1);
        assert!(
            said.starts_with("warning: run '") && said.contains("belongs to ada. You can "),
            "{said}"
        );
        assert!(said.contains("only ada or a team admin can"), "{said}");
    }
    assert_eq!(
        server.experiments("long-1")[0]["status"],
        "running",
        "nothing changed"
    );

    grid("ada", "team policy vision --set run_control=team").ok();
    grid("bob", "stop run ada:long-1").ok();
    assert_eq!(server.finished("long-1")[0]["status"], "stopped");
    let asked = grid("bob", "delete run ada:bert-1").fails(1);
    assert!(
        asked.contains("created by ada"),
        "it asks, and names the creator: {asked}"
    );
    grid("bob", "delete run --yes ada:bert-1").ok();
    for (who, line) in [
        ("ada", "history --deleted"),
        ("bob", "history --deleted --global"),
    ] {
        let trash = grid(who, &format!("-o json {line}")).json();
        assert_eq!(runs(&trash), ["ada:bert-1"], "{who}");
        assert_eq!(trash["runs"][0]["deleted_by"], "bob");
        let table = grid(who, line).ok();
        assert!(
            table.contains("Deleted by") && table.contains("bob"),
            "{table}"
        );
    }
    grid("eve", "restore ada:bert-1").fails(1);
    grid("bob", "restore ada:bert-1").ok();
    assert_eq!(server.log_text("bert-1-exp0"), "made by ada");
    grid("ada", "artifacts bert-1 --download_dir back").ok();
    assert!(
        server
            .work()
            .join("back/bert-1/bert-1-exp0/model.ckpt")
            .exists()
    );

    // Admins see all of it, everybody else their own.
    let events = |who: &str, flags: &str| {
        let line = format!("-o json team audit vision --limit 1000 {flags}");
        let answer = grid(who, line.trim()).json();
        answer["events"].as_array().expect("a list").clone()
    };
    let refused = events("ada", "--result refused --user bob --since 1h");
    let actions: Vec<_> = refused
        .iter()
        .filter_map(|e| e["action"].as_str())
        .collect();
    assert_eq!(
        actions,
        ["run.delete", "run.stop", "team.manage"],
        "{refused:?}"
    );
    assert!(
        events("bob", "")
            .iter()
            .all(|event| event["actor"] == "bob")
    );
    let about = events("ada", "--resource ada:bert-1 --user bob --result done");
    let actions: Vec<_> = about.iter().filter_map(|e| e["action"].as_str()).collect();
    assert_eq!(actions, ["run.restore", "run.delete"], "{about:?}");
    let lines = grid("ada", "team audit vision --jsonl").ok();
    assert_eq!(lines.lines().count(), events("ada", "").len());
    grid("eve", "team audit vision").fails(1);
    server.doctor();
}

#[test]
fn who_is_removed_is_out_at_once() {
    let server = team();
    let link = server.grid("bob", &["share", "ada:bert-1"]).ok();
    let link = link.trim();
    let shown = server.grid("ada", &["status", link]).ok();
    assert!(shown.contains("bert-1-exp0"), "{shown}");
    server.grid("eve", &["status", link]).fails(1);
    let mine = server.grid("ada", &["share", "bert-1"]).ok();
    let mine = mine.trim();
    server.grid("bob", &["status", mine]).ok();

    let mut child = server
        .command("bob", &["logs", "ada:long-1-exp0", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(
        lines.any(|line| line.ends_with("talking")),
        "Bob follows the log"
    );
    server
        .grid("ada", &["team", "remove", "vision", "bob"])
        .ok();
    // The run goes on, so only the end of the stream ends these.
    lines.for_each(drop);
    let ended = Ran::of(&child.wait_with_output().expect("it ends"));
    ended.fails(1);
    assert_eq!(server.experiments("long-1")[0]["status"], "running");
    for line in [
        ["status", "ada:bert-1"],
        ["logs", "ada:bert-1-exp0"],
        ["status", mine],
        ["team", "vision"],
    ] {
        server.grid("bob", &line).fails(1);
    }
    let listed = server.grid("bob", &["-o", "json", "status", "--global", "--all"]);
    assert!(runs(&listed.json()).is_empty());
    // What he handed out ended with him.
    server.grid("ada", &["status", link]).fails(1);
    server.grid("ada", &["share", "--list"]).ok();
    server.grid("ada", &["stop", "run", "long-1"]).ok();
    server.doctor();
}

#[test]
fn tokens_let_in_once_and_viewers_look_on() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    let invite = |to: &str, role: &str| {
        let line = format!("-o json team invite vision {to} --role {role}");
        let made = grid("ada", &line).json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let token = invite("eve@example.org", "viewer");
    grid("eve", &format!("team join {token}")).ok();
    grid("bob", &format!("team join {token}")).fails(1);
    assert!(
        grid("eve", "logs ada:bert-1-exp0")
            .ok()
            .contains("made by ada")
    );
    grid("eve", "share ada:bert-1").ok();
    for line in [
        "stop run ada:long-1",
        "delete run --yes ada:bert-1",
        "clone ada:bert-1",
        "run --localdir --team vision makes.sh eve",
        "team role vision bob viewer",
        "team invite vision mallory",
    ] {
        let said = grid("eve", line).fails(1);
        assert!(said.contains("warning: "), "{line}: {said}");
    }

    // The link does as well as the token in it, and says which server it is of.
    let made = grid("ada", "team invite vision new@example.org").ok();
    let token = made.trim().rsplit(' ').next().expect("a link");
    assert!(token.starts_with(&server.url), "{made}");
    let register = format!("team join {token} --username mallory");
    grid("mallory", &register).ok();
    assert!(
        grid("mallory", "status ada:bert-1")
            .ok()
            .contains("bert-1-exp0")
    );
    grid("trudy", &register.replace("mallory", "trudy")).fails(1);

    grid("ada", "team invite vision trent").ok();
    grid("ada", "team uninvite vision trent").ok();
    assert_eq!(
        grid("ada", "team invitations vision").ok(),
        "No invitations.\n"
    );
    let said = grid("bob", "team role vision eve owner").fails(1);
    assert!(said.starts_with("warning: "), "{said}");
    grid("ada", "team role vision bob owner").ok();
    grid("ada", "team leave vision").ok();
    let said = grid("bob", "team leave vision").fails(1);
    assert!(said.contains("last owner"), "{said}");
    grid("bob", "team rename vision sight").ok();
    let teams = grid("bob", "team").ok();
    assert!(
        teams.contains("sight") && !teams.contains("vision"),
        "{teams}"
    );
    grid("bob", "stop run ada:long-1").ok();
    server.doctor();
}

#[test]
fn a_key_is_good_for_what_it_was_made_for() {
    let server = team();
    let make = |arguments: &[&str]| {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        server.grid("ada", &all).json()
    };
    let key = |name: &str, scope: &str| {
        make(&[
            "user",
            "keys",
            "create",
            name,
            "--scope",
            scope,
            "--expires",
            "30d",
        ])
    };
    let (read, run) = (key("reads", "read"), key("runs", "run"));
    with_key(&server, &read, &["logs", "bert-1-exp0"]).ok();
    for (key, line) in [
        (&read, vec!["stop", "run", "long-1"]),
        (&read, vec!["clone", "bert-1"]),
        (&read, vec!["share", "bert-1"]),
        (&read, vec!["user", "keys", "create", "more"]),
        (&run, vec!["user", "keys", "create", "more"]),
        (&run, vec!["team", "remove", "vision", "bob"]),
        (&run, vec!["team", "create", "other"]),
    ] {
        let said = with_key(&server, key, &line).fails(1);
        assert!(said.starts_with("warning: "), "{line:?}: {said}");
    }
    with_key(&server, &run, &["stop", "run", "long-1"]).ok();
    let keys = server.grid("ada", &["user", "keys"]).ok();
    assert!(keys.contains("reads") && keys.contains("runs"), "{keys}");
    server
        .grid("ada", &["user", "keys", "revoke", "reads"])
        .ok();
    with_key(&server, &read, &["status"]).fails(1);
    assert!(!server.grid("ada", &["user", "keys"]).ok().contains("reads"));
    assert!(
        server
            .grid("ada", &["user", "keys", "--all"])
            .ok()
            .contains("reads")
    );

    let ci = make(&["team", "service-account", "create", "vision", "vision-ci"]);
    let submit = ["run", "--localdir", "--name", "nightly", "makes.sh", "ci"];
    with_key(&server, &ci, &submit).ok();
    with_key(&server, &ci, &["team", "invite", "vision", "eve"]).fails(1);
    let shown = server.grid("bob", &["status", "vision-ci:nightly"]).ok();
    assert!(shown.contains("nightly-exp0"), "{shown}");
    server
        .grid(
            "ada",
            &["team", "service-account", "delete", "vision", "vision-ci"],
        )
        .ok();
    with_key(&server, &ci, &["status"]).fails(1);
    server.doctor();
}

#[test]
fn a_member_of_two_teams_is_no_window_between_them() {
    let server = team();
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words)
    };
    grid("eve", "team create sound").ok();
    grid("eve", "team invite sound bob").ok();
    grid("bob", "team join sound").ok();
    for (team, run) in [("vision", "seen"), ("sound", "heard")] {
        let line = format!("run --localdir --name {run} --team {team} makes.sh bob");
        grid("bob", &line).ok();
        wait_for("it to end", || {
            let line = format!("-o json history --name {run}");
            (runs(&grid("bob", &line).json()).len() == 1).then_some(())
        });
    }
    let list = |who: &str, line: &str| runs(&grid(who, &format!("-o json {line}")).json());
    assert_eq!(list("eve", "status --global --all"), ["bob:heard"]);
    assert_eq!(list("ada", "history --global bob"), ["bob:seen"]);
    let everything = "status --global --all";
    assert_eq!(list("bob", everything).len(), 4, "Bob sees both");
    let link = grid("bob", "share seen").ok();
    for line in [
        "status bob:seen",
        "status seen",
        "logs bob:seen-exp0",
        "share --list seen",
        &format!("status {}", link.trim()),
        "team vision",
        "team audit vision",
    ] {
        let said = grid("eve", line);
        let told = format!("{}{}", said.stdout, said.stderr);
        assert!(
            said.code == 1 || told.contains("No links."),
            "{line}: {told}"
        );
        assert!(!told.contains("did you mean"), "{line}: {told}");
    }
    grid("eve", "status bob:heard").ok();
    let links = grid("eve", "share --list --global").ok();
    assert_eq!(links, "No links.\n");
    let people = grid("eve", "-o json user list").json().to_string();
    assert!(
        people.contains("bob") && !people.contains("\"ada\""),
        "{people}"
    );
    assert!(
        !people.contains("vision"),
        "nor in which other teams Bob is: {people}"
    );
    let events = grid("eve", "-o json team audit sound --limit 1000").ok();
    assert!(
        !events.contains("vision") && !events.contains("bob:seen"),
        "{events}"
    );

    // Who runs the server may look after any team, and the team can read that they did.
    grid("ada", "team rename sound music").ok();
    grid("ada", "logs bob:heard-exp0").ok();
    let events = grid("eve", "-o json team audit music --user ada").json();
    let mut seen: Vec<String> = Vec::new();
    for event in events["events"].as_array().expect("a list") {
        assert_eq!(event["actor_kind"], "operator", "{event}");
        seen.extend(event["action"].as_str().map(str::to_owned));
    }
    assert!(seen.contains(&"team.rename".to_owned()), "{seen:?}");
    assert!(seen.contains(&"run.logs".to_owned()), "{seen:?}");
    server.doctor();
}

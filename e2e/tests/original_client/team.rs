//! Two teams: what teammates see of each other, and that nobody else does.

use std::sync::atomic::{AtomicUsize, Ordering};

use grid_e2e::Server;
use grid_e2e::original::{Person, Story, screen};

use crate::{TRAIN, settled, two_teams};

/// Ada's run that is over, hers that goes on, and one of Bob's.
fn busy(server: &Server) {
    let ada = Person::signed_in(server, "ada");
    let bob = Person::signed_in(server, "bob");
    for person in [&ada, &bob] {
        person.file("train.py", TRAIN);
        person.file(
            "talk.sh",
            "#!/bin/bash\nwhile true; do echo talking; sleep 0.1; done\n",
        );
    }
    ada.types("run -l --name over train.py --lr 0.5");
    settled(server, "over");
    ada.types("run -l --name going talk.sh");
    server.reaches("going-exp0", "running");
    server.grid("bob", &["team", "default", "vision"]);
    bob.types("run -l --name mine train.py --lr 0.1");
}

#[test]
fn teammates_see_and_fetch() {
    let server = two_teams();
    busy(&server);
    let bob = Person::signed_in(&server, "bob");
    crate::settled_of(&server, "bob", "mine");
    let mut story = Story::default();
    for line in [
        "user",
        "team vision",
        "team sound",
        "status",
        "status --global",
        "history",
        "history --global",
        "status ada:over",
        "logs ada:over-exp0",
        "artifacts ada:over-exp0",
        "artifacts ada:over",
        "logs over-exp0",
        "status over",
        "artifacts over",
        "stop experiment ada:going-exp0",
        "history --global",
    ] {
        story.types(&bob, line);
    }
    insta::assert_snapshot!("teammate", story.told());
    let fetched = bob.work().join("grid_artifacts/ada:over-exp0/model.txt");
    assert_eq!(
        std::fs::read_to_string(fetched).ok().as_deref(),
        Some("0.5\n")
    );
    let rows = screen::rows(&bob.types("history --global"));
    let by: Vec<_> = rows[1..]
        .iter()
        .map(|row| (row[0].as_str(), row[1].as_str()))
        .collect();
    assert!(by.contains(&("mine", "bob")), "{by:?}");
    assert!(
        by.iter()
            .any(|(run, by)| run.ends_with("over") && *by == "ada"),
        "{by:?}"
    );
    server.doctor();
}

#[test]
fn nobody_else_learns_that_it_exists() {
    let server = two_teams();
    busy(&server);
    let eve = Person::signed_in(&server, "eve");
    let told = AtomicUsize::new(0);
    let same = |there: &str, not_there: &str| {
        let say = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let ran = eve.grid(&words);
            let text = screen::plain(&screen::shown(&(ran.stdout + &ran.stderr)));
            (
                ran.code,
                text.replace("over", "NAME").replace("nothing", "NAME"),
            )
        };
        assert_eq!(say(there), say(not_there), "{there}");
        told.fetch_add(1, Ordering::Relaxed);
    };
    // Two at a time: there are two cores.
    let pairs = [
        ("status ada:over", "status ada:nothing"),
        ("logs ada:over-exp0", "logs ada:nothing-exp0"),
        ("artifacts ada:over", "artifacts ada:nothing"),
        ("artifacts ada:over-exp0", "artifacts ada:nothing-exp0"),
        (
            "stop experiment ada:over-exp0",
            "stop experiment ada:nothing-exp0",
        ),
        ("logs over-exp0", "logs nothing-exp0"),
        ("status over", "status nothing"),
    ];
    std::thread::scope(|scope| {
        for half in pairs.chunks(pairs.len().div_ceil(2)) {
            let same = &same;
            scope.spawn(move || half.iter().for_each(|(one, other)| same(one, other)));
        }
    });
    assert_eq!(told.into_inner(), pairs.len());
    for line in [
        "status --global",
        "history --global",
        "team vision",
        "credential list",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = eve.grid(&words);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        for hidden in ["over", "going", "mine", "ada"] {
            assert!(!said.contains(hidden), "{line} tells of {hidden}: {said}");
        }
    }
}

#[test]
fn rules_of_a_team_bind_the_old_client_too() {
    let server = two_teams();
    busy(&server);
    let bob = Person::signed_in(&server, "bob");
    let own = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid("ada", &words).ok()
    };
    own("team policy vision --set run_control=creator");
    let mut story = Story::default();
    story.types(&bob, "stop experiment ada:going-exp0");
    assert_eq!(
        server.experiments("going")[0]["status"],
        "running",
        "nothing changed"
    );
    let events = own("team audit vision --result refused --user bob --since 1h");
    assert!(events.contains("stop"), "it is in the log: {events}");
    own("team policy vision --set run_control=team");
    story.types(&bob, "stop experiment ada:going-exp0");
    server.reaches("going-exp0", "stopped");
    own("team remove vision bob");
    story.types(&bob, "status ada:over");
    story.types(&bob, "logs ada:over-exp0");
    story.types(&bob, "team vision");
    insta::assert_snapshot!("rules", story.told());
}

//! Clients that somebody never updated.

use grid_e2e::original::{OLDER_VERSIONS, Person, screen};

use crate::{TRAIN, two_teams};

#[test]
fn older_clients_do_the_same() {
    let server = two_teams();
    let person = |version| {
        let person = Person::new(&server, "ada", version);
        person.file("train.py", TRAIN);
        person
    };
    person(OLDER_VERSIONS[0]);
    let session = |version: &'static str| {
        let ada = person(version);
        let name = format!("v{}", version.replace('.', ""));
        let logged_in = ada.login().ok();
        assert!(
            logged_in.contains("Login successful"),
            "{version}: {logged_in}"
        );
        let said = ada.types(&format!("run -l --name {name} train.py --lr '[0.1,0.2]'"));
        assert!(said.contains("submitted"), "{version}: {said}");
        server.finished(&name);
        for line in [
            "status",
            "status --global",
            "user",
            "clusters",
            "instance-types",
        ] {
            ada.types(line);
        }
        let status = screen::rows(&ada.types(&format!("status {name}")));
        let column = |title: &str| status[0].iter().position(|cell| cell == title);
        let (state, command) = (
            column("Status").expect("one"),
            column("Command").expect("one"),
        );
        assert_eq!(status.len(), 3, "{version}: {status:?}");
        for row in &status[1..] {
            assert_eq!(row[state], "succeeded", "{version}: {row:?}");
            assert!(row[command].contains("train.py"), "{version}: {row:?}");
        }
        // The oldest have a column for each parameter.
        if let Some(lr) = column("lr") {
            assert_eq!(
                (&*status[1][lr], &*status[2][lr]),
                ("0.1", "0.2"),
                "{version}"
            );
        }
        let history = screen::rows(&ada.types("history --global"));
        let own = history
            .iter()
            .find(|row| row[0] == name)
            .expect("in the history");
        assert_eq!(own[1], "ada", "{version}: {own:?}");
        assert!(ada.types("history").contains(&name), "{version}");
        let log = ada.types(&format!("logs {name}-exp1"));
        assert!(log.contains("lr 0.2"), "{version}: {log}");
        ada.types(&format!("artifacts {name} --download_dir {name}"));
        // Up to 0.8.20 the client puts the files of all experiments into the one folder that it
        // is told, where those of the same name are those of the last: it is so in its source.
        let into_one = ["0.8.0", "0.8.20"].contains(&version);
        let read = |path: String| std::fs::read_to_string(ada.work().join(path)).ok();
        let (first, second) = match into_one {
            true => (None, read(format!("{name}/model.txt"))),
            false => (
                read(format!("{name}/{name}/{name}-exp0/model.txt")),
                read(format!("{name}/{name}/{name}-exp1/model.txt")),
            ),
        };
        assert_eq!(
            first.as_deref(),
            (!into_one).then_some("0.1\n"),
            "{version}"
        );
        assert_eq!(second.as_deref(), Some("0.2\n"), "{version}");
        let team = ada.types("team vision");
        assert!(
            team.contains("ada") && team.contains("bob"),
            "{version}: {team}"
        );
        ada.types("session");
        datastores(&ada, &name);
    };
    std::thread::scope(|scope| {
        for half in OLDER_VERSIONS.chunks(OLDER_VERSIONS.len() / 2) {
            let session = &session;
            scope.spawn(move || half.iter().copied().for_each(session));
        }
    });
    server.doctor();
}

/// Makes a datastore, sees it in both lists, and deletes it.
fn datastores(ada: &Person<'_>, name: &str) {
    ada.file(&format!("{name}-data/a.txt"), "meow\n");
    ada.file(&format!("{name}-data/deep/b.bin"), vec![7; 1_200_000]);
    ada.types(&format!("datastore create {name}-data"));
    for line in ["datastore", "datastore --global"] {
        let rows = screen::rows(&ada.types(line));
        let own = rows.iter().find(|row| row[0] == format!("{name}-data"));
        let own = own.unwrap_or_else(|| panic!("{name}: {rows:?}"));
        for cell in ["1", "2 MiB"] {
            assert!(own.iter().any(|other| other == cell), "{name}: {own:?}");
        }
        // Seen with 0.8.20: it shows the state as the server says it.
        let state = own.last().map_or("", String::as_str);
        let is_there = state == "available" || state.ends_with("_SUCCEEDED");
        assert!(is_there, "{name}: {own:?}");
    }
    ada.types(&format!("datastore delete --name {name}-data --version 1"));
    let listed = ada.types("datastore");
    assert!(!listed.contains(&format!("{name}-data")), "{listed}");
}

//! The printed table of who may do what, tried on the real command line: what it says of
//! each relation is what each person is told.
//!
//! What is expected is read from `docs/reference/access.md`, so that the page that people
//! read, the rules in the server and what the command line does cannot part.

use std::collections::HashMap;

use grid_e2e::{Ran, Server, wait_for};

/// People, and their column in the table.  Ada runs the server and is not in the team.
const PEOPLE: [(&str, &str); 9] = [
    ("carl", "creator"),
    ("dina", "creator, now viewer"),
    ("mona", "member"),
    ("vera", "viewer"),
    ("adam", "admin"),
    ("olga", "owner"),
    ("otto", "outsider"),
    ("rene", "outsider"), // was an admin once
    ("ada", "operator"),
];

/// Rows of the table with the command that asks for them; `NAME` is a finished run, `OPEN`
/// a waiting experiment that nobody else asks about, `LINK` a link to the run, `WHO` the
/// person.  With `true`, the policy matters.
const COMMANDS: [(&str, &str, bool); 15] = [
    (
        "see runs and experiments, their status and history",
        "status NAME",
        false,
    ),
    (
        "see runs and experiments, their status and history",
        "status LINK",
        false,
    ),
    ("read logs", "logs NAME-exp0", false),
    ("read logs", "logs NAME-exp0 --follow", false),
    (
        "download artifacts",
        "artifacts NAME --download_dir of-WHO",
        false,
    ),
    ("share a run or an experiment", "share NAME", false),
    (
        "clone a run or an experiment",
        "clone NAME --name WHOs --dry-run",
        false,
    ),
    ("stop a run or an experiment", "stop experiment OPEN", true),
    (
        "delete a run or an experiment, and restore it",
        "delete experiment --yes OPEN",
        true,
    ),
    (
        "delete a run or an experiment, and restore it",
        "restore NAME",
        true,
    ),
    ("retry failed experiments", "retry NAME --failed", true),
    (
        "see the team, its members and their roles",
        "team lab",
        false,
    ),
    (
        "create runs, sessions and datastores",
        "run --localdir --dry-run --team lab quick.sh",
        false,
    ),
    (
        "invite and remove members, set roles, change the policy",
        "team policy lab --set jupyter_access=creator",
        false,
    ),
    ("make and unmake owners", "team role lab olga owner", false),
];

/// The same about datastores, in an order in which each can be done; `DATA` is a version that
/// nobody else asks about.
const DATA_COMMANDS: [(&str, &str); 8] = [
    (
        "see datastores and browse their files",
        "datastore files DATA",
    ),
    (
        "see datastores and browse their files",
        "datastore cat DATA a.txt",
    ),
    (
        "see datastores and browse their files",
        "datastore download DATA --to data-of-WHO",
    ),
    (
        "see datastores and browse their files",
        "datastore used-by DATA",
    ),
    (
        "run with a datastore, mount it in a session",
        "run --localdir --dry-run --team WHO --datastore_name DATA quick.sh",
    ),
    (
        "add a version to a datastore",
        "datastore describe DATA seen",
    ),
    ("delete a datastore", "datastore delete DATA"),
    ("delete a datastore", "datastore restore DATA"),
];

/// What the table says: by policy, action and column.
struct Table(HashMap<(&'static str, String, String), String>);

impl Table {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/access.md");
        let page = std::fs::read_to_string(path).expect("the table");
        let mut cells = HashMap::new();
        let mut policy = "";
        let mut columns: Vec<String> = Vec::new();
        for line in page.lines() {
            match line {
                "## run_control, jupyter_access: team" => policy = "team",
                "## run_control, jupyter_access: creator" => policy = "creator",
                heading if heading.starts_with("## ") => policy = "",
                _ => {}
            }
            let row: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if policy.is_empty() || row.len() < 2 || row[0].starts_with("---") {
                continue;
            }
            if row[0] == "action" {
                columns = row.iter().map(|&column| column.to_owned()).collect();
                continue;
            }
            for (column, cell) in columns.iter().zip(&row).skip(1) {
                let key = (policy, row[0].to_owned(), column.clone());
                cells.insert(key, (*cell).to_owned());
            }
        }
        Self(cells)
    }

    fn cell(&self, policy: &'static str, action: &str, column: &str) -> &str {
        let key = (policy, action.to_owned(), column.to_owned());
        self.0
            .get(&key)
            .unwrap_or_else(|| panic!("no cell for {key:?}"))
    }
}

/// What somebody was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Done,
    /// It is there, and others could.
    Refused,
    /// There is no such thing.
    Nothing,
}

fn told(ran: &Ran) -> Told {
    // What is allowed may find nothing to do, and says so.
    let idle = ["no experiment of", "is not in the trash"];
    if ran.code == 0 || idle.iter().any(|idle| ran.stderr.contains(idle)) {
        return Told::Done;
    }
    assert_eq!(ran.code, 1, "{ran:?}");
    if ran.stderr.starts_with("warning: ") {
        let who_could = ["only ", "nobody can"];
        let says = who_could.iter().any(|who| ran.stderr.contains(who));
        assert!(says, "it does not say who could: {ran:?}");
        return Told::Refused;
    }
    let nothing = [
        "no datastore ",
        "no run ",
        "no experiment ",
        "no team ",
        "this link does not work",
    ];
    let is_nothing = nothing.iter().any(|words| ran.stderr.contains(words));
    assert!(is_nothing, "{ran:?}");
    Told::Nothing
}

/// The number of the experiment that one person asks about with one command.
fn open_for(policy: &str, person: usize, command: usize) -> usize {
    let later = if policy == "team" { 0 } else { PEOPLE.len() };
    (later + person) * COMMANDS.len() + command
}

/// Somebody makes a run that is over, and one whose experiments wait for ever.
fn runs_of(server: &Server, who: &str) {
    let make = |name: &str, words: &[&str]| {
        let mut line = vec!["run", "--localdir", "--team", "lab", "--name", name];
        line.extend(words);
        server.grid(who, &line).ok();
    };
    make("kept", &["quick.sh"]);
    wait_for("a run to end", || {
        let ran = server.grid(who, &["-o", "json", "status", "kept"]).json();
        (ran["experiments"][0]["status"] == "succeeded").then_some(())
    });
    let places: Vec<String> = (0..2 * COMMANDS.len() * PEOPLE.len())
        .map(|n| n.to_string())
        .collect();
    // Nothing has so much memory free while the first of them runs.
    let sweep = format!("[{}]", places.join(", "));
    make("open", &["long.sh", "--n", &sweep]);
}

/// Somebody makes a version for each person.
fn data_of(server: &Server, who: &str) {
    let folder = format!("shared-by-{who}");
    let path = server.work().join(&folder);
    std::fs::create_dir_all(&path).expect("a folder");
    for place in 0..PEOPLE.len() {
        std::fs::write(path.join("a.txt"), format!("for {place}")).expect("written");
        let words = ["datastore", "create", &folder, "--name", "shared"];
        server
            .grid(who, &[&words[..], &["--team", "lab"]].concat())
            .ok();
    }
}

/// A team with everybody who ever will be in it.
fn joined() -> Server {
    let server = Server::start(&["--cpus", "1"]);
    server.script(
        "quick.sh",
        "#!/bin/bash\necho said\necho weights >model.pt\n",
    );
    server.script("long.sh", "#!/bin/bash\nsleep 1000\n");
    std::thread::scope(|threads| {
        for (who, _) in PEOPLE.iter().filter(|(who, _)| *who != "ada") {
            threads.spawn(|| server.person(who));
        }
    });
    let grid = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words).ok()
    };
    grid("olga", "team create lab");
    for (who, role) in [
        ("carl", "member"),
        ("dina", "member"),
        ("mona", "member"),
        ("vera", "viewer"),
        ("adam", "admin"),
        ("rene", "admin"),
    ] {
        grid("olga", &format!("team invite lab {who} --role {role}"));
        grid(who, "team join lab");
    }
    server
}

/// Some of them are less than they were.
fn parted(server: &Server) {
    for line in ["team role lab dina viewer", "team remove lab rene"] {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid("olga", &words).ok();
    }
}

/// With runs of two people.
fn lab() -> Server {
    let server = joined();
    runs_of(&server, "dina");
    // One waits for the other: there is one CPU.
    server.grid("dina", &["stop", "run", "open"]).ok();
    runs_of(&server, "carl");
    server.grid("dina", &["retry", "open"]).ok();
    parted(&server);
    server
}

/// With datastores of two people.
fn shared_data() -> Server {
    let server = joined();
    data_of(&server, "carl");
    data_of(&server, "dina");
    parted(&server);
    server
}

#[test]
fn the_command_line_does_what_the_table_says() {
    let (server, table) = (lab(), Table::read());
    let link = |who: &str| server.grid(who, &["share", "kept"]).ok().trim().to_owned();
    let links = HashMap::from([("carl", link("carl")), ("dina", link("dina"))]);
    for policy in ["team", "creator"] {
        let set = format!("run_control={policy}");
        server
            .grid("olga", &["team", "policy", "lab", "--set", &set])
            .ok();
        std::thread::scope(|threads| {
            for (place, (who, column)) in PEOPLE.into_iter().enumerate() {
                let (server, table, links) = (&server, &table, &links);
                threads.spawn(move || {
                    // Whose runs are asked about: one's own for whoever made some.
                    let whose = if who == "dina" { "dina" } else { "carl" };
                    for (n, (action, line, by_policy)) in COMMANDS.into_iter().enumerate() {
                        if policy == "team" && !by_policy {
                            continue;
                        }
                        let open = open_for(policy, place, n);
                        let line = line
                            .replace("NAME", &format!("{whose}:kept"))
                            .replace("OPEN", &format!("{whose}:open-exp{open}"))
                            .replace("LINK", &links[whose])
                            .replace("WHO", who);
                        let words: Vec<&str> = line.split(' ').collect();
                        let ran = server.grid(who, &words);
                        let expected = match table.cell(policy, action, column) {
                            "yes" | "audited" => Told::Done,
                            "404" => Told::Nothing,
                            _ => Told::Refused,
                        };
                        let what = format!("{who} ({column}), policy {policy}: grid {line}");
                        assert_eq!(told(&ran), expected, "{what}: {ran:?}");
                    }
                });
            }
        });
        nothing_changed_for_who_may_not(&server, &table, policy);
    }
    server
        .grid("adam", &["stop", "run", "carl:open", "dina:open"])
        .ok();
    server.doctor();
}

#[test]
fn the_command_line_does_with_datastores_what_the_table_says() {
    let server = shared_data();
    let table = Table::read();
    std::thread::scope(|threads| {
        for (place, (who, column)) in PEOPLE.into_iter().enumerate() {
            let (server, table) = (&server, &table);
            threads.spawn(move || {
                let whose = if who == "dina" { "dina" } else { "carl" };
                let data = format!("{whose}:shared:{}", place + 1);
                for (action, line) in DATA_COMMANDS {
                    let line = line.replace("DATA", &data).replace("WHO", who);
                    let words: Vec<&str> = line.split(' ').collect();
                    let ran = server.grid(who, &words);
                    let expected = match table.cell("team", action, column) {
                        "yes" | "audited" => Told::Done,
                        "404" => Told::Nothing,
                        _ => Told::Refused,
                    };
                    let what = format!("{who} ({column}): grid {line}");
                    assert_eq!(told(&ran), expected, "{what}: {ran:?}");
                }
            });
        }
    });
    // What was deleted was brought back by the same people, and the rest was never gone.
    for whose in ["carl", "dina"] {
        let words = ["-o", "json", "datastore", "--global", whose];
        let listed = server.grid("olga", &words).json();
        let all = listed["datastores"].as_array().expect("a list").len();
        assert_eq!(all, PEOPLE.len(), "{listed}");
    }
    server.doctor();
}

/// What was refused changed nothing, and is in the audit log.
fn nothing_changed_for_who_may_not(server: &Server, table: &Table, policy: &'static str) {
    let status = |run: &str| {
        let words = ["-o", "json", "status", run];
        server.grid("adam", &words).json()["experiments"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let (carls, dinas) = (status("carl:open"), status("dina:open"));
    for (place, (who, column)) in PEOPLE.into_iter().enumerate() {
        let all = if who == "dina" { &dinas } else { &carls };
        let mut refused = 0;
        for (n, (action, line, _)) in COMMANDS.into_iter().enumerate() {
            if !line.contains("OPEN") {
                continue;
            }
            let open = open_for(policy, place, n);
            let name = format!("open-exp{open}");
            let found = all.iter().find(|one| one["name"] == name.as_str());
            let cell = table.cell(policy, action, column);
            if ["yes", "audited"].contains(&cell) {
                continue;
            }
            refused += 1;
            let now = found.map(|one| one["status"].clone());
            let waits = ["queued", "pending", "running"].map(|word| Some(word.into()));
            assert!(waits.contains(&now), "{who}: grid {line}: {now:?}");
        }
        if refused == 0 {
            continue;
        }
        let words = ["-o", "json", "team", "audit", "lab", "--result", "refused"];
        let words = [&words[..], &["--user", who]].concat();
        wait_for("the audit log", || {
            let log = server.grid("olga", &words).json();
            (log["events"].as_array()?.len() >= refused).then_some(())
        });
    }
}

//! Signing in, and what is there besides runs: people, clusters, keys, secrets, sessions.

use grid_e2e::Ran;
use grid_e2e::original::{NEWEST, Person, Story};

use crate::two_teams;

#[test]
fn signing_in_and_looking_around() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    let mut story = Story::default();
    story.types(&ada, "status");
    story.note(&ada, "grid login --username ada --key KEY", &ada.login());
    let settings = std::fs::read_to_string(ada.home().join(".grid/settings.json")).expect("saved");
    assert!(settings.contains(&server.url), "{settings}");
    for line in [
        "user",
        "team vision",
        "team sound",
        "clusters",
        "instance-types",
        "user set-cluster-context local",
        "user set-default-cluster local",
        "user set-cluster-context nowhere",
        "status",
        "status --global",
        "history",
        "history --global",
        "session",
        "session --global",
        "interactive",
        "datastore",
        "datastore --global",
        "sync-env",
    ] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("looking_around", story.told());
}

#[test]
fn a_wrong_key_opens_nothing() {
    let server = two_teams();
    let mallory = Person::new(&server, "mallory", NEWEST);
    for (name, key) in [("ada", "wrong"), ("nobody", "wrong"), ("bob", " ")] {
        let ran = mallory.grid(&["login", "--username", name, "--key", key]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, 1, "{name}: {said}");
        assert!(said.contains("401"), "{said}");
        assert!(!said.contains("Login successful"), "{said}");
    }
    // Somebody's id with another key, in each of the ways in which the client says who it is.
    let (id, _) = Person::new(&server, "bob", NEWEST).credentials();
    for line in [
        "status",
        "history",
        "user",
        "team vision",
        "session",
        "logs a-exp0",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = mallory.command(&words);
        command
            .env("GRID_USER_ID", &id)
            .env("GRID_API_KEY", "wrong")
            .env("GRID_CLUSTER_ID", "local");
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(!said.contains("vision"), "{line}: {said}");
    }
}

#[test]
fn a_program_needs_no_login() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    let (id, key) = ada.credentials();
    // As jobs of continuous integration have it: nothing but the environment.
    let mut command = ada.command(&["status"]);
    command.env("GRID_USER_ID", id).env("GRID_API_KEY", key);
    let ran = Ran::of(&command.output().expect("it starts"));
    let said = ran.ok();
    assert!(
        said.contains("Loading status in prod-2"),
        "nobody told it another: {said}"
    );
    // And whoever signed in with the one program is signed in with the other.
    let bob = Person::new(&server, "bob", NEWEST);
    let mut command = bob.command(&["user"]);
    let home = server.folder.path().join("home/bob");
    command.env("HOME", home).env_remove("GRID_URL");
    let ran = Ran::of(&command.output().expect("it starts"));
    let said = ran.ok();
    assert!(said.contains("Username        : bob"), "{said}");
}

#[test]
fn keys_for_ssh_are_registered_and_removed() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let bob = Person::signed_in(&server, "bob");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "ada@laptop", "-f"])
        .arg(ada.work().join("key"))
        .status();
    let text = match made {
        Ok(status) if status.success() => {
            std::fs::read_to_string(ada.work().join("key.pub")).expect("made")
        }
        // A machine without SSH: a key that somebody made elsewhere.
        _ => "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Qyn3aA7gfW4pHrVRyKvTW1nFmAtlWk5sS2VZJbVfk ada@laptop\n".to_owned(),
    };
    ada.file("key.pub", &text);
    ada.file("broken.pub", "this is no key\n");

    let added = ada.types("ssh-keys add laptop key.pub");
    let id = added.trim().rsplit(' ').next().expect("an id").to_owned();
    assert_eq!(added.trim(), format!("Added key laptop with id: {id}"));
    let listed = ada.types("ssh-keys list");
    let key = text.trim();
    assert!(
        listed.contains(&id) && listed.contains("laptop"),
        "{listed}"
    );
    assert!(
        listed.contains(key.split(' ').nth(1).expect("base64")),
        "{listed}"
    );
    let authorized = ada.types("ssh-keys authorized_keys");
    assert_eq!(
        authorized.trim(),
        format!("#ID {id}\n#Name laptop\n{key}"),
        "as sshd reads it"
    );
    let refused = ada.grid(&["ssh-keys", "add", "broken", "broken.pub"]);
    assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
    assert!(!ada.types("ssh-keys list").contains("broken"));

    // It is Ada's alone: Bob neither sees nor removes it.
    assert!(!bob.types("ssh-keys list").contains("laptop"));
    bob.grid(&["ssh-keys", "rm", &id]);
    assert!(ada.types("ssh-keys list").contains("laptop"), "still there");
    ada.types(&format!("ssh-keys rm {id}"));
    assert!(!ada.types("ssh-keys list").contains("laptop"));
}

#[test]
fn secrets_are_kept_for_their_owner() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let bob = Person::signed_in(&server, "bob");
    let eve = Person::signed_in(&server, "eve");
    let arn = "arn:aws:iam::123456789012:role/grid-s3-access-training";
    let external = "an-external-id-that-nobody-guesses";
    let none = ada.grid(&["credential", "list"]);
    let said = none.fails(1);
    assert!(said.contains("No credentials available"), "{said}");
    let created = ada.types(&format!(
        "credential create --s3-external-id {external} --s3-role-arn {arn}"
    ));
    assert!(created.contains("Success!"), "{created}");
    for line in ["credential", "credential list", "credential list --type s3"] {
        let listed = ada.types(line);
        assert!(
            listed.contains(arn) && listed.contains("ada"),
            "{line}: {listed}"
        );
        assert!(listed.contains("local"), "{line}: {listed}");
    }
    let listed = ada.types("credential list");
    let rows = grid_e2e::original::screen::rows(&listed);
    let id = rows[1][0].clone();
    for person in [&bob, &eve] {
        let said = person.grid(&["credential", "list"]);
        let said = format!("{}{}", said.stdout, said.stderr);
        assert!(!said.contains(external), "{}: {said}", person.name);
    }
    let refused = bob.grid(&["credential", "delete", &id]).fails(1);
    let denied = eve.grid(&["credential", "delete", &id]).fails(1);
    assert!(
        !denied.contains("ada"),
        "to Eve there is no such thing: {denied}"
    );
    assert!(!refused.contains("Traceback"), "{refused}");
    assert!(ada.types("credential list").contains(&id));
    // At rest there is nothing to read.
    for entry in std::fs::read_dir(server.data()).expect("the data") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let found = bytes
            .windows(external.len())
            .any(|window| window == external.as_bytes());
        assert!(!found, "{} holds the secret as it is", path.display());
    }
    ada.types(&format!("credential delete {id}"));
    ada.grid(&["credential", "list"]).fails(1);
}

#[test]
fn sessions_say_that_they_are_not_there_yet() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    let mut story = Story::default();
    for line in [
        "session create --name notebook",
        "session pause notebook",
        "session delete notebook",
        "session",
    ] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("sessions", story.told());
}

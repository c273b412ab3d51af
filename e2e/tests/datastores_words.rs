//! What is said about data is true: which version is meant, how much was new, where a thing
//! went, and what to do next.
//!
//! Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use grid_e2e::common::{grid, large, vision};
use grid_e2e::{Ran, Server, now};

fn team() -> Server {
    let server = Server::start(&[]);
    vision(&server);
    server
}

/// A folder with files.
fn data(server: &Server, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = server.work().join(name);
    fs::create_dir_all(&folder).expect("made");
    for (path, bytes) in files {
        fs::write(folder.join(path), bytes).expect("written");
    }
    folder
}

/// What stands between backticks behind a word that names a command.
fn hinted(said: &str, command: &str) -> String {
    let at = said.find(&format!("`{command}")).expect(said) + 1;
    let text = said[at..].split('`').next().expect("a command");
    text.strip_prefix("grid ").expect("of grid").to_owned()
}

#[test]
fn the_version_that_is_said_is_the_one_that_goes() {
    let server = team();
    let folder = data(&server, "cats", &[("a", b"1")]);
    grid(&server, "ada", "datastore create cats").ok();
    fs::write(folder.join("a"), "2").expect("written");
    grid(&server, "ada", "datastore create cats").ok();
    let said = grid(&server, "ada", "datastore delete cats:2 --version 1").fails(2);
    assert!(said.contains("not the same version"), "{said}");
    let listed = grid(&server, "ada", "datastore --deleted").ok();
    assert!(listed.contains("No datastores"), "{listed}");
    let said = grid(&server, "ada", "datastore delete cats --version 1").ok();
    assert!(said.contains("cats:1 has been deleted"), "{said}");
    let read = grid(&server, "ada", "datastore cat cats:2 a").ok();
    assert_eq!(read, "2");
    // All in the trash: the hint leads to where they are.
    grid(&server, "ada", "datastore delete cats:2 --version 2").ok();
    for line in ["datastore files cats", "datastore rename cats dogs"] {
        let said = grid(&server, "ada", line).fails(1);
        assert!(said.contains("in the trash"), "{said}");
        let listed = grid(&server, "ada", &hinted(&said, "grid datastore --deleted")).ok();
        assert!(listed.contains("cats"), "{listed}");
    }
    let said = grid(&server, "ada", "datastore files cats:").fails(2);
    assert!(said.contains("the version is missing"), "{said}");
}

#[test]
fn what_is_new_is_counted_also_under_another_name() {
    let server = team();
    let folder = data(&server, "cats", &[("a", b"text")]);
    grid(&server, "ada", "datastore create cats").ok();
    // The list of the other name is not that of this one, which is found out by offering it.
    let bytes = large();
    fs::write(folder.join("large"), &bytes).expect("written");
    fs::write(folder.join("small"), "small").expect("written");
    let line = "-o json datastore create cats --name dogs";
    let made = grid(&server, "ada", line).json();
    let new = made["datastore"]["new_bytes"].as_u64();
    assert_eq!(new, Some(bytes.len() as u64 + 5), "{made}");
    let made = grid(&server, "ada", line).json();
    assert_eq!(made["datastore"]["new_bytes"], 0, "{made}");
}

#[test]
fn what_is_new_is_counted_also_when_a_file_changes_meanwhile() {
    let server = Server::start(&[]);
    let busy = large().repeat(8);
    let folder = data(&server, "cats", &[("large", &large()), ("z", &busy)]);
    let mut child = server
        .command("ada", &["-o", "json", "datastore", "create", "cats"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("grid starts");
    // For a while, in which it is read and read again.
    let until = now() + Duration::from_millis(900);
    let mut seconds = 1_000_000_000;
    while now() < until && child.try_wait().expect("a child").is_none() {
        seconds += 1;
        touch(&folder.join("z"), seconds);
    }
    let made = Ran::of(&child.wait_with_output().expect("ended")).json();
    let new = made["datastore"]["new_bytes"].as_u64().expect("a number");
    assert!(new >= large().len() as u64, "{made}");
}

#[test]
fn times_before_1970_come_back() {
    let server = Server::start(&[]);
    let folder = data(&server, "old", &[("small", b"x"), ("large", &large())]);
    for (name, seconds) in [("small", -86_400 * 365), ("large", -1)] {
        touch(&folder.join(name), seconds);
    }
    let made = grid(&server, "ada", "datastore create old");
    assert_eq!(made.code, 0, "{made:?}");
    grid(&server, "ada", "datastore download old --to back").ok();
    let at = |name: &str| {
        let found = fs::metadata(server.work().join("back").join(name));
        found.expect("there").mtime()
    };
    assert_eq!((at("small"), at("large")), (-86_400 * 365, -1));
    // Nanoseconds reach until 2262; what is later is not cut without a word.
    touch(&folder.join("small"), 10_000_000_000);
    if fs::metadata(folder.join("small")).expect("there").mtime() == 10_000_000_000 {
        let made = grid(&server, "ada", "datastore create old");
        assert!(made.stderr.contains("2262"), "{made:?}");
        assert!(made.stderr.contains("small"), "{made:?}");
    }
}

fn touch(path: &Path, seconds: i64) {
    let at = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: at,
        last_modification: at,
    };
    let none = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, none).expect("touched");
}

#[test]
fn a_name_in_a_team_that_was_left_is_still_taken() {
    let server = team();
    data(&server, "bobd", &[("a", b"1")]);
    grid(&server, "bob", "datastore create bobd --team vision").ok();
    grid(&server, "ada", "team remove vision bob").ok();
    for line in ["datastore create bobd", "datastore create bobd --team bob"] {
        let said = grid(&server, "bob", line).fails(1);
        assert!(said.contains("you have a datastore 'bobd'"), "{said}");
        assert!(said.contains("choose another --name"), "{said}");
    }
    grid(&server, "bob", "datastore create bobd --name mine").ok();
    // Whoever has no such datastore hears nothing of that.
    grid(&server, "eve", "datastore create bobd").ok();
}

#[test]
fn what_somebody_else_made_is_hinted_at_by_their_name() {
    let server = team();
    data(&server, "bobd", &[("a", b"1")]);
    grid(&server, "bob", "datastore create bobd --team vision").ok();
    let said = grid(&server, "ada", "datastore delete bob:bobd:1").ok();
    let restore = hinted(&said, "grid datastore restore");
    let said = grid(&server, "ada", "datastore files bob:bobd:1").fails(1);
    assert_eq!(hinted(&said, "grid datastore restore"), restore);
    let said = grid(&server, "ada", "datastore files bob:bobd").fails(1);
    let listed = grid(&server, "ada", &hinted(&said, "grid datastore --deleted")).ok();
    assert!(listed.contains("bobd"), "{listed}");
    grid(&server, "ada", &restore).ok();
    let said = grid(&server, "bob", "datastore delete bobd:1").ok();
    grid(&server, "bob", &hinted(&said, "grid datastore restore")).ok();
}

#[test]
fn a_download_says_what_it_replaced_and_what_is_of_something_else() {
    let server = Server::start(&[]);
    let folder = data(&server, "cats", &[("same", b"="), ("other", b"1")]);
    fs::create_dir(folder.join("sub")).expect("made");
    fs::write(folder.join("sub/file"), "text").expect("written");
    symlink("sub", folder.join("link")).expect("linked");
    grid(&server, "ada", "datastore create cats").ok();
    fs::write(folder.join("other"), "2").expect("written");
    fs::write(folder.join("only"), "2").expect("written");
    grid(&server, "ada", "datastore create cats").ok();
    let first = grid(&server, "ada", "datastore download cats:2 --to here");
    assert!(!first.stderr.contains("before"), "{first:?}");
    assert!(!first.stdout.contains("replaced"), "{first:?}");
    let second = grid(&server, "ada", "datastore download cats:1 --to here");
    assert!(
        second.stdout.contains("2 unchanged, 1 replaced"),
        "{second:?}"
    );
    let said = "1 file(s) that lay in here before are not of cats:1";
    assert!(second.stderr.contains(said), "{second:?}");
    let here = server.work().join("here");
    assert_eq!(
        fs::read_to_string(here.join("other")).ok().as_deref(),
        Some("1")
    );
    assert!(here.join("only").exists(), "nothing is deleted");
    // A part of it says nothing of the rest.
    let part = grid(&server, "ada", "datastore download cats:1 sub --to here");
    assert!(!part.stderr.contains("before"), "{part:?}");
    // A link to a folder: the hint fetches the folder.
    let link = grid(&server, "ada", "datastore download cats:1 link --to there");
    let line = hinted(&link.stderr, "grid datastore download");
    grid(&server, "ada", &format!("{line} --to there")).ok();
    let read = fs::read_to_string(server.work().join("there/link/file"));
    assert_eq!(read.ok().as_deref(), Some("text"));
}

#[test]
fn emptying_the_trash_says_how_much_became_free() {
    let mut server = Server::start(&[]);
    let bytes = large();
    data(&server, "cats", &[("large", &bytes)]);
    grid(&server, "ada", "datastore create cats").ok();
    grid(&server, "ada", "datastore delete cats:1").ok();
    server.stop();
    let folder = server.data();
    let collect = |flags: &[&str]| {
        let data = folder.to_str().expect("UTF-8");
        let line = [&["server", "collect", "--data", data], flags].concat();
        server.grid("ada", &line)
    };
    let said = collect(&["--trash", "--dry-run"]).fails(2);
    assert!(said.contains("cannot be said before"), "{said}");
    let said = collect(&["--trash", "--now"]).ok();
    assert!(said.contains("1 versions of datastores"), "{said}");
    let freed = said
        .split(" bytes;")
        .next()
        .and_then(|text| text.rsplit(' ').next())
        .and_then(|bytes| bytes.parse::<usize>().ok());
    assert!(freed.is_some_and(|freed| freed >= bytes.len()), "{said}");
    server.up();
    server.doctor();
}

#[test]
fn an_address_that_is_refused_gives_no_hint_about_keys() {
    let server = Server::start(&[]);
    let line = "datastore create http://169.254.169.254/x --name y";
    let said = grid(&server, "ada", line).fails(1);
    assert!(!said.contains("AWS_ACCESS_KEY_ID"), "{said}");
}

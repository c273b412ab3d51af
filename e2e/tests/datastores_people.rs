//! What people ask of datastores and how they are answered: links, times, names of nobody.
//!
//! Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use grid_e2e::common::{grid, vision};
use grid_e2e::{Server, wait_for};
use serde_json::Value;

fn team() -> Server {
    let server = Server::start(&[]);
    vision(&server);
    server
}

/// Sets the modification time of a file, a folder or a link, in seconds.
fn touch(path: &Path, seconds: i64) {
    let at = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: at,
        last_modification: at,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).expect("touched");
}

fn modified(path: &Path) -> i64 {
    std::fs::symlink_metadata(path).expect("there").mtime()
}

#[test]
fn links_and_empty_folders_come_back_with_their_times_and_modes() {
    let server = Server::start(&[]);
    let data = server.work().join("data");
    std::fs::create_dir_all(data.join("empty")).expect("made");
    std::fs::write(data.join("file"), "text").expect("written");
    symlink("file", data.join("link")).expect("linked");
    symlink("nowhere", data.join("dangling")).expect("linked");
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(data.join("empty"), mode).expect("set");
    for (name, seconds) in [
        ("file", 1_000_000_001),
        ("link", 1_000_000_002),
        ("dangling", 1_000_000_003),
        ("empty", -5),
    ] {
        touch(&data.join(name), seconds);
    }
    grid(&server, "ada", "datastore create data").ok();
    let back = server.work().join("back");
    // The second time is of what is there already.
    for _ in 0..2 {
        grid(&server, "ada", "datastore download data --to back").ok();
        assert_eq!(modified(&back.join("file")), 1_000_000_001);
        assert_eq!(modified(&back.join("link")), 1_000_000_002);
        assert_eq!(modified(&back.join("dangling")), 1_000_000_003);
        assert_eq!(modified(&back.join("empty")), -5);
        let mode = std::fs::metadata(back.join("empty")).expect("there").mode();
        assert_eq!(mode & 0o777, 0o711);
        touch(&back.join("link"), 7);
    }
    let listed = grid(&server, "ada", "datastore files data").ok();
    assert!(listed.contains("2001-09-09 01:46:42+0000"), "{listed}");
}

#[test]
fn a_link_is_read_as_the_file_that_it_leads_to() {
    let server = Server::start(&[]);
    let data = server.work().join("data");
    std::fs::create_dir_all(data.join("sub/deep")).expect("made");
    std::fs::write(data.join("sub/deep/file"), "text").expect("written");
    for (target, name) in [
        ("sub/deep/file", "link"),
        ("link", "second"),
        ("sub", "folder"),
        ("../link", "sub/up"),
        ("b", "a"),
        ("a", "b"),
        ("nowhere", "dangling"),
        ("..", "sub/top"),
    ] {
        symlink(target, data.join(name)).expect("linked");
    }
    grid(&server, "ada", "datastore create data").ok();
    for path in [
        "link",
        "second",
        "folder/deep/file",
        "sub/up",
        "folder/up",
        "sub/top/second",
    ] {
        let read = grid(&server, "ada", &format!("datastore cat data {path}")).ok();
        assert_eq!(read, "text", "{path}");
    }
    for (path, expected) in [
        ("a", "leads in a circle of links"),
        ("dangling", "leads to 'nowhere', which is not in it"),
        ("folder", "leads to the folder 'sub'"),
        ("sub", "'sub' of datastore 'data:1' is a folder"),
        ("sub/top", "leads to its top"),
        ("folder/nothing", "leads to 'sub/nothing'"),
        ("nothing", "has no file 'nothing'"),
    ] {
        let said = grid(&server, "ada", &format!("datastore cat data {path}")).fails(1);
        assert!(said.contains(expected), "{path}: {said}");
    }
    let said = grid(&server, "ada", "datastore cat data sub").fails(1);
    assert!(said.contains("`grid datastore files data sub`"), "{said}");
    for (path, expected) in [("../link", "climbs"), ("/", "which file is meant?")] {
        let said = grid(&server, "ada", &format!("datastore cat data {path}")).fails(2);
        assert!(said.contains(expected), "{said}");
    }
    let read = grid(&server, "ada", "datastore cat data ./sub//up").ok();
    assert_eq!(read, "text");
    // Who fetches a link alone is told that it is one.
    let ran = grid(&server, "ada", "datastore download data ./link --to back");
    assert!(
        ran.stderr.contains("download data:1 sub/deep/file"),
        "{ran:?}"
    );
}

#[test]
fn nobody_is_told_apart_from_somebody_who_has_nothing() {
    let server = team();
    std::fs::write(server.work().join("x"), "x").expect("written");
    grid(&server, "bob", "datastore create x --team vision").ok();
    for (who, whom) in [
        ("bob", "nobody"),
        ("bob", "Not/a-name"),
        // Whom one shares no team with is like one who is not there.
        ("bob", "eve"),
        ("eve", "bob"),
        ("eve", "nobody"),
    ] {
        for list in ["datastore", "status", "history"] {
            let said = grid(&server, who, &format!("{list} --global {whom}")).fails(1);
            let expected = format!("error: there is no user '{whom}'\n");
            assert!(said.starts_with(&expected), "{list} by {who}: {said}");
            assert!(said.contains("grid user list"), "{said}");
        }
    }
    let mine = grid(&server, "bob", "datastore --global ada").ok();
    assert_eq!(mine, "No datastores of ada that you can see.\n");
    grid(&server, "bob", "status --global ada").ok();
    let theirs = grid(&server, "ada", "-o json datastore --global bob").json();
    assert_eq!(theirs["datastores"][0]["name"], "x");
    // Who left has things in the team all the same.
    grid(&server, "ada", "team remove vision bob").ok();
    let theirs = grid(&server, "ada", "-o json datastore --global bob").json();
    assert_eq!(theirs["datastores"][0]["name"], "x");
    let said = grid(&server, "ada", "datastore --cluster nowhere").fails(1);
    assert!(said.contains("there is no cluster 'nowhere'"), "{said}");
    assert_eq!(
        grid(&server, "ada", "datastore --name nope").ok(),
        "No datastore 'nope'.\n"
    );
}

#[test]
fn an_upload_that_was_cut_at_once_does_not_look_empty() {
    let mut server = Server::start(&[]);
    let big = server.work().join("big");
    std::fs::create_dir(&big).expect("made");
    for number in 0..4 {
        let file = std::fs::File::create(big.join(format!("{number}"))).expect("made");
        let mut seed = blake3::Hasher::new_derive_key("e2e 2026 big")
            .update(&[number])
            .finalize_xof();
        std::io::copy(&mut std::io::Read::take(&mut seed, 64 << 20), &mut &file).expect("written");
    }
    let mut child = server
        .command("ada", &["datastore", "create", "big"])
        .spawn()
        .expect("grid starts");
    let listed = |server: &Server| -> Vec<Value> {
        let answer = grid(server, "ada", "-o json datastore --show-incomplete").json();
        answer["datastores"].as_array().cloned().unwrap_or_default()
    };
    wait_for("the version to be begun", || {
        (!listed(&server).is_empty()).then_some(())
    });
    child.kill().expect("killed");
    child.wait().expect("killed");
    let before = listed(&server);
    if before[0]["state"] == "uploading" && before[0]["files"] == 0 {
        let table = grid(&server, "ada", "datastore --show-incomplete").ok();
        assert!(
            table.contains("what came is kept, but not counted"),
            "{table}"
        );
        assert!(!table.contains("0 B"), "{table}");
        let ran = grid(&server, "ada", "datastore --show-incomplete");
        assert!(
            ran.stderr.contains("`grid datastore resume big`"),
            "{ran:?}"
        );
        let said = grid(&server, "ada", "datastore resume small").fails(1);
        assert!(said.contains("upload of 'small' on this machine"), "{said}");
        assert!(said.contains("there may be one of big:1"), "{said}");
    }
    server.stop();
    server.up();
    grid(&server, "ada", "datastore create big").ok();
    assert_eq!(listed(&server)[0]["files"], 4);
}

#[test]
fn data_at_a_place_of_ones_own_is_also_found_by_its_name() {
    let server = Server::start(&[]);
    let data = server.work().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("file"), "text").expect("written");
    symlink("file", data.join("link")).expect("linked");
    touch(&data.join("link"), 1_000_000_002);
    grid(&server, "ada", "datastore create data").ok();
    server.script(
        "read.sh",
        "#!/bin/bash\ncat \"$GRID_DATASTORES/mine/link\"; stat -c ' %Y' \"$GRID_DATASTORES/mine/link\"\n",
    );
    let flags = "--datastore_name data --datastore_mount_dir /my/mine";
    grid(
        &server,
        "ada",
        &format!("run --localdir --name r {flags} read.sh"),
    )
    .ok();
    server.finished("r");
    let log = server.log_text("r-exp0");
    assert!(log.contains("text 1000000002"), "{log}");
}

#[test]
fn what_is_in_the_way_of_a_download_is_named() {
    let server = Server::start(&[]);
    let data = server.work().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("small"), "x").expect("written");
    let large = std::fs::File::create(data.join("large")).expect("made");
    large.set_len(10 << 20).expect("long");
    grid(&server, "ada", "datastore create data").ok();
    let work = server.work();
    std::fs::create_dir_all(work.join("one/large")).expect("made");
    std::fs::create_dir_all(work.join("two/small")).expect("made");
    std::fs::write(work.join("three"), "x").expect("written");
    for (to, expected) in [
        ("one", "a folder is in the way: one/large"),
        ("two", "a folder is in the way: two/small"),
        ("three", "a file is in the way: three"),
    ] {
        let said = grid(
            &server,
            "ada",
            &format!("datastore download data --to {to}"),
        )
        .fails(1);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("choose another folder"), "{said}");
    }
    let said = grid(&server, "ada", "datastore delete data").fails(2);
    assert!(said.contains("`grid datastore` lists them"), "{said}");
    let said = grid(&server, "ada", "datastore restore data").fails(2);
    assert!(said.contains("`grid datastore --deleted` lists"), "{said}");
    let said = grid(&server, "ada", "datastore delete --name data --version x").fails(2);
    assert!(said.contains("versions are numbers"), "{said}");
}

#[test]
fn what_was_fetched_is_listed_for_programs_as_it_comes() {
    let server = Server::start(&[]);
    let data = server.work().join("data");
    std::fs::create_dir(&data).expect("made");
    for number in 0..3 {
        std::fs::write(data.join(format!("{number}")), "x").expect("written");
    }
    grid(&server, "ada", "datastore create data --name three").ok();
    let line = "-o json datastore download three --to back";
    for status in ["downloaded", "unchanged"] {
        let said = grid(&server, "ada", line).json();
        assert_eq!(said["datastore"]["name"], "three", "{said}");
        let files = said["files"].as_array().expect("files");
        assert_eq!(files.len(), 3, "{said}");
        assert!(files.iter().all(|file| file["status"] == status), "{said}");
    }
}

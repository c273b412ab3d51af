//! The one who runs the server.

use grid_e2e::{Server, wait_for};
use serde_json::Value;

#[test]
fn a_backup_is_a_working_server() {
    let mut server = Server::start(&[]);
    server.script("say.sh", "#!/bin/bash\necho kept\n");
    server.run("kept", &["say.sh"]);
    server.finished("kept");
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    let file = server.folder.path().join("backup.db");
    let file = file.to_str().expect("UTF-8");
    server
        .grid("ada", &["server", "backup", "--data", data, file])
        .ok();
    assert!(std::fs::metadata(file).expect("it is there").len() > 0);
    let again = server.grid("ada", &["server", "backup", "--data", data, file]);
    assert_ne!(again.code, 0, "a backup is not written over: {again:?}");
    let nowhere = ["server", "backup", "--data", data, "/nowhere/backup.db"];
    let said = server.grid("ada", &nowhere).fails(1);
    assert!(said.contains("there is no folder /nowhere"), "{said}");
    let mistyped = server.folder.path().join("mistyped");
    let mistyped = mistyped.to_str().expect("UTF-8");
    let said = server
        .grid("ada", &["server", "migrate", "--data", mistyped])
        .fails(1);
    assert!(said.contains("no server's data"), "{said}");
    assert!(!std::path::Path::new(mistyped).exists(), "nothing was made");
    let refused = server.grid("ada", &["server", "migrate", "--data", data]);
    assert_eq!(refused.code, 1, "not under a running server: {refused:?}");
    server.stop();
    server
        .grid("ada", &["server", "migrate", "--data", data])
        .ok();
    server.up();
    assert_eq!(server.log_text("kept-exp0"), "kept");
    server.doctor();
}

#[test]
fn damage_is_found_and_named() {
    let server = Server::start(&[]);
    server.script("big.py", "open('big', 'wb').write(b'x' * 3_000_000)\n");
    server.run("big", &["big.py"]);
    server.finished("big");
    server.doctor();
    let mut damaged = false;
    let mut folders = vec![server.data().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let meta = entry.metadata().expect("there");
            if meta.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|kind| kind == "pack") {
                let mut bytes = std::fs::read(entry.path()).expect("read");
                let run = bytes.windows(1_000).position(|part| part == [b'x'; 1_000]);
                if let Some(at) = run {
                    bytes[at + 500] ^= 1;
                    std::fs::write(entry.path(), bytes).expect("written");
                    damaged = true;
                }
            }
        }
    }
    assert!(damaged, "the artifact is in a pack");
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    let found = server.grid("ada", &["server", "doctor", "--deep", "--data", data]);
    assert_ne!(found.code, 0);
    assert!(
        format!("{}{}", found.stdout, found.stderr).contains("damaged"),
        "{found:?}"
    );
    let fetched = server.grid("ada", &["artifacts", "big"]);
    assert_ne!(
        fetched.code, 0,
        "damaged bytes are not handed out as if they were whole: {fetched:?}"
    );
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let server = Server::start(&[]);
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    let second = server.grid(
        "ada",
        &["server", "--listen", "127.0.0.1:0", "--data", data],
    );
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains("already") || second.stderr.contains("another"),
        "{}",
        second.stderr
    );
}

#[test]
fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(&[]);
    for file in [
        "operator.json",
        "secret",
        "server.json",
        "runner/runner.json",
    ] {
        let mode = std::fs::metadata(server.data().join(file))
            .expect(file)
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file} can be read by others");
    }
    let operator: Value = serde_json::from_str(
        &std::fs::read_to_string(server.data().join("operator.json")).expect("there"),
    )
    .expect("JSON");
    let key = operator["api_key"].as_str().expect("a key").as_bytes();
    let contains = |bytes: &[u8]| bytes.windows(key.len()).any(|window| window == key);
    for file in ["grid.db", "grid.db-wal"] {
        let bytes = std::fs::read(server.data().join(file)).unwrap_or_default();
        assert!(!contains(&bytes), "the key is in {file}");
    }
    assert!(!contains(server.log().as_bytes()), "the key is in the log");
    let rotated = server
        .grid("ada", &["-o", "json", "user", "rotate-key"])
        .json();
    assert!(
        rotated["api_key"]
            .as_str()
            .is_some_and(|new| new.as_bytes() != key)
    );
    let old = String::from_utf8_lossy(key).into_owned();
    let mut command = server.command("ada", &["user"]);
    let output = command
        .env("GRID_API_KEY", old)
        .output()
        .expect("grid starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("revoked"),
        "{output:?}"
    );
}

#[test]
fn https_by_certificate_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(std::process::Stdio::null())
        .status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "openssl makes a certificate"
    );
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (cert, key) = (text(&cert), text(&key));
    let mut server = Server::start_trusting(&["--tls-cert", &cert, "--tls-key", &key], &cert);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    server.script("say.sh", "#!/bin/bash\necho over tls\n");
    server.run("tls", &["say.sh"]);
    assert_eq!(
        server.finished("tls")[0]["status"],
        "succeeded",
        "{}",
        server.runner_log()
    );
    assert_eq!(server.log_text("tls-exp0"), "over tls");
    server.stop();
    wait_for("the port to be closed", || {
        (server.grid("ada", &["user"]).code == 1).then_some(())
    });
}

//! The server as a whole: sockets, folder, start, stop, upkeep.

use std::path::Path;

use grid_api::client::{Auth, Client};
use grid_api::cluster::Health;
use grid_api::user::UserResponse;
use serde_json::Value;

use crate::config::{Options, Settings, settings};
use crate::serve::Server;
use crate::upkeep::{Collecting, backup, collect, doctor};

pub(super) fn options(dir: &Path) -> Options {
    Options {
        data: Some(dir.join("data")),
        listen: Some("127.0.0.1:0".to_owned()),
        ..Options::default()
    }
}

pub(super) fn of(options: Options) -> Settings {
    settings(options, |name| (name == "USER").then(|| "grace".into())).expect("settings")
}

pub(super) fn operator(dir: &Path) -> Value {
    let text = std::fs::read(dir.join("data/operator.json")).expect("a file");
    serde_json::from_slice(&text).expect("JSON")
}

pub(super) fn client(operator: &Value, ca: Option<&[u8]>) -> Client {
    let text = |field: &str| operator[field].as_str().expect("text").to_owned();
    let auth = Auth::User {
        user_id: text("user_id"),
        api_key: text("api_key"),
    };
    Client::new(&text("url"), auth, ca).expect("a client")
}

#[tokio::test]
async fn the_first_start_makes_an_operator_and_the_second_knows_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started");
    let first = operator(dir.path());
    let me: UserResponse = client(&first, None)
        .get("/user", &())
        .await
        .expect("signed in");
    assert_eq!(
        (me.user.username.as_str(), me.user.operator),
        ("grace", true)
    );
    let second = Server::start_without_runner(of(options(dir.path()))).await;
    let pid = std::process::id().to_string();
    let refused = format!("{:#}", second.err().expect("the folder is in use"));
    assert!(refused.contains(&pid), "{refused}");
    server.end().await;
    assert!(!dir.path().join("data/server.json").exists());
    assert!(
        !dir.path().join("data/grid.db-wal").exists(),
        "the database's own log is merged"
    );
    drop(server);
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started again");
    let again = operator(dir.path());
    assert_eq!(again["api_key"], first["api_key"]);
    assert_eq!(again["url"], server.running().url);
    server.end().await;
    drop(server);
    std::fs::remove_file(dir.path().join("data/operator.json")).expect("lost");
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started");
    let recovered = operator(dir.path());
    assert_eq!(recovered["user_id"], first["user_id"]);
    let _: UserResponse = client(&recovered, None)
        .get("/user", &())
        .await
        .expect("signed in");
    server.end().await;
}

#[tokio::test]
async fn a_rotated_operator_key_is_written_down() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started");
    let first = operator(dir.path());
    let _: Value = client(&first, None)
        .post("/user/rotate-key", &())
        .await
        .expect("rotated");
    let renewed = operator(dir.path());
    assert_ne!(renewed["api_key"], first["api_key"]);
    let _: UserResponse = client(&renewed, None)
        .get("/user", &())
        .await
        .expect("signed in");
    server.end().await;
}

#[tokio::test]
async fn doctor_and_backup_work_beside_a_server_and_without() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started");
    let mut said = Vec::new();
    assert!(
        doctor(options(dir.path()), true, &mut said)
            .await
            .expect("examined")
    );
    let copy = dir.path().join("copy.db");
    backup(options(dir.path()), &copy, &mut said)
        .await
        .expect("copied");
    let twice = backup(options(dir.path()), &copy, &mut said)
        .await
        .expect_err("it is there");
    assert!(format!("{twice:#}").contains("exists"), "{twice:#}");
    for dry_run in [true, false] {
        let how = Collecting {
            dry_run,
            ..Collecting::default()
        };
        collect(options(dir.path()), how, &mut said)
            .await
            .expect("collected");
    }
    server.end().await;
    drop(server);
    collect(options(dir.path()), Collecting::default(), &mut said)
        .await
        .expect("collected");
    assert!(
        doctor(options(dir.path()), false, &mut said)
            .await
            .expect("examined")
    );
    let text = String::from_utf8(said).expect("UTF-8");
    assert_eq!(text.matches("all is well").count(), 2, "{text}");
    assert_eq!(text.matches("would delete 0 blobs").count(), 1, "{text}");
    assert_eq!(text.matches("\ndeleted 0 blobs").count(), 2, "{text}");
    assert!(
        text.contains("data/secret") && text.contains("data/blobs"),
        "{text}"
    );
    // The copy is a database that a server starts with, and that can be looked at before.
    let other = dir.path().join("other/data");
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::copy(&copy, other.join("grid.db")).expect("copied");
    let look = async || {
        let mut said = Vec::new();
        let well = doctor(options(&dir.path().join("other")), true, &mut said).await;
        let text = String::from_utf8(said).expect("UTF-8");
        (well.expect("examined"), text)
    };
    let (well, text) = look().await;
    assert!(!well && text.contains("secret is missing"), "{text}");
    assert!(!other.join("secret").exists(), "whoever looks makes none");
    std::fs::copy(dir.path().join("data/secret"), other.join("secret")).expect("copied");
    let (well, text) = look().await;
    assert!(well, "{text}");
    let mut restored = Server::start_without_runner(of(options(&dir.path().join("other"))))
        .await
        .expect("started");
    assert_eq!(operator(&dir.path().join("other"))["username"], "grace");
    restored.end().await;
}

#[tokio::test]
async fn https_works_by_certificate_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/tls");
    let mut options = options(dir.path());
    options.tls_cert = Some(files.join("cert.pem"));
    options.tls_key = Some(files.join("key.pem"));
    let mut server = Server::start_without_runner(of(options.clone()))
        .await
        .expect("started");
    let ca = std::fs::read(files.join("cert.pem")).expect("a file");
    assert!(server.running().url.starts_with("https://localhost:"));
    let operator = operator(dir.path());
    let health: Health = client(&operator, Some(&ca))
        .get("/health", &())
        .await
        .expect("an answer");
    assert_eq!(health.status, "ok");
    let mistrusting = client(&operator, None)
        .get::<_, Health>("/health", &())
        .await;
    assert!(
        mistrusting.is_err(),
        "who does not know the certificate does not go on"
    );
    let local = Client::new(&server.running().local_url, Auth::None, None).expect("a client");
    let other = local
        .get::<_, Health>("/health", &())
        .await
        .expect_err("the runner's door has no more");
    assert_eq!(other.status(), Some(404));
    server.end().await;
    drop(server);
    options.tls_key = Some(files.join("none.pem"));
    let error = Server::start_without_runner(of(options))
        .await
        .err()
        .expect("no such file");
    assert!(format!("{error:#}").contains("none.pem"), "{error:#}");
}

#[tokio::test]
async fn a_stop_sends_followers_away_at_once() {
    use futures::StreamExt;
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_without_runner(of(options(dir.path())))
        .await
        .expect("started");
    let client = client(&operator(dir.path()), None);
    let mut changes = Box::pin(client.events("/changes", None).await.expect("a stream"));
    assert_eq!(
        changes
            .next()
            .await
            .expect("an event")
            .expect("whole")
            .event,
        "changed"
    );
    let ended = tokio::spawn(async move { while let Some(Ok(_)) = changes.next().await {} });
    server.end().await;
    tokio::time::timeout(super::world::LIMIT, ended)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(
        client.get::<_, Health>("/health", &()).await.is_err(),
        "nobody listens"
    );
}

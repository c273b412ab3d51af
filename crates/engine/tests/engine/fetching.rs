//! Sources that are fetched: whoever has slow ones keeps nobody else waiting.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grid_core::datastore::{SourceKind, State};
use grid_engine::Caller;
use grid_engine::datastore::{self, BucketWish, NewVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, until};

/// More slow sources than are fetched at a time for anybody.
const SLOW: usize = 12;

/// What is fetched of one user at a time, and how often each is tried until it is left for later.
const AT_ONCE: usize = 4;
const TRIES: usize = 3;

/// A tar of one file.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "a", &b"meow"[..])
        .expect("added");
    tar.into_inner().expect("ended")
}

/// How often a web server said that it is busy; with that, when it was first asked for else.
#[derive(Debug, Default)]
struct Busy {
    said: AtomicUsize,
    said_before: OnceLock<usize>,
}

/// Answers with the archive; from `/slow` on a byte now and then, and from `/busy` on not now.
async fn answer(mut stream: TcpStream, busy: Arc<Busy>) -> std::io::Result<()> {
    let mut head = vec![0; 4_096];
    let length = stream.read(&mut head).await?;
    let is_slow = head[..length].starts_with(b"GET /slow");
    if head[..length].starts_with(b"GET /busy") {
        busy.said.fetch_add(1, Ordering::SeqCst);
        let said = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(said).await;
    }
    let _ = busy.said_before.set(busy.said.load(Ordering::SeqCst));
    let body = archive();
    let said = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(said.as_bytes()).await?;
    if is_slow {
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        for byte in body {
            stream.write_all(&[byte]).await?;
            pace.tick().await;
        }
        return Ok(());
    }
    stream.write_all(&body).await
}

async fn web() -> (String, Arc<Busy>) {
    let busy = Arc::new(Busy::default());
    let shared = Arc::clone(&busy);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&shared)));
        }
    });
    (format!("http://{address}"), busy)
}

async fn begin(world: &World, caller: &Caller, source: String, name: &str) -> String {
    let new = NewVersion {
        name: name.to_owned(),
        team: None,
        source,
        source_kind: SourceKind::Http,
        description: String::new(),
        bucket: BucketWish::default(),
    };
    let begun = datastore::begin(&world.engine, caller, new).await;
    begun.expect("begun").row.id.to_string()
}

async fn world(dir: &Path) -> World {
    // As the program does at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::fs::create_dir_all(dir.join("tmp")).expect("a folder");
    let world = World::new(dir).await;
    world.engine.fetch_private(true);
    world
}

/// Waits for a version to be available.
async fn comes(world: &World, caller: &Caller, id: &str) {
    until("it is available", async || {
        let got = datastore::get(&world.engine, caller, id).await;
        let row = got.expect("theirs").row;
        let is_there = row.state == State::Available;
        assert!(
            is_there || row.state == State::Processing,
            "{:?}",
            row.message
        );
        is_there
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_sources_of_one_user_keep_nobody_else_waiting() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let (bob, _) = world.user("bob").await;
    let (url, _) = web().await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let source = format!("{url}/slow/{number}.tar");
        slow.push(begin(&world, &world.ada, source, &format!("slow-{number}")).await);
    }
    let quick = begin(&world, &bob, format!("{url}/quick.tar"), "quick").await;
    comes(&world, &bob, &quick).await;
    for id in slow {
        let got = datastore::get(&world.engine, &world.ada, &id).await;
        assert_eq!(got.expect("hers").row.state, State::Processing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_are_left_for_later_let_others_go_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let (url, busy) = web().await;
    for number in 0..AT_ONCE {
        let source = format!("{url}/busy/{number}.tar");
        begin(&world, &world.ada, source, &format!("busy-{number}")).await;
    }
    let quick = begin(&world, &world.ada, format!("{url}/quick.tar"), "quick").await;
    // It looks at once for what was left over, and finds those that are worked on.
    let looking = world.engine.clone();
    let looking = tokio::spawn(async move { looking.keep_datastores().await });
    comes(&world, &world.ada, &quick).await;
    looking.abort();
    let said = *busy.said_before.get().expect("it was asked for");
    assert!(said <= AT_ONCE * TRIES, "{said}");
}

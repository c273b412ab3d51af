//! Sources that are fetched: whoever has slow ones keeps nobody else waiting.

use std::time::Duration;

use grid_core::datastore::{SourceKind, State};
use grid_engine::Caller;
use grid_engine::datastore::{self, BucketWish, NewVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::world::World;

/// How long a test waits for what should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// More slow sources than are fetched at a time for anybody.
const SLOW: usize = 12;

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

/// Answers with the archive; from `/slow` on a byte now and then.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = vec![0; 4_096];
    let length = stream.read(&mut head).await?;
    let is_slow = head[..length].starts_with(b"GET /slow");
    let body = archive();
    let said = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(said.as_bytes()).await?;
    if is_slow {
        for byte in body {
            stream.write_all(&[byte]).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        return Ok(());
    }
    stream.write_all(&body).await
}

async fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    format!("http://{address}")
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_sources_of_one_user_keep_nobody_else_waiting() {
    // As the program does at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("tmp")).expect("a folder");
    let world = World::new(dir.path()).await;
    world.engine.fetch_private(true);
    let (bob, _) = world.user("bob").await;
    let url = web().await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let source = format!("{url}/slow/{number}.tar");
        slow.push(begin(&world, &world.ada, source, &format!("slow-{number}")).await);
    }
    let quick = begin(&world, &bob, format!("{url}/quick.tar"), "quick").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = datastore::get(&world.engine, &bob, &quick).await;
        let row = got.expect("his").row;
        if row.state == State::Available {
            break;
        }
        assert_eq!(row.state, State::Processing, "{:?}", row.message);
        assert!(Instant::now() < deadline, "it waits for somebody else's");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for id in slow {
        let got = datastore::get(&world.engine, &world.ada, &id).await;
        assert_eq!(got.expect("hers").row.state, State::Processing);
    }
}

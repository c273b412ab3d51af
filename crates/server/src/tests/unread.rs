//! Requests that are answered before their body was read, over real connections.

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::place::on_both;
use super::world::World;
use crate::listen;

on_both!(
    who_waits_to_send_is_told_that_it_is_the_last_answer,
    who_sends_without_waiting_hears_the_answer,
    a_connection_goes_on_when_the_body_was_read_or_is_small,
);

/// Bytes of an upload that is refused: more than any buffer on the way holds.
const MANY: usize = 24 << 20;

/// A listener, until it is dropped.
struct Door {
    address: std::net::SocketAddr,
    listening: AbortHandle,
}

impl Door {
    fn open(router: Router) -> Self {
        let listener = listen::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let serve = listen::serve(listener, router, None, axum_server::Handle::new());
        Self {
            address,
            listening: tokio::spawn(serve).abort_handle(),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What is sent to each kind of door, and refused: nobody is signed in.
fn doors(world: &World) -> Vec<(Door, String)> {
    let (rest, s3) = (
        crate::rest::router(world.app.clone()),
        crate::s3::router(world.app.clone()),
    );
    let prefix = grid_api::PREFIX;
    vec![
        (Door::open(rest.clone()), format!("POST {prefix}/runs")),
        (Door::open(rest.clone()), "POST /graphql/none".to_owned()),
        (Door::open(rest), "PUT /v1/uploads/none".to_owned()),
        (
            Door::open(s3),
            "PUT /lab/datastores/ada/cats/next/x".to_owned(),
        ),
    ]
}

fn head(what: &str, more: &str) -> String {
    format!("{what} HTTP/1.1\r\nhost: grid.test\r\n{more}\r\n\r\n")
}

/// The head of the next answer, in lower case, and what came behind it.
async fn answer(line: &mut TcpStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = read.split_off(end + 4);
            return (String::from_utf8_lossy(&read).to_lowercase(), rest);
        }
        let more = line.read_buf(&mut read).await.expect("an answer");
        assert!(more > 0, "the connection ended: {read:?}");
    }
}

async fn who_waits_to_send_is_told_that_it_is_the_last_answer(world: World) {
    for (door, what) in doors(&world) {
        let mut line = door.connect().await;
        let more = "content-length: 100\r\nexpect: 100-continue";
        line.write_all(head(&what, more).as_bytes())
            .await
            .expect("sent");
        let (told, _) = answer(&mut line).await;
        assert!(told.starts_with("http/1.1 4"), "{what}: {told}");
        assert!(told.contains("\r\nconnection: close\r\n"), "{what}: {told}");
        // And so it is: nothing more is taken for a request, or for that body.
        let mut rest = Vec::new();
        line.read_to_end(&mut rest).await.expect("the end");
    }
}

async fn who_sends_without_waiting_hears_the_answer(world: World) {
    for (door, what) in doors(&world) {
        let mut line = door.connect().await;
        let more = format!("content-length: {MANY}");
        line.write_all(head(&what, &more).as_bytes())
            .await
            .expect("sent");
        // As many programs do: all of it first, and then they listen.
        let piece = vec![7; 1 << 20];
        for sent in 0..MANY / piece.len() {
            let written = line.write_all(&piece).await;
            written.unwrap_or_else(|error| panic!("{what}: cut off after {sent} MiB: {error}"));
        }
        let (told, _) = answer(&mut line).await;
        assert!(told.starts_with("http/1.1 4"), "{what}: {told}");
        assert!(told.contains("\r\nconnection: close\r\n"), "{what}: {told}");
    }
}

async fn a_connection_goes_on_when_the_body_was_read_or_is_small(world: World) {
    let door = Door::open(crate::rest::router(world.app.clone()));
    let mut line = door.connect().await;
    // One that is read, and two that nobody reads, but small.
    for path in ["auth/login", "runs", "nothing/here"] {
        let what = format!("POST {}/{path}", grid_api::PREFIX);
        let more = "content-type: application/json\r\ncontent-length: 2";
        let request = format!("{}{{}}", head(&what, more));
        line.write_all(request.as_bytes()).await.expect("sent");
        let (told, mut body) = answer(&mut line).await;
        assert!(!told.contains("connection: close"), "{told}");
        let length = told
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
            .expect("a length");
        while body.len() < length {
            line.read_buf(&mut body).await.expect("the body");
        }
    }
}

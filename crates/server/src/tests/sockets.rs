//! Both protocols of the original client over real web sockets.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use grid_core::logframe::Source;
use grid_core::team::Role;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::graphql::INTROSPECTION;
use super::teams::{join, team};
use super::world::{LIMIT, Person, Runner, World, new_run};
use crate::listen;
use crate::rest::router;

const TRANSPORT: &str = "graphql-transport-ws";
const APOLLO: &str = "graphql-ws";

const LOGS: &str = "subscription ($experimentId: ID!, $limit: Int) { getLiveExperimentLogs(experimentId: $experimentId, limit: $limit) { message timestamp } }";
const BUILD: &str = "subscription ($experimentId: ID!, $tailLines: Int) { getLiveBuildLogs(experimentId: $experimentId, tailLines: $tailLines) { message timestamp } }";

/// A listener of a world.
struct Door {
    address: std::net::SocketAddr,
    listening: AbortHandle,
}

impl Door {
    fn open(world: &World) -> Self {
        let listener = listen::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = router(world.app.clone());
        let serve = listen::serve(listener, router, None, axum_server::Handle::new());
        Self {
            address,
            listening: tokio::spawn(serve).abort_handle(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A client's end.
struct Socket {
    inner: WebSocketStream<MaybeTlsStream<TcpStream>>,
    protocol: &'static str,
}

impl Socket {
    async fn connect(door: &Door, protocol: &'static str) -> Self {
        let url = format!("ws://{}/subscriptions", door.address);
        let mut request = url.into_client_request().expect("a request");
        // In the client's order: the server chooses.
        let offered = if protocol == TRANSPORT {
            "graphql-transport-ws, graphql-ws"
        } else {
            APOLLO
        };
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", offered.parse().expect("a value"));
        let connected = tokio_tungstenite::connect_async(request);
        let (inner, response) = connected.await.expect("connected");
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        Self { inner, protocol }
    }

    /// Connected and signed in.
    async fn open(door: &Door, protocol: &'static str, person: &Person) -> Self {
        let mut socket = Self::connect(door, protocol).await;
        socket.say(&init(person)).await;
        assert_eq!(socket.hear().await, json!({ "type": "connection_ack" }));
        socket
    }

    async fn say(&mut self, message: &Value) {
        let text = Message::text(message.to_string());
        self.inner.send(text).await.expect("sent");
    }

    async fn ask(&mut self, id: &str, query: &str, variables: Value) {
        let kind = if self.protocol == TRANSPORT {
            "subscribe"
        } else {
            "start"
        };
        let payload = json!({ "query": query, "variables": variables });
        self.say(&json!({ "id": id, "type": kind, "payload": payload }))
            .await;
    }

    async fn message(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(LIMIT, self.inner.next()).await;
            match next.expect("in time").expect("more").expect("whole") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The next answer to a question; `None` when there are no more.
    async fn answer(&mut self, id: &str) -> Option<Value> {
        let message = self.hear().await;
        assert_eq!(message["id"], id, "{message}");
        if message["type"] == "complete" {
            return None;
        }
        let next = if self.protocol == TRANSPORT {
            "next"
        } else {
            "data"
        };
        assert_eq!(message["type"], next, "{message}");
        Some(message["payload"].clone())
    }

    /// The lines of the next answer.
    async fn lines(&mut self, id: &str) -> Option<Vec<String>> {
        let answer = self.answer(id).await?;
        assert!(answer.get("errors").is_none(), "{answer}");
        let lines = answer["data"]["getLiveExperimentLogs"].as_array();
        let texts = lines.expect("lines").iter();
        Some(
            texts
                .map(|line| line["message"].as_str().expect("text").to_owned())
                .collect(),
        )
    }

    /// The error that is the only answer.
    async fn failure(&mut self, id: &str) -> String {
        let answer = self.answer(id).await.expect("an answer");
        let message = answer["errors"][0]["message"].as_str();
        let message = message.unwrap_or_else(|| panic!("{answer}")).to_owned();
        assert_eq!(self.answer(id).await, None);
        message
    }

    async fn closed(&mut self) -> (u16, String) {
        match self.message().await {
            Message::Close(Some(CloseFrame { code, reason })) => {
                (code.into(), reason.as_str().to_owned())
            }
            other => panic!("not a goodbye: {other:?}"),
        }
    }
}

fn init(person: &Person) -> Value {
    let Person::User { id, key } = person else {
        panic!("a user")
    };
    json!({ "type": "connection_init", "payload": {
        "Content-type": "application/json", "User-Agent": "grid-api-0.8.81",
        "X-Grid-User": id, "X-Grid-Key": key,
    } })
}

/// A world in which ada's experiment runs, and its id.
async fn running() -> (World, Runner, String, Value) {
    let world = World::new().await;
    let made = world.run(&world.ada, "talk", &[]).await;
    let id = made["experiments"][0]["id"].clone();
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    (world, runner, attempt, json!({ "experimentId": id }))
}

async fn a_running_log_is_followed_to_its_end(protocol: &'static str) {
    let (world, mut runner, attempt, of) = running().await;
    let door = Door::open(&world);
    runner
        .write(&world, &attempt, Source::Stdout, "one\ntwo\nthr")
        .await;
    let mut socket = Socket::open(&door, protocol, &world.ada).await;
    socket.ask("1", INTROSPECTION, json!({})).await;
    let schema = socket.answer("1").await.expect("the schema");
    assert!(schema["data"]["__schema"]["types"].is_array());
    assert_eq!(socket.answer("1").await, None);
    socket.ask("2", LOGS, of.clone()).await;
    assert_eq!(
        socket.lines("2").await.expect("lines"),
        ["one\n", "two\n"],
        "a line that is not over is told when it is"
    );
    runner
        .write(&world, &attempt, Source::Stdout, "ee\nfour")
        .await;
    assert_eq!(socket.lines("2").await.expect("lines"), ["three\n"]);
    runner.end(&world, &attempt).await;
    assert_eq!(socket.lines("2").await.expect("lines"), ["four\n"]);
    assert_eq!(socket.lines("2").await, None, "over with the experiment");
    let mut last = of;
    last["limit"] = json!(2);
    socket.ask("3", LOGS, last).await;
    assert_eq!(
        socket.lines("3").await.expect("lines"),
        ["three\n", "four\n"]
    );
    assert_eq!(socket.lines("3").await, None);
    socket.say(&json!({ "type": "connection_terminate" })).await;
    assert_eq!(socket.closed().await.0, 1000);
}

#[tokio::test]
async fn a_running_log_is_followed_by_the_new_protocol() {
    a_running_log_is_followed_to_its_end(TRANSPORT).await;
}

#[tokio::test]
async fn a_running_log_is_followed_by_the_old_protocol() {
    a_running_log_is_followed_to_its_end(APOLLO).await;
}

#[tokio::test]
async fn a_build_is_followed_until_the_script_runs() {
    let world = World::new().await;
    let made = world.run(&world.ada, "talk", &[]).await;
    let of = json!({ "experimentId": made["experiments"][0]["id"] });
    let door = Door::open(&world);
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    socket.ask("1", BUILD, of).await;
    let mut runner = Runner::new(&world);
    let attempt = runner.launch_as(&world, "preparing").await;
    let mut expect = async |text: &str| {
        let answer = socket.answer("1").await;
        let Some(text) = Some(text).filter(|text| !text.is_empty()) else {
            return assert_eq!(answer, None);
        };
        let line = &answer.expect("a line")["data"]["getLiveBuildLogs"];
        assert_eq!(line["message"], text);
    };
    runner
        .write_to(&world, &attempt, "build", Source::Platform, "a\nb\n")
        .await;
    expect("a\n").await;
    expect("b\n").await;
    runner.run(&world, &attempt).await;
    // What a build wrote last may come after the word that the script runs.
    runner
        .write_to(&world, &attempt, "build", Source::Platform, "c\n")
        .await;
    expect("c\n").await;
    expect("").await;
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    const LINES: usize = 200_000;
    let (world, mut runner, attempt, of) = running().await;
    let door = Door::open(&world);
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    socket.ask("1", LOGS, of).await;
    // More than all buffers on the way hold, while nobody reads.
    for part in 0..20 {
        let from = part * LINES / 20;
        let text: String = (from..from + LINES / 20)
            .map(|n| format!("line {n} of a log that is longer than others\n"))
            .collect();
        runner.write(&world, &attempt, Source::Stdout, &text).await;
    }
    runner.end(&world, &attempt).await;
    let mut next = 0;
    while let Some(lines) = socket.lines("1").await {
        for line in lines {
            let expected = format!("line {next} of a log that is longer than others\n");
            assert_eq!(line, expected);
            next += 1;
        }
    }
    assert_eq!(next, LINES);
}

#[tokio::test]
async fn who_is_removed_from_a_team_reads_no_more() {
    let world = World::new().await;
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    join(&world, &bob, "lab", "eve", &eve, Role::Viewer).await;
    let mut run = new_run("talk", &[]);
    run["team"] = json!("lab");
    let made = world.post(&bob, "/runs", &run).await.ok();
    let of = json!({ "experimentId": made["experiments"][0]["id"] });
    let mut runner = Runner::new(&world);
    let attempt = runner.launch(&world).await;
    let door = Door::open(&world);
    let mut socket = Socket::open(&door, TRANSPORT, &eve).await;
    socket.ask("1", LOGS, of.clone()).await;
    runner
        .write(&world, &attempt, Source::Stdout, "one\n")
        .await;
    assert_eq!(socket.lines("1").await.expect("lines"), ["one\n"]);
    world.delete(&bob, "/teams/lab/members/eve").await.ok();
    runner
        .write(&world, &attempt, Source::Stdout, "two\n")
        .await;
    let said = socket.failure("1").await;
    assert!(said.contains("no experiment"), "{said}");
    socket.ask("2", LOGS, of).await;
    assert_eq!(socket.failure("2").await, said, "nor by asking again");
}

#[tokio::test]
async fn a_revoked_key_asks_nothing_more() {
    let world = World::new().await;
    let door = Door::open(&world);
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    let rotated = world
        .post(&world.ada, "/user/rotate-key", &json!({}))
        .await
        .ok();
    assert!(rotated["api_key"].is_string());
    socket.ask("1", "{ getUser { username } }", json!({})).await;
    let said = socket.failure("1").await;
    assert!(said.contains("revoked"), "{said}");
}

#[tokio::test]
async fn who_does_not_sign_in_is_turned_away() {
    let world = World::new().await;
    let door = Door::open(&world);
    let Person::User { id, .. } = &world.ada else {
        panic!("a user")
    };
    let wrong = Person::User {
        id: id.clone(),
        key: "wrong".to_owned(),
    };
    let mut socket = Socket::connect(&door, TRANSPORT).await;
    socket.say(&init(&wrong)).await;
    let (code, why) = socket.closed().await;
    assert_eq!(code, 4403);
    assert!(why.contains("API key is wrong"), "{why}");
    let mut socket = Socket::connect(&door, APOLLO).await;
    socket.say(&init(&wrong)).await;
    let refusal = socket.hear().await;
    assert_eq!(refusal["type"], "connection_error");
    assert!(refusal["payload"]["message"].is_string());
    assert_eq!(socket.closed().await.0, 4403);
    let mut socket = Socket::connect(&door, TRANSPORT).await;
    socket.say(&json!({ "type": "connection_init" })).await;
    assert_eq!(socket.closed().await.0, 4403);
    let mut socket = Socket::connect(&door, TRANSPORT).await;
    socket.ask("1", "{ getUser { username } }", json!({})).await;
    assert_eq!(socket.closed().await.0, 4401);
}

#[tokio::test]
async fn a_socket_that_never_signs_in_is_cut() {
    let world = World::new().await;
    let door = Door::open(&world);
    let mut socket = Socket::connect(&door, TRANSPORT).await;
    // From here on time passes as soon as everybody waits.
    tokio::time::pause();
    let closed = tokio::time::timeout(Duration::from_secs(60), async {
        match socket.inner.next().await {
            Some(Ok(Message::Close(Some(frame)))) => u16::from(frame.code),
            other => panic!("not a goodbye: {other:?}"),
        }
    });
    assert_eq!(closed.await.expect("before that"), 4408);
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_socket() {
    let (world, _runner, _, of) = running().await;
    let door = Door::open(&world);
    for (message, code) in [
        (json!("nonsense"), 4400),
        (json!({ "type": "nonsense" }), 4400),
        (json!({ "type": "connection_init" }), 4429),
        (
            json!({ "id": "", "type": "subscribe", "payload": { "query": "{ getUser { username } }" } }),
            4400,
        ),
    ] {
        let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
        socket.say(&message).await;
        assert_eq!(socket.closed().await.0, code, "{message}");
    }
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    socket.ask("1", LOGS, of.clone()).await;
    socket.ask("1", LOGS, of).await;
    assert_eq!(socket.closed().await.0, 4409);
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    let long = json!({ "type": "ping", "payload": { "x": "x".repeat(100_000) } });
    socket.say(&long).await;
    assert!(matches!(
        socket.inner.next().await,
        Some(Ok(Message::Close(_)) | Err(_)) | None
    ));
}

#[tokio::test]
async fn one_socket_asks_so_much_at_once() {
    let (world, _runner, _, of) = running().await;
    let door = Door::open(&world);
    let mut socket = Socket::open(&door, TRANSPORT, &world.ada).await;
    let max = crate::compat::grid::QUESTIONS_PER_SOCKET_MAX;
    for n in 0..max {
        socket.ask(&n.to_string(), LOGS, of.clone()).await;
    }
    socket.ask("more", LOGS, of.clone()).await;
    let said = socket.failure("more").await;
    assert!(said.contains("end some"), "{said}");
    socket.say(&json!({ "id": "3", "type": "complete" })).await;
    socket
        .ask("more", "{ getUser { username } }", json!({}))
        .await;
    let answer = socket.answer("more").await.expect("an answer");
    assert_eq!(answer["data"]["getUser"]["username"], "ada");
    assert_eq!(socket.answer("more").await, None);
    socket
        .say(&json!({ "type": "ping", "payload": { "n": 1 } }))
        .await;
    assert_eq!(
        socket.hear().await,
        json!({ "type": "pong", "payload": { "n": 1 } })
    );
    socket
        .ask("bad", "subscription { getNothing }", json!({}))
        .await;
    let said = socket.failure("bad").await;
    assert!(said.contains("getNothing"), "{said}");
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let (world, _runner, _, of) = running().await;
    let door = Door::open(&world);
    let mut following = Socket::open(&door, TRANSPORT, &world.ada).await;
    following.ask("1", LOGS, of).await;
    let mut silent = Socket::connect(&door, APOLLO).await;
    world.app.stop.cancel();
    for socket in [&mut following, &mut silent] {
        loop {
            match socket.message().await {
                Message::Close(Some(frame)) => {
                    assert_eq!(u16::from(frame.code), 1001);
                    break;
                }
                Message::Close(None) => panic!("no reason"),
                // The question may have ended a moment before.
                _ => {}
            }
        }
    }
}

/// Asks for the log of the cluster, as the client does.
async fn cluster_log(
    door: &Door,
    person: &Person,
    more: &str,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, u16> {
    use base64::Engine as _;
    let token = match person {
        Person::User { id, key } => base64::prelude::BASE64_STANDARD.encode(format!("{id}:{key}")),
        Person::Nobody | Person::Token(_) => String::new(),
    };
    let url = format!(
        "ws://{}/v1/core/clusters/local/logs?token=Basic+{}&{more}",
        door.address,
        token.replace('+', "%2B").replace('=', "%3D")
    );
    match tokio_tungstenite::connect_async(url).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_log_of_the_cluster_is_for_operators() {
    let world = World::new().await;
    let door = Door::open(&world);
    let bob = world.user("bob").await;
    for (person, more, status) in [
        (&bob, "follow=false", 403),
        (&Person::Nobody, "follow=false", 401),
        (&world.ada, "start=yesterday", 400),
    ] {
        assert_eq!(cluster_log(&door, person, more).await.err(), Some(status));
    }
    let say = |text: &str| {
        crate::recent::recent().push(crate::recent::Line {
            at: grid_core::time::Timestamp::from_millis(1_700_000_000_000),
            level: "info",
            text: text.to_owned(),
        });
    };
    say("one of this test");
    let range = "start=1700000000&end=1700000000&limit=1000";
    let mut past = cluster_log(&door, &world.ada, &format!("follow=false&{range}"))
        .await
        .expect("let in");
    let mut told = Vec::new();
    while let Some(Ok(Message::Text(text))) = past.next().await {
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(3));
        told.push(line);
    }
    let one = told
        .iter()
        .find(|line| line["message"] == "one of this test");
    let one = one.expect("told");
    assert_eq!(one["labels"], json!({ "level": "info" }));
    assert_eq!(one["timestamp"], "2023-11-14T22:13:20.000Z");
    let mut live = cluster_log(&door, &world.ada, "follow=true&limit=0")
        .await
        .expect("let in");
    let mut next = async || loop {
        match tokio::time::timeout(LIMIT, live.next())
            .await
            .expect("in time")
        {
            Some(Ok(Message::Text(text))) if text.contains("of this test") => return Some(text),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    };
    say("two of this test");
    assert!(next().await.expect("told").contains("two of"));
    // Whoever is let in no more is told nothing more.
    world
        .post(&world.ada, "/user/rotate-key", &json!({}))
        .await
        .ok();
    assert_eq!(next().await, None);
}

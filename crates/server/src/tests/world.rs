//! An engine, a router, people, and a runner that the test plays.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use grid_core::logframe::{self, Source};
use grid_executor::{Hub, ProcessExecutor, ProcessOptions};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::place::Database;
use crate::assembly::{Secrets, connect, new_token, open_engine};
use crate::auth::{Tokens, folder_token};
use crate::config::{Options, settings};
use crate::folder::Folder;
use crate::handover::Handover;
use crate::proxies::TrustedProxies;
use crate::rest::{App, router};

/// How long anything is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// The server's name in every request.
pub(super) const HOST: &str = "grid.example:8080";

pub(super) const SECRET: [u8; 32] = [7; 32];

/// A server without sockets.
pub(super) struct World {
    pub(super) app: App,
    router: Router,
    /// The operator.
    pub(super) ada: Person,
    pub(super) runner: Person,
    turning: AbortHandle,
    _dir: tempfile::TempDir,
    _database: Option<Database>,
}

/// Somebody who calls.
#[derive(Clone)]
pub(super) enum Person {
    Nobody,
    User { id: String, key: String },
    Token(String),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) bytes: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// The answer, if it is a success.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert!(
            self.status.is_success(),
            "{} {}",
            self.status,
            String::from_utf8_lossy(&self.bytes)
        );
        self.json()
    }

    /// Checks that it is an error with this status in the one envelope; gives its texts.
    #[track_caller]
    pub(super) fn refused(self, status: u16) -> String {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        let body: grid_api::error::ErrorBody =
            serde_json::from_slice(&self.bytes).expect("the envelope");
        format!(
            "{} {}",
            body.error.message,
            body.error.hint.unwrap_or_default()
        )
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::on(None).await
    }

    /// A world on a database of its own, or on SQLite in its folder.
    pub(super) async fn on(database: Option<Database>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let folder = Arc::new(Folder::open(&data).expect("a folder"));
        let options = Options {
            data: Some(data),
            database_url: database.as_ref().map(Database::url),
            ..Options::default()
        };
        let settings = settings(options, |_| None).expect("settings");
        let db = connect(&settings, &folder, true).await.expect("a database");
        let hub = Hub::new();
        let node = "local".parse().expect("a name");
        let token = new_token(&db, &node).await.expect("a token");
        let executor = ProcessExecutor::new(
            hub.clone(),
            ProcessOptions {
                dir: folder.runner(),
                url: "http://127.0.0.1:1".to_owned(),
                token: token.clone(),
                node,
                sandbox: "off".to_owned(),
                cpus: None,
                gpus: None,
                ca_file: None,
                hide: vec![],
            },
        );
        let executor = Arc::new(executor.expect("an executor"));
        let secrets = Secrets {
            signing: SECRET,
            credentials: SECRET,
        };
        let engine = open_engine(&folder, db, hub, executor, secrets, None)
            .await
            .expect("an engine");
        let ada = grid_engine::user::create_first(&engine, "ada")
            .await
            .expect("made")
            .expect("the first");
        let stop = CancellationToken::new();
        let (handover, handed) = Handover::open();
        if let Some(handed) = handed {
            let handover = handover.clone();
            tokio::spawn(handover.serve(handed, engine.clone(), stop.clone()));
        }
        let app = App {
            engine: engine.clone(),
            stop,
            tokens: Tokens::default(),
            handover,
            folder_token: folder_token(&SECRET).into(),
            folder,
            url: None,
            s3_url: None,
            tls: false,
            trusted_proxies: Arc::new(TrustedProxies::parse(["10.0.0.0/8"]).expect("a network")),
        };
        let world = Self {
            router: router(app.clone()),
            app,
            ada: Person::User {
                id: ada.user.id.to_string(),
                key: ada.api_key,
            },
            runner: Person::Token(token),
            turning: tokio::spawn(async move { engine.run().await }).abort_handle(),
            _dir: dir,
            _database: database,
        };
        // The machine is known before anything is asked to run on it.
        Runner::new(&world).sync(&world).await;
        world
    }

    /// Sends a request; the body of the answer comes as it is made.
    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("a router never fails")
    }

    /// Sends a request and reads the answer.
    pub(super) async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let read = tokio::time::timeout(LIMIT, axum::body::to_bytes(body, usize::MAX));
        let bytes = read
            .await
            .expect("an answer in time")
            .expect("a whole answer");
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    pub(super) async fn get(&self, person: &Person, path: &str) -> Answer {
        self.answer(
            person
                .request(Method::GET, path)
                .body(Body::empty())
                .expect("a request"),
        )
        .await
    }

    pub(super) async fn delete(&self, person: &Person, path: &str) -> Answer {
        self.answer(
            person
                .request(Method::DELETE, path)
                .body(Body::empty())
                .expect("a request"),
        )
        .await
    }

    pub(super) async fn post(&self, person: &Person, path: &str, body: &Value) -> Answer {
        let request = person
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json");
        self.answer(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
    }

    pub(super) async fn put(&self, person: &Person, path: &str, body: impl Into<Body>) -> Answer {
        let request = person
            .request(Method::PUT, path)
            .header(header::CONTENT_TYPE, "application/json");
        self.answer(request.body(body.into()).expect("a request"))
            .await
    }

    /// Makes a user.
    pub(super) async fn user(&self, name: &str) -> Person {
        let made = self
            .post(&self.ada, "/users", &json!({ "username": name }))
            .await
            .ok();
        Person::User {
            id: made["user_id"].as_str().expect("an id").to_owned(),
            key: made["api_key"].as_str().expect("a key").to_owned(),
        }
    }

    /// Makes a run of `true` with these arguments.
    pub(super) async fn run(&self, person: &Person, name: &str, args: &[&str]) -> Value {
        self.post(person, "/runs", &new_run(name, args)).await.ok()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.turning.abort();
    }
}

/// What is sent to make a run.
pub(super) fn new_run(name: &str, args: &[&str]) -> Value {
    let mut command = vec!["true"];
    command.extend(args);
    json!({
        "name": name,
        "invocation": format!("grid run -- {}", command.join(" ")),
        "spec": { "command": command, "source": { "kind": "nothing" } },
    })
}

impl Person {
    /// A request of theirs, below the prefix.
    pub(super) fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", grid_api::PREFIX))
            .header(header::HOST, HOST);
        match self {
            Self::Nobody => request,
            Self::User { id, key } => {
                let pair = BASE64_STANDARD.encode(format!("{id}:{key}"));
                request.header(header::AUTHORIZATION, format!("Basic {pair}"))
            }
            Self::Token(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        }
    }
}

/// The runner of the one machine, as a test plays it.
pub(super) struct Runner {
    person: Person,
    epoch: u64,
    seq: u64,
    have: Vec<(String, Value)>,
}

impl Runner {
    pub(super) fn new(world: &World) -> Self {
        use grid_engine::Clock;
        let epoch = (grid_engine::SystemClock.entropy() >> 80) as u64;
        Self {
            person: world.runner.clone(),
            epoch,
            seq: 0,
            have: Vec::new(),
        }
    }

    /// Says what it has, and hears what to do.
    pub(super) async fn sync(&mut self, world: &World) -> Value {
        self.seq += 1;
        let have: Vec<Value> = self
            .have
            .iter()
            .map(|(attempt, phase)| json!({ "attempt": attempt, "phase": phase }))
            .collect();
        let sync = json!({
            "node": { "id": "local", "cpus": 4, "gpus": 0, "memory_bytes": 8_u64 << 30 },
            "tools": [],
            "have": have,
            "wait_ms": 200,
            "seq": self.seq,
            "epoch": self.epoch,
        });
        world.post(&self.person, "/runner/sync", &sync).await.ok()
    }

    /// Waits for an order to launch, and says that it runs.
    pub(super) async fn launch(&mut self, world: &World) -> String {
        self.launch_as(world, "running").await
    }

    /// Waits for an order to launch, and says how far that is.
    pub(super) async fn launch_as(&mut self, world: &World, phase: &str) -> String {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let orders = self.sync(world).await;
            if let Some(launch) = orders["launch"].as_array().and_then(|all| all.first()) {
                let attempt = launch["attempt"].as_str().expect("an id").to_owned();
                self.have.push((attempt.clone(), json!({ "phase": phase })));
                self.sync(world).await;
                return attempt;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "nothing was launched"
            );
        }
    }

    /// Does what it is told until a run has this status.
    pub(super) async fn work_until(&mut self, world: &World, run: &str, status: &str) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while world.get(&world.ada, &format!("/runs/{run}")).await.ok()["run"]["status"] != status {
            let orders = self.sync(world).await;
            let attempts = |list: &str| -> Vec<String> {
                let all = orders[list].as_array().cloned().unwrap_or_default();
                let id = |one: &Value| one["attempt"].as_str().or(one.as_str()).map(str::to_owned);
                all.iter().filter_map(id).collect()
            };
            for attempt in attempts("launch") {
                self.have.push((attempt, json!({ "phase": "running" })));
            }
            for attempt in attempts("stop") {
                self.have.retain(|(known, _)| *known != attempt);
                self.have.push((
                    attempt,
                    json!({ "phase": "ended", "end": { "end": "stopped" } }),
                ));
            }
            self.have
                .retain(|(known, _)| !attempts("forget").contains(known));
            assert!(
                tokio::time::Instant::now() < deadline,
                "{run} did not get {status}"
            );
        }
    }

    /// Says that it runs, having been prepared.
    pub(super) async fn run(&mut self, world: &World, attempt: &str) {
        self.have.retain(|(known, _)| known != attempt);
        self.have
            .push((attempt.to_owned(), json!({ "phase": "running" })));
        self.sync(world).await;
    }

    /// Says that it has ended well.
    pub(super) async fn end(&mut self, world: &World, attempt: &str) {
        let end = json!({ "end": "succeeded" });
        self.end_as(world, attempt, end).await;
    }

    /// Says how it has ended.
    pub(super) async fn end_as(&mut self, world: &World, attempt: &str, end: Value) {
        self.have.retain(|(known, _)| known != attempt);
        self.have
            .push((attempt.to_owned(), json!({ "phase": "ended", "end": end })));
        self.sync(world).await;
        self.have.retain(|(known, _)| known != attempt);
    }

    /// Sends what a process wrote, behind what was sent before.
    pub(super) async fn write(&self, world: &World, attempt: &str, source: Source, text: &str) {
        self.write_to(world, attempt, "experiment", source, text)
            .await;
    }

    /// The same, to the log `experiment` or `build`.
    pub(super) async fn write_to(
        &self,
        world: &World,
        attempt: &str,
        stream: &str,
        source: Source,
        text: &str,
    ) {
        let path = format!("/runner/attempts/{attempt}/logs/{stream}");
        let offset = world.get(&self.person, &path).await.ok()["length"]
            .as_u64()
            .expect("a length");
        let mut frames = Vec::new();
        logframe::encode(&mut frames, 1_700_000_000_000, source, text.as_bytes());
        world
            .put(&self.person, &format!("{path}?offset={offset}"), frames)
            .await
            .ok();
    }

    /// Stores files and names them artifacts.
    pub(super) async fn leave(&self, world: &World, attempt: &str, files: &[(&str, &[u8])]) {
        let mut records = Vec::new();
        let mut list = Vec::new();
        for (path, bytes) in files {
            let hash = blake3::hash(bytes);
            records.extend_from_slice(&grid_api::blob::header(hash.as_bytes(), bytes.len() as u64));
            records.extend_from_slice(bytes);
            list.push(json!({
                "path": path, "size_bytes": bytes.len(), "blake3": hash.to_hex().to_string(),
                "mode": 0o644, "modified_ms": 1,
            }));
        }
        world.put(&self.person, "/runner/blobs", records).await.ok();
        let path = format!("/runner/attempts/{attempt}/artifacts");
        world
            .put(
                &self.person,
                &path,
                json!({ "artifacts": list }).to_string(),
            )
            .await
            .ok();
    }
}

/// Events of a stream, as they come.
pub(super) struct Stream {
    body: axum::body::BodyDataStream,
    buffer: String,
}

/// One event: name, id, data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: Value,
}

impl Stream {
    pub(super) async fn open(
        world: &World,
        person: &Person,
        path: &str,
        last: Option<&str>,
    ) -> Self {
        let mut request = person.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = world
            .send(request.body(Body::empty()).expect("a request"))
            .await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        Self {
            body: response.into_body().into_data_stream(),
            buffer: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let event = parse(block);
                self.buffer = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let piece = tokio::time::timeout(LIMIT, self.body.next())
                .await
                .expect("an event in time")?;
            self.buffer
                .push_str(std::str::from_utf8(&piece.expect("a piece")).expect("UTF-8"));
        }
    }

    /// The next event of this name.
    pub(super) async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before '{name}'"));
            if event.name == name {
                return event;
            }
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned)
    };
    Some(Event {
        name: field("event: ")?,
        id: field("id: "),
        data: serde_json::from_str(&field("data: ")?).expect("JSON"),
    })
}

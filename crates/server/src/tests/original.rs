//! The REST half of the server side of the original client.

mod access;
mod bad_input;
mod datastores;
mod flow;
mod replay;

use std::io::Write;

use axum::body::Body;
use axum::http::{Method, Request, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::world::{Answer, HOST, Person, World};

/// A request as the client sends it.
fn request(person: &Person, method: &Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let mut request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::USER_AGENT, "Grid-CLI-0.8.81")
        .header(header::CONTENT_TYPE, "application/json");
    request = match person {
        Person::Nobody => request,
        Person::User { id, key } => {
            let pair = BASE64_STANDARD.encode(format!("{id}:{key}"));
            request.header(header::AUTHORIZATION, format!("Basic {pair}"))
        }
        Person::Token(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
    };
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).expect("a request")
}

async fn ask(
    world: &World,
    person: &Person,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    world.answer(request(person, &method, path, body)).await
}

async fn get(world: &World, person: &Person, path: &str) -> Value {
    ask(world, person, Method::GET, path, None).await.ok()
}

async fn post(world: &World, person: &Person, path: &str, body: &Value) -> Answer {
    ask(world, person, Method::POST, path, Some(body)).await
}

/// Checks that it is an error with this status in the shape of the client; gives its words.
#[track_caller]
fn refused(answer: &Answer, status: u16) -> String {
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(answer.status.as_u16(), status, "{text}");
    let body = answer.json();
    let message = body["message"].as_str().expect("a message").to_owned();
    assert!(body["code"].is_u64(), "{body}");
    let details = body["details"].as_array().expect("details");
    if let [detail] = details.as_slice() {
        assert_eq!(detail["message"], message.as_str(), "{body}");
    } else {
        assert_eq!(details.len(), 0, "{body}");
    }
    assert!(!message.is_empty(), "{body}");
    message
}

/// What is sent to ask for a run whose code comes later.
fn new_run(name: &str, command: &str) -> Value {
    json!({ "localDir": true, "name": name, "spec": {
        "actions": {}, "autoResume": false, "clusterId": "local",
        "desiredState": "RUN_STATE_SUCCEEDED", "dryRun": false, "env": {},
        "image": { "framework": "lightning" }, "instanceType": "m5a.large",
        "resources": { "cpu": 0, "extra": {}, "gpu": 0, "storageGb": 100 },
        "runControllerCommand": command,
        "scratch": [{ "mountPath": "/tmp/scratch", "sizeGb": 100 }],
        "sweepOptions": {}, "sweepType": "grid_search", "useSpot": false } })
}

/// Asks for a run; answers with what was said of it.
async fn begin(world: &World, person: &Person, name: &str, command: &str) -> Value {
    let body = new_run(name, command);
    post(world, person, "/v1/core/local/runs", &body).await.ok()
}

/// Where code is sent, below the server's address.
fn upload_path(run: &Value) -> String {
    let url = run["status"]["uploadUrl"].as_str().expect("an address");
    let server = format!("http://{HOST}");
    url.strip_prefix(&server)
        .expect("of this server")
        .to_owned()
}

/// An archive of one file.
fn code() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let text = b"print(1)\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let added = archive.append_data(&mut header, "./train.py", &text[..]);
    added.expect("an entry");
    let tar = archive.into_inner().expect("an archive");
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&tar).expect("packed");
    packer.finish().expect("packed")
}

/// Sends what is no JSON, without saying who does.
async fn put(world: &World, path: &str, bytes: impl Into<Body>) -> Answer {
    let request = Request::put(path).header(header::HOST, HOST);
    world
        .answer(request.body(bytes.into()).expect("a request"))
        .await
}

//! S3 in process: every operation asks the table what its row says, and what has no row is
//! not answered.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use grid_core::access::{Action, Decision, Relation, may};
use grid_core::team::{Sharing, TeamPolicy};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::matrix::{Asker, Lab};
use super::place::on_both;
use super::world::{HOST, Person, World};
use crate::rest::access::Asks;
use crate::s3::access::OPERATIONS;

on_both!(
    every_operation_obeys_the_table,
    a_key_signs_and_does_nothing_else,
    no_time_of_a_file_stops_a_door,
);

/// A key that signs.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    async fn of(world: &World, person: &Person, name: &str) -> Self {
        let wanted = json!({ "name": name, "s3": true });
        let made = world.post(person, "/user/keys", &wanted).await.ok();
        assert_eq!(made["api_key"], json!(null), "{made}");
        let word = |name: &str| made["s3"][name].as_str().expect("text").to_owned();
        Self {
            id: word("access_key_id"),
            secret: word("secret_access_key"),
        }
    }

    /// Asks for something, signed; gives the status and the words.
    async fn ask(&self, world: &World, asked: &Asked) -> (StatusCode, String) {
        let request = self.signed(asked);
        let router = crate::s3::router(world.app.clone());
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let text = String::from_utf8_lossy(&bytes.expect("a body")).into_owned();
        (status, text)
    }

    fn signed(&self, asked: &Asked) -> Request<Body> {
        const HASH: &str = "UNSIGNED-PAYLOAD";
        let now = now();
        let (day, scope) = (
            &now[..8],
            format!("{}/us-east-1/s3/aws4_request", &now[..8]),
        );
        let (signed, source) = match &asked.source {
            None => ("host;x-amz-content-sha256;x-amz-date", String::new()),
            Some(source) => (
                "host;x-amz-content-sha256;x-amz-copy-source;x-amz-date",
                format!("x-amz-copy-source:{source}\n"),
            ),
        };
        let canonical = format!(
            "{}\n{}\n{}\nhost:{HOST}\nx-amz-content-sha256:{HASH}\n{source}x-amz-date:{now}\n\n\
             {signed}\n{HASH}",
            asked.method, asked.path, asked.query
        );
        let hash = hex(&Sha256::digest(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{hash}");
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, "us-east-1", "s3", "aws4_request", &text] {
            key = mac(&key, part);
        }
        let uri = match asked.query.as_str() {
            "" => asked.path.clone(),
            query => format!("{}?{query}", asked.path),
        };
        let mut request = Request::builder();
        if let Some(source) = &asked.source {
            request = request.header("x-amz-copy-source", source);
        }
        request
            .method(asked.method.clone())
            .uri(uri)
            .header("host", HOST)
            .header("x-amz-date", &now)
            .header("x-amz-content-sha256", HASH)
            .header("content-length", asked.body.len())
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={}",
                    self.id,
                    hex(&key)
                ),
            )
            .body(Body::from(asked.body.clone()))
            .expect("a request")
    }
}

/// The time, as signatures have it: `20261122T131439Z`.
fn now() -> String {
    use grid_engine::{Clock, SystemClock};
    let text = SystemClock.now().to_string();
    let whole = text.split('.').next().unwrap_or_default();
    format!("{}Z", whole.trim_end_matches('Z').replace(['-', ':'], ""))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request.
struct Asked {
    method: Method,
    path: String,
    query: String,
    body: String,
    /// What is copied.
    source: Option<String>,
}

fn asked(method: Method, path: &str, query: &str, body: &str) -> Asked {
    Asked {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        body: body.to_owned(),
        source: None,
    }
}

/// How an operation is asked for; `user` is whose datastore or run it is about, and `asker`
/// who asks.
fn request(operation: &str, about: Asks, user: &str, asker: &str) -> Asked {
    let next = format!("/lab/datastores/{user}/cats/next/x");
    let upload = "partNumber=1&uploadId=01arz3ndektsv4rrffq69g5fav";
    let id = "uploadId=01arz3ndektsv4rrffq69g5fav";
    let read = match about {
        Asks::Run(_) => format!("/lab/artifacts/{user}/r-{user}/r-{user}-exp0/x"),
        _ => format!("/lab/datastores/{user}/cats/1/x"),
    };
    let folder = match about {
        Asks::Run(_) => format!("prefix=artifacts%2F{user}%2Fr-{user}%2F"),
        Asks::Datastore(_) => format!("prefix=datastores%2F{user}%2Fcats%2F"),
        _ => String::new(),
    };
    let parts = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>\
         </CompleteMultipartUpload>";
    let both = format!(
        "<Delete><Object><Key>{}</Key></Object></Delete>",
        &next[5..]
    );
    match operation {
        "AbortMultipartUpload" => asked(Method::DELETE, &next, id, ""),
        "CompleteMultipartUpload" => asked(Method::POST, &next, id, parts),
        "CopyObject" | "UploadPartCopy" => {
            // Of two things at a time one is in question.
            let (target, source) = match about {
                Asks::Datastore(Action::ExtendDatastore) => (next, "/lab/x".to_owned()),
                _ => (format!("/lab/datastores/{asker}/copies/next/x"), read),
            };
            let query = if operation == "CopyObject" {
                ""
            } else {
                upload
            };
            Asked {
                source: Some(source),
                ..asked(Method::PUT, &target, query, "")
            }
        }
        "CreateBucket" => asked(Method::PUT, "/lab", "", ""),
        "CreateMultipartUpload" => asked(Method::POST, &next, "uploads=", ""),
        "DeleteObject" => asked(Method::DELETE, &next, "", ""),
        "DeleteObjects" => asked(Method::POST, "/lab", "delete=", &both),
        "GetBucketLocation" => asked(Method::GET, "/lab", "location=", ""),
        "GetObject" => asked(Method::GET, &read, "", ""),
        "GetObjectTagging" => asked(Method::GET, &read, "tagging=", ""),
        "HeadBucket" => asked(Method::HEAD, "/lab", "", ""),
        "HeadObject" => asked(Method::HEAD, &read, "", ""),
        "ListBuckets" => asked(Method::GET, "/", "", ""),
        "ListMultipartUploads" => asked(Method::GET, "/lab", "uploads=", ""),
        "ListObjects" => asked(Method::GET, "/lab", &folder, ""),
        "ListObjectsV2" => {
            let and = if folder.is_empty() { "" } else { "&" };
            asked(
                Method::GET,
                "/lab",
                &format!("list-type=2{and}{folder}"),
                "",
            )
        }
        "ListParts" => asked(Method::GET, &next, id, ""),
        "PutObject" => asked(Method::PUT, &next, "", "x"),
        "UploadPart" => asked(Method::PUT, &next, upload, "x"),
        other => panic!("how is {other} asked for?"),
    }
}

/// What an answer comes to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Hidden,
}

fn outcome((status, text): &(StatusCode, String)) -> Outcome {
    if text.contains("<Code>AccessDenied</Code>") {
        return Outcome::Refused;
    }
    if text.contains("<Code>NoSuchBucket</Code>") {
        return Outcome::Hidden;
    }
    // What comes of it is not of interest, only that it was let in: there are no such files.
    assert!(!status.is_server_error(), "{status} {text}");
    Outcome::Done
}

async fn every_operation_obeys_the_table(world: World) {
    let lab = Lab::new(world).await;
    let policy = lab.policy(Sharing::Team).await;
    let creator = "creator";
    // What everybody asks about: a datastore and a run of the creator's.
    let new = json!({ "name": "cats", "team": "lab", "source": "x", "source_kind": "folder" });
    lab.world.post(&lab.creator, "/datastores", &new).await.ok();
    let mut tried = 0;
    for asker in &lab.askers {
        let key = Key::of(&lab.world, &asker.person, "s3").await;
        for (operation, asks) in OPERATIONS {
            let Some(expected) = expected(asker, *asks, policy) else {
                continue;
            };
            let request = request(operation, *asks, creator, asker.name);
            // An answer to HEAD has no words.
            if request.method == Method::HEAD {
                let (status, _) = key.ask(&lab.world, &request).await;
                let is_hidden = expected == Outcome::Hidden;
                let is_bucket = *operation == "HeadBucket";
                let is_404 = status == StatusCode::NOT_FOUND;
                assert!(is_404 == is_hidden || !is_bucket, "{operation}: {status}");
                continue;
            }
            tried += 1;
            let answer = key.ask(&lab.world, &request).await;
            let what = format!("{operation} about {asks:?} by {}: {answer:?}", asker.name);
            assert_eq!(outcome(&answer), expected, "{what}");
        }
    }
    assert!(tried > 100, "only {tried} were tried");
    let key = Key::of(&lab.world, &lab.owner, "owner").await;
    for query in ["acl=", "policy=", "versioning="] {
        let unknown = asked(Method::GET, "/lab", query, "");
        let (status, text) = key.ask(&lab.world, &unknown).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{query}: {text}");
    }
}

/// What the table says of an operation that the creator's datastore or run is about; `None`
/// where it says nothing.
fn expected(asker: &Asker, asks: Asks, policy: TeamPolicy) -> Option<Outcome> {
    let about_team = match asker.relation {
        Relation::Creator(role) => Relation::Teammate(role),
        other => other,
    };
    // Nobody but the creator made what is asked about.
    let about_thing = match (asker.name, asker.relation) {
        ("creator", relation) => relation,
        (_, Relation::Creator(role)) => Relation::Teammate(role),
        (_, relation) => relation,
    };
    let decision = match asks {
        Asks::Team(action) => may(about_team, action, policy),
        Asks::Datastore(action) | Asks::Run(action) => may(about_thing, action, policy),
        Asks::Named(_) | Asks::SignedIn => return None,
        other => panic!("what is expected of {other:?}?"),
    };
    Some(match decision {
        Decision::Allow | Decision::AllowAudited => Outcome::Done,
        Decision::Deny(_) => Outcome::Refused,
        Decision::Hide => Outcome::Hidden,
    })
}

async fn a_key_signs_and_does_nothing_else(world: World) {
    let key = Key::of(&world, &world.ada, "s3").await;
    let list = asked(Method::GET, "/", "", "");
    let (status, text) = key.ask(&world, &list).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains("<Name>ada</Name>"), "{text}");
    // Neither half signs in anywhere else.
    for word in [&key.id, &key.secret] {
        let person = Person::Token(word.clone());
        world.get(&person, "/user").await.refused(401);
    }
    // It is used, and shown without its secret.
    let listed = world.get(&world.ada, "/user/keys").await;
    let text = String::from_utf8_lossy(&listed.bytes).into_owned();
    assert!(
        text.contains(&key.id) && !text.contains(&key.secret),
        "{text}"
    );
    // A key that is sent cannot be the one that is lost by revoking all others.
    world
        .delete(&world.ada, "/user/keys/default")
        .await
        .refused(409);
    let wrong = Key {
        id: key.id.clone(),
        secret: "x".repeat(40),
    };
    let (status, text) = wrong.ask(&world, &list).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    world.delete(&world.ada, "/user/keys/s3").await.ok();
    let (status, text) = key.ask(&world, &list).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("InvalidAccessKeyId"), "{text}");
}

/// Files have times that no calendar has: they are read and listed all the same.
async fn no_time_of_a_file_stops_a_door(world: World) {
    let ada = world.ada.clone();
    let new = json!({ "name": "odd", "source": "here", "source_kind": "folder" });
    let made = world.post(&ada, "/datastores", &new).await.ok()["datastore"].take();
    let id = made["id"].as_str().expect("an id").to_owned();
    let hash = blake3::hash(b"0123");
    let mut record = grid_api::blob::header(hash.as_bytes(), 4).to_vec();
    record.extend_from_slice(b"0123");
    world.put(&ada, "/blobs", record).await.ok();
    let times = [i64::MIN, -1, 1_000_000_000_000_000, i64::MAX];
    let files: Vec<_> = (0..)
        .zip(times)
        .map(|(number, ms)| {
            json!({ "path": format!("{number}"), "kind": "file", "mode": 0o644,
                "modified_ms": ms, "size_bytes": 4, "content": hash.to_hex().to_string() })
        })
        .collect();
    let part = json!({ "entries": files }).to_string();
    world
        .put(&ada, &format!("/datastores/{id}/parts/0"), part)
        .await
        .ok();
    let parts = json!({ "parts": 1 });
    world
        .post(&ada, &format!("/datastores/{id}/commit"), &parts)
        .await
        .ok();
    let path = format!("/datastores/{id}/files");
    let listed = world.get(&ada, &path).await.ok()["files"].take();
    let listed = listed.as_array().expect("files").iter();
    let kept: Vec<_> = listed.map(|file| file["modified_ms"].as_i64()).collect();
    let (first, last) = (-62_135_596_800_000, 253_402_207_200_000);
    assert_eq!(kept, [Some(first), Some(-1), Some(last), Some(last)]);

    let key = Key::of(&world, &ada, "s3").await;
    let list = asked(Method::GET, "/ada", "list-type=2", "");
    let (status, text) = key.ask(&world, &list).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains("9999-12-30T22:00:00"), "{text}");
    for number in 0..times.len() {
        let path = format!("/ada/datastores/ada/odd/1/{number}");
        for method in [Method::GET, Method::HEAD] {
            let (status, text) = key.ask(&world, &asked(method, &path, "", "")).await;
            assert_eq!(status, StatusCode::OK, "{number}: {text}");
        }
    }
}

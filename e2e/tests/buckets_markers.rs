//! Buckets that the S3 server of the other tests cannot be: with objects that stand for
//! folders, as the consoles of clouds make them (a key that ends with a `/`, and no bytes), or
//! with bytes behind such a key; and with a list that is open while the objects are not.  So
//! here is one of a few lines.

use std::sync::mpsc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use grid_e2e::Server;

/// Keys and bytes of the bucket `data`.
const OBJECTS: [(&str, &str); 5] = [
    ("m/a.txt", "meow"),
    ("m/folder/", ""),
    ("m/folder/x", "purr"),
    ("m/nothing/", ""),
    ("m/zero", ""),
];

/// Those of the bucket `half`, whose list is open to all, and its objects to who signs.
const HALF: [(&str, &str); 1] = [("m/a.txt", "meow")];

/// Those of the bucket `slash`.
const SLASH: [(&str, &str); 2] = [("m/a.txt", "meow"), ("m/odd/", "hiss")];

async fn answer(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let objects: &[(&str, &str)] = match bucket {
        "half" => &HALF,
        "slash" => &SLASH,
        _ => &OBJECTS,
    };
    let is_signed = request.headers().contains_key("authorization");
    if bucket == "half" && !key.is_empty() && !is_signed {
        return StatusCode::FORBIDDEN.into_response();
    }
    if key.is_empty() {
        let one = |(key, bytes): &(&str, &str)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
                 <ETag>\"{key}\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )
        };
        let listed: String = objects.iter().map(one).collect();
        let text = format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>any</Name><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
        );
        return ([("content-type", "application/xml")], text).into_response();
    }
    match objects.iter().find(|(known, _)| *known == key) {
        Some((key, bytes)) => {
            let head = [
                ("etag", format!("\"{key}\"")),
                ("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT".to_owned()),
            ];
            (head, (*bytes).to_owned()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Serves the bucket until the test is over; says where.
fn serve() -> String {
    let (started, starting) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("a port");
            let address = listener.local_addr().expect("an address");
            started.send(format!("http://{address}")).expect("heard");
            let app = axum::Router::new().fallback(answer);
            axum::serve(listener, app).await.expect("served");
        });
    });
    starting.recv().expect("started")
}

#[test]
fn objects_that_stand_for_folders_are_no_files() {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let url = serve();
    let grid = |words: &[&str]| server.grid("ada", words);
    let source = ["datastore", "create", "s3://data/m/", "--endpoint", &url];
    let made = grid(&source).ok();
    assert!(made.contains("m:1 is available: 3 file(s), 8 B"), "{made}");
    let mut listed = source.to_vec();
    listed.extend(["--no-copy", "--name", "there"]);
    let made = grid(&listed).ok();
    assert!(made.contains("3 file(s), 8 B"), "{made}");
    for name in ["m", "there"] {
        let files = grid(&["-o", "json", "datastore", "files", name, "-r"]).json();
        let files = files["files"].as_array().expect("files").clone();
        let paths: Vec<&str> = files
            .iter()
            .filter_map(|file| file["path"].as_str())
            .collect();
        assert_eq!(paths, ["a.txt", "folder/x", "zero"], "{name}");
        grid(&["datastore", "download", name, "--to", name]).ok();
        let read = std::fs::read_to_string(server.work().join(name).join("folder/x"));
        assert_eq!(read.ok().as_deref(), Some("purr"));
    }
    server
        .grid(
            "ada",
            &[
                "run",
                "--localdir",
                "--name",
                "r",
                "--datastore_name",
                "there",
                "--",
                "true",
            ],
        )
        .ok();
    assert_eq!(server.finished("r")[0]["status"], "succeeded");
}

#[test]
fn a_bucket_is_asked_for_an_object_and_not_only_for_its_list() {
    let server = Server::start_with(&[], &[("GRID_SERVER_FETCH_PRIVATE", "true")]);
    let url = serve();
    let grid = |words: &[&str]| server.grid("ada", words);
    let create = |bucket: &str, more: &[&str]| {
        let source = format!("s3://{bucket}/m/");
        let mut line = vec!["datastore", "create", &source, "--endpoint", &url];
        line.extend(more);
        grid(&line)
    };
    let said = create("half", &["--name", "half"]).fails(1);
    assert!(said.contains("does not let us read it"), "{said}");
    std::fs::write(server.work().join("secret"), "secret").expect("written");
    let mut line = vec!["credential", "create", "--name", "lab"];
    line.extend(["--access-key-id", "some", "--secret-file", "secret"]);
    line.extend(["--endpoint", &url]);
    grid(&line).ok();
    // A credential that opens it is found, though everybody may list.
    create("half", &["--name", "half"]).ok();
    create("half", &["--name", "there", "--no-copy"]).ok();
    for name in ["half", "there"] {
        assert_eq!(grid(&["datastore", "cat", name, "a.txt"]).ok(), "meow");
    }
    // What no file can be called is told by its name, before there is a version.
    for more in [
        ["--name", "slash"].as_slice(),
        &["--name", "slash", "--no-copy"],
    ] {
        let said = create("slash", more).fails(1);
        assert!(
            said.contains("'m/odd/' in s3://slash/m/ ends with '/'"),
            "{said}"
        );
    }
    // Google's buckets are at no other server.
    let google = ["datastore", "create", "gs://half/m/", "--credential", "lab"];
    let said = grid(&google).fails(1);
    assert!(
        said.contains("credential 'lab' is for http://127.0.0.1"),
        "{said}"
    );
    let mut google = vec!["datastore", "create", "gs://half/m/", "--endpoint", &url];
    google.extend(["--name", "elsewhere"]);
    let said = grid(&google).fails(1);
    assert!(said.contains("a bucket of Google's"), "{said}");
}

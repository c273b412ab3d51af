//! Objects that stand for folders, as the consoles of clouds make them: a key that ends with a
//! `/`, and no bytes.  The S3 server of the other tests keeps folders instead, so here is one
//! of a few lines.

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

async fn answer(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let key = path.strip_prefix("data").unwrap_or_default();
    let key = key.trim_start_matches('/');
    if key.is_empty() {
        let one = |(key, bytes): &(&str, &str)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
                 <ETag>\"{key}\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )
        };
        let listed: String = OBJECTS.iter().map(one).collect();
        let text = format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>data</Name><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
        );
        return ([("content-type", "application/xml")], text).into_response();
    }
    match OBJECTS.iter().find(|(known, _)| *known == key) {
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

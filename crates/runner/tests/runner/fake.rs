//! A server that keeps what a runner tells it, and tells it what to do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine as _;
use grid_api::artifact::{ArtifactView, ArtifactsResponse};
use grid_api::blob::{self, BlobRecipes, BlobRecipesAnswer, BlobsStored, HEADER_BYTES};
use grid_api::runner::{
    ArtifactsPut, BlobsFetch, BlobsMissing, Launch, LogLength, LogPut, Orders, Phase, StopOrder,
    Sync, VersionsKnown,
};
use grid_api::snapshot::{SnapshotTree, TreeEntry};
use grid_chunk::Recipe;
use grid_core::blob::BlobId;
use grid_core::id::{AttemptId, SnapshotId};
use grid_core::logframe::{self, Source};
use grid_core::workload::End;
use grid_manifest::{Builder, Entry, Node};
use tokio::sync::Notify;

/// Everything that a server has.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    wanted: Vec<Launch>,
    stops: BTreeMap<AttemptId, StopOrder>,
    logs: HashMap<(AttemptId, String), Vec<u8>>,
    artifacts: HashMap<AttemptId, BTreeMap<String, ArtifactView>>,
    blobs: HashMap<String, Vec<u8>>,
    snapshots: HashMap<SnapshotId, Vec<TreeEntry>>,
    /// What lies in a bucket, by path.
    objects: HashMap<String, Vec<u8>>,
    /// Blobs that were asked for, over and over.
    fetched: Vec<String>,
    phases: HashMap<AttemptId, Vec<String>>,
    ends: HashMap<AttemptId, End>,
    superseded: HashSet<AttemptId>,
    retire: bool,
    epochs: HashMap<u64, u64>,
    present: HashSet<AttemptId>,
    requests: BTreeMap<&'static str, u64>,
}

impl Fake {
    pub(crate) fn router(&self) -> Router {
        let runner = Router::new()
            .route("/sync", post(sync))
            .route("/attempts/{attempt}/logs/{stream}", put(log))
            .route(
                "/attempts/{attempt}/artifacts",
                put(artifacts).get(artifacts_of),
            )
            .route("/blobs", put(blobs))
            .route("/blobs/missing", post(missing))
            .route("/blobs/recipes", post(recipes))
            .route("/blobs/fetch", post(fetch))
            .route("/snapshots/{snapshot}", get(snapshot))
            .route("/datastores/known", post(known))
            .route("/datastores/{version}/files/{*path}", get(object))
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone());
        Router::new().nest("/api/v1/runner", runner)
    }

    /// Listens; gives the address, and what ends it.
    pub(crate) async fn serve(&self) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = self.router();
        (
            address,
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") }),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn launch(&self, launch: Launch) {
        self.lock().wanted.push(launch);
        self.0.wake.notify_waiters();
    }

    /// An order that was given.
    pub(crate) fn order(&self, attempt: AttemptId) -> Launch {
        let inner = self.lock();
        inner
            .wanted
            .iter()
            .find(|launch| launch.attempt == attempt)
            .cloned()
            .expect("it was launched")
    }

    pub(crate) fn stop(&self, attempt: AttemptId, grace_ms: u64, keep: bool) {
        self.lock().stops.insert(
            attempt,
            StopOrder {
                attempt,
                grace_ms,
                keep,
            },
        );
        self.0.wake.notify_waiters();
    }

    pub(crate) fn supersede(&self, attempt: AttemptId) {
        self.lock().superseded.insert(attempt);
    }

    pub(crate) fn retire(&self) {
        self.lock().retire = true;
        self.0.wake.notify_waiters();
    }

    pub(crate) fn add_snapshot(&self, id: SnapshotId, files: &[(&str, u32, &[u8])]) {
        let mut inner = self.lock();
        let mut entries = Vec::new();
        for (path, mode, bytes) in files {
            let content = BlobId::from_bytes(*blake3::hash(bytes).as_bytes()).to_string();
            inner.blobs.insert(content.clone(), bytes.to_vec());
            entries.push(TreeEntry {
                path: (*path).to_owned(),
                kind: grid_api::snapshot::TreeKind::File,
                mode: *mode,
                size_bytes: bytes.len() as u64,
                content,
            });
        }
        inner.snapshots.insert(id, entries);
    }

    /// A version of a datastore with these files; those whose mode is 0 lie in a bucket.
    /// Gives the blob of its list.
    pub(crate) fn add_version(&self, files: &[(&str, u32, &[u8])]) -> BlobId {
        let mut inner = self.lock();
        let mut builder = Builder::default();
        let mut blocks = Vec::new();
        for (path, mode, bytes) in files {
            let blob = BlobId::from_bytes(*blake3::hash(bytes).as_bytes());
            let size_bytes = bytes.len() as u64;
            let node = if *mode == 0 {
                inner.objects.insert((*path).to_owned(), bytes.to_vec());
                let tag = "one".to_owned();
                Node::Elsewhere { size_bytes, tag }
            } else {
                inner.blobs.insert(blob.to_string(), bytes.to_vec());
                Node::File { blob, size_bytes }
            };
            let block = builder.push(Entry {
                path: (*path).to_owned(),
                mode: *mode,
                modified_ms: 1_700_000_000_000,
                node,
            });
            blocks.extend(block.expect("in order"));
        }
        let built = builder.finish();
        blocks.extend(built.last);
        let index = built.index.blob;
        for stored in blocks.into_iter().chain([built.index]) {
            inner.blobs.insert(stored.blob.to_string(), stored.bytes);
        }
        index
    }

    /// How often a content was asked for.
    pub(crate) fn n_fetched(&self, bytes: &[u8]) -> usize {
        let hash = BlobId::from_bytes(*blake3::hash(bytes).as_bytes()).to_string();
        let inner = self.lock();
        inner.fetched.iter().filter(|one| **one == hash).count()
    }

    pub(crate) fn end(&self, attempt: AttemptId) -> Option<End> {
        self.lock().ends.get(&attempt).cloned()
    }

    pub(crate) fn n_ended(&self) -> usize {
        self.lock().ends.len()
    }

    pub(crate) fn phases(&self, attempt: AttemptId) -> Vec<String> {
        self.lock()
            .phases
            .get(&attempt)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.lock().requests.clone()
    }

    /// Whether the runner still lists an attempt.
    pub(crate) fn is_present(&self, attempt: AttemptId) -> bool {
        self.lock().present.contains(&attempt)
    }

    /// The pieces of a log, in order.
    pub(crate) fn log(&self, attempt: AttemptId, stream: &str) -> Vec<(Source, Vec<u8>)> {
        let inner = self.lock();
        let bytes = inner
            .logs
            .get(&(attempt, stream.to_owned()))
            .cloned()
            .unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let Ok((header, payload, after)) = logframe::decode(rest) else {
                break;
            };
            pieces.push((header.source, payload.to_vec()));
            rest = after;
        }
        pieces
    }

    /// What a log says, from one source or all.
    pub(crate) fn text(&self, attempt: AttemptId, stream: &str, source: Option<Source>) -> Vec<u8> {
        let pieces = self.log(attempt, stream).into_iter();
        pieces
            .filter(|(from, _)| source.is_none_or(|source| source == *from))
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }

    pub(crate) fn artifacts(&self, attempt: AttemptId) -> BTreeMap<String, ArtifactView> {
        self.lock()
            .artifacts
            .get(&attempt)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn artifact(&self, attempt: AttemptId, path: &str) -> Option<Vec<u8>> {
        let inner = self.lock();
        let view = inner.artifacts.get(&attempt)?.get(path)?;
        inner.blobs.get(&view.blake3).cloned()
    }
}

impl Inner {
    fn count(&mut self, what: &'static str) {
        *self.requests.entry(what).or_default() += 1;
    }

    fn append(
        &mut self,
        attempt: AttemptId,
        stream: &str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, u64> {
        let log = self.logs.entry((attempt, stream.to_owned())).or_default();
        let offset = usize::try_from(offset).expect("small");
        if offset > log.len() {
            return Err(log.len() as u64);
        }
        let known = (log.len() - offset).min(bytes.len());
        assert_eq!(
            &log[offset..offset + known],
            &bytes[..known],
            "the same offset holds the same bytes"
        );
        log.extend_from_slice(&bytes[known..]);
        Ok(log.len() as u64)
    }

    fn hear(&mut self, sync: &Sync) {
        let newest = self.epochs.entry(sync.epoch).or_default();
        if *newest >= sync.seq {
            return;
        }
        *newest = sync.seq;
        self.present = sync.have.iter().map(|have| have.attempt).collect();
        for have in &sync.have {
            for log in &have.logs {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(&log.frames)
                    .expect("base64");
                self.append(have.attempt, log.stream.as_str(), log.offset, &bytes)
                    .expect("no gap");
            }
            for view in &have.artifacts {
                assert!(
                    self.blobs.contains_key(&view.blake3),
                    "listed before it was stored: {}",
                    view.path
                );
                self.artifacts
                    .entry(have.attempt)
                    .or_default()
                    .insert(view.path.clone(), view.clone());
            }
            let (word, end) = match &have.phase {
                Phase::Waiting => ("waiting", None),
                Phase::Preparing => ("preparing", None),
                Phase::Running => ("running", None),
                Phase::Ended { end, .. } => ("ended", Some(end)),
            };
            let phases = self.phases.entry(have.attempt).or_default();
            if phases.last().is_none_or(|last| last != word) {
                phases.push(word.to_owned());
            }
            if let Some(end) = end {
                let known = self.ends.entry(have.attempt).or_insert_with(|| end.clone());
                assert_eq!(known, end, "an end does not change");
            }
        }
    }

    fn orders(&self) -> Orders {
        let is_new = |launch: &&Launch| {
            !self.present.contains(&launch.attempt) && !self.ends.contains_key(&launch.attempt)
        };
        Orders {
            launch: self.wanted.iter().filter(is_new).cloned().collect(),
            stop: self
                .stops
                .values()
                .filter(|stop| {
                    self.present.contains(&stop.attempt) && !self.ends.contains_key(&stop.attempt)
                })
                .cloned()
                .collect(),
            forget: self
                .present
                .iter()
                .filter(|attempt| self.ends.contains_key(attempt))
                .copied()
                .collect(),
            retire: self.retire,
        }
    }
}

async fn sync(State(fake): State<Fake>, Json(sync): Json<Sync>) -> Json<Orders> {
    let wait = Duration::from_millis(sync.wait_ms);
    {
        let mut inner = fake.lock();
        inner.count("sync");
        inner.hear(&sync);
    }
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let woken = fake.0.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let orders = fake.lock().orders();
        if orders != Orders::default() || tokio::time::timeout_at(deadline, woken).await.is_err() {
            return Json(orders);
        }
    }
}

fn conflict(body: serde_json::Value) -> Response {
    (StatusCode::CONFLICT, Json(body)).into_response()
}

async fn log(
    State(fake): State<Fake>,
    Path((attempt, stream)): Path<(AttemptId, String)>,
    Query(query): Query<LogPut>,
    body: Bytes,
) -> Response {
    let mut inner = fake.lock();
    inner.count("log");
    if inner.superseded.contains(&attempt) {
        return conflict(
            serde_json::json!({"error": {"code": "conflict", "message": "superseded"}}),
        );
    }
    match inner.append(attempt, &stream, query.offset, &body) {
        Ok(length) => Json(LogLength { length }).into_response(),
        Err(length) => conflict(serde_json::json!({"length": length})),
    }
}

async fn artifacts(
    State(fake): State<Fake>,
    Path(attempt): Path<AttemptId>,
    Json(body): Json<ArtifactsPut>,
) -> Json<serde_json::Value> {
    let mut inner = fake.lock();
    inner.count("artifacts");
    for view in body.artifacts {
        assert!(
            inner.blobs.contains_key(&view.blake3),
            "listed before it was stored: {}",
            view.path
        );
        inner
            .artifacts
            .entry(attempt)
            .or_default()
            .insert(view.path.clone(), view);
    }
    for path in body.removed {
        inner.artifacts.entry(attempt).or_default().remove(&path);
    }
    Json(serde_json::json!({}))
}

async fn artifacts_of(
    State(fake): State<Fake>,
    Path(attempt): Path<AttemptId>,
) -> Json<ArtifactsResponse> {
    let previous = AttemptId {
        number: attempt.number - 1,
        ..attempt
    };
    Json(ArtifactsResponse {
        artifacts: fake.artifacts(previous).into_values().collect(),
        next: None,
    })
}

async fn blobs(State(fake): State<Fake>, body: Bytes) -> Json<BlobsStored> {
    let mut inner = fake.lock();
    inner.count("blobs");
    let mut rest = body.as_ref();
    let mut stored = 0;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let (hash, len) = blob::parse_header(header);
        let Some((bytes, after)) = after.split_at_checked(usize::try_from(len).expect("small"))
        else {
            break;
        };
        rest = after;
        if *blake3::hash(bytes).as_bytes() == hash {
            inner
                .blobs
                .insert(BlobId::from_bytes(hash).to_string(), bytes.to_vec());
            stored += 1;
        }
    }
    Json(BlobsStored { stored })
}

async fn missing(State(fake): State<Fake>, Json(body): Json<BlobsMissing>) -> Json<BlobsMissing> {
    let mut inner = fake.lock();
    inner.count("missing");
    Json(BlobsMissing {
        blobs: body
            .blobs
            .into_iter()
            .filter(|hash| !inner.blobs.contains_key(hash))
            .collect(),
    })
}

async fn recipes(
    State(fake): State<Fake>,
    Json(body): Json<BlobRecipes>,
) -> Json<BlobRecipesAnswer> {
    let mut inner = fake.lock();
    inner.count("recipes");
    let mut answer = BlobRecipesAnswer::default();
    for recipe in &body.recipes {
        let (blob, recipe) = recipe.parse().expect("a recipe");
        let Recipe::Chunks(entries) = recipe else {
            panic!("tests have no very large files")
        };
        let mut bytes = Vec::new();
        for entry in entries {
            for _ in 0..entry.times {
                bytes.extend(&inner.blobs[&entry.id.to_string()]);
            }
        }
        assert_eq!(blake3::hash(&bytes), *blob.as_bytes());
        inner.blobs.insert(blob.to_string(), bytes);
        answer.stored.push(blob.to_string());
    }
    Json(answer)
}

async fn fetch(State(fake): State<Fake>, Json(body): Json<BlobsFetch>) -> Vec<u8> {
    let mut inner = fake.lock();
    inner.count("fetch");
    let mut answer = Vec::new();
    inner.fetched.extend(body.blobs.iter().cloned());
    for hash in body.blobs {
        let bytes = &inner.blobs[&hash];
        answer.extend(blob::header(
            blake3::hash(bytes).as_bytes(),
            bytes.len() as u64,
        ));
        answer.extend(bytes);
    }
    answer
}

async fn known(Json(body): Json<VersionsKnown>) -> Json<VersionsKnown> {
    Json(body)
}

async fn object(State(fake): State<Fake>, Path((_, path)): Path<(String, String)>) -> Vec<u8> {
    fake.lock().objects[&path].clone()
}

async fn snapshot(State(fake): State<Fake>, Path(id): Path<SnapshotId>) -> Json<SnapshotTree> {
    let mut inner = fake.lock();
    inner.count("snapshot");
    Json(SnapshotTree {
        entries: inner.snapshots[&id].clone(),
    })
}

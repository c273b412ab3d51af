//! Datastores: beginning, listing, ending, deleting, and what runs mount.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use grid_api::error::ErrorCode;
use grid_core::datastore::SourceKind;
use grid_core::spec::DatastoreMount;
use grid_engine::datastore::{self, BucketWish, Filter, NewVersion, Version, staging};

use super::asked::{self, Parameters};
use super::auth::Caller;
use super::error::or_gone;
use super::shapes::Empty;
use super::shapes::datastore::{Create, Datastore, Datastores, From, meant_id};
use super::shapes::spec::Mount;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Path, Query};
use crate::rest::App;

/// Versions that are read at a time.
const PAGE: u32 = 1_000;

/// Versions in one answer: the client never asks for a second page.  Higher: one question
/// holds memory of many; lower: old versions are not shown.
const VERSIONS_MAX: usize = 10_000;

/// What a run is to mount.
pub(super) fn mounts(mounts: &[Mount]) -> Result<Vec<DatastoreMount>> {
    let mount = |mount: &Mount| {
        Ok(DatastoreMount {
            datastore: meant_id(&mount.id)?.to_string(),
            mount_dir: Some(mount.mount_path.clone()).filter(|path| !path.is_empty()),
            mounted: None,
        })
    };
    mounts.iter().map(mount).collect()
}

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Datastores>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let users: HashSet<&str> = asked::all(&parameters, "userIds").collect();
    // In the language of the client, and in ours.
    let available = asked::one(&parameters, "available").unwrap_or_default();
    let mut filter = Filter {
        global: !users.is_empty(),
        incomplete: !available.eq_ignore_ascii_case("true"),
        limit: PAGE,
        ..Filter::default()
    };
    let mut found: Vec<Datastore> = Vec::new();
    loop {
        let page = datastore::list(&app.engine, &caller, &filter).await?;
        let wanted = page.items.iter().filter(|version| {
            users.is_empty() || users.contains(version.row.owner.to_string().as_str())
        });
        found.extend(wanted.map(|version| Datastore::new(version, cluster)));
        match page.next {
            Some(next) if found.len() < VERSIONS_MAX => filter.after = Some(next),
            _ => break,
        }
    }
    Ok(Json(Datastores {
        datastores: found,
        next_page_token: String::new(),
        previous_page_token: String::new(),
    }))
}

pub(super) async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    JsonBody(create): JsonBody<Create>,
) -> Result<Json<Datastore>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let (source_kind, is_index) = match create.spec.from()? {
        From::Files => (SourceKind::Folder, false),
        From::Http => (SourceKind::Http, false),
        From::Bucket { is_index } => (SourceKind::S3, is_index),
    };
    let new = NewVersion {
        name: create.name,
        team: None,
        source: create.spec.source,
        source_kind,
        description: String::new(),
        // Which credential opens the bucket, the engine finds out.
        bucket: BucketWish {
            is_index,
            ..BucketWish::default()
        },
    };
    let version = datastore::begin(&app.engine, &caller, new).await?;
    Ok(Json(Datastore::new(&version, cluster)))
}

/// What is gone is told without details, so that the client goes on without it.
pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, id)): Path<(String, String)>,
) -> Response {
    let found = async {
        let cluster = asked::cluster(&app.engine, &cluster)?;
        let id = meant_id(&id)?.to_string();
        let version: Version = datastore::get(&app.engine, &caller, &id).await?;
        if version.row.deleted.is_some() {
            let message = format!("datastore '{}' is in the trash", version.name);
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        Ok(Json(Datastore::new(&version, cluster)))
    };
    match found.await {
        Ok(shown) => shown.into_response(),
        Err(failure) => or_gone(failure),
    }
}

/// All files of a version were sent; of one that the server fetches, nothing is left to do.
pub(super) async fn complete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, id)): Path<(String, String)>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    let id = meant_id(&id)?.to_string();
    staging::finish(&app.engine, &caller, &id).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, id)): Path<(String, String)>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    let id = meant_id(&id)?.to_string();
    datastore::delete(&app.engine, &caller, &id).await?;
    Ok(Json(Empty {}))
}

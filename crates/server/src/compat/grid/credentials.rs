//! Credentials for buckets: listing, making, deleting.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use grid_engine::credential::{self, New};

use super::asked::{self, Parameters};
use super::auth::Caller;
use super::shapes::Empty;
use super::shapes::credential::{Create, Credential, Credentials, TYPE};
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Path, Query};
use crate::rest::App;

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Credentials>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let users: HashSet<&str> = asked::all(&parameters, "userIds").collect();
    // Kinds that do not exist are passed over: the client sends the letters of one.
    let unwanted = asked::all(&parameters, "credentialTypeNotIn").any(|kind| kind == TYPE);
    let mut found = credential::list(&app.engine, &caller, !users.is_empty()).await?;
    found.retain(|credential| {
        let creator = credential.row.creator.to_string();
        !unwanted && (users.is_empty() || users.contains(creator.as_str()))
    });
    let credentials: Vec<Credential> = found
        .into_iter()
        .filter_map(|credential| Credential::new(credential, cluster))
        .collect();
    Ok(Json(Credentials {
        next_page_token: String::new(),
        previous_page_token: String::new(),
        total_size: credentials.len().to_string(),
        credentials,
    }))
}

pub(super) async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(cluster): Path<String>,
    JsonBody(create): JsonBody<Create>,
) -> Result<Json<Credential>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let new = New {
        name: None,
        team: None,
        content: create.read()?,
    };
    let made = credential::create(&app.engine, &caller, &new).await?;
    shown(made, cluster)
}

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, credential)): Path<(String, String)>,
) -> Result<Json<Credential>> {
    let cluster = asked::cluster(&app.engine, &cluster)?;
    let found = credential::get(&app.engine, &caller, &credential).await?;
    shown(found, cluster)
}

fn shown(credential: credential::Credential, cluster: &str) -> Result<Json<Credential>> {
    let problem = credential.problem.clone();
    let shape = Credential::new(credential, cluster);
    shape.map(Json).ok_or_else(|| {
        let why = problem.unwrap_or_else(|| "you may not read it".to_owned());
        Failure::invalid(format!("the credential cannot be shown: {why}"))
    })
}

pub(super) async fn delete(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, credential)): Path<(String, String)>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    credential::delete(&app.engine, &caller, &credential).await?;
    Ok(Json(Empty {}))
}

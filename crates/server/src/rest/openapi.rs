//! The description of the API.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use grid_api::error::{ErrorBody, ErrorCode};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response as Described, Schema};
use utoipa::{OpenApi as _, ToSchema};

use crate::extract::{Nothing, Query};

/// Operations that need no account.
pub(crate) const OPEN: [&str; 5] = [
    "health_get",
    "user_login",
    "link_follow",
    "openapi_get",
    "invitation_register",
];

/// What may be answered to any operation that needs an account.
const ERRORS: [(ErrorCode, &str); 4] = [
    (ErrorCode::Invalid, "Not well formed, or impossible"),
    (ErrorCode::Unauthenticated, "Not signed in"),
    (ErrorCode::Forbidden, "Known, but not allowed"),
    (
        ErrorCode::NotFound,
        "Not there, as far as the caller may know",
    ),
];

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let described = super::described().describe(Document::openapi());
    let mut text = serde_json::to_string_pretty(&finished(described)).unwrap_or_default();
    text.push('\n');
    text
});

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Grid",
        description = "Runs, experiments, logs and artifacts of a Grid server. Fields are only ever added.",
        version = "1",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "/api/v1")),
    tags(
        (name = "server", description = "The server and where experiments run"),
        (name = "users", description = "Users and their keys"),
        (name = "teams", description = "Who works together, as what, by which rules"),
        (name = "credentials", description = "What opens buckets elsewhere, encrypted at rest"),
        (name = "audit", description = "Who did what, from where, and what came of it"),
        (name = "code", description = "Capturing source code"),
        (name = "runs", description = "What one `grid run` makes"),
        (name = "experiments", description = "One set of parameters, executed to an end"),
        (name = "logs", description = "What experiments print"),
        (name = "artifacts", description = "What experiments leave behind"),
        (name = "datastores", description = "Data in versions that never change, and their files")
    ),
    components(schemas(
        ErrorBody,
        grid_api::audit::AuditEvent,
        grid_api::log::LogLine,
        grid_api::log::LogsStatus,
        grid_api::log::LogsEnd
    ))
)]
struct Document;

/// The description as text.
pub(crate) fn text() -> String {
    TEXT.clone()
}

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
pub(super) async fn openapi_get(_: Query<Nothing>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], TEXT.as_str()).into_response()
}

/// Adds what all operations have in common.
fn finished(mut api: OpenApi) -> OpenApi {
    let components = api.components.get_or_insert_default();
    let scheme = |scheme, description: &str| {
        let mut http = Http::new(scheme);
        http.description = Some(description.to_owned());
        SecurityScheme::Http(http)
    };
    components.add_security_scheme(
        "basic",
        scheme(HttpAuthScheme::Basic, "User id and API key"),
    );
    components.add_security_scheme("bearer", scheme(HttpAuthScheme::Bearer, "API key"));
    let may_be_empty: Vec<String> = components
        .schemas
        .iter()
        .filter(|(_, schema)| needs_nothing(schema))
        .map(|(name, _)| Ref::from_schema_name(name).ref_location)
        .collect();
    let paths = std::mem::take(&mut api.paths.paths);
    for (path, mut item) in paths {
        for operation in operations(&mut item) {
            finish(operation, &may_be_empty);
        }
        // What the router takes for "the rest of the path" has no sign in OpenAPI.
        api.paths.paths.insert(path.replace("{*", "{"), item);
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// Whether `{}` is one of these: no body at all is read as that.
fn needs_nothing(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.required.is_empty())
}

fn finish(operation: &mut Operation, may_be_empty: &[String]) {
    let open = OPEN
        .iter()
        .any(|open| operation.operation_id.as_deref() == Some(open));
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.iter_mut().for_each(bytes_are_bytes);
        if body
            .content
            .values()
            .all(|content| can_be_left_out(content, may_be_empty))
        {
            body.required = Some(Required::False);
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        response.content.iter_mut().for_each(bytes_are_bytes);
        if response.description.is_empty() {
            "Done".clone_into(&mut response.description);
        }
    }
    if !open {
        let none: [&str; 0] = [];
        let ways = ["basic", "bearer"].map(|way| SecurityRequirement::new(way, none));
        operation.security = Some(ways.into());
        for (code, description) in ERRORS {
            add_error(operation, &code.status().to_string(), description);
        }
    }
    add_error(operation, "default", "Something went wrong");
}

/// Bytes have no schema; the derived one calls them a list of numbers. Nor have events: what
/// is in them differs by their name.
fn bytes_are_bytes((kind, content): (&String, &mut RefOr<Content>)) {
    if kind == "application/octet-stream" || kind == "text/event-stream" {
        *content = Content::default().into();
    }
}

/// Bytes can be none; of JSON, that which is read as `{}`.
fn can_be_left_out(content: &RefOr<Content>, may_be_empty: &[String]) -> bool {
    let RefOr::T(content) = content else {
        return false;
    };
    match &content.schema {
        None => true,
        Some(RefOr::Ref(named)) => may_be_empty.contains(&named.ref_location),
        Some(RefOr::T(_)) => false,
    }
}

fn add_error(operation: &mut Operation, key: &str, description: &str) {
    let mut response = Described::new(description);
    let content = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
    let json = "application/json".to_owned();
    response.content.insert(json, content.into());
    let responses = &mut operation.responses.responses;
    responses
        .entry(key.to_owned())
        .or_insert_with(|| response.into());
}

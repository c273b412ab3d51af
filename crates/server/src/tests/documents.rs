//! What is printed and committed elsewhere.

use serde_json::Value;

use super::world::{Person, World};

/// One line per operation; the whole description is a page of the reference, which
/// is compared with what the program prints.
#[test]
fn the_operations_are_those_that_were_agreed() {
    let api: Value = serde_json::from_str(&crate::openapi()).expect("JSON");
    let mut lines = String::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            lines.push_str(&line(path, method, operation));
            lines.push('\n');
        }
    }
    insta::assert_snapshot!("operations", lines);
}

fn line(path: &str, method: &str, operation: &Value) -> String {
    let id = operation["operationId"].as_str().expect("an id");
    let mut line = format!("{:<6} {path}  {id}", method.to_uppercase());
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    for parameter in parameters.filter(|one| one["in"] != "path") {
        let name = parameter["name"].as_str().expect("a name");
        let sign = if parameter["in"] == "query" { '?' } else { '@' };
        line.push_str(&format!(" {sign}{name}"));
    }
    if let Some(body) = shape(&operation["requestBody"]) {
        line.push_str(&format!(" <- {body}"));
    }
    for (status, response) in operation["responses"].as_object().expect("responses") {
        if status.starts_with(['2', '3']) {
            let shape = shape(response).unwrap_or_default();
            line.push_str(&format!(" -> {status} {shape}"));
        }
    }
    if operation["security"].is_null() {
        line.push_str(" (open)");
    }
    line.trim_end().to_owned()
}

/// The name of what is sent, or its media type.
fn shape(with_content: &Value) -> Option<String> {
    let (kind, content) = with_content["content"].as_object()?.iter().next()?;
    let reference = content["schema"]["$ref"].as_str();
    let name = reference.and_then(|reference| reference.rsplit('/').next());
    Some(name.unwrap_or(kind).to_owned())
}

#[test]
fn every_operation_is_named_after_its_noun() {
    let api: Value = serde_json::from_str(&crate::openapi()).expect("JSON");
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(id.contains('_'), "{method} {path}: {id}");
            assert!(
                operation["summary"].is_string() && operation["tags"][0].is_string(),
                "{method} {path}"
            );
            for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = parameter.trim_end_matches('}');
                let named = operation["parameters"].as_array().into_iter().flatten();
                assert!(
                    named.into_iter().any(|one| one["name"] == name),
                    "{method} {path}: {name}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_browser_is_told_what_this_is() {
    let world = World::new().await;
    let request = axum::http::Request::builder()
        .uri("/")
        .body(axum::body::Body::empty())
        .expect("a request");
    let page = world.answer(request).await;
    let text = String::from_utf8_lossy(&page.bytes);
    assert!(
        text.contains("grid login") && text.contains(grid_api::VERSION),
        "{text}"
    );
    let health = world.get(&Person::Nobody, "/health").await.ok();
    assert_eq!(health["status"], "ok");
    assert_eq!(
        world.get(&Person::Nobody, "/openapi.json").await.ok()["info"]["title"],
        "Grid"
    );
}

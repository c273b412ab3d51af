//! What is printed and committed elsewhere.

use serde_json::Value;

use super::world::{Person, World};

#[test]
fn the_description_of_the_api_is_the_one_that_was_agreed() {
    insta::assert_snapshot!("openapi", crate::openapi());
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

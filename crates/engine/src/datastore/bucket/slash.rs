//! Objects with bytes whose keys end with a `/`: no file can be called so.
//!
//! The client of buckets leaves the slash out of what it lists, so that such an object looks
//! like one that is not there.  Lists are looked at here as they come from the server.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};

use super::Place;
use crate::error::{Error, Result};

/// The first such object that was listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Slashed(Arc<Mutex<Option<String>>>);

impl Slashed {
    /// Refuses what was listed when such an object is among it.
    pub(super) fn require_none(&self, place: &Place) -> Result<()> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match found.as_ref() {
            None => Ok(()),
            Some(key) => Err(Error::invalid_hint(
                format!(
                    "'{key}' in {} ends with '/' and has bytes: no file can be called so",
                    place.shown()
                ),
                "rename that object, or name a prefix that it is not below",
            )),
        }
    }

    fn found(&self, key: String) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get_or_insert(key);
    }
}

/// A client that looks at the lists that come.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) client: HttpClient,
    pub(super) slashed: Slashed,
}

#[async_trait]
impl HttpService for Looking {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let is_list = query.split('&').any(|pair| pair == "list-type=2");
        let response = self.client.execute(request).await?;
        if !is_list || !response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let list = body.bytes().await?;
        if let Some(key) = slashed(&list) {
            self.slashed.found(key);
        }
        Ok(HttpResponse::from_parts(head, list.into()))
    }
}

/// The first key in a list that ends with a slash, of an object with bytes.
fn slashed(list: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(list).ok()?;
    text.split("<Contents>").skip(1).find_map(|object| {
        let key = between(object, "<Key>", "</Key>")?;
        let size = between(object, "<Size>", "</Size>")?;
        let has_bytes = size.trim().parse::<u64>().is_ok_and(|size| size > 0);
        (key.ends_with('/') && has_bytes).then(|| plain(key))
    })
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// A text as it was before it was put into XML.
fn plain(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let mut plain = text.to_owned();
    for (written, meant) in pairs {
        plain = plain.replace(written, meant);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_whose_key_ends_with_a_slash_is_found_when_it_has_bytes() {
        let object = |key: &str, size: u32| {
            format!("<Contents><Key>{key}</Key><ETag>x</ETag><Size>{size}</Size></Contents>")
        };
        let list = |objects: &[String]| {
            let common = "<CommonPrefixes><Prefix>z/</Prefix></CommonPrefixes>";
            let text = format!(
                "<ListBucketResult>{}{common}</ListBucketResult>",
                objects.concat()
            );
            slashed(text.as_bytes())
        };
        assert_eq!(list(&[]), None);
        assert_eq!(list(&[object("a/", 0), object("a/b", 3)]), None);
        let found = list(&[object("a", 1), object("b &amp; c/", 1), object("d/", 2)]);
        assert_eq!(found.as_deref(), Some("b & c/"));
        assert_eq!(slashed(b"\xff<Contents>"), None);
    }
}

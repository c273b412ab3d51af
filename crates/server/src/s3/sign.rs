//! Which key says that it has signed a request, and what it is checked with.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, header};
use grid_engine::{Clock, SystemClock};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::access::Gate;

/// The one way of signing requests that is taken; links may be signed in the older one, too,
/// which says no less about who made them and until when they work.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Longest life of a link that was signed beforehand, in seconds: seven days, as S3 has it.
const LINK_S_MAX: i64 = 7 * 24 * 60 * 60;

/// The access key that says it has signed; none where nobody does.
pub(super) fn signed(request: &Request) -> S3Result<Option<String>> {
    let query = request.uri().query().unwrap_or_default();
    if is_form(request) {
        return Err(s3_error!(NotImplemented, "forms are not taken: send a PUT"));
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map(|text| text.to_str().unwrap_or_default());
    if authorization.is_some_and(|text| !text.starts_with(ALGORITHM)) {
        return Err(old());
    }
    // What `boto3` makes of a link when nobody says in which way.
    if value(query, "Signature").is_some() {
        let end = value(query, "Expires").and_then(|end| end.parse().ok());
        let now = SystemClock.now().as_millis() / 1_000;
        if end.is_none_or(|end: i64| end.saturating_sub(now) > LINK_S_MAX) {
            return Err(s3_error!(
                AccessDenied,
                "a link works for 604800 seconds at most: Expires is too late"
            ));
        }
        return Ok(value(query, "AWSAccessKeyId"));
    }
    if value(query, "X-Amz-Signature").is_some() {
        let life = value(query, "X-Amz-Expires").and_then(|life| life.parse().ok());
        if life.is_none_or(|life: i64| !(1..=LINK_S_MAX).contains(&life)) {
            return Err(S3Error::with_message(
                S3ErrorCode::AuthorizationQueryParametersError,
                "X-Amz-Expires is a number of seconds from 1 to 604800",
            ));
        }
        return Ok(value(query, "X-Amz-Credential").map(|credential| first(&credential)));
    }
    let mut parts = authorization.unwrap_or_default().split([' ', ',']);
    let credential = parts.find_map(|part| part.trim().strip_prefix("Credential="));
    Ok(credential.map(first))
}

fn old() -> S3Error {
    s3_error!(
        InvalidRequest,
        "The authorization mechanism you have provided is not supported. Please use {ALGORITHM}."
    )
}

/// A page in a browser can make one send a form without being asked.
fn is_form(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_form = kind
        .get(..19)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
    request.method() == Method::POST && is_form
}

/// The part of a credential that names the key.
fn first(credential: &str) -> String {
    credential.split('/').next().unwrap_or_default().to_owned()
}

/// The value of the first parameter of a name.
fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescaped(known)? == name).then(|| unescaped(value))?
    })
}

/// Without `%XX`; `None` for what is no text.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let pair = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&pair).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The secret of the one key that a request may be signed with.
pub(super) struct Secret(Option<SecretKey>);

impl Secret {
    pub(super) fn of(gate: &Arc<Gate>) -> Self {
        Self(gate.secret().map(SecretKey::from))
    }
}

#[async_trait::async_trait]
impl S3Auth for Secret {
    async fn get_secret_key(&self, _: &str) -> S3Result<SecretKey> {
        let secret = self.0.clone();
        secret.ok_or_else(|| {
            s3_error!(
                InvalidAccessKeyId,
                "there is no such access key, or it works no more: `grid user keys create NAME \
                 --s3` makes one"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(method: Method, uri: &str, headers: &[(&str, &str)]) -> S3Result<Option<String>> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        signed(&request.body(Body::empty()).expect("a request"))
    }

    #[test]
    fn the_key_is_named_by_the_header_or_by_the_link() {
        let header =
            format!("{ALGORITHM} Credential=GRIDA/20260101/x/s3/aws4_request, Signature=0");
        let by_header = asked(Method::GET, "/a", &[("authorization", &header)]);
        assert_eq!(by_header.expect("read").as_deref(), Some("GRIDA"));
        let link = "/a?X-Amz-Credential=GRIDB%2F2026&X-Amz-Expires=60&X-Amz-Signature=0";
        let by_link = asked(Method::GET, link, &[]);
        assert_eq!(by_link.expect("read").as_deref(), Some("GRIDB"));
        let older = "/a?AWSAccessKeyId=GRIDC&Signature=x&Expires=1";
        let by_link = asked(Method::GET, older, &[]);
        assert_eq!(by_link.expect("read").as_deref(), Some("GRIDC"));
        assert_eq!(asked(Method::GET, "/a?x=1", &[]).expect("read"), None);
    }

    #[test]
    fn other_ways_to_sign_are_refused() {
        let form = ("content-type", "multipart/form-data; boundary=x");
        let week = "/a?X-Amz-Credential=A&X-Amz-Expires=604801&X-Amz-Signature=0";
        for (method, uri, headers, code) in [
            (
                Method::GET,
                "/a",
                vec![("authorization", "AWS A:b")],
                "InvalidRequest",
            ),
            (
                Method::GET,
                "/a",
                vec![("authorization", "Bearer x")],
                "InvalidRequest",
            ),
            (
                Method::GET,
                "/a?Signature=x&AWSAccessKeyId=A",
                vec![],
                "AccessDenied",
            ),
            (
                Method::GET,
                "/a?%53ignature=x&Expires=9999999999",
                vec![],
                "AccessDenied",
            ),
            (
                Method::GET,
                "/a?Signature=x",
                vec![("authorization", "AWS A:b")],
                "InvalidRequest",
            ),
            (Method::POST, "/a", vec![form], "NotImplemented"),
            (
                Method::GET,
                week,
                vec![],
                "AuthorizationQueryParametersError",
            ),
        ] {
            let refused = asked(method, uri, &headers).expect_err(uri);
            assert_eq!(refused.code().as_str(), code, "{uri}");
        }
    }
}

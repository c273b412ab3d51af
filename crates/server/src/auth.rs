//! Who is calling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grid_api::error::ErrorCode;
use grid_core::id::NodeId;
use grid_engine::audit::Trail;
use grid_engine::{Engine, Sender};
use tokio::time::Instant;

use crate::error::Failure;
use crate::extract::SentBy;
use crate::rest::App;

/// How long a runner's token is believed without asking the database.  Higher: a token
/// that was replaced works longer; lower: a busy runner asks the database more often.
const TOKEN_BELIEVED: Duration = Duration::from_secs(5);

/// Tokens remembered at once; more are asked for each time.
const TOKENS_MAX: usize = 1_024;

/// A signed-in user: `Basic` with user id and key, or `Bearer` with the key.
pub(crate) struct Caller(pub(crate) grid_engine::Caller);

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Engine: FromRef<S>,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let engine = Engine::from_ref(state);
        let (user, key) = match credentials(parts)? {
            Credentials::Basic { user, password } => (Some(user), password),
            Credentials::Bearer(key) => (None, key.to_owned()),
        };
        let trail = trail(parts);
        let caller = grid_engine::user::enter(&engine, &trail, user.as_deref(), &key).await?;
        let sender = Sender::User(caller.user.id);
        parts.extensions.insert(SentBy { engine, sender });
        Ok(Self(caller))
    }
}

/// A runner, by the node that its token is for.
pub(crate) struct RunnerNode(pub(crate) NodeId);

impl FromRequestParts<App> for RunnerNode {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Credentials::Bearer(token) = credentials(parts)? else {
            return Err(unauthenticated("a runner signs in with its token"));
        };
        let hash = grid_engine::hash_key(token);
        let node = match app.tokens.node(&hash) {
            Some(node) => node,
            None => {
                let node = grid_engine::runner::authenticate(&app.engine, token).await?;
                app.tokens.remember(hash, node.clone());
                node
            }
        };
        parts.extensions.insert(SentBy {
            engine: app.engine.clone(),
            sender: Sender::Node(node.clone()),
        });
        Ok(Self(node))
    }
}

/// Somebody who can read the data folder on this machine.
pub(crate) struct FolderOwner;

/// What such a person signs in with: made from the secret in the folder.
pub(crate) fn folder_token(secret: &[u8; 32]) -> String {
    blake3::keyed_hash(secret, b"owner of the folder")
        .to_hex()
        .to_string()
}

impl FromRequestParts<App> for FolderOwner {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let wrong =
            || unauthenticated("only who owns the data folder can do this, with `grid server`");
        let Credentials::Bearer(token) = credentials(parts)? else {
            return Err(wrong());
        };
        let given = blake3::Hash::from_hex(token).map_err(|_| wrong())?;
        // Compared in the same time whatever is wrong with it.
        let known = blake3::Hash::from_hex(app.folder_token.as_bytes());
        if known.is_ok_and(|known| known == given) {
            Ok(Self)
        } else {
            Err(wrong())
        }
    }
}

/// What the request leaves behind, to be written down before it is answered.
pub(crate) fn trail(parts: &Parts) -> Trail {
    parts.extensions.get::<Trail>().cloned().unwrap_or_default()
}

enum Credentials<'a> {
    Basic { user: String, password: String },
    Bearer(&'a str),
}

fn credentials(parts: &Parts) -> Result<Credentials<'_>, Failure> {
    let none = || {
        unauthenticated("you are not signed in")
            .hint("sign in with `grid login`; programs send their user id and API key as Basic authorization")
    };
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(none)?;
    let malformed = || unauthenticated("the Authorization header is neither Basic nor Bearer");
    let (scheme, value) = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(malformed)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::Bearer(value));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let pair = BASE64_STANDARD
        .decode(value)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => Ok(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
        None => Err(unauthenticated(
            "the Basic authorization does not read as user id and API key",
        )),
    }
}

fn unauthenticated(message: &str) -> Failure {
    Failure::new(ErrorCode::Unauthenticated, message)
}

/// Tokens of runners that were right a moment ago.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<String, (NodeId, Instant)>>>);

impl Tokens {
    fn node(&self, hash: &str) -> Option<NodeId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, since) = known.get(hash)?;
        (since.elapsed() < TOKEN_BELIEVED).then(|| node.clone())
    }

    fn remember(&self, hash: String, node: NodeId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX {
            known.retain(|_, (_, since)| since.elapsed() < TOKEN_BELIEVED);
        }
        if known.len() < TOKENS_MAX {
            known.insert(hash, (node, Instant::now()));
        }
    }
}

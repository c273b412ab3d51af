//! The log of the cluster over a web socket: what this server has logged lately, and with
//! `follow` what it logs from then on.  For those who run the server.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grid_api::error::ErrorCode;
use grid_core::time::Timestamp;
use grid_engine::audit::{Origin, Trail};
use serde_json::json;
use tokio::time::timeout;

use super::asked::{self, Parameters};
use super::socket::{SEND_LIMIT, Sockets, too_many};
use crate::error::{Failure, Result};
use crate::extract::{Path, Query};
use crate::live::KEEP_ALIVE;
use crate::recent::{Line, recent};
use crate::rest::App;

/// Lines that are told unless another number is asked for, as many as the client asks for.
const LIMIT: usize = 1_000;

/// How long a goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What is asked for.
struct Asked {
    follow: bool,
    start: Option<Timestamp>,
    /// Of no meaning to those who follow.
    end: Option<Timestamp>,
    limit: usize,
}

impl Asked {
    fn read(parameters: &[(String, String)]) -> Result<Self> {
        let number = |name: &str| match asked::one(parameters, name).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(Failure::invalid(format!("'{name}' is not a number"))),
        };
        let time = |name: &str| {
            number(name).map(|at| at.map(|s| Timestamp::from_millis(s.saturating_mul(1_000))))
        };
        let follow = asked::one(parameters, "follow");
        let limit = number("limit")?.map(usize::try_from);
        Ok(Self {
            follow: follow.is_some_and(|word| word.eq_ignore_ascii_case("true")),
            start: time("start")?,
            end: time("end")?,
            limit: limit.map_or(LIMIT, |limit| limit.unwrap_or(0)),
        })
    }

    fn wants(&self, line: &Line) -> bool {
        // Whole seconds: what was logged in the last one is wanted, too.
        let second = line.at.as_millis().div_euclid(1_000) * 1_000;
        self.start.is_none_or(|start| line.at >= start)
            && (self.follow || self.end.is_none_or(|end| second <= end.as_millis()))
    }
}

/// Who follows, to be asked again.
struct Credentials {
    user: String,
    key: String,
}

impl Credentials {
    /// Reads `Basic` from the address, where the client has to put it.
    fn read(parameters: &[(String, String)]) -> Result<Self> {
        let none = || Failure::new(ErrorCode::Unauthenticated, "you are not signed in");
        let token = asked::one(parameters, "token").ok_or_else(none)?;
        let (scheme, pair) = token.split_once(' ').ok_or_else(none)?;
        let pair = BASE64_STANDARD
            .decode(pair.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        match pair {
            Some((user, key)) if scheme.eq_ignore_ascii_case("basic") => Ok(Self {
                user: user.to_owned(),
                key: key.to_owned(),
            }),
            _ => Err(none()),
        }
    }

    async fn enter(&self, app: &App, trail: &Trail) -> grid_engine::Result<grid_engine::Caller> {
        let caller =
            grid_engine::user::enter(&app.engine, trail, Some(&self.user), &self.key).await?;
        app.engine.may_read_log(&caller)?;
        Ok(caller)
    }
}

/// Takes a connection for the log.
pub(super) async fn cluster_log(
    State(app): State<App>,
    Extension(sockets): Extension<Sockets>,
    Extension(trail): Extension<Trail>,
    Path(cluster): Path<String>,
    Query(parameters): Parameters,
    upgrade: WebSocketUpgrade,
) -> Result<Response> {
    let credentials = Credentials::read(&parameters)?;
    let caller = credentials.enter(&app, &trail).await?;
    asked::cluster(&app.engine, &cluster)?;
    let asked = Asked::read(&parameters)?;
    let place = sockets.enter(caller.id()).ok_or_else(too_many)?;
    let origin = trail.origin().clone();
    Ok(upgrade.on_upgrade(async move |socket| {
        let _place = place;
        let talk = Talk {
            app,
            credentials,
            origin,
            socket,
        };
        talk.tell(&asked).await;
    }))
}

struct Talk {
    app: App,
    credentials: Credentials,
    origin: Origin,
    socket: WebSocket,
}

impl Talk {
    /// Tells what is asked for, and says goodbye.
    async fn tell(mut self, asked: &Asked) {
        let mut count = recent().watch();
        let mut people = self.app.engine.watch_people();
        let (mut lines, _, mut next) = recent().from(0);
        lines.retain(|line| asked.wants(line));
        lines.drain(..lines.len().saturating_sub(asked.limit));
        loop {
            for line in &lines {
                if !self.send(Message::Text(frame(line).into())).await {
                    return;
                }
            }
            if !asked.follow {
                return self.close("").await;
            }
            tokio::select! {
                () = self.app.stop.cancelled() => return self.close("the server is stopping").await,
                changed = count.changed() => {
                    // It lives as long as the process.
                    drop(changed);
                }
                () = people.changed() => {
                    let trail = Trail::new(self.origin.clone());
                    let entered = self.credentials.enter(&self.app, &trail).await;
                    drop(self.app.engine.settle(&trail).await);
                    if entered.is_err() {
                        return self.close("you may not read this any more").await;
                    }
                }
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if !self.send(Message::Ping(bytes::Bytes::new())).await {
                        return;
                    }
                }
            }
            let missing;
            (lines, missing, next) = recent().from(next);
            if missing > 0 {
                lines.insert(0, gap(missing).into());
            }
        }
    }

    /// Whether it was taken.
    async fn send(&mut self, message: Message) -> bool {
        matches!(
            timeout(SEND_LIMIT, self.socket.send(message)).await,
            Ok(Ok(()))
        )
    }

    async fn close(mut self, why: &str) {
        const DONE: u16 = 1000;
        let frame = CloseFrame {
            code: DONE,
            reason: Utf8Bytes::from(why),
        };
        let goodbye = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        // Who does not answer is left.
        drop(timeout(CLOSE_LIMIT, goodbye).await);
    }
}

/// One line as the client reads it: these fields and no others.
fn frame(line: &Line) -> String {
    json!({
        "message": line.text,
        "timestamp": line.at.to_string(),
        "labels": { "level": line.level },
    })
    .to_string()
}

/// What a reader is told who was too slow.
fn gap(missing: u64) -> Line {
    use grid_engine::Clock;
    Line {
        at: grid_engine::SystemClock.now(),
        level: "warn",
        text: format!("{missing} lines were logged faster than they were read, and are left out"),
    }
}

//! GraphQL over a web socket, in both protocols that the original client offers:
//! `graphql-transport-ws` and the older `graphql-ws`.
//!
//! What it promises:
//!
//! * Who connects says who they are in the first message, soon, or is cut.  For every
//!   question they are let in again, so that a key that was revoked asks nothing more.
//! * Answers are made when there is room for them: a slow reader is behind, costs a
//!   position in a log, and loses nothing.
//! * Each question is a task of its own.  One that reads the database goes on reading while
//!   the socket waits for its reader; otherwise those who do not read would keep the
//!   connections to the database to themselves.
//! * A question that fails is answered by an answer with errors, which both protocols and
//!   the client understand, and the socket goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_graphql::http::ClientMessage;
use async_graphql::{Response, ServerError};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use futures::{SinkExt, Stream, StreamExt};
use grid_api::error::ErrorCode;
use grid_core::id::UserId;
use grid_engine::Engine;
use grid_engine::audit::{Origin, Trail};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::graphql::{self, Asked, KEY, QUESTION_BYTES_MAX, USER, words};
use crate::error::Failure;
use crate::live::KEEP_ALIVE;
use crate::rest::App;

/// How long one who connects may take to say who they are.  Higher: those who only want to
/// hold connections hold them longer; lower: slow networks break.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// How long one message may take to be taken.  Higher: those who never read hold a
/// connection longer; lower: a pager that somebody left open is cut.
pub(super) const SEND_LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Sockets of one user.  Higher: one user takes the connections of all; lower: a program
/// that follows many experiments at once is turned away.
const SOCKETS_PER_USER_MAX: usize = 1_000;

/// Questions under way on one socket.  Higher: one socket costs as much as many; lower:
/// a page that follows several logs needs several sockets.
pub(crate) const QUESTIONS_PER_SOCKET_MAX: usize = 16;

/// Answers that are made before they can be sent.  Higher: who does not read costs more
/// memory; lower is not possible.
const ANSWERS_AHEAD_MAX: usize = 1;

/// Longest id of a question, in bytes.  The client counts from 1.
const ID_BYTES_MAX: usize = 128;

/// Longest reason in a close frame, in bytes, by RFC 6455.
const REASON_BYTES_MAX: usize = 123;

/// Numbers of close frames: those of RFC 6455, and those of `graphql-transport-ws`.
const GOING_AWAY: u16 = 1001;
const INTERNAL: u16 = 1011;
const DONE: u16 = 1000;
const BAD_REQUEST: u16 = 4400;
const UNAUTHORIZED: u16 = 4401;
const FORBIDDEN: u16 = 4403;
const INIT_TIMEOUT: u16 = 4408;
const DUPLICATE: u16 = 4409;
const TOO_MANY: u16 = 4429;

/// Open sockets by user.  Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sockets(Arc<Mutex<HashMap<UserId, usize>>>);

/// A user's place among their sockets, until it is dropped.
pub(super) struct Place(Sockets, UserId);

impl Sockets {
    /// A place for one more, if there is one.
    pub(super) fn enter(&self, user: UserId) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user).or_default();
        if *count >= SOCKETS_PER_USER_MAX {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), user))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// What somebody is told who has too many.
pub(super) fn too_many() -> Failure {
    Failure::new(
        ErrorCode::TooMany,
        format!("you have {SOCKETS_PER_USER_MAX} web sockets open: close some"),
    )
}

/// Which of the two protocols is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// `graphql-transport-ws`.
    Transport,
    /// `graphql-ws`, of the old subscriptions-transport-ws.
    Apollo,
}

impl Protocol {
    const NAMES: [&str; 2] = ["graphql-transport-ws", "graphql-ws"];

    /// Who names none speaks the old one.
    fn named(name: Option<&str>) -> Self {
        if name == Some(Self::NAMES[0]) {
            Self::Transport
        } else {
            Self::Apollo
        }
    }

    /// What an answer is called.
    const fn next(self) -> &'static str {
        match self {
            Self::Transport => "next",
            Self::Apollo => "data",
        }
    }
}

/// Takes a connection for GraphQL.
pub(super) async fn connect(
    State(app): State<App>,
    Extension(sockets): Extension<Sockets>,
    Extension(trail): Extension<Trail>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    let origin = trail.origin().clone();
    upgrade
        .protocols(Protocol::NAMES)
        .max_message_size(QUESTION_BYTES_MAX)
        .max_frame_size(QUESTION_BYTES_MAX)
        .on_upgrade(async move |socket| {
            let protocol = socket.protocol().and_then(|name| name.to_str().ok());
            let protocol = Protocol::named(protocol);
            let (answers, answered) = mpsc::channel(ANSWERS_AHEAD_MAX);
            let talk = Talk {
                app,
                origin,
                protocol,
                socket,
                answers,
                answered,
                questions: JoinSet::new(),
                asked: 0,
                open: HashMap::new(),
            };
            talk.begin(&sockets).await;
        })
}

/// Why a talk is over.
enum Over {
    /// We end it: number and words of the close frame.
    Said(u16, String),
    /// The other end is not there any more, or does not read.
    Gone,
}

impl Over {
    fn said(code: u16, why: impl Into<String>) -> Self {
        Self::Said(code, why.into())
    }
}

/// What one who connected said of themselves.
struct Credentials {
    user: String,
    key: String,
}

impl Credentials {
    /// Reads them as headers are read: whatever the case.
    fn of(payload: Option<&Value>) -> Option<Self> {
        let payload = payload?.as_object()?;
        let text = |name: &str| {
            let (_, value) = payload
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            value.as_str().map(str::to_owned)
        };
        Some(Self {
            user: text(USER)?,
            key: text(KEY)?,
        })
    }
}

/// One answer to a question, or that there are no more.
struct Answer {
    id: String,
    /// Which question of that id: ids are used again.
    number: u64,
    response: Option<Response>,
}

/// A question under way.
struct Open {
    number: u64,
    task: AbortHandle,
}

/// One socket.  Its questions end with it.
struct Talk {
    app: App,
    origin: Origin,
    protocol: Protocol,
    socket: WebSocket,
    answers: mpsc::Sender<Answer>,
    answered: mpsc::Receiver<Answer>,
    questions: JoinSet<()>,
    /// How many were asked so far.
    asked: u64,
    /// Questions under way, by id.
    open: HashMap<String, Open>,
}

impl Talk {
    /// Hears who it is, and talks to the end.
    async fn begin(mut self, sockets: &Sockets) {
        let stop = self.app.stop.clone();
        let deadline = Instant::now() + INIT_LIMIT;
        let hello = async {
            match tokio::time::timeout_at(deadline, self.hello()).await {
                Ok(hello) => hello,
                Err(_) => Err(Over::said(
                    INIT_TIMEOUT,
                    "Connection initialisation timeout",
                )),
            }
        };
        let hello = tokio::select! {
            hello = hello => hello,
            () = stop.cancelled() => Err(Over::said(GOING_AWAY, "the server is stopping")),
        };
        let result = match hello {
            Ok((credentials, user)) => match sockets.enter(user) {
                Some(_place) => self.go_on(&credentials).await,
                None => Err(Over::said(TOO_MANY, too_many().body().error.message)),
            },
            Err(end) => Err(end),
        };
        if let Err(Over::Said(code, why)) = result {
            self.close(code, &why).await;
        }
    }

    /// The first message: who it is.
    async fn hello(&mut self) -> Result<(Credentials, UserId), Over> {
        loop {
            let payload = match self.hear().await? {
                None => continue,
                Some(ClientMessage::ConnectionInit { payload }) => payload,
                Some(ClientMessage::Ping { payload }) => {
                    self.pong(payload).await?;
                    continue;
                }
                Some(ClientMessage::Pong { .. }) => continue,
                Some(ClientMessage::ConnectionTerminate) => {
                    return Err(Over::said(DONE, "goodbye"));
                }
                Some(ClientMessage::Start { .. } | ClientMessage::Stop { .. }) => {
                    return Err(Over::said(UNAUTHORIZED, "Unauthorized"));
                }
            };
            let Some(credentials) = Credentials::of(payload.as_ref()) else {
                return self.refuse("you are not signed in").await;
            };
            let trail = Trail::new(self.origin.clone());
            let entered = enter(&self.app, &trail, &credentials).await;
            // Also a wrong key is written down before it is answered.
            let settled = self.app.engine.settle(&trail).await;
            return match settled.and(entered) {
                Ok(caller) => {
                    self.send(&json!({ "type": "connection_ack" })).await?;
                    Ok((credentials, caller.id()))
                }
                Err(error) => {
                    let why = words(error);
                    self.refuse(&why).await
                }
            };
        }
    }

    async fn refuse<T>(&mut self, why: &str) -> Result<T, Over> {
        if self.protocol == Protocol::Apollo {
            let refusal = json!({ "type": "connection_error", "payload": { "message": why } });
            self.send(&refusal).await?;
        }
        Err(Over::said(FORBIDDEN, why))
    }

    /// Answers what is asked, until one side ends it.
    async fn go_on(&mut self, credentials: &Credentials) -> Result<(), Over> {
        let stop = self.app.stop.clone();
        let mut spoke = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    return Err(Over::said(GOING_AWAY, "the server is stopping"));
                }
                message = self.socket.recv() => {
                    if let Some(message) = understand(message)? {
                        self.obey(message, credentials).await?;
                    }
                }
                Some(answer) = self.answered.recv() => {
                    // What was given up meanwhile is not answered any more.
                    let open = self.open.get(&answer.id);
                    if open.is_some_and(|open| open.number == answer.number) {
                        self.answer(answer.id, answer.response).await?;
                        spoke = Instant::now();
                    }
                }
                Some(ended) = self.questions.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        return Err(Over::said(INTERNAL, "the server failed"));
                    }
                }
                () = tokio::time::sleep_until(spoke + KEEP_ALIVE) => {
                    self.send_message(Message::Ping(bytes::Bytes::new())).await?;
                    spoke = Instant::now();
                }
            }
        }
    }

    async fn obey(
        &mut self,
        message: ClientMessage,
        credentials: &Credentials,
    ) -> Result<(), Over> {
        match message {
            ClientMessage::ConnectionInit { .. } => {
                Err(Over::said(TOO_MANY, "Too many initialisation requests"))
            }
            ClientMessage::ConnectionTerminate => Err(Over::said(DONE, "goodbye")),
            ClientMessage::Ping { payload } => self.pong(payload).await,
            ClientMessage::Pong { .. } => Ok(()),
            ClientMessage::Stop { id } => {
                if let Some(question) = self.open.remove(&id) {
                    question.task.abort();
                    // The old protocol says that it heard.
                    if self.protocol == Protocol::Apollo {
                        self.send(&json!({ "type": "complete", "id": id })).await?;
                    }
                }
                Ok(())
            }
            ClientMessage::Start { id, payload } => self.ask(id, payload, credentials).await,
        }
    }

    /// Begins to answer a question.
    async fn ask(
        &mut self,
        id: String,
        question: async_graphql::Request,
        credentials: &Credentials,
    ) -> Result<(), Over> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            let why = format!("the id of a question has 1 to {ID_BYTES_MAX} bytes");
            return Err(Over::said(BAD_REQUEST, why));
        }
        if self.open.contains_key(&id) {
            let why = format!("Subscriber for {id} already exists");
            return Err(Over::said(DUPLICATE, why));
        }
        if self.open.len() >= QUESTIONS_PER_SOCKET_MAX {
            let why = format!(
                "there are {QUESTIONS_PER_SOCKET_MAX} questions on this socket already: end some"
            );
            return self.fail(id, &why).await;
        }
        let trail = Trail::new(self.origin.clone());
        let caller = match enter(&self.app, &trail, credentials).await {
            Ok(caller) => caller,
            Err(error) => {
                // A wrong key is logged, not waited for.
                drop(self.app.engine.settle(&trail).await);
                return self.fail(id, &words(error)).await;
            }
        };
        let asked = Asked {
            app: self.app.clone(),
            caller,
        };
        let answers = graphql::answers(question, asked);
        let answers = settled(answers, self.app.engine.clone(), trail);
        self.asked += 1;
        let number = self.asked;
        let (to, last) = (self.answers.clone(), id.clone());
        let task = self.questions.spawn(async move {
            let mut answers = std::pin::pin!(answers);
            while let Some(response) = answers.next().await {
                let answer = Answer {
                    id: last.clone(),
                    number,
                    response: Some(response),
                };
                if to.send(answer).await.is_err() {
                    return;
                }
            }
            let end = Answer {
                id: last,
                number,
                response: None,
            };
            // Nobody hears it only when the socket is gone.
            let _ = to.send(end).await;
        });
        self.open.insert(id, Open { number, task });
        Ok(())
    }

    /// Hands an answer on.
    async fn answer(&mut self, id: String, answer: Option<Response>) -> Result<(), Over> {
        let Some(answer) = answer else {
            self.open.remove(&id);
            return self.send(&json!({ "type": "complete", "id": id })).await;
        };
        let message = json!({ "type": self.protocol.next(), "id": id, "payload": answer });
        self.send(&message).await
    }

    /// Answers a question that is not asked with what is wrong, and that this was all.
    async fn fail(&mut self, id: String, why: &str) -> Result<(), Over> {
        self.answer(id.clone(), Some(failed(why))).await?;
        self.answer(id, None).await
    }

    async fn pong(&mut self, payload: Option<Value>) -> Result<(), Over> {
        let mut pong = json!({ "type": "pong" });
        if let Some(payload) = payload {
            pong["payload"] = payload;
        }
        self.send(&pong).await
    }

    async fn hear(&mut self) -> Result<Option<ClientMessage>, Over> {
        let message = self.socket.recv().await;
        understand(message)
    }

    async fn send(&mut self, message: &Value) -> Result<(), Over> {
        self.send_message(Message::Text(message.to_string().into()))
            .await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), Over> {
        match timeout(SEND_LIMIT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over::Gone),
        }
    }

    /// Says goodbye.
    async fn close(mut self, code: u16, why: &str) {
        let end = why.floor_char_boundary(REASON_BYTES_MAX);
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from(&why[..end]),
        };
        let goodbye = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                // The other side answers with a close frame of its own.
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
            let _ = self.socket.close().await;
        };
        // Who does not answer is left.
        drop(timeout(CLOSE_LIMIT, goodbye).await);
    }
}

async fn enter(
    app: &App,
    trail: &Trail,
    credentials: &Credentials,
) -> grid_engine::Result<grid_engine::Caller> {
    let Credentials { user, key } = credentials;
    grid_engine::user::enter(&app.engine, trail, Some(user), key).await
}

/// What came, if it is a message of GraphQL.
fn understand(
    message: Option<Result<Message, axum::Error>>,
) -> Result<Option<ClientMessage>, Over> {
    let text = match message {
        None | Some(Ok(Message::Close(_))) => return Err(Over::Gone),
        Some(Err(error)) => {
            return Err(Over::said(BAD_REQUEST, format!("not understood: {error}")));
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(None),
        Some(Ok(Message::Binary(_))) => {
            return Err(Over::said(BAD_REQUEST, "messages are text"));
        }
        Some(Ok(Message::Text(text))) => text,
    };
    match ClientMessage::from_bytes(text.as_str()) {
        Ok(message) => Ok(Some(message)),
        Err(error) => Err(Over::said(
            BAD_REQUEST,
            format!("Invalid message received: {error}"),
        )),
    }
}

/// The same answers, each once what was looked at for it is written down.
fn settled(
    answers: impl Stream<Item = Response> + Send,
    engine: Engine,
    trail: Trail,
) -> impl Stream<Item = Response> + Send {
    answers.then(move |answer| {
        let (engine, trail) = (engine.clone(), trail.clone());
        async move {
            match engine.settle(&trail).await {
                Ok(()) => answer,
                Err(error) => failed(&words(error)),
            }
        }
    })
}

fn failed(why: &str) -> Response {
    Response::from_errors(vec![ServerError::new(why, None)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_sockets_and_gets_places_back() {
        let (sockets, user) = (Sockets::default(), UserId::from_entropy(1));
        let mut places: Vec<Place> = (0..SOCKETS_PER_USER_MAX)
            .map(|_| sockets.enter(user).expect("room"))
            .collect();
        assert!(sockets.enter(user).is_none());
        assert!(sockets.enter(UserId::from_entropy(2)).is_some(), "others");
        places.pop();
        assert!(sockets.enter(user).is_some());
        drop(places);
        assert!(sockets.0.lock().is_ok_and(|open| open.is_empty()));
    }
}

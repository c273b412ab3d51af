//! Large requests are kept whole until they are understood: how many of one user are read at a
//! time, and what is looked at before.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::world::{LIMIT, Person, World};

/// Bytes of each body, and of each piece of it.
const BODY: usize = 3 << 20;
const PIECE: usize = 256 << 10;

/// What is read of a body that does not say how long it is, before it needs a place, and what
/// may be on its way.
const SMALL: usize = (1 << 20) + 2 * PIECE;

/// Most of one user that is read at a time.
const AT_ONCE: usize = 4;

/// A large body: how much of it was taken.  It does not end before it may.
struct Large {
    taken: Arc<AtomicUsize>,
    answer: JoinHandle<Response>,
}

impl Large {
    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

fn body(taken: &Arc<AtomicUsize>, end: &watch::Sender<bool>) -> Body {
    let (taken, end) = (Arc::clone(taken), end.subscribe());
    let pieces = futures::stream::unfold((taken, end), |(taken, mut end)| async move {
        if taken.load(Ordering::SeqCst) < BODY {
            taken.fetch_add(PIECE, Ordering::SeqCst);
            let piece = Bytes::from_static(&[b' '; PIECE]);
            return Some((Ok::<_, Infallible>(piece), (taken, end)));
        }
        // An error says that the test is over.
        let _ = end.wait_for(|may| *may).await;
        None
    });
    Body::from_stream(pieces)
}

fn request(person: &Person, is_announced: bool, path: &str, body: Body) -> Request<Body> {
    let method = match path.contains("/parts/") {
        true => Method::PUT,
        false => Method::POST,
    };
    let request = person
        .request(method, path)
        .header(header::CONTENT_TYPE, "application/json");
    let request = match is_announced {
        true => request.header(header::CONTENT_LENGTH, BODY),
        false => request,
    };
    request.body(body).expect("a request")
}

fn send(
    world: &World,
    person: &Person,
    is_announced: bool,
    path: &str,
    end: &watch::Sender<bool>,
) -> Large {
    let taken = Arc::new(AtomicUsize::new(0));
    let request = request(person, is_announced, path, body(&taken, end));
    let router = crate::rest::router(world.app.clone());
    let answer = async move { router.oneshot(request).await.expect("it never fails") };
    Large {
        taken,
        answer: tokio::spawn(answer),
    }
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_of_one_user_wait_for_each_other_and_for_nobody_else() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    for (is_announced, unread) in [(true, 0), (false, SMALL)] {
        let (end, _) = watch::channel(false);
        let of_ada: Vec<Large> = (0..3 * AT_ONCE)
            .map(|_| send(&world, &world.ada, is_announced, "/snapshots", &end))
            .collect();
        let whole = || of_ada.iter().filter(|one| one.taken() >= BODY).count();
        wait_for("some are read", || whole() == AT_ONCE).await;
        let of_bob = send(&world, &bob, is_announced, "/snapshots", &end);
        wait_for("others' are read", || of_bob.taken() >= BODY).await;
        assert_eq!(whole(), AT_ONCE);
        for one in of_ada.iter().filter(|one| one.taken() < BODY) {
            assert!(one.taken() <= unread, "{}", one.taken());
        }
        // When they end, the others have their turn.
        end.send_replace(true);
        for one in of_ada.into_iter().chain([of_bob]) {
            let answer = tokio::time::timeout(LIMIT, one.answer).await;
            let answer = answer.expect("in time").expect("no panic");
            assert_eq!(answer.status().as_u16(), 400);
            assert_eq!(one.taken.load(Ordering::SeqCst), BODY);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_about_nothing_is_refused_unread() {
    let world = World::new().await;
    for path in [
        "/datastores/none/fetch",
        "/datastores/none:1/parts/0",
        "/datastores/none/parts?from=0",
    ] {
        for is_announced in [true, false] {
            let (end, _) = watch::channel(false);
            let taken = Arc::new(AtomicUsize::new(0));
            let body = body(&taken, &end);
            let mut request = request(&world.ada, is_announced, path, body);
            if path.contains("parts?") {
                *request.method_mut() = Method::PUT;
            }
            // Else what comes is thrown away behind the answer.
            let wait = "100-continue".parse().expect("a value");
            request.headers_mut().insert(header::EXPECT, wait);
            let answer = world.answer(request).await.refused(404);
            assert!(answer.contains("none"), "{answer}");
            assert_eq!(taken.load(Ordering::SeqCst), 0, "{path}");
        }
    }
}

//! Who may send bytes now.
//!
//! What is received takes memory, and often a thread, for as long as its sender likes.  So
//! there are [`RECEIVED_MAX`] places that senders share, and the others wait.  The same holds
//! for sources that the server fetches for somebody ([`FETCHED_MAX`]), and for large requests
//! that are kept whole until they are understood ([`REQUESTS_MAX`]); each has places of its
//! own, so that who has one may wait for another kind.
//!
//! They are shared so that nobody, however much or slowly they send, keeps another waiting:
//!
//! * everybody has one place of their own, which is nobody else's;
//! * of those that are shared, one may have as many as are left free.  Who sends alone has
//!   half of them; of two each has a third; and so on.
//!
//! Who waits for a place of their own share waits for themselves.  Their body is not read
//! meanwhile: what a connection that nobody reads from holds is some kilobytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_core::id::{NodeId, UserId};
use tokio::sync::oneshot;

use crate::Engine;
use crate::error::{Error, Result};

/// Bodies that are received at a time, over the whole server, beside one of each sender: each
/// takes some megabytes of memory.
/// Higher: hundreds at once take more memory; lower: one program's parts wait for each other.
pub const RECEIVED_MAX: usize = 48;

/// Sources that are fetched at a time, beside one of each user.  Higher: they take memory and
/// disk from each other; lower: a small one waits behind large ones of the same user.
pub(crate) const FETCHED_MAX: usize = 5;

/// Large requests that are read at a time, beside one of each sender: each may take a hundred
/// megabytes of memory, and some hundred more while it is understood.
/// Higher: that much at once; lower: one program's large requests wait for each other.
const REQUESTS_MAX: usize = 5;

/// Senders who have a place of their own at the same time.  Higher: with that many senders,
/// more memory; lower: of very many senders some wait for others.
const SENDERS_MAX: usize = 256;

/// How long a body waits for its place, where its sender does not give up earlier by itself.
/// Higher: who sends too much at once is told later; lower: programs with many slow uploads
/// at once fail.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// Most that one who sends alone is received of at a time.
pub const ALONE_MAX: usize = alone(RECEIVED_MAX);

/// What one alone has of so many shared places, with the own one.
const fn alone(shared: usize) -> usize {
    1 + shared.div_ceil(2)
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A person, by whichever of their programs.
    User(UserId),
    /// A machine that sends what its experiments left.
    Node(NodeId),
}

/// The places.
#[derive(Debug)]
pub(crate) struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// How many are shared.
    shared: usize,
    /// Those of them that nobody has.
    free: usize,
    /// How many each has, their own included.
    held: HashMap<Sender, usize>,
    /// In the order in which they came.
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    sender: Sender,
    granted: oneshot::Sender<Place>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<Mutex<State>>,
    /// `None` of one that reached nobody.
    sender: Option<Sender>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// So many that are shared, beside one of everybody.
    pub(crate) fn new(shared: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            shared,
            free: shared,
            held: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Those of large requests.
    pub(crate) fn of_requests() -> Self {
        Self::new(REQUESTS_MAX)
    }

    /// Waits for a place, for as long as `patience` says.
    pub(crate) async fn take(&self, sender: Sender, patience: Duration) -> Result<Place> {
        match tokio::time::timeout(patience, self.wait(sender)).await {
            Ok(place) => place,
            Err(_) => {
                let shared = lock(&self.0).shared;
                Err(too_many(alone(shared), patience))
            }
        }
    }

    /// Waits for a place, however long that takes.
    pub(crate) async fn wait(&self, sender: Sender) -> Result<Place> {
        let (granted, place) = oneshot::channel();
        let waiter = Waiter { sender, granted };
        {
            let mut state = lock(&self.0);
            state.waiting.push_back(waiter);
            state.grant(&self.0);
        }
        place.await.map_err(Error::internal)
    }
}

fn too_many(alone: usize, patience: Duration) -> Error {
    Error::TooMany(format!(
        "you send so much at once already that there was no place for this for {} seconds: \
         send less at a time (up to {alone} of this kind are taken from one user), or try again \
         when some have ended",
        patience.as_secs()
    ))
}

impl Engine {
    /// A place for a large request, before more of it is read: for as long as what was read
    /// is kept.
    pub async fn place_for_request(&self, sender: Sender) -> Result<Place> {
        self.inner.requests.take(sender, WAIT_MAX).await
    }
}

impl State {
    /// Gives places to those who wait and may have one.
    fn grant(&mut self, places: &Arc<Mutex<State>>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|waiter| !waiter.granted.is_closed());
        while let Some(next) = waiting.iter().position(|waiter| self.may(&waiter.sender)) {
            let Some(waiter) = waiting.remove(next) else {
                break;
            };
            self.count(waiter.sender.clone());
            let place = Place {
                state: Arc::clone(places),
                sender: Some(waiter.sender),
            };
            // Of who went away just now it is taken back at once: nobody may be told of it
            // while the state is held.
            if let Err(mut place) = waiter.granted.send(place)
                && let Some(sender) = place.sender.take()
            {
                self.uncount(&sender);
            }
        }
        self.waiting = waiting;
    }

    /// Whether somebody may have one more.
    fn may(&self, sender: &Sender) -> bool {
        match self.held.get(sender) {
            None => self.held.len() < SENDERS_MAX,
            Some(held) => self.free > held - 1,
        }
    }

    fn count(&mut self, sender: Sender) {
        let held = self.held.entry(sender).or_default();
        *held += 1;
        if *held > 1 {
            self.free -= 1;
        }
    }

    fn uncount(&mut self, sender: &Sender) {
        let Some(held) = self.held.get_mut(sender) else {
            return;
        };
        *held -= 1;
        match *held {
            0 => drop(self.held.remove(sender)),
            _ => self.free += 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let mut state = lock(&self.state);
            state.uncount(&sender);
            state.grant(&self.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn user(number: u128) -> Sender {
        Sender::User(UserId::from_entropy(number))
    }

    /// A place, if there is one at once.
    fn at_once(places: &Places, sender: &Sender) -> Option<Place> {
        // However often one test asks, it is not made to wait for that.
        let taken = tokio::task::unconstrained(places.take(sender.clone(), WAIT_MAX));
        taken.now_or_never().map(|taken| taken.expect("a place"))
    }

    /// As many as one gets at once.
    fn all(places: &Places, sender: &Sender) -> Vec<Place> {
        std::iter::from_fn(|| at_once(places, sender)).collect()
    }

    #[tokio::test]
    async fn nobody_has_so_much_that_others_have_none() {
        let places = Places::new(RECEIVED_MAX);
        let of_one = all(&places, &user(1));
        assert_eq!(of_one.len(), ALONE_MAX);
        let mut held = vec![of_one];
        // However many take all they can, the next has a place at once.
        for number in 2..=100 {
            let next = all(&places, &user(number));
            assert!(!next.is_empty(), "{number} waits for others");
            held.push(next);
        }
        assert_eq!(held[1].len(), 1 + RECEIVED_MAX / 4);
        let shared: usize = held.iter().map(|places| places.len() - 1).sum();
        assert_eq!(shared, RECEIVED_MAX);
        drop(held);
        let state = lock(&places.0);
        assert!(state.held.is_empty() && state.waiting.is_empty());
        assert_eq!(state.free, RECEIVED_MAX);
    }

    #[tokio::test]
    async fn of_few_places_everybody_has_one_too() {
        let places = Places::new(FETCHED_MAX);
        let greedy = all(&places, &user(1));
        assert_eq!(greedy.len(), 4);
        for number in 2..=20 {
            let next = at_once(&places, &user(number));
            assert!(next.is_some(), "{number} waits for others");
        }
    }

    #[tokio::test]
    async fn what_one_gives_back_goes_to_who_has_least() {
        let places = Places::new(RECEIVED_MAX);
        let mut greedy = all(&places, &user(1));
        let modest = all(&places, &user(2));
        let (one, two) = (user(1), user(2));
        let mut first = Box::pin(places.take(one, WAIT_MAX));
        let mut second = Box::pin(places.take(two, WAIT_MAX));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        greedy.pop();
        assert!((&mut first).now_or_never().is_none(), "one still has more");
        let got = (&mut second).now_or_never();
        let got = got.expect("at once").expect("a place");
        drop((got, modest));
        let got = (&mut first).now_or_never();
        assert!(got.is_some_and(|place| place.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_or_gives_up_leaves_nothing_behind() {
        let places = Places::new(RECEIVED_MAX);
        let mut held = all(&places, &user(1));
        let mut gone = Box::pin(places.take(user(1), WAIT_MAX));
        assert!((&mut gone).now_or_never().is_none());
        let told = places.take(user(1), Duration::from_secs(50)).await;
        let told = told.expect_err("too many").to_string();
        assert!(told.contains("for 50 seconds"), "{told}");
        // It is granted and nobody looks any more.
        held.pop();
        drop(gone);
        assert!(at_once(&places, &user(1)).is_some());
        drop(held);
        assert_eq!(all(&places, &user(1)).len(), ALONE_MAX);
    }
}

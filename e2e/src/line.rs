//! A way to a server that is slow, falls silent in the middle, or breaks.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::moment;

/// Bytes that are handed on at a time.
const PIECE_BYTES: usize = 16 << 10;

/// How often it is looked whether a line that is silent goes on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a line does to what is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hands it on.
    Through,
    /// Hands so many kibibytes on in a second, on each connection.
    Paced(u64),
    /// Hands so many bytes on in all, and then nothing, however long anybody waits.
    Silent(u64),
    /// Hands so many bytes on in all, and then breaks.
    Breaks(u64),
    /// Answers itself that the server is busy, as S3 says it.
    Busy,
}

/// What the threads of a line share.
struct State {
    mode: Mutex<Mode>,
    /// Bytes of answers since it has this mode.
    answered: AtomicU64,
    /// Requests that came while it has this mode.
    asked: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be handed on now of so many bytes; nothing when it breaks.
    fn may(&self, length: usize) -> Option<usize> {
        loop {
            let so_far = self.answered.load(Ordering::SeqCst);
            let left = |most: u64| usize::try_from(most.saturating_sub(so_far));
            let may = match self.mode() {
                Mode::Through | Mode::Busy => length,
                Mode::Paced(kibibytes) => {
                    let micros = length as u64 * 1_000_000 / (kibibytes * 1_024);
                    moment(Duration::from_micros(micros));
                    length
                }
                Mode::Silent(most) => left(most).unwrap_or(length).min(length),
                Mode::Breaks(most) => match left(most).unwrap_or(length).min(length) {
                    0 => return None,
                    some => some,
                },
            };
            if may > 0 {
                self.answered.fetch_add(may as u64, Ordering::SeqCst);
                return Some(may);
            }
            moment(LOOK_EVERY);
        }
    }
}

/// A line to one server.
pub struct Line {
    address: SocketAddr,
    state: Arc<State>,
}

impl Line {
    /// One to the server at `url`, which hands everything on.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn to(url: &str) -> Self {
        let to = url.trim_start_matches("http://").trim_end_matches('/');
        let to: SocketAddr = to.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Through),
            answered: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || match shared.mode() {
                    Mode::Busy => busy(stream, &shared),
                    // Who breaks off is noticed at the other end.
                    _ => join(&stream, to, &shared),
                });
            }
        });
        Self { address, state }
    }

    /// Where it begins.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on; connections that are open end.
    pub fn becomes(&self, mode: Mode) {
        *self
            .state
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mode;
        self.state.answered.store(0, Ordering::SeqCst);
        self.state.asked.store(0, Ordering::SeqCst);
        let mut open = self
            .state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Requests, or connections, since then.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }
}

/// Says that the server is busy.
fn busy(mut stream: TcpStream, state: &State) -> io::Result<()> {
    const SAID: &str = "<Error><Code>SlowDown</Code><Message>Please reduce your request \
                        rate.</Message></Error>";
    state.asked.fetch_add(1, Ordering::SeqCst);
    let mut head = [0; PIECE_BYTES];
    let _ = stream.read(&mut head)?;
    let length = SAID.len();
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{SAID}"
    );
    stream.write_all(answer.as_bytes())
}

fn join(here: &TcpStream, to: SocketAddr, state: &Arc<State>) -> io::Result<()> {
    let there = TcpStream::connect(to)?;
    {
        let mut open = state.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([here.try_clone()?, there.try_clone()?]);
    }
    let (mut asks, mut asked) = (here.try_clone()?, there.try_clone()?);
    let counting = Arc::clone(state);
    std::thread::spawn(move || {
        let mut piece = [0; PIECE_BYTES];
        while let Ok(length @ 1..) = asks.read(&mut piece) {
            counting.asked.fetch_add(1, Ordering::SeqCst);
            if asked.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        let _ = asked.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (there, here.try_clone()?);
    let mut piece = [0; PIECE_BYTES];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let mut rest = &piece[..length];
        while !rest.is_empty() {
            let Some(may) = state.may(rest.len()) else {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return Ok(());
            };
            let (now, later) = rest.split_at(may);
            to.write_all(now)?;
            rest = later;
        }
    }
    to.shutdown(Shutdown::Both)
}

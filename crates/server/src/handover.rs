//! Taking open files from programs on this machine ([`grid_api::handover`]).
//!
//! Anybody on the machine can connect, but only who holds a ticket is listened to; tickets
//! are given to users that may upload files, in answer to a request of theirs.  What arrives
//! is no more than an upload: it can be named by those who may name what that user sent.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid_api::blob::BlobsNamed;
use grid_api::error::ErrorCode;
use grid_api::handover::{self, BATCH_FILES_MAX, FILE_BYTES_MIN, Message, Offer};
use grid_api::upload::written;
use grid_core::id::UserId;
use grid_engine::Caller;
use grid_engine::audit::{Origin, Trail};
use grid_engine::blob::Files;
use grid_engine::ticket::{self, Purpose};
use grid_engine::{Clock as _, Engine, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, Result};

/// Connections at once, each with some megabytes of memory while it is busy.
/// Higher: more memory and threads.  Lower: others send their files, which takes longer.
const CONNECTIONS_MAX: u32 = 32;

/// Connections of one user.  Higher: one user takes all places; lower: the processors of
/// the machine are not all busy.
pub(crate) const CONNECTIONS_OF_ONE_MAX: usize = 8;

/// How long the ticket may take to come.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long nothing may come, or be taken.  Higher: who only wants to hold a place holds it
/// longer; lower: who looks at slow files between two is cut off.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// The pause after a connection could not be accepted, for want of descriptors say.
/// Higher: the next one waits; lower: it is tried in vain.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a server that stops waits for the last piece of a file to be read and stored.
/// Higher: one on a disk that hangs holds it up; lower: a slow disk is left behind.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long a ticket is good, in milliseconds, for connections that begin.
/// Higher: one that got lost is good for longer; lower: slow machines have to ask again.
const TICKET_LIFE_MS: i64 = 60_000;

/// Whoever waits hears of progress when so many bytes were read.  Higher: bars jump; lower:
/// more messages.
const TELL_BYTES: u64 = 4 << 20;

/// The socket, and who is there.
#[derive(Clone)]
pub(crate) struct Handover {
    /// Nothing where the system has no such sockets.
    socket: Option<Arc<str>>,
    /// Makes proofs: drawn at each start.
    key: [u8; 32],
    here: Arc<Mutex<HashMap<UserId, usize>>>,
}

impl Handover {
    /// Binds a socket under a new name; where that cannot be done, files are sent.
    pub(crate) fn open() -> (Self, Option<StdListener>) {
        let name = format!("grid-{:032x}", SystemClock.entropy());
        let bound = handover::address(&name).and_then(|address| {
            let listener = StdListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = bound
            .inspect_err(|error| tracing::info!(%error, "open files are not taken"))
            .ok();
        let drawn = [(); 2].map(|()| SystemClock.entropy().to_le_bytes());
        let handover = Self {
            socket: listener.is_some().then(|| name.into()),
            key: *blake3::hash(&drawn.concat()).as_bytes(),
            here: Arc::default(),
        };
        (handover, listener)
    }

    /// Where a caller, who may upload files, can hand them over.
    pub(crate) fn offer(&self, engine: &Engine, caller: &Caller) -> Option<Offer> {
        let socket = self.socket.as_deref()?.to_owned();
        let ticket = ticket::issue(engine, caller, &Purpose::HandOver, TICKET_LIFE_MS);
        Some(Offer {
            socket,
            proof: self.proof(&ticket.text),
            ticket: ticket.text,
        })
    }

    /// What nobody else can say to this ticket.
    fn proof(&self, ticket: &str) -> String {
        let proof = blake3::keyed_hash(&self.key, ticket.as_bytes());
        proof.to_hex().to_string()
    }

    /// Takes files until the server stops, and until nobody reads one any more: who comes
    /// after this server must be alone.
    pub(crate) async fn serve(
        self,
        listener: StdListener,
        engine: Engine,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, "open files are not taken");
                stop.cancelled().await;
                return Ok(());
            }
        };
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = connections.join_next(), if !connections.is_empty() => continue,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                // Whoever is turned away sends the files.
                continue;
            };
            let (handover, engine) = (self.clone(), engine.clone());
            connections.spawn(async move {
                let connection = handover.connection(&engine, stream, Arc::new(place));
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "whoever handed files over went away");
                }
            });
        }
        connections.shutdown().await;
        // What reads a file has a place until it has ended, too.
        if timeout(END_LIMIT, room.acquire_many(CONNECTIONS_MAX))
            .await
            .is_err()
        {
            tracing::warn!("a file that was handed over cannot be read, nor be given up");
        }
        Ok(())
    }

    /// Listens to one program until it hangs up.
    async fn connection(
        &self,
        engine: &Engine,
        mut stream: UnixStream,
        room: Arc<OwnedSemaphorePermit>,
    ) -> io::Result<()> {
        let text = timeout(HELLO_LIMIT, hello(&mut stream)).await??;
        let (caller, _place) = match self.admit(engine, &text).await {
            Ok(admitted) => admitted,
            Err(failure) => {
                let refused = handover::answer(&Err(failure.body().error))?;
                return say(&mut stream, &refused).await;
            }
        };
        let admitted = handover::admitted(&self.proof(&text));
        say(&mut stream, &admitted).await?;
        let mut message = next(&stream).await?;
        while let Some(first) = message {
            let became = batch(engine, &caller, (&mut stream, &room), first).await?;
            let (became, is_over) = match became {
                Ok(named) => (Ok(named), false),
                Err(failure) => (Err(failure.body().error), true),
            };
            say(&mut stream, &handover::answer(&became)?).await?;
            if is_over {
                break;
            }
            message = next(&stream).await?;
        }
        Ok(())
    }

    /// Who shows this ticket, and a place for them.
    async fn admit(&self, engine: &Engine, text: &str) -> Result<(Caller, Place)> {
        let trail = Trail::new(Origin {
            address: "this machine".to_owned(),
            client: String::new(),
        });
        let caller = ticket::admit(engine, &trail, text, &Purpose::HandOver).await?;
        caller.require_run_scope("upload files")?;
        let mut here = self.here();
        let connections = here.entry(caller.user.id).or_default();
        if *connections >= CONNECTIONS_OF_ONE_MAX {
            let message =
                format!("you hand files over by {CONNECTIONS_OF_ONE_MAX} connections already");
            return Err(Failure::new(ErrorCode::TooMany, message));
        }
        *connections += 1;
        let user = caller.user.id;
        let handover = self.clone();
        Ok((caller, Place { handover, user }))
    }

    fn here(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections of a user.
struct Place {
    handover: Handover,
    user: UserId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.handover.here();
        if let Some(connections) = here.get_mut(&self.user) {
            *connections -= 1;
            if *connections == 0 {
                here.remove(&self.user);
            }
        }
    }
}

/// The ticket that comes first.
async fn hello(stream: &mut UnixStream) -> io::Result<String> {
    let length = stream.read_u8().await?;
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Waits for the next message.
async fn next(stream: &UnixStream) -> io::Result<Option<Message>> {
    let message = stream.async_io(Interest::READABLE, || handover::receive(stream));
    timeout(SILENCE_LIMIT, message).await?
}

/// Takes the files of a batch; says what they are once all are stored.
async fn batch(
    engine: &Engine,
    caller: &Caller,
    (stream, room): (&mut UnixStream, &Arc<OwnedSemaphorePermit>),
    first: Message,
) -> io::Result<Result<BlobsNamed>> {
    let mut files = match timeout(SILENCE_LIMIT, Files::begin(engine, caller)).await {
        Ok(Ok(files)) => files,
        Ok(Err(error)) => return Ok(Err(error.into())),
        Err(_) => {
            let message = "others of this user send files: there is no place for more";
            return Ok(Err(Failure::new(ErrorCode::TooMany, message)));
        }
    };
    let mut count = 0;
    let mut message = Some(first);
    while let Some(Message::File(file, length)) = message {
        count += 1;
        // Whatever file system it is on may let one wait.
        let checked = move || check(&file, length, count).map(|()| file);
        let checked = tokio::task::spawn_blocking(checked).await;
        let file = match checked.map_err(io::Error::other)? {
            Ok(file) => file,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Err(failure) = take(&mut files, (stream, room), file, length).await? {
            return Ok(Err(failure));
        }
        message = next(stream).await?;
    }
    if message.is_none() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(files
        .finish()
        .await
        .map_err(Failure::from)
        .map(|named| BlobsNamed {
            blobs: written(&named.blobs),
            new_bytes: named.new_bytes,
            handover: None,
        }))
}

/// Refuses what is not the beginning of a file on a disk: others may wait for ever when they
/// are read, or depend on who reads them.
fn check(file: &File, length: u64, count: usize) -> Result<()> {
    let metadata = file.metadata();
    let is_one = metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() >= length);
    let refused = |message: &str| Err(Failure::new(ErrorCode::Conflict, message));
    if !is_one || length < FILE_BYTES_MIN {
        return refused("what was handed over is no file of that length");
    }
    if count > BATCH_FILES_MAX {
        return refused("too many files were handed over at a time");
    }
    Ok(())
}

/// Takes one file, and says on the way how far that is.
async fn take(
    files: &mut Files,
    (stream, room): (&mut UnixStream, &Arc<OwnedSemaphorePermit>),
    file: File,
    length: u64,
) -> io::Result<Result<()>> {
    let reading = Arc::new(Reading::default());
    // However this ends, the file is read no further.
    let _waits = Waits(Arc::clone(&reading));
    let (read, place) = (Arc::clone(&reading), Arc::clone(room));
    let taken = files.take(file, length, move |bytes| {
        let _place = &place;
        read.add(bytes)
    });
    tokio::pin!(taken);
    let taken = loop {
        tokio::select! {
            taken = &mut taken => break taken,
            () = reading.more.notified() => {
                tell(stream, &reading).await?;
            }
        }
    };
    if let Err(error) = taken {
        return Ok(Err(error.into()));
    }
    tell(stream, &reading).await?;
    Ok(Ok(()))
}

/// How far the reading of a file is.
#[derive(Default)]
struct Reading {
    /// Bytes that nobody was told of.
    untold: AtomicU64,
    more: Notify,
    /// Nobody waits for it any more.
    is_alone: AtomicBool,
}

/// Somebody waits for a file, until this is dropped.
struct Waits(Arc<Reading>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.is_alone.store(true, Ordering::Relaxed);
    }
}

impl Reading {
    fn add(&self, bytes: u64) -> bool {
        let untold = self.untold.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if untold >= TELL_BYTES {
            self.more.notify_one();
        }
        !self.is_alone.load(Ordering::Relaxed)
    }
}

async fn tell(stream: &mut UnixStream, reading: &Reading) -> io::Result<()> {
    match reading.untold.swap(0, Ordering::Relaxed) {
        0 => Ok(()),
        bytes => say(stream, &handover::read(bytes)).await,
    }
}

/// Says something to who may not listen.
async fn say(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    timeout(SILENCE_LIMIT, stream.write_all(bytes)).await?
}

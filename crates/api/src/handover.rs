//! Open files that are handed to a server on the same machine, which reads them itself.
//!
//! Between two programs of one machine a file need not be sent: the one opens it, and the
//! other is given the open file over a Unix socket ([`unix(7)`], `SCM_RIGHTS`).  Who hands a
//! file over could open it, so nobody gets to read what they may not; and no path is named.
//!
//! The socket and a ticket are told in answer to a request ([`Offer`]).  Whoever connects
//! sends the ticket, with its length before it (1 byte).  The server shows that it is the one
//! that gave the ticket out ([`ADMITTED`] and the proof of the offer): else whoever took the
//! name of a server that has ended would be given files.  Then come any number of batches: for each file its length (8 bytes, little
//! endian) with the file, and [`END`].  The server says how many bytes it has read, 8 bytes
//! each time, and at the end what the files are: [`NAMED`] or [`FAILED`], the number of
//! bytes of what follows (4 bytes, little endian), and a [`BlobsNamed`] or an
//! [`ErrorDetail`] as JSON.
//!
//! [`unix(7)`]: https://man7.org/linux/man-pages/man7/unix.7.html

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::blob::BlobsNamed;
use crate::error::ErrorDetail;

/// Shorter files are sent, many in one request.
/// Higher: more bytes travel.  Lower: more messages; files without a length that the system
/// makes as they are read (`/proc`) must stay below.
pub const FILE_BYTES_MIN: u64 = 256 << 10;

/// Files of a batch.  Higher: one answer is longer; lower: the disk is waited for more often.
pub const BATCH_FILES_MAX: usize = 1_000;

/// A batch is over.
const END: u64 = u64::MAX;

/// What the files of a batch are follows.
const NAMED: u64 = u64::MAX;

/// Why they are not kept follows.
const FAILED: u64 = u64::MAX - 1;

/// The proof of the offer follows.
const ADMITTED: u64 = u64::MAX - 2;

/// Digits of a proof.
pub const PROOF_BYTES: usize = 64;

/// Longest answer in bytes: that many names, and some more.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// How long the server may say nothing while it reads or waits for its disk.
/// Higher: one that hangs is noticed later; lower: slow disks break it off.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Where a server takes open files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offer {
    /// An abstract Unix socket.
    pub socket: String,
    /// What to say there first; good for a minute.
    pub ticket: String,
    /// What the server answers to it, in 64 digits.
    pub proof: String,
}

/// The address of such a socket.
pub fn address(socket: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(socket)
}

/// What comes from whoever hands files over.
#[derive(Debug)]
pub enum Message {
    /// A file, of which so many bytes are meant.
    File(File, u64),
    /// The batch is over.
    End,
}

/// What a server says.
#[derive(Debug)]
pub enum Told {
    /// So many more bytes were read.
    Read(u64),
    /// The batch is kept; what its files are.
    Named(BlobsNamed),
    /// It is not, and nothing follows.
    Failed(ErrorDetail),
}

/// The side that hands over.
#[derive(Debug)]
pub struct Giver {
    stream: UnixStream,
}

impl Giver {
    /// Connects, and waits until the server has shown that it is the right one; or what it
    /// says why it does not take files.
    pub fn connect(offer: &Offer) -> io::Result<Result<Self, ErrorDetail>> {
        let mut stream = UnixStream::connect_addr(&address(&offer.socket)?)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let length = u8::try_from(offer.ticket.len()).map_err(io::Error::other)?;
        let hello = [&[length], offer.ticket.as_bytes()].concat();
        stream.write_all(&hello)?;
        let mut giver = Self { stream };
        let mut number = [0; 8];
        giver.stream.read_exact(&mut number)?;
        match u64::from_le_bytes(number) {
            ADMITTED => {
                let mut proof = [0; PROOF_BYTES];
                giver.stream.read_exact(&mut proof)?;
                match proof == offer.proof.as_bytes() {
                    true => Ok(Ok(giver)),
                    false => Err(io::ErrorKind::PermissionDenied.into()),
                }
            }
            FAILED => {
                let text = giver.text()?;
                Ok(Err(serde_json::from_slice(&text)?))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Hands over the first `length` bytes of a file.
    pub fn give(&self, file: &File, length: u64) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        beside.push(SendAncillaryMessage::ScmRights(&files));
        self.send(length, &mut beside)
    }

    /// Ends a batch.
    pub fn end(&self) -> io::Result<()> {
        self.send(END, &mut SendAncillaryBuffer::default())
    }

    fn send(&self, number: u64, beside: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
        let bytes = number.to_le_bytes();
        loop {
            let parts = [IoSlice::new(&bytes)];
            match sendmsg(&self.stream, &parts, beside, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for what the server says next.
    pub fn hear(&mut self) -> io::Result<Told> {
        let mut number = [0; 8];
        self.stream.read_exact(&mut number)?;
        let number = u64::from_le_bytes(number);
        if number < ADMITTED {
            return Ok(Told::Read(number));
        }
        let answer = self.text()?;
        match number {
            NAMED => Ok(Told::Named(serde_json::from_slice(&answer)?)),
            FAILED => Ok(Told::Failed(serde_json::from_slice(&answer)?)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What stands behind its length.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text)?;
        Ok(text)
    }
}

/// Takes the next message, without waiting where the socket does not; `None` when the
/// other side has hung up.
pub fn receive(stream: impl AsFd) -> io::Result<Option<Message>> {
    let mut number = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut number)];
    let received = recvmsg(stream, &mut parts, &mut beside, flags)?;
    // Whatever else came beside it is closed here.
    let file = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .last();
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    match (received.bytes, u64::from_le_bytes(number), file) {
        (0, _, _) => Ok(None),
        (8, END, None) => Ok(Some(Message::End)),
        (8, length, Some(file)) if length != END => {
            Ok(Some(Message::File(File::from(file), length)))
        }
        _ => Err(broken()),
    }
}

/// How a server shows that it is the one that made an offer.
pub fn admitted(proof: &str) -> Vec<u8> {
    [&ADMITTED.to_le_bytes()[..], proof.as_bytes()].concat()
}

/// How a server says that it has read so many bytes.
pub fn read(bytes: u64) -> [u8; 8] {
    bytes.to_le_bytes()
}

/// How a server says what became of a batch.
pub fn answer(became: &Result<BlobsNamed, ErrorDetail>) -> io::Result<Vec<u8>> {
    let (number, text) = match became {
        Ok(named) => (NAMED, serde_json::to_vec(named)?),
        Err(detail) => (FAILED, serde_json::to_vec(detail)?),
    };
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    Ok([&number.to_le_bytes()[..], &length.to_le_bytes()[..], &text].concat())
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Giver, UnixStream) {
        let (near, far) = UnixStream::pair().expect("two ends");
        (Giver { stream: near }, far)
    }

    #[test]
    fn files_arrive_open_in_their_order_and_the_end_behind_them() {
        let (giver, far) = pair();
        for text in ["first", "second"] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            file.rewind().expect("at its begin");
            giver.give(&file, text.len() as u64).expect("given");
        }
        giver.end().expect("ended");
        drop(giver);
        for text in ["first", "second"] {
            let message = receive(&far).expect("received").expect("a message");
            let Message::File(mut file, length) = message else {
                panic!("not a file: {message:?}");
            };
            let mut read = String::new();
            file.read_to_string(&mut read).expect("readable");
            assert_eq!((read.as_str(), length), (text, text.len() as u64));
        }
        let end = receive(&far).expect("received");
        assert!(matches!(end, Some(Message::End)), "{end:?}");
        assert!(receive(&far).expect("received").is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for sent in [&b"short"[..], &7_u64.to_le_bytes()] {
            let (mut giver, far) = pair();
            giver.stream.write_all(sent).expect("sent");
            let refused = receive(&far).expect_err("a length without a file, or less");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
        let (giver, far) = pair();
        let file = tempfile::tempfile().expect("a file");
        giver.give(&file, END).expect("given");
        assert!(receive(&far).is_err(), "an end with a file");
    }

    #[test]
    fn what_a_server_says_is_understood() {
        let named = BlobsNamed {
            blobs: vec!["a".repeat(64)],
            new_bytes: 9,
            handover: None,
        };
        let failed = ErrorDetail {
            code: crate::error::ErrorCode::Full,
            message: "the disk is full".to_owned(),
            hint: None,
        };
        let (mut giver, mut far) = pair();
        far.write_all(&read(4_096)).expect("said");
        far.write_all(&answer(&Ok(named.clone())).expect("an answer"))
            .expect("said");
        far.write_all(&answer(&Err(failed.clone())).expect("an answer"))
            .expect("said");
        far.write_all(&NAMED.to_le_bytes()).expect("said");
        far.write_all(&u32::MAX.to_le_bytes()).expect("said");
        assert!(matches!(giver.hear(), Ok(Told::Read(4_096))));
        assert!(matches!(giver.hear(), Ok(Told::Named(told)) if told == named));
        assert!(matches!(giver.hear(), Ok(Told::Failed(told)) if told == failed));
        assert!(giver.hear().is_err(), "an answer without end");
    }
}

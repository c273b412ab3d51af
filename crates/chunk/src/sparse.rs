//! Content on its way over a line, whose long runs of zeros are said in a few bytes.
//!
//! It is a sequence of frames, each of 8 bytes (little endian): how many bytes of content
//! it stands for; and, in the highest bit, whether they are zeros.  If not, they follow.

/// Length of the head of a frame in bytes.
pub const FRAME_BYTES: usize = 8;

/// The media type of such a body.
pub const MEDIA_TYPE: &str = "application/vnd.grid.sparse";

/// What makes it a frame of zeros.
const ZEROS: u64 = 1 << 63;

/// The head of so many bytes that follow.
pub fn bytes_frame(len: u64) -> [u8; FRAME_BYTES] {
    (len & !ZEROS).to_le_bytes()
}

/// The frame that stands for so many zeros.
pub fn zeros_frame(len: u64) -> [u8; FRAME_BYTES] {
    (len | ZEROS).to_le_bytes()
}

/// A part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(u64),
}

impl Part<'_> {
    /// How many bytes of content it is.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes frames apart as they come.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; FRAME_BYTES],
    have: usize,
    /// Bytes of the present frame that are still to come.
    left: u64,
}

impl Frames {
    /// The next part of `bytes`, which it is taken from; nothing, when more has to come.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (now, later) = bytes.split_at(most.min(bytes.len()));
                self.left -= now.len() as u64;
                *bytes = later;
                return Some(Part::Bytes(now));
            }
            let (now, later) = bytes.split_at((FRAME_BYTES - self.have).min(bytes.len()));
            if let Some(room) = self.head.get_mut(self.have..self.have + now.len()) {
                room.copy_from_slice(now);
            }
            self.have += now.len();
            *bytes = later;
            if self.have == FRAME_BYTES {
                self.have = 0;
                let head = u64::from_le_bytes(self.head);
                if head & ZEROS != 0 {
                    return Some(Part::Zeros(head & !ZEROS));
                }
                self.left = head;
            }
        }
        None
    }

    /// Whether a frame is over: the content may end here.
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_however_they_are_cut() {
        let mut sent = Vec::new();
        sent.extend_from_slice(&bytes_frame(5));
        sent.extend_from_slice(b"bytes");
        sent.extend_from_slice(&zeros_frame(1 << 40));
        sent.extend_from_slice(&bytes_frame(3));
        sent.extend_from_slice(b"end");
        for step in 1..sent.len() {
            let (mut frames, mut said) = (Frames::default(), String::new());
            for mut piece in sent.chunks(step) {
                while let Some(part) = frames.next(&mut piece) {
                    match part {
                        Part::Bytes(bytes) => said += std::str::from_utf8(bytes).unwrap(),
                        Part::Zeros(len) => said += &format!("[{len}]"),
                    }
                }
            }
            assert_eq!(said, format!("bytes[{}]end", 1_u64 << 40), "by {step}");
            assert!(frames.is_between());
        }
        let mut frames = Frames::default();
        assert_eq!(frames.next(&mut &bytes_frame(9)[..]), None);
        assert!(!frames.is_between());
    }
}

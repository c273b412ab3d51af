//! Public SSH keys: the line that `ssh-keygen` writes into a `.pub` file.
//!
//! What is inside is looked at, not only the words around it: a key that no server would
//! take is refused when it is added, and not when somebody waits to get in.  Fingerprints
//! are those that `ssh-keygen -l` shows.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

/// Longest line, in bytes: an RSA key of 16,384 bits has 2.8 KiB.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// Longest comment that is kept, in bytes.
const COMMENT_BYTES_MAX: usize = 256;

/// Shortest RSA key, in bits.  Lower: OpenSSH refuses to use it.
const RSA_BITS_MIN: usize = 2_048;

/// Longest RSA key, in bits, as in OpenSSH.
const RSA_BITS_MAX: usize = 16_384;

/// Why a text is no public key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other half.
    #[error("this is a private key: keep it to yourself, and give the file that ends in .pub")]
    Private,
    /// More than one line, or none.
    #[error("a public key is one line, like the one in ~/.ssh/id_ed25519.pub")]
    NotOneLine,
    /// Too long.
    #[error("a public key has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// A kind that is not taken.
    #[error(
        "'{0}' is no kind of key that can be used: take ssh-ed25519, ecdsa-sha2-nistp256, \
         -384 or -521, ssh-rsa, or one on a security key"
    )]
    Kind(String),
    /// What is inside is not what is said outside.
    #[error("the key is damaged: {0}")]
    Damaged(&'static str),
    /// An RSA key that is too short or too long.
    #[error("the RSA key has {0} bits: it needs {RSA_BITS_MIN} to {RSA_BITS_MAX}")]
    RsaBits(usize),
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    bytes: Vec<u8>,
    comment: String,
}

/// Kinds, and what is inside of each.
const KINDS: [(&str, Inside); 7] = [
    ("ssh-ed25519", Inside::Ed25519),
    ("ssh-rsa", Inside::Rsa),
    ("ecdsa-sha2-nistp256", Inside::Curve("nistp256", 65)),
    ("ecdsa-sha2-nistp384", Inside::Curve("nistp384", 97)),
    ("ecdsa-sha2-nistp521", Inside::Curve("nistp521", 133)),
    ("sk-ssh-ed25519@openssh.com", Inside::SecurityEd25519),
    (
        "sk-ecdsa-sha2-nistp256@openssh.com",
        Inside::SecurityCurve("nistp256", 65),
    ),
];

#[derive(Debug, Clone, Copy)]
enum Inside {
    Ed25519,
    Rsa,
    /// The name of the curve, and the bytes of a point on it.
    Curve(&'static str, usize),
    SecurityEd25519,
    SecurityCurve(&'static str, usize),
}

impl PublicKey {
    /// What kind of key it is: `ssh-ed25519`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What its owner wrote behind it.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// `SHA256:` and the hash in base64, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::digest(&self.bytes);
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(hash))
    }
}

/// The line, without anything around it.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, BASE64_STANDARD.encode(&self.bytes))?;
        if self.comment.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.comment)
        }
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let line = text.trim();
        if line.contains("PRIVATE KEY-----") {
            return Err(Error::Private);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(Error::TooLong);
        }
        if line.lines().count() != 1 {
            return Err(Error::NotOneLine);
        }
        let mut words = line.splitn(3, char::is_whitespace);
        let (word, encoded) = (words.next().unwrap_or_default(), words.next());
        let Some((kind, inside)) = KINDS.into_iter().find(|(kind, _)| *kind == word) else {
            let shown = word.chars().take(64).collect();
            return Err(Error::Kind(shown));
        };
        let encoded = encoded.ok_or(Error::Damaged("its bytes are missing"))?;
        let bytes = BASE64_STANDARD
            .decode(encoded.trim())
            .map_err(|_| Error::Damaged("its bytes are not base64"))?;
        check(kind, inside, &bytes)?;
        let comment = words.next().unwrap_or_default().trim();
        let end = comment.floor_char_boundary(COMMENT_BYTES_MAX);
        Ok(Self {
            kind,
            bytes,
            comment: comment[..end].replace(char::is_control, " "),
        })
    }
}

/// Whether the bytes are a key of this kind and nothing else.
fn check(kind: &str, inside: Inside, bytes: &[u8]) -> Result<(), Error> {
    let mut fields = Fields(bytes);
    if fields.next()? != kind.as_bytes() {
        return Err(Error::Damaged("its kind is another one than it says"));
    }
    match inside {
        Inside::Ed25519 => fields.point(32, None)?,
        Inside::SecurityEd25519 => {
            fields.point(32, None)?;
            fields.next()?;
        }
        Inside::Curve(curve, len) => fields.curve(curve, len)?,
        Inside::SecurityCurve(curve, len) => {
            fields.curve(curve, len)?;
            fields.next()?;
        }
        Inside::Rsa => {
            if bits(fields.next()?) < 2 {
                return Err(Error::Damaged("its exponent is too small"));
            }
            let bits = bits(fields.next()?);
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                return Err(Error::RsaBits(bits));
            }
        }
    }
    if fields.0.is_empty() {
        Ok(())
    } else {
        Err(Error::Damaged("there is more in it than a key"))
    }
}

/// Bits of a number, without the zeros before it.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    match number.get(zeros) {
        Some(first) => (number.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

/// Fields of RFC 4251: each with its length before it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<&'a [u8], Error> {
        let short = || Error::Damaged("it is cut off");
        let (len, rest) = self.0.split_first_chunk::<4>().ok_or_else(short)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| short())?;
        let (field, rest) = rest.split_at_checked(len).ok_or_else(short)?;
        self.0 = rest;
        Ok(field)
    }

    fn point(&mut self, len: usize, first: Option<u8>) -> Result<(), Error> {
        let point = self.next()?;
        if point.len() == len && first.is_none_or(|first| point.first() == Some(&first)) {
            Ok(())
        } else {
            Err(Error::Damaged("its point has another length"))
        }
    }

    fn curve(&mut self, curve: &str, len: usize) -> Result<(), Error> {
        /// Of a point that is written whole.
        const UNCOMPRESSED: u8 = 4;
        if self.next()? != curve.as_bytes() {
            return Err(Error::Damaged("its curve is another one than it says"));
        }
        self.point(len, Some(UNCOMPRESSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `ssh-keygen`, with the fingerprints that `ssh-keygen -l` showed.
    const MADE: [(&str, &str); 3] = include!("ssh_key/made.in");

    fn blob(fields: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        for field in fields {
            bytes.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(field);
        }
        BASE64_STANDARD.encode(bytes)
    }

    #[test]
    fn keys_of_ssh_keygen_are_taken_and_known_by_their_fingerprints() {
        for (line, fingerprint) in MADE {
            let key: PublicKey = line.parse().expect(line);
            assert_eq!(key.fingerprint(), fingerprint);
            assert_eq!(key.to_string(), line);
            assert_eq!(key.comment(), "ada@example.org");
            let spaced = format!("  {line}  \n");
            assert_eq!(spaced.parse::<PublicKey>(), Ok(key));
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_by_name() {
        let check = |text: &str, expected: &str| {
            let said = text.parse::<PublicKey>().expect_err(text).to_string();
            assert!(said.contains(expected), "{said}");
        };
        let (line, _) = MADE[0];
        check("", "one line");
        check(&format!("{line}\n{line}"), "one line");
        check(
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----",
            "keep it to yourself",
        );
        check("ssh-dss AAAAB3NzaC1kc3MAAACB", "'ssh-dss' is no kind");
        check(&format!("command=\"ls\" {line}"), "is no kind");
        check("ssh-ed25519", "bytes are missing");
        check("ssh-ed25519 &&&&", "not base64");
        let other = blob(&[b"ssh-rsa", &[0; 32]]);
        check(&format!("ssh-ed25519 {other}"), "another one than it says");
        let short = blob(&[b"ssh-ed25519", &[1; 31]]);
        check(&format!("ssh-ed25519 {short}"), "another length");
        let more = blob(&[b"ssh-ed25519", &[1; 32], b"more"]);
        check(&format!("ssh-ed25519 {more}"), "more in it");
        let weak = blob(&[b"ssh-rsa", &[1, 0, 1], &[0xff; 128]]);
        check(&format!("ssh-rsa {weak}"), "has 1024 bits");
        check(&"x".repeat(LINE_BYTES_MAX + 1), "at most");
    }
}

//! Encryption of what the database must not say: XChaCha20-Poly1305 under a key that is
//! not in the database.
//!
//! Every text is bound to what it belongs to, so that it cannot be moved to another row, and
//! comes with the name of its key, so that a wrong key is told from damage.  Nonces are 192
//! random bits: they never repeat.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use crate::Clock;
use crate::error::{Error, Result};

const NONCE_BYTES: usize = 24;

/// What a key is called: half of a hash of it that nothing else is made with.
const NAMES: &str = "Grid: the name of the key of credentials";

/// What encrypts.
pub(crate) struct Vault {
    cipher: XChaCha20Poly1305,
    name: String,
}

/// A text, closed.
pub(crate) struct Sealed {
    pub(crate) text: String,
    /// With which key.
    pub(crate) with: String,
}

impl Vault {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let name = blake3::derive_key(NAMES, key);
        Self {
            cipher: XChaCha20Poly1305::new(key.into()),
            name: crate::secret::hex(&name[..16]),
        }
    }

    /// What the key is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Closes a text that belongs to `place`.
    pub(crate) fn seal(&self, clock: &dyn Clock, place: &str, text: &[u8]) -> Result<Sealed> {
        let mut nonce = [0; NONCE_BYTES];
        let (first, second) = nonce.split_at_mut(16);
        first.copy_from_slice(&clock.entropy().to_le_bytes());
        second.copy_from_slice(&clock.entropy().to_le_bytes()[..NONCE_BYTES - 16]);
        let payload = Payload {
            msg: text,
            aad: place.as_bytes(),
        };
        let closed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let closed = closed.map_err(|_| Error::internal(anyhow::anyhow!("cannot encrypt")))?;
        let mut bytes = nonce.to_vec();
        bytes.extend(closed);
        Ok(Sealed {
            text: BASE64_STANDARD.encode(bytes),
            with: self.name.clone(),
        })
    }

    /// Opens a text that belongs to `place`.
    pub(crate) fn open(&self, place: &str, sealed: &Sealed) -> Result<Vec<u8>> {
        if sealed.with != self.name {
            return Err(Error::Unavailable(
                "this credential was encrypted with another key than the server has now: the \
                 operator can put the right key file back, or you can make the credential anew"
                    .to_owned(),
            ));
        }
        let damaged = || Error::internal(anyhow::anyhow!("{place} is damaged in the database"));
        let bytes = BASE64_STANDARD
            .decode(&sealed.text)
            .map_err(|_| damaged())?;
        let (nonce, closed) = bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(damaged)?;
        let payload = Payload {
            msg: closed,
            aad: place.as_bytes(),
        };
        self.cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;

    #[test]
    fn what_is_closed_is_opened_by_the_same_key_in_the_same_place() {
        let (vault, other) = (Vault::new(&[1; 32]), Vault::new(&[2; 32]));
        let sealed = vault.seal(&SystemClock, "a", b"text").expect("closed");
        assert_eq!(vault.open("a", &sealed).expect("opened"), b"text");
        assert!(matches!(vault.open("b", &sealed), Err(Error::Internal(_))));
        let wrong = other.open("a", &sealed).expect_err("another key");
        assert!(wrong.to_string().contains("another key"), "{wrong}");
        let again = vault.seal(&SystemClock, "a", b"text").expect("closed");
        assert_ne!(again.text, sealed.text, "no nonce comes twice");
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let vault = Vault::new(&[1; 32]);
        let sealed = vault.seal(&SystemClock, "a", b"text").expect("closed");
        let bytes = BASE64_STANDARD.decode(&sealed.text).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Sealed {
                text: BASE64_STANDARD.encode(changed),
                with: sealed.with.clone(),
            };
            assert!(vault.open("a", &changed).is_err(), "byte {at}");
        }
    }
}

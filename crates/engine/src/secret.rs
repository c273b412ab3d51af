//! Keys and signatures.

use sha2::{Digest, Sha256};

/// The hash of a key, in hex: all that is kept of it.
pub type Hashed = String;

/// Hashes an API key or a token.
///
/// Keys are 122 random bits or more, so one round of SHA-256 is as good as a slow
/// hash, which exists to protect what people make up themselves.
pub fn hash_key(key: &str) -> Hashed {
    hex(&Sha256::digest(key.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A keyed hash (BLAKE3) of `message`, in hex: the signature of links.
pub(crate) fn sign(secret: &[u8; 32], message: &str) -> String {
    blake3::keyed_hash(secret, message.as_bytes())
        .to_hex()
        .to_string()
}

/// Whether `signature` is that of `message`.  Takes the same time for every wrong one.
pub(crate) fn verify(secret: &[u8; 32], message: &str, signature: &str) -> bool {
    let expected = blake3::keyed_hash(secret, message.as_bytes());
    blake3::Hash::from_hex(signature).is_ok_and(|given| given == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_one_message() {
        let secret = [7; 32];
        let signature = sign(&secret, "a");
        assert!(verify(&secret, "a", &signature));
        assert!(!verify(&secret, "b", &signature));
        assert!(!verify(&[8; 32], "a", &signature));
        assert!(!verify(&secret, "a", "zz"));
    }
}

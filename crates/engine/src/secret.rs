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

/// What is kept of the token of a link or an invitation: whoever has the database without
/// the secret cannot even tell whether a token is right.
pub(crate) fn seal(secret: &[u8; 32], token: &str) -> Hashed {
    blake3::keyed_hash(secret, token.as_bytes())
        .to_hex()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_for_one_token_and_one_server() {
        let sealed = seal(&[7; 32], "a");
        assert_eq!(sealed, seal(&[7; 32], "a"));
        assert_ne!(sealed, seal(&[7; 32], "b"));
        assert_ne!(sealed, seal(&[8; 32], "a"));
    }
}

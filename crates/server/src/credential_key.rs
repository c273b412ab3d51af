//! The key that credentials are encrypted with: a file of its own, outside the database, so
//! that whoever reads the database, or a copy of it, reads no secret.
//!
//! It is text, 64 hexadecimal digits, which only the owner of the server may read.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::folder::write_private;

const KEY_BYTES: usize = 32;

/// Who others than the owner are, in the mode of a file.
const OTHERS: u32 = 0o077;

/// The key in the file, drawn at the first start.
pub(crate) fn load_or_draw(path: &Path) -> Result<[u8; KEY_BYTES]> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    let drawn = getrandom(&mut key, GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .and_then(|_| write_private(path, format!("{}\n", hex(&key)).as_bytes()));
    drawn.with_context(|| format!("cannot write the key of credentials to {}", path.display()))?;
    Ok(key)
}

/// The key in the file, if there is one.
pub(crate) fn load(path: &Path) -> Result<Option<[u8; KEY_BYTES]>> {
    let doing = || format!("cannot read the key of credentials in {}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(doing),
    };
    let mode = std::fs::metadata(path)
        .with_context(doing)?
        .permissions()
        .mode();
    if mode & OTHERS != 0 {
        bail!(
            "{} can be read by others than its owner: credentials are not safe with it; close it \
             with chmod 600 {}",
            path.display(),
            path.display()
        );
    }
    let Some(key) = parse(text.trim()) else {
        bail!(
            "{} is not a key of credentials, which is {} hexadecimal digits: put the right file \
             back (or make a new one with `openssl rand -hex {KEY_BYTES}`: then credentials that \
             were made before cannot be opened any more)",
            path.display(),
            KEY_BYTES * 2
        );
    };
    Ok(Some(key))
}

fn parse(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != KEY_BYTES * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_drawn_once_and_closed_to_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("credential.key");
        assert_eq!(load(&path).expect("looked for"), None);
        let key = load_or_draw(&path).expect("drawn");
        assert_ne!(key, [0; KEY_BYTES]);
        assert_eq!(load_or_draw(&path).expect("read"), key);
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_key_or_is_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("credential.key");
        let said = |text: &str, mode: u32| {
            std::fs::write(&path, text).expect("written");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("set");
            load_or_draw(&path).expect_err("refused").to_string()
        };
        for text in ["", "short", &"x".repeat(64), &"é".repeat(32)] {
            let said = said(text, 0o600);
            assert!(said.contains("put the right file back"), "{said}");
        }
        let open = said(&"0".repeat(64), 0o644);
        assert!(open.contains("chmod 600"), "{open}");
    }
}

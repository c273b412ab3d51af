//! What kind of archive something is, and what is said of one that is none, or is damaged.

use std::io;

use crate::datastore::work::Fault;

/// What kind of archive it is, by its first bytes: names lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Zip,
    Gzip,
    Zstd,
    Tar,
    Unknown,
}

/// What packs data in ways that are not taken apart, by its first bytes.
const OTHERS: [(&[u8], &str); 5] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

/// Bytes in which the beginning of a page is looked for.
const PAGE_HEAD_BYTES: usize = 512;

impl Form {
    pub(super) fn of(head: &[u8]) -> Self {
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Self::Zip
        } else if head.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else if head.get(257..262) == Some(b"ustar") || begins_tar(head) {
            Self::Tar
        } else {
            Self::Unknown
        }
    }
}

/// What is said of something that is no archive, by its first bytes.
pub(super) fn unknown(head: &[u8]) -> Fault {
    const TAKEN: &str = ".tar, .tar.gz, .tar.zst and .zip are taken apart";
    let start = &head[..head.len().min(PAGE_HEAD_BYTES)];
    let start = String::from_utf8_lossy(start).to_ascii_lowercase();
    let other = OTHERS.iter().find(|(mark, _)| head.starts_with(mark));
    Fault::Data(if head.is_empty() {
        "it is empty: not one byte came, and no archive has none".to_owned()
    } else if let Some((_, name)) = other {
        format!("it is packed by {name}, and {TAKEN}: pack it in one of these ways")
    } else if start.contains("<html") || start.contains("<!doctype") {
        "it is a web page and no archive: open the address in a browser, and look whether it asks \
         for a login or only leads to the file"
            .to_owned()
    } else {
        format!("it is no archive: {TAKEN}")
    })
}

/// Whether the first block of something is that of a tar, also of one from before names were
/// written into it: it begins with zeros, or adds up to what it says.
pub(super) fn begins_tar(head: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    if head.len() < 512 {
        return false;
    }
    let byte = |(at, byte): (usize, &u8)| match SUM.contains(&at) {
        true => u32::from(b' '),
        false => u32::from(*byte),
    };
    let sum: u32 = head.iter().enumerate().map(byte).sum();
    let said = String::from_utf8_lossy(&head[SUM]);
    let said = u32::from_str_radix(said.trim_matches([' ', '\0']), 8);
    head.iter().all(|byte| *byte == 0) || said == Ok(sum)
}

/// What is said of something else than a tar that is packed as one.
pub(super) fn packed_other() -> Fault {
    Fault::Data(
        "what is packed in it is no tar, or a damaged one: pack the folder with `tar czf`, or \
         unpack it and create the datastore from the file"
            .to_owned(),
    )
}

/// Whether something stands behind the end of what gzip has packed.
pub(super) fn is_behind_gzip(error: &io::Error) -> bool {
    error.to_string() == "invalid gzip header"
}

/// What is said of an archive, or of one entry of it, that cannot be read.
#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
pub(super) fn broken(error: io::Error) -> Fault {
    Fault::from_reading("the archive", &error)
}

/// The same of one of its entries.
pub(super) fn broken_at(name: &[u8], error: &io::Error) -> Fault {
    use zip::result::ZipError as E;
    // Of some entries of a zip it is seen only when they are read that they are not damaged, but
    // packed in another way.
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(inner @ (E::CompressionMethodNotSupported(_) | E::UnsupportedArchive(_))) = inner {
        return broken_zip(Some(name), inner.clone());
    }
    Fault::from_reading(&format!("the archive, at '{}',", shown(name)), error)
}

/// A name as it stands in a sentence.
pub(super) fn shown(name: &[u8]) -> String {
    let name: String = String::from_utf8_lossy(name).chars().take(200).collect();
    name.escape_debug().to_string()
}

impl Fault {
    fn from_reading(what: &str, error: &io::Error) -> Self {
        let words = error.to_string();
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::BrokenPipe => Self::Ours(crate::Error::Unavailable(format!(
                "the archive broke off: {words}"
            ))),
            io::ErrorKind::Unsupported => Self::Data(format!(
                "{what} cannot be taken apart: {words}; unpack it, and create the datastore from the \
                 folder"
            )),
            _ if words.contains("requires too much memory") => Self::Data(
                "the archive was packed with a window of more than 128 MiB, which takes as much \
                 memory again: pack it without --long, or with --long=27 at most"
                    .to_owned(),
            ),
            _ => Self::Data(format!(
                "{what} is damaged or was cut: {words}; look whether it can be unpacked where it \
                 comes from, and make it again"
            )),
        }
    }
}

/// What is said of a zip that cannot be read, or of one entry of it.
pub(super) fn broken_zip(name: Option<&[u8]>, error: zip::result::ZipError) -> Fault {
    use zip::result::ZipError as E;
    let at = name.map(|name| format!("'{}' of the archive", shown(name)));
    let at = at.as_deref().unwrap_or("the archive");
    // Some of its errors come in the dress of another.
    let error = match error {
        E::Io(error) => match error.downcast::<E>() {
            Ok(inner) => inner,
            Err(error) => E::Io(error),
        },
        other => other,
    };
    match (error, name) {
        (E::Io(error), None) => broken(error),
        (E::Io(error), Some(name)) => broken_at(name, &error),
        (E::UnsupportedArchive(E::PASSWORD_REQUIRED) | E::InvalidPassword, _) => {
            Fault::Data(format!(
                "{at} is locked with a password: unpack it, and create the datastore from the folder"
            ))
        }
        (E::CompressionMethodNotSupported(method), _) => {
            let way = match method {
                12 => "bzip2".to_owned(),
                14 => "LZMA".to_owned(),
                95 => "xz".to_owned(),
                98 => "PPMd".to_owned(),
                other => format!("way {other}"),
            };
            Fault::Data(format!(
                "{at} is packed by {way}, which is not taken apart: stored, Deflate, Deflate64 and \
                 zstd are; pack it with Deflate, as `zip` does by itself, or unpack it, and create \
                 the datastore from the folder"
            ))
        }
        (E::UnsupportedArchive(why), _) => Fault::Data(format!(
            "{at} cannot be taken apart: {why}; unpack it, and create the datastore from the folder"
        )),
        (error, _) => Fault::Data(format!(
            "{at} is damaged or was cut: {error}; look whether it can be unpacked where it comes \
             from, and make it again"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_said_to_be_what_it_is() {
        for (head, expected) in [
            (&b""[..], "it is empty"),
            (b"\xfd7zXZ\0 and more", "packed by xz"),
            (b"BZh91AY", "packed by bzip2"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\n <HTML lang=en>", "web page"),
            (b"hello", "it is no archive"),
        ] {
            assert_eq!(Form::of(head), Form::Unknown);
            let Fault::Data(said) = unknown(head) else {
                panic!("it is the data")
            };
            assert!(said.contains(expected), "{said}");
        }
    }
}

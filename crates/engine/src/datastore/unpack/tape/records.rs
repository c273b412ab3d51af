//! What a tar in the PAX format says of an entry in front of it: lines of a length, a keyword,
//! and a value, in which anything may stand.

use std::io;

use super::head::bounded;
use super::sparse::{REGIONS_MAX, TOO_MANY, Told};

/// What is said of the next entry, or, of times, of all that follow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) modified_ms: Option<i64>,
    /// Of a file that is packed without its holes.
    pub(super) sparse: Option<Told>,
}

/// What is said of an entry that is not as it should be.
pub(super) fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What is said of one that may well be, and yet is not taken.
pub(super) fn not_taken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

impl Records {
    /// Reads them.
    pub(super) fn parse(mut text: &[u8]) -> io::Result<Self> {
        let unreadable = || damaged("its attributes cannot be read");
        let mut records = Self::default();
        while !text.is_empty() {
            let (keyword, value, rest) = line(text).ok_or_else(unreadable)?;
            records.take(keyword, value)?;
            text = rest;
        }
        Ok(records)
    }

    /// Of those that are said once for all entries, what time it is; that all have one name or
    /// one length is nothing an archive can mean.
    pub(super) fn for_all(self) -> io::Result<Option<i64>> {
        let Self {
            path: None,
            target: None,
            size: None,
            modified_ms,
            sparse: None,
        } = self
        else {
            return Err(not_taken("it says one name or length of all its entries"));
        };
        Ok(modified_ms)
    }

    fn take(&mut self, keyword: &[u8], value: &[u8]) -> io::Result<()> {
        let length = || decimal(value).ok_or_else(|| damaged("its length is no number"));
        let is_there = !value.is_empty();
        match keyword {
            b"path" => self.path = is_there.then(|| value.to_vec()),
            b"linkpath" => self.target = is_there.then(|| value.to_vec()),
            b"size" => self.size = is_there.then(length).transpose()?,
            b"mtime" => self.modified_ms = time_ms(value),
            b"SUN.holesdata" => {
                return Err(not_taken("its holes are told of as Solaris does it"));
            }
            _ => {
                if let Some(keyword) = keyword.strip_prefix(b"GNU.sparse.") {
                    let told = self.sparse.get_or_insert_default();
                    sparse(told, keyword, value)?;
                }
            }
        }
        Ok(())
    }
}

/// The first line, and what follows it: its length counts all of it.
fn line(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&text[..space])?).ok()?;
    let (line, rest) = text.split_at_checked(length)?;
    let line = line.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = line.iter().position(|byte| *byte == b'=')?;
    Some((&line[..equals], &line[equals + 1..], rest))
}

/// Digits, and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse::<i64>().ok()?;
    u64::try_from(number).ok()
}

fn sparse(told: &mut Told, keyword: &[u8], value: &[u8]) -> io::Result<()> {
    let no_number = || damaged("what it says of its holes is no number");
    let number = || decimal(value).ok_or_else(no_number);
    match keyword {
        b"name" => told.name = Some(value.to_vec()),
        b"major" => told.major = number()?,
        b"minor" => told.minor = number()?,
        b"size" | b"realsize" => {
            let size = number()?;
            if told.size.replace(size).is_some_and(|before| before != size) {
                return Err(damaged("it says two lengths"));
            }
        }
        b"numblocks" => told.count = Some(number()?),
        b"offset" => {
            if told.offset.replace(number()?).is_some() {
                return Err(damaged("a piece of it has no length"));
            }
        }
        b"numbytes" => {
            let at = told.offset.take();
            let at = at.ok_or_else(|| damaged("a piece of it is nowhere"))?;
            told.pieces.get_or_insert_default().push((at, number()?));
        }
        b"map" => {
            if told.pieces.is_some() {
                return Err(damaged("it says twice where its holes are"));
            }
            let numbers = value.split(|byte| *byte == b',').map(decimal);
            let numbers: Vec<u64> = numbers.collect::<Option<_>>().ok_or_else(no_number)?;
            let (pairs, rest) = numbers.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(damaged("a piece of it has no length"));
            }
            told.pieces = Some(pairs.iter().map(|[at, length]| (*at, *length)).collect());
        }
        _ => {
            return Err(not_taken(
                "its holes are told of in a way that is not known",
            ));
        }
    }
    let pieces = told.pieces.as_ref().map_or(0, Vec::len);
    if pieces > REGIONS_MAX {
        return Err(not_taken(TOO_MANY));
    }
    Ok(())
}

/// Seconds with any number of digits behind the point, as milliseconds before that moment.
/// What is no time is none.
fn time_ms(value: &[u8]) -> Option<i64> {
    let value = std::str::from_utf8(value).ok()?;
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, value),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || whole.is_empty() {
        // Some programs write large ones with an exponent.
        let seconds = value.parse::<f64>().ok().filter(|it| it.is_finite())?;
        return Some((seconds * 1_000.0).floor() as i64);
    }
    let seconds = whole.parse::<i64>().unwrap_or(i64::MAX);
    let thousandths = format!("{part:0<3}")[..3].parse::<i64>().ok()?;
    let is_more = part.bytes().skip(3).any(|digit| digit != b'0');
    let ms = i128::from(seconds) * 1_000 + i128::from(thousandths);
    Some(bounded(match sign {
        1 => ms,
        _ => -ms - i128::from(is_more),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000.123456789", Some(1_700_000_000_123)),
            ("1700000000.5", Some(1_700_000_000_500)),
            ("12.", Some(12_000)),
            ("-1.5", Some(-1_500)),
            ("-0.0001", Some(-1)),
            ("-86400", Some(-86_400_000)),
            ("9999999999999999999999", Some(i64::MAX)),
            ("-9999999999999999999999.9", Some(i64::MIN)),
            ("1e3", Some(1_000_000)),
            ("1e300", Some(i64::MAX)),
            ("", None),
            ("NaN", None),
            ("yesterday", None),
        ] {
            assert_eq!(time_ms(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn anything_may_stand_in_a_value() {
        let text = b"24 SCHILY.xattr.user=\n\n\n16 path=a\nb=c d\n13 size=4096\n";
        let records = Records::parse(text).expect("read");
        assert_eq!(records.path.as_deref(), Some(&b"a\nb=c d"[..]));
        assert_eq!(records.size, Some(4_096));
        for cut in 1..text.len() {
            let is_whole = [24, 40].contains(&cut);
            assert_eq!(Records::parse(&text[..cut]).is_ok(), is_whole, "{cut}");
        }
    }
}

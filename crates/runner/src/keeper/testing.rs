//! Spools without processes, for tests of those who read them.

use std::fs;
use std::path::Path;

use super::protocol::{Ending, Exit, Usage};
use super::spool::{EXIT_FILE, INDEX_FILE, Record, Stream};

/// Writes a whole spool: pieces of standard output (or of standard error) of these
/// lengths, and an end.
pub(crate) fn write_spool(folder: &Path, pieces: &[(bool, usize)]) {
    fs::create_dir_all(folder).expect("made");
    let mut files = [Vec::new(), Vec::new()];
    let mut index = Vec::new();
    let mut position = 0;
    for (number, (is_error, length)) in pieces.iter().enumerate() {
        let stream = if *is_error {
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        let file = &mut files[stream.number()];
        let record = Record {
            position,
            offset: file.len() as u64,
            at_ms: i64::try_from(number).expect("few"),
            length: u32::try_from(*length).expect("short"),
            stream,
        };
        index.extend(record.encode());
        file.extend((0..*length).map(|at| (at * 31 + number).to_le_bytes()[0]));
        position = record.end();
    }
    for (stream, bytes) in Stream::ALL.iter().zip(files) {
        fs::write(folder.join(stream.file_name()), bytes).expect("written");
    }
    fs::write(folder.join(INDEX_FILE), index).expect("written");
    let exit = Exit {
        how: Ending::Code { code: 0 },
        started_at_ms: 1,
        ended_at_ms: 2,
        usage: Usage::default(),
    };
    fs::write(
        folder.join(EXIT_FILE),
        serde_json::to_vec(&exit).expect("text"),
    )
    .expect("written");
}

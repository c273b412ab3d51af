//! What is left behind on the disk and in the database of a server, for those who look
//! whether anything is.

use std::path::Path;
use std::process::Command;

use crate::{Ran, Server};

/// What a server without data keeps on its disk beside its database, in bytes: what was
/// asked for lately, empty files.
pub const NOTHING_BYTES: u64 = 1 << 20;

/// Deletes everything that nobody needs, at once; says how many blobs are left.
///
/// # Panics
/// When it does not work, or the data is not consistent then.
#[track_caller]
pub fn collect_now(server: &mut Server) -> u64 {
    server.stop();
    let data = server.data().display().to_string();
    let collect = ["server", "collect", "--trash", "--now", "--data", &data];
    let said = server.grid("ada", &collect).ok();
    assert!(said.contains(" 0 are young"), "{said}");
    let doctor = ["server", "doctor", "--deep", "--data", &data];
    server.grid("ada", &doctor).ok();
    let kept = said
        .split("; ")
        .last()
        .and_then(|kept| kept.split(' ').next());
    kept.and_then(|kept| kept.parse().ok()).expect("a number")
}

/// Bytes of all files below a folder, and their names.
pub fn files(folder: &Path) -> (u64, Vec<String>) {
    let (mut bytes, mut names, mut folders) = (0, Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => {
                    bytes += found.len();
                    names.push(entry.path().display().to_string());
                }
                Err(_) => {}
            }
        }
    }
    (bytes, names)
}

/// Rows of the database about data, by table.
///
/// # Panics
/// When they cannot be counted.
#[track_caller]
pub fn rows(server: &Server) -> String {
    const COUNT: &str = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        tables = [row[0] for row in db.execute('select name from sqlite_master where type = \"table\"')]\n\
        about = ('datastore_', 'staged_', 'team_blob', 'mount', 'snapshot', 'artifact')\n\
        for table in sorted(tables):\n\
        \x20   if table.startswith(about):\n\
        \x20       count = db.execute(f'select count(*) from {table}').fetchone()[0]\n\
        \x20       if count: print(table, count)\n";
    let mut command = Command::new("python3");
    let command = command
        .args(["-c", COUNT])
        .arg(server.data().join("grid.db"));
    Ran::of(&command.output().expect("python3 starts")).ok()
}

/// Nothing of any data is left.
///
/// # Panics
/// When something is, with its name.
#[track_caller]
pub fn assert_nothing(server: &mut Server) {
    assert_eq!(collect_now(server), 0);
    for part in ["blobs", "tmp", "logs"] {
        let (bytes, names) = files(&server.data().join(part));
        assert!(bytes <= NOTHING_BYTES, "{part}: {bytes} in {names:?}");
    }
    assert_eq!(rows(server), "");
}

//! The store holds what a vector would hold.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::segment::Sizes;
use super::super::*;

const SMALL: Sizes = Sizes {
    segment_bytes: 100,
    checkpoint_bytes: 64,
};

fn small(dir: &Path) -> LogStore {
    LogStore::open_with(dir, SMALL).unwrap()
}

fn id(attempt: &str) -> LogId {
    LogId::new(attempt, Stream::Experiment).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The bytes that the sender has; what is sent is always a range of these.
fn sent() -> Vec<u8> {
    (0..4000_u32).map(|i| (i * i + i / 251) as u8).collect()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(dir).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    found.sort();
    found
}

#[derive(Clone, Debug)]
enum Step {
    /// Send `len` bytes from `back` before the end.
    Append { back: usize, len: usize },
    /// Send bytes from behind the end.
    Gap { ahead: u64 },
    /// Send other bytes than before.
    Change { back: usize },
    /// Close and open the store.
    Reopen,
    /// Lose bytes at the end of the last segment while the store is closed.
    Tear { bytes: u64 },
    /// Lose or damage the index while the store is closed.
    HurtIndex { at: usize },
    /// Read a range.
    Read { from: usize, len: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_usize, 1..260_usize).prop_map(|(back, len)| Step::Append { back, len }),
        1 => (1..50_u64).prop_map(|ahead| Step::Gap { ahead }),
        1 => (1..50_usize).prop_map(|back| Step::Change { back }),
        1 => Just(Step::Reopen),
        1 => (0..120_u64).prop_map(|bytes| Step::Tear { bytes }),
        1 => (0..500_usize).prop_map(|at| Step::HurtIndex { at }),
        2 => (0..4000_usize, 0..500_usize).prop_map(|(from, len)| Step::Read { from, len }),
    ]
}

/// A store and the vector that it should equal.
struct Play<'a> {
    dir: &'a Path,
    sent: Vec<u8>,
    store: LogStore,
    model: Vec<u8>,
}

impl Play<'_> {
    async fn step(&mut self, step: Step) {
        let log = id("a");
        match step {
            Step::Append { back, len } => self.append(back, len).await,
            Step::Gap { ahead } => {
                let offset = self.model.len() as u64 + ahead;
                let result = self.store.append(&log, offset, Bytes::from_static(b"x"));
                match result.await {
                    Err(LogError::Gap { have, .. }) => assert_eq!(have, self.model.len() as u64),
                    other => panic!("{other:?}"),
                }
            }
            Step::Change { back } if !self.model.is_empty() => {
                let from = self.model.len().saturating_sub(back);
                let mut bytes = self.model[from..].to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                bytes.push(0);
                let result = self.store.append(&log, from as u64, bytes.into()).await;
                assert!(
                    matches!(result, Err(LogError::Diverged { .. })),
                    "{result:?}"
                );
            }
            Step::Change { .. } => {}
            Step::Reopen => self.store = small(self.dir),
            Step::Tear { bytes } => {
                let lost = tear(self.dir, bytes);
                self.model.truncate(self.model.len() - lost);
                self.store = small(self.dir);
            }
            Step::HurtIndex { at } => {
                hurt_index(self.dir, at);
                self.store = small(self.dir);
            }
            Step::Read { from, len } => {
                let (bytes, next) = self.store.read(&log, from as u64, len).await.unwrap();
                assert_eq!(next, from as u64 + bytes.len() as u64);
                let from = from.min(self.model.len());
                let to = (from + len).min(self.model.len());
                assert_eq!(bytes, self.model[from..to]);
            }
        }
        let progress = self.store.progress(&log).await.unwrap();
        assert_eq!(progress.len, self.model.len() as u64);
    }

    async fn append(&mut self, back: usize, len: usize) {
        let from = self.model.len().saturating_sub(back);
        let to = (from + len).min(self.sent.len());
        let bytes = Bytes::copy_from_slice(&self.sent[from..to]);
        let new = self.store.append(&id("a"), from as u64, bytes).await;
        if to > self.model.len() {
            self.model
                .extend_from_slice(&self.sent[self.model.len()..to]);
        }
        assert_eq!(new.unwrap(), self.model.len() as u64);
    }
}

/// Cuts bytes off the last segment, and says how many.
fn tear(dir: &Path, bytes: u64) -> usize {
    let all = files(dir);
    let last = all.iter().rfind(|f| f.extension().unwrap() == "log");
    let Some(last) = last else { return 0 };
    let file = fs::File::options().write(true).open(last).unwrap();
    let size = file.metadata().unwrap().len();
    let lost = bytes.min(size);
    file.set_len(size - lost).unwrap();
    lost as usize
}

fn hurt_index(dir: &Path, at: usize) {
    for path in files(dir)
        .iter()
        .filter(|f| f.extension().unwrap() == "idx")
    {
        let mut bytes = fs::read(path).unwrap();
        let at = at % bytes.len().max(1);
        match bytes.get_mut(at) {
            Some(byte) if at.is_multiple_of(2) => *byte ^= 0x55,
            _ => bytes.truncate(at),
        }
        fs::write(path, bytes).unwrap();
    }
}

async fn play(dir: &Path, steps: Vec<Step>) {
    let mut play = Play {
        dir,
        sent: sent(),
        store: small(dir),
        model: Vec::new(),
    };
    for step in steps {
        play.step(step).await;
    }
    let (log, len) = (id("a"), play.model.len() as u64);
    play.store.finish(&log, Some(len)).await.unwrap();
    for store in [play.store, small(dir)] {
        let (bytes, _) = store.read(&log, 0, usize::MAX).await.unwrap();
        assert_eq!(bytes, play.model);
        // A log without bytes leaves nothing that could say it is complete.
        let sealed = store.progress(&log).await.unwrap().sealed;
        assert!(sealed || len == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_a_vector_would(steps in prop::collection::vec(step(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        run(play(dir.path(), steps));
    }
}

#[test]
fn a_store_cut_at_any_byte_goes_on_from_there() {
    run(async {
        let sent = sent();
        let whole = 330;
        for cut in 0..=whole {
            let dir = tempfile::tempdir().unwrap();
            let log = id("a");
            let store = small(dir.path());
            let first = Bytes::copy_from_slice(&sent[..whole]);
            store.append(&log, 0, first).await.unwrap();
            drop(store);
            let mut left = cut as u64;
            for path in files(dir.path())
                .iter()
                .filter(|f| f.extension().unwrap() == "log")
            {
                let size = fs::metadata(path).unwrap().len();
                let keep = left.min(size);
                left -= keep;
                match keep {
                    0 => fs::remove_file(path).unwrap(),
                    keep => fs::File::options()
                        .write(true)
                        .open(path)
                        .unwrap()
                        .set_len(keep)
                        .unwrap(),
                }
            }
            let store = small(dir.path());
            assert_eq!(store.progress(&log).await.unwrap().len, cut as u64);
            let rest = Bytes::copy_from_slice(&sent[cut..500]);
            assert_eq!(store.append(&log, cut as u64, rest).await.unwrap(), 500);
            let (bytes, _) = store.read(&log, 0, usize::MAX).await.unwrap();
            assert_eq!(bytes, sent[..500], "cut {cut}");
        }
    });
}

#[test]
fn segments_behind_a_short_one_are_not_believed() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let sent = sent();
        let log = id("a");
        let store = small(dir.path());
        store
            .append(&log, 0, Bytes::copy_from_slice(&sent[..350]))
            .await
            .unwrap();
        drop(store);
        // As after a loss of power: the first segment is short, later ones are whole.
        let first = &files(dir.path())[0];
        fs::File::options()
            .write(true)
            .open(first)
            .unwrap()
            .set_len(60)
            .unwrap();
        let store = small(dir.path());
        store
            .append(&log, 60, Bytes::copy_from_slice(&sent[60..100]))
            .await
            .unwrap();
        drop(store);
        let store = small(dir.path());
        assert_eq!(store.progress(&log).await.unwrap().len, 100);
    });
}

#[test]
fn a_log_without_bytes_makes_no_file() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = small(dir.path());
        store.append(&id("a"), 0, Bytes::new()).await.unwrap();
        store.finish(&id("a"), Some(0)).await.unwrap();
        assert!(store.progress(&id("a")).await.unwrap().sealed);
        store.read(&id("b"), 0, 10).await.unwrap();
        store.delete("a").await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_complete_log_takes_nothing_but_what_it_has() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = small(dir.path());
        let log = id("a");
        store
            .append(&log, 0, Bytes::from_static(b"12345"))
            .await
            .unwrap();
        let early = store.finish(&log, Some(6)).await;
        assert!(
            matches!(early, Err(LogError::Gap { have: 5, .. })),
            "{early:?}"
        );
        let late = store.finish(&log, Some(4)).await;
        assert!(matches!(late, Err(LogError::Diverged { .. })), "{late:?}");
        for store in [store.clone(), small(dir.path())] {
            assert_eq!(store.finish(&log, None).await.unwrap(), 5);
            let again = store.append(&log, 3, Bytes::from_static(b"45")).await;
            assert_eq!(again.unwrap(), 5);
            let more = store.append(&log, 5, Bytes::from_static(b"6")).await;
            assert!(
                matches!(more, Err(LogError::Sealed { len: 5, .. })),
                "{more:?}"
            );
        }
    });
}

#[test]
fn delete_takes_one_attempt_with_all_its_streams() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = small(dir.path());
        let bytes = Bytes::from(vec![7; 250]);
        let logs: Vec<LogId> = ["a", "ab", "b"]
            .into_iter()
            .flat_map(|attempt| LogId::streams_of(attempt).unwrap())
            .collect();
        for log in &logs {
            store.append(log, 0, bytes.clone()).await.unwrap();
        }
        store.finish(&logs[0], None).await.unwrap();
        store.delete("a").await.unwrap();
        store.delete("a").await.unwrap();
        for store in [store.clone(), small(dir.path())] {
            for (log, len) in logs.iter().zip([0, 0, 250, 250, 250, 250]) {
                assert_eq!(store.progress(log).await.unwrap().len, len, "{log}");
            }
        }
        // The name can be used again.
        store
            .append(&logs[0], 0, Bytes::from_static(b"new"))
            .await
            .unwrap();
        assert_eq!(store.read(&logs[0], 0, 10).await.unwrap().0, "new");
    });
}

#[test]
fn names_that_could_leave_the_folder_are_refused() {
    for bad in ["", "..", "a/b", "a.b", "é", "a b", &"x".repeat(129)] {
        let result = LogId::new(bad, Stream::Build);
        assert!(matches!(result, Err(LogError::Name { .. })), "{bad}");
    }
    assert!(LogId::new(&"x".repeat(128), Stream::Build).is_ok());
}

#[test]
fn followers_wake_when_a_log_grows_and_when_it_ends() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = small(dir.path());
        let log = id("a");
        let mut followers = Vec::new();
        for _ in 0..2000 {
            let mut follow = store.follow(&log).await.unwrap();
            followers.push(tokio::spawn(async move {
                let mut len = 0;
                loop {
                    let progress = follow.beyond(len).await;
                    if progress.sealed {
                        return progress.len;
                    }
                    len = progress.len;
                }
            }));
        }
        for at in 0..5 {
            store
                .append(&log, at, Bytes::from_static(b"x"))
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
        store.finish(&log, None).await.unwrap();
        let all = async {
            for follower in followers {
                assert_eq!(follower.await.unwrap(), 5);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .unwrap();
        // One who comes late does not wait.
        let mut late = store.follow(&log).await.unwrap();
        let end = Progress {
            len: 5,
            sealed: true,
        };
        assert_eq!(late.progress(), end);
        assert_eq!(late.beyond(5).await, end);
    });
}

#[test]
fn thousands_of_growing_logs_share_few_files() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = small(dir.path());
        let logs: Vec<LogId> = (0..6000).map(|n| id(&format!("attempt-{n}"))).collect();
        for round in 0..2 {
            for log in &logs {
                store
                    .append(log, round, Bytes::from_static(b"x"))
                    .await
                    .unwrap();
            }
            let open = fs::read_dir("/proc/self/fd").unwrap().count();
            assert!(open < 800, "{open} files are open");
        }
        for log in &logs {
            assert_eq!(store.read(log, 0, 9).await.unwrap().0, "xx");
        }
    });
}

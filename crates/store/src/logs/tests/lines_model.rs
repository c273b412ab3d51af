//! Lines are what a simple terminal would show, wherever reading begins.

use std::path::Path;

use bytes::Bytes;
use grid_core::logframe::{self, Source};
use proptest::prelude::*;

use super::super::segment::Sizes;
use super::super::*;

const ALL: LineLimits = LineLimits {
    lines: usize::MAX,
    bytes: usize::MAX,
    partial: true,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn log() -> LogId {
    LogId::new("a", Stream::Experiment).unwrap()
}

/// A write of the process: time, source, bytes.
type Write = (i64, Source, Vec<u8>);

fn encode(writes: &[Write]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at_ms, source, payload) in writes {
        logframe::encode(&mut bytes, *at_ms, *source, payload);
    }
    bytes
}

async fn stored(dir: &Path, sizes: Sizes, bytes: &[u8], piece: usize) -> LogStore {
    let store = LogStore::open_with(dir, sizes).unwrap();
    let mut at = 0;
    for piece in bytes.chunks(piece) {
        let piece = Bytes::copy_from_slice(piece);
        at = store.append(&log(), at, piece).await.unwrap();
    }
    store
}

/// What a terminal shows of text without any limit of length, as lines and the rest.
fn terminal(text: &[u8]) -> (Vec<String>, Option<String>) {
    let shown = |line: &[u8]| {
        let end = line
            .iter()
            .rposition(|byte| *byte != b'\r')
            .map_or(0, |last| last + 1);
        let start = line[..end]
            .iter()
            .rposition(|byte| *byte == b'\r')
            .map_or(0, |last| last + 1);
        String::from_utf8_lossy(&line[start..end]).into_owned()
    };
    let mut parts: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let rest = parts.pop().map(shown).filter(|rest| !rest.is_empty());
    (parts.into_iter().map(shown).collect(), rest)
}

fn texts(lines: &[LogLine], source: Source, partial: bool) -> Vec<String> {
    let of = |line: &&LogLine| line.source == source && line.partial == partial;
    lines
        .iter()
        .filter(of)
        .map(|line| line.text.clone())
        .collect()
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let piece = prop_oneof![
        4 => "[a-c]{0,9}".prop_map(String::into_bytes),
        3 => Just(b"\n".to_vec()),
        2 => Just(b"\r".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just("é€𝄞".as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    let payload = prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    let source = prop::sample::select(Source::ALL.to_vec());
    prop::collection::vec((0..9_i64, source, payload), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn lines_are_what_a_terminal_shows(writes in writes(), piece in 1..200_usize) {
        let sizes = Sizes { segment_bytes: 300, checkpoint_bytes: 100 };
        let dir = tempfile::tempdir().unwrap();
        let bytes = encode(&writes);
        run(async {
            let store = stored(dir.path(), sizes, &bytes, piece).await;
            let page = store.lines(&log(), 0, ALL).await.unwrap();
            for source in Source::ALL {
                let text: Vec<u8> = writes.iter().filter(|w| w.1 == source).flat_map(|w| w.2.clone()).collect();
                let (lines, rest) = terminal(&text);
                assert_eq!(texts(&page.lines, source, false), lines);
                assert_eq!(texts(&page.lines, source, true), Vec::from_iter(rest));
            }
            check_pages(&store, &page, dir.path(), sizes).await;
        });
    }
}

/// Every way to the same lines finds the same lines.
async fn check_pages(store: &LogStore, page: &LinePage, dir: &Path, sizes: Sizes) {
    let whole: Vec<LogLine> = page.lines.iter().filter(|l| !l.partial).cloned().collect();
    assert!(whole.windows(2).all(|pair| pair[0].end < pair[1].end));
    for (number, line) in whole.iter().enumerate() {
        assert_eq!(line.number, number as u64);
    }
    assert_eq!(store.count_lines(&log()).await.unwrap(), whole.len() as u64);
    let reopened = LogStore::open_with(dir, sizes).unwrap();
    let limits = |lines| LineLimits {
        lines,
        bytes: usize::MAX,
        partial: false,
    };
    let step = whole.len() / 7 + 1;
    for index in (0..=whole.len()).step_by(step) {
        let cursor = index.checked_sub(1).map_or(0, |last| whole[last].end);
        let rest = reopened
            .lines(&log(), cursor, limits(usize::MAX))
            .await
            .unwrap();
        assert_eq!(rest.lines, whole[index..]);
        let some = reopened.lines(&log(), cursor, limits(3)).await.unwrap();
        assert_eq!(some.lines, whole[index..(index + 3).min(whole.len())]);
        let tail = reopened.tail(&log(), limits(index)).await.unwrap();
        assert_eq!(tail.lines, whole[whole.len() - index..]);
        assert_eq!(tail.next, whole.last().map_or(0, |line| line.end));
        if let Some(line) = whole.get(index) {
            let before = reopened
                .lines_before(&log(), line.end, limits(4))
                .await
                .unwrap();
            assert_eq!(before.lines, whole[index.saturating_sub(4)..index]);
        }
    }
    let mut reader = store.reader(&log(), 0);
    let mut read = Vec::new();
    loop {
        let page = reader.next(limits(2)).await.unwrap();
        read.extend(page.lines);
        if page.at_end {
            break;
        }
    }
    assert_eq!(read, whole);
}

#[test]
fn a_reader_sees_lines_as_they_grow() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let mut reader = store.reader(&log(), 0);
        let mut at = 0;
        for (payload, finished, open) in [
            ("10%", vec![], vec!["10%"]),
            ("\r50%", vec![], vec!["50%"]),
            ("\r", vec![], vec!["50%"]),
            ("100%\r", vec![], vec!["100%"]),
            ("\nnext\nope", vec!["100%", "next"], vec!["ope"]),
            ("n", vec![], vec!["open"]),
        ] {
            let bytes = encode(&[(1, Source::Stdout, payload.into())]);
            at = store.append(&log(), at, bytes.into()).await.unwrap();
            let page = reader.next(ALL).await.unwrap();
            assert_eq!(texts(&page.lines, Source::Stdout, false), finished);
            assert_eq!(texts(&page.lines, Source::Stdout, true), open);
            // One who comes anew with the cursor sees the same that is open.
            let again = store.lines(&log(), reader.cursor(), ALL).await.unwrap();
            assert_eq!(texts(&again.lines, Source::Stdout, true), open);
        }
    });
}

#[test]
fn endless_lines_are_split_between_characters() {
    let text = "x€".repeat(50_000);
    let writes: Vec<Write> = text
        .as_bytes()
        .chunks(777)
        .map(|piece| (1, Source::Stdout, piece.to_vec()))
        .collect();
    let bytes = encode(&writes);
    let sizes = Sizes {
        segment_bytes: 100_000,
        checkpoint_bytes: 10_000,
    };
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = stored(dir.path(), sizes, &bytes, 5000).await;
        let page = store.lines(&log(), 0, ALL).await.unwrap();
        assert_eq!(
            page.lines
                .iter()
                .map(|line| line.text.as_str())
                .collect::<String>(),
            text
        );
        assert_eq!(page.lines.len(), text.len().div_ceil(LINE_BYTES_MAX));
        assert!(
            page.lines
                .iter()
                .all(|line| line.text.len() < LINE_BYTES_MAX + 4)
        );
        check_pages(&store, &page, dir.path(), sizes).await;
    });
}

#[test]
fn a_slow_line_beside_a_busy_one_is_split() {
    let busy = vec![b'b'; 999];
    let mut writes: Vec<Write> = Vec::new();
    for n in 0..4000 {
        writes.push((n, Source::Stderr, b".".to_vec()));
        writes.push((n, Source::Stdout, [&busy[..], b"\n"].concat()));
    }
    let bytes = encode(&writes);
    let sizes = Sizes {
        segment_bytes: 1_000_000,
        checkpoint_bytes: 100_000,
    };
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = stored(dir.path(), sizes, &bytes, 50_000).await;
        let page = store.lines(&log(), 0, ALL).await.unwrap();
        let mut dots = texts(&page.lines, Source::Stderr, false);
        assert!(dots.len() >= 3, "{} pieces", dots.len());
        dots.extend(texts(&page.lines, Source::Stderr, true));
        assert_eq!(dots.concat(), ".".repeat(4000));
        check_pages(&store, &page, dir.path(), sizes).await;
    });
}

#[test]
fn damaged_bytes_are_skipped_and_said() {
    let line = |n: i64| (n, Source::Stdout, format!("line {n}\n").into_bytes());
    let before = encode(&[line(1), line(2)]);
    let after = encode(&[line(3), line(4)]);
    let sizes = Sizes {
        segment_bytes: 1000,
        checkpoint_bytes: 30,
    };
    run(async {
        for damage in [
            vec![0; 1],
            vec![0; 100],
            b"\n\n\n\n".repeat(20),
            before[..20].to_vec(),
        ] {
            let bytes = [&before[..], &damage, &after].concat();
            let dir = tempfile::tempdir().unwrap();
            let store = stored(dir.path(), sizes, &bytes, 7).await;
            let page = store.lines(&log(), 0, ALL).await.unwrap();
            let shown = texts(&page.lines, Source::Stdout, false);
            assert_eq!(shown[..2], ["line 1", "line 2"]);
            assert!(shown.last().unwrap().ends_with("line 4"), "{shown:?}");
            check_pages(&store, &page, dir.path(), sizes).await;
        }
    });
}

#[test]
fn the_tail_of_a_long_log_is_right() {
    const LINES: u64 = 3_000_000;
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = LogStore::open(dir.path()).unwrap();
        let mut at = 0;
        let mut bytes = Vec::new();
        let mut text = String::new();
        let filler = "x".repeat(80);
        for n in 0..LINES {
            use std::fmt::Write as _;
            writeln!(text, "{n:010} {filler}").unwrap();
            if text.len() > 60_000 || n + 1 == LINES {
                logframe::encode(&mut bytes, n as i64, Source::Stdout, text.as_bytes());
                text.clear();
            }
            if bytes.len() > 4_000_000 || n + 1 == LINES {
                at = store
                    .append(&log(), at, std::mem::take(&mut bytes).into())
                    .await
                    .unwrap();
            }
        }
        assert!(at > 250_000_000);
        let limits = LineLimits {
            lines: 100,
            bytes: 1 << 20,
            partial: true,
        };
        for store in [store, LogStore::open(dir.path()).unwrap()] {
            assert_eq!(store.count_lines(&log()).await.unwrap(), LINES);
            let mut page = store.tail(&log(), limits).await.unwrap();
            // Back page by page, and somewhere in the middle.
            for back in 1..=10 {
                let first = LINES - back * 100;
                assert_eq!(page.lines.len(), 100);
                for (n, line) in (first..).zip(&page.lines) {
                    assert_eq!((line.number, &line.text[..10]), (n, &*format!("{n:010}")));
                }
                let until = page.lines[0].end;
                page = store.lines_before(&log(), until, limits).await.unwrap();
            }
            let middle = store.lines(&log(), at / 2, limits).await.unwrap();
            let number = middle.lines[0].number;
            assert!(number.abs_diff(LINES / 2) < 1000, "{number}");
            assert_eq!(&middle.lines[0].text[..10], format!("{number:010}"));
        }
    });
}

//! Measures logs and blobs on the disk of a folder: `bench_bytes [FOLDER]`.
//!
//! Prints one figure a line, beside what `cp` does with the same bytes on the same
//! disk where that is a fair comparison.

#![expect(
    clippy::print_stdout,
    reason = "a program whose purpose is to print figures"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::StreamExt;
use grid_core::blob::BlobId;
use grid_core::logframe::{self, Source};
use grid_core::time::Timestamp;
use grid_store::blobs::{Blobs, Settings};
use grid_store::logs::{LineLimits, LogId, LogStore, Stream};
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    if let (Some(what), Some(dir)) = (args.next(), args.next())
        && what == "open"
    {
        return open_and_measure(Path::new(&dir));
    }
    let parent = std::env::args_os().nth(1).map(PathBuf::from);
    let parent = parent.unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::tempdir_in(parent)?;
    long_log(&dir.path().join("long")).await?;
    tiny_logs(&dir.path().join("tiny")).await?;
    followers(&dir.path().join("follow")).await?;
    small_blobs(dir.path()).await?;
    large_blob(dir.path()).await?;
    many_small(&dir.path().join("million")).await?;
    Ok(())
}

fn say(what: &str, figure: f64, unit: &str) {
    println!("{what:<58} {figure:>10.1} {unit}");
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

async fn long_log(dir: &Path) -> Result<()> {
    const PIECES: u64 = 8192;
    let mut frames = Vec::new();
    let line = format!("{}\n", "x".repeat(99));
    for n in 0..8 {
        logframe::encode(&mut frames, n, Source::Stdout, line.repeat(160).as_bytes());
    }
    let frames = Bytes::from(frames);
    let log = LogId::new("long", Stream::Experiment)?;
    let store = LogStore::open(dir)?;
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..PIECES {
        at = store.append(&log, at, frames.clone()).await?;
    }
    let mb = at as f64 / 1e6;
    say(
        "log: append, lines of 100 bytes in pieces of 128 kB",
        mb / seconds(start),
        "MB/s",
    );

    let limits = LineLimits {
        lines: 1000,
        bytes: 1 << 20,
        partial: true,
    };
    let store = LogStore::open(dir)?;
    for (what, cursor) in [("first", None), ("next", None), ("middle", Some(at / 2))] {
        let start = Instant::now();
        let page = match cursor {
            None => store.tail(&log, limits).await?,
            Some(cursor) => store.lines(&log, cursor, limits).await?,
        };
        assert_eq!(page.lines.len(), 1000);
        let name = format!("log: 1,000 lines of {} MB, {what}", mb as u64);
        say(&name, seconds(start) * 1e3, "ms");
    }
    let start = Instant::now();
    let mut offset = 0;
    while offset < at {
        (_, offset) = store.read(&log, offset, 1 << 20).await?;
    }
    say("log: read raw", mb / seconds(start), "MB/s");
    let start = Instant::now();
    let mut reader = store.reader(&log, 0);
    let mut lines = 0;
    while lines < 1_000_000 {
        lines += reader.next(limits).await?.lines.len();
    }
    say(
        "log: read as lines",
        lines as f64 / seconds(start) / 1e6,
        "M/s",
    );
    store.delete("long").await?;
    Ok(())
}

async fn tiny_logs(dir: &Path) -> Result<()> {
    const LOGS: usize = 10_000;
    let store = LogStore::open(dir)?;
    let mut frames = Vec::new();
    logframe::encode(&mut frames, 1, Source::Stdout, b"hello\n");
    let frames = Bytes::from(frames);
    let start = Instant::now();
    for n in 0..LOGS {
        let log = LogId::new(&format!("tiny-{n}"), Stream::Experiment)?;
        let len = store.append(&log, 0, frames.clone()).await?;
        store.finish(&log, Some(len)).await?;
    }
    say(
        "log: tiny ones written and sealed",
        LOGS as f64 / seconds(start),
        "/s",
    );

    let log = LogId::new("drops", Stream::Experiment)?;
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..100_000 {
        at = store.append(&log, at, frames.clone()).await?;
    }
    say(
        "log: appends of one short line",
        100_000.0 / seconds(start),
        "/s",
    );
    Ok(())
}

async fn followers(dir: &Path) -> Result<()> {
    const FOLLOWERS: usize = 2000;
    let store = LogStore::open(dir)?;
    let log = LogId::new("followed", Stream::Experiment)?;
    let mut frames = Vec::new();
    logframe::encode(&mut frames, 1, Source::Stdout, b"hello\n");
    let mut tasks = Vec::new();
    for _ in 0..FOLLOWERS {
        let mut follow = store.follow(&log).await?;
        tasks.push(tokio::spawn(async move {
            follow.beyond(0).await;
            Instant::now()
        }));
    }
    tokio::task::yield_now().await;
    let start = Instant::now();
    store.append(&log, 0, frames.into()).await?;
    let mut last = start;
    for task in tasks {
        last = last.max(task.await?);
    }
    let name = format!("log: from append to the last of {FOLLOWERS} followers");
    say(&name, (last - start).as_secs_f64() * 1e3, "ms");
    Ok(())
}

fn settings() -> Settings {
    Settings::new(|| Timestamp::from_millis(0))
}

fn blob(number: u64, len: usize) -> (BlobId, Bytes) {
    let mut bytes = vec![0; len];
    let mut source = blake3::Hasher::new();
    source
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    (
        BlobId::from_bytes(*blake3::hash(&bytes).as_bytes()),
        bytes.into(),
    )
}

fn cp(from: &Path, to: &Path) -> Result<f64> {
    rest()?;
    let start = Instant::now();
    let done = Command::new("cp").arg("-r").args([from, to]).status()?;
    assert!(done.success());
    Ok(seconds(start))
}

async fn small_blobs(dir: &Path) -> Result<()> {
    const BLOBS: u64 = 100_000;
    let files = dir.join("files");
    for n in 0..BLOBS {
        let folder = files.join((n / 1000).to_string());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(n.to_string()), blob(n, 4096).1)?;
    }
    let copy = cp(&files, &dir.join("copy"))?;
    say("blobs: cp -r of 100,000 files of 4 KiB", copy, "s");

    let all: Vec<_> = (0..BLOBS).map(|n| blob(n, 4096)).collect();
    for sync_small in [false, true] {
        let settings = Settings {
            sync_small,
            ..settings()
        };
        let folder = dir.join(format!("small-{sync_small}"));
        let blobs = Blobs::open(&folder, settings)?;
        let batches: Vec<_> = all.chunks(256).map(<[_]>::to_vec).collect();
        rest()?;
        let start = Instant::now();
        for batch in batches {
            blobs.put_small_batch(batch).await?;
        }
        let took = seconds(start);
        let name = format!("blobs: the same in batches of 256, forced: {sync_small}");
        say(&name, took, "s");
        say("   times as fast as cp -r", copy / took, "");
        let ids: Vec<BlobId> = all.iter().map(|(id, _)| *id).collect();
        let start = Instant::now();
        assert!(blobs.missing(ids.clone()).await?.is_empty());
        say(
            "blobs: ask for 100,000 that are there",
            seconds(start) * 1e3,
            "ms",
        );
        let start = Instant::now();
        for id in &ids {
            let reader = blobs.get(*id).await?.ok_or("it was stored")?;
            reader.read_all(true).await?;
        }
        say(
            "blobs: read and verify small ones",
            BLOBS as f64 / seconds(start),
            "/s",
        );
    }
    let blobs = Blobs::open(&dir.join("one"), settings())?;
    let start = Instant::now();
    for one in all.iter().take(20_000) {
        blobs.put_small_batch(vec![one.clone()]).await?;
    }
    say(
        "blobs: small ones one by one",
        20_000.0 / seconds(start),
        "/s",
    );
    Ok(())
}

async fn large_blob(dir: &Path) -> Result<()> {
    const PIECES: usize = 1024;
    let (_, piece) = blob(1, 1 << 20);
    let file = dir.join("large.bin");
    let mut hasher = blake3::Hasher::new();
    {
        use std::io::Write;
        let mut file = fs::File::create(&file)?;
        for _ in 0..PIECES {
            file.write_all(&piece)?;
            hasher.update(&piece);
        }
        file.sync_all()?;
    }
    let id = BlobId::from_bytes(*hasher.finalize().as_bytes());
    let copy = cp(&file, &dir.join("large.copy"))?;
    say("blobs: cp of 1 GiB", copy, "s");
    let start = Instant::now();
    assert!(
        Command::new("sync")
            .arg(dir.join("large.copy"))
            .status()?
            .success()
    );
    say("blobs: cp and sync of it", copy + seconds(start), "s");
    for sync_large in [false, true] {
        let settings = Settings {
            sync_large,
            ..settings()
        };
        let blobs = Blobs::open(&dir.join(format!("large-{sync_large}")), settings)?;
        rest()?;
        let start = Instant::now();
        let mut writer = blobs.writer();
        for _ in 0..PIECES {
            writer.write(&piece).await?;
        }
        writer.finish(id, (PIECES << 20) as u64).await?;
        let name = format!("blobs: the same as a blob, forced: {sync_large}");
        say(&name, seconds(start), "s");
        let start = Instant::now();
        let reader = blobs.get(id).await?.ok_or("it was stored")?;
        let mut stream = Box::pin(reader.stream());
        while let Some(piece) = stream.next().await {
            piece?;
        }
        say(
            "blobs: stream and verify it",
            1073.7 / seconds(start),
            "MB/s",
        );
    }
    Ok(())
}

async fn many_small(dir: &Path) -> Result<()> {
    const BLOBS: u64 = 1_000_000;
    let blobs = Blobs::open(dir, settings())?;
    for first in (0..BLOBS).step_by(10_000) {
        let batch = (first..first + 10_000).map(|n| blob(n, 64)).collect();
        blobs.put_small_batch(batch).await?;
    }
    // A process of its own has no memory left over from the writing.
    let done = Command::new(std::env::current_exe()?)
        .arg("open")
        .arg(dir)
        .status()?;
    assert!(done.success());
    let start = Instant::now();
    let listed = blobs.list().count().await;
    say("blobs: list them", listed as f64 / seconds(start), "/s");
    Ok(())
}

fn open_and_measure(dir: &Path) -> Result<()> {
    let before = resident()?;
    let start = Instant::now();
    let _blobs = Blobs::open(dir, settings())?;
    let took = seconds(start) * 1e3;
    say("blobs: open with 1,000,000 small ones", took, "ms");
    say("   memory after it", (resident()? - before) / 1e6, "MB");
    Ok(())
}

/// Lets the disk come to rest, so that nobody pays for what was written before.
fn rest() -> Result<()> {
    assert!(Command::new("sync").status()?.success());
    Ok(())
}

/// Memory of this process in bytes.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? * 1024.0)
}

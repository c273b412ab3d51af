//! The process dies at each step on the file system, and in the middle of each write:
//! nothing is lost, nothing is half visible, and nothing is left behind for ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::blobs::{Announced, BlobError, Recipe};

/// Steps that no script takes.
const FOR_EVER: i64 = 1 << 40;

/// What the world outside knows, which does not die.
#[derive(Default)]
struct World {
    /// Everything that ever was, by its name.
    content: BTreeMap<BlobId, Bytes>,
    /// What was said to be stored, and is still wanted.
    wanted: BTreeSet<BlobId>,
    /// Steps that the process has left.
    left: Arc<AtomicI64>,
}

impl World {
    fn is_alive(&self) -> bool {
        self.left.load(Ordering::SeqCst) >= 0
    }

    /// What a process says once it is dead, nobody hears.
    fn hears(&mut self, ids: &[BlobId]) {
        if self.is_alive() {
            self.wanted.extend(ids);
        }
    }

    fn make(&mut self, number: u64, len: usize) -> (BlobId, Bytes) {
        let blob = blob(number, len);
        self.content.insert(blob.0, blob.1.clone());
        blob
    }

    async fn put_small(&mut self, blobs: &Blobs, numbers: std::ops::Range<u64>) -> Done {
        let small: Vec<_> = numbers.map(|n| self.make(n, 300)).collect();
        blobs.put_small_batch(small.clone()).await?;
        self.hears(&ids(&small));
        Ok(())
    }

    /// Large blobs of which two with the same `base` differ in their last third.
    fn make_large(&mut self, base: u64, end: u64) -> (BlobId, Bytes) {
        let bytes: Bytes = [content(base, 500_000), content(end, 250_000)]
            .concat()
            .into();
        let id = hash(&bytes);
        self.content.insert(id, bytes.clone());
        (id, bytes)
    }

    async fn put_large(&mut self, blobs: &Blobs, base: u64, end: u64) -> Done {
        let (id, bytes) = self.make_large(base, end);
        let mut writer = blobs.writer();
        for piece in bytes.chunks(200_000) {
            writer.write(piece).await?;
        }
        writer.finish(id, bytes.len() as u64).await?;
        self.hears(&[id]);
        Ok(())
    }

    /// As a client sends it: what is lacking, and again, until it is there.
    async fn send_large(&mut self, blobs: &Blobs, base: u64, end: u64) -> Done {
        let (id, bytes) = self.make_large(base, end);
        let (chunks, _, recipe) = chunks::cut(&bytes);
        for _ in 0..3 {
            let answer = blobs.announce(vec![(id, recipe.clone())]).await?;
            match &answer[..] {
                [Announced::Stored] => {
                    self.hears(&[id]);
                    return Ok(());
                }
                [Announced::Lacks(lacking)] => {
                    let mut sent = chunks.clone();
                    sent.retain(|(id, _)| lacking.contains(id));
                    for some in sent.chunks(5) {
                        blobs.put_small_batch(some.to_vec()).await?;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("it is never there")
    }

    /// From now on these are not wanted, and a collection may take them.
    async fn drop_and_collect(
        &mut self,
        blobs: &Blobs,
        is_dropped: impl Fn(usize) -> bool,
    ) -> Done {
        let mut number = 0;
        self.wanted.retain(|_| {
            number += 1;
            !is_dropped(number - 1)
        });
        self.collect(blobs).await
    }

    async fn collect(&self, blobs: &Blobs) -> Done {
        let mut collection = blobs.collection().await;
        collection
            .keep(self.wanted.iter().copied().collect())
            .await?;
        collection.sweep(false).await.map(drop)
    }

    /// Whatever is there is whole, and what is wanted is there.
    async fn check(&self, blobs: &Blobs, what: &str) {
        let all: Vec<BlobId> = self.content.keys().copied().collect();
        let missing = blobs.missing(all).await.unwrap();
        for (id, bytes) in &self.content {
            if missing.contains(id) {
                assert!(!self.wanted.contains(id), "{id} is lost, {what}");
            } else {
                let read = blobs.read(*id).await.unwrap();
                assert_eq!(read.as_ref(), Some(bytes), "{id}, {what}");
            }
        }
    }

    /// After a collection nothing is left but what is wanted and what that is made of.
    async fn check_nothing_leaks(&self, dir: &Path, what: &str) {
        let blobs = open_without_grace(dir);
        self.collect(&blobs).await.unwrap();
        self.check(&blobs, what).await;
        let mut needed: HashSet<BlobId> = self.wanted.iter().copied().collect();
        for id in &self.wanted {
            if let Some(Recipe::Chunks(entries)) = blobs.recipe(*id).await.unwrap() {
                needed.extend(entries.iter().map(|entry| entry.id));
            }
        }
        let listed: HashSet<BlobId> = list(&blobs).await.iter().map(|info| info.id).collect();
        assert_eq!(listed, needed, "{what}");
        drop(blobs);
        let blobs = open_without_grace(dir);
        let listed: HashSet<BlobId> = list(&blobs).await.iter().map(|info| info.id).collect();
        assert_eq!(listed, needed, "after a restart, {what}");
        collect(&blobs, &[], false).await;
        let left = stored(dir);
        let is_left = |(_, len): &&(PathBuf, u64)| *len > 100;
        assert_eq!(left.iter().find(is_left), None, "{what}");
    }
}

type Done = Result<(), BlobError>;

/// A life of a store in which everything happens.
async fn life(world: &mut World, blobs: &Blobs) -> Done {
    world.put_small(blobs, 0..10).await?;
    world.put_large(blobs, 100, 101).await?;
    world.send_large(blobs, 100, 102).await?;
    world.collect(blobs).await?;
    world.drop_and_collect(blobs, |n| n % 3 == 0).await?;
    world.put_small(blobs, 5..12).await?;
    world.send_large(blobs, 100, 101).await?;
    world.put_large(blobs, 200, 102).await?;
    world.drop_and_collect(blobs, |n| n % 3 != 0).await?;
    world.put_large(blobs, 100, 102).await?;
    world.put_small(blobs, 0..10).await?;
    world.drop_and_collect(blobs, |n| n % 2 == 0).await
}

fn open_to_die(
    dir: &Path,
    grace: Duration,
    steps: i64,
    last_arrives: bool,
) -> (Result<Blobs, BlobError>, Arc<AtomicI64>) {
    let left = Arc::new(AtomicI64::new(steps));
    let settings = Settings {
        steps_left: Some(Arc::clone(&left)),
        last_arrives,
        ..settings(grace)
    };
    (Blobs::open(dir, placed(dir, settings)), left)
}

/// Lives until it dies at this step; says whether it did.
async fn live(dir: &Path, world: &mut World, steps: i64, last_arrives: bool) -> bool {
    let (blobs, left) = open_to_die(dir, Duration::ZERO, steps, last_arrives);
    world.left = left;
    match blobs {
        Ok(blobs) => life(world, &blobs).await.is_err() || !world.is_alive(),
        Err(_) => true,
    }
}

fn quick_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_quick(dir.path());
    dir
}

#[tokio::test]
async fn a_store_may_die_at_any_step() {
    for last_arrives in LAST_ARRIVES {
        let mut steps = 0;
        loop {
            let dir = quick_dir();
            let mut world = World::default();
            let died = live(dir.path(), &mut world, steps, *last_arrives).await;
            let what = format!("died at step {steps}, the last arrives: {last_arrives}");
            change_machine_sometimes(dir.path(), steps);
            world.check(&open_without_grace(dir.path()), &what).await;
            world.check_nothing_leaks(dir.path(), &what).await;
            if !died {
                break;
            }
            steps += 1;
        }
        assert!(steps > STEPS_MIN, "{steps}");
    }
}

#[tokio::test]
async fn a_store_may_die_again_and_again() {
    for seed in 0..60_u64 {
        let dir = quick_dir();
        let mut world = World::default();
        let mut what = format!("seed {seed}, died at");
        for death in 0..4 {
            let noise = content(seed * 10 + death, 8);
            let steps = i64::from(u16::from_le_bytes([noise[0], noise[1]])) % (STEPS_MIN + 30);
            let last_arrives = LAST_ARRIVES[usize::from(noise[2]) % LAST_ARRIVES.len()];
            what += &format!(" {steps}");
            live(dir.path(), &mut world, steps, last_arrives).await;
            change_machine_sometimes(dir.path(), steps);
            // Also while it repairs what was left.
            let (blobs, _) = open_to_die(dir.path(), Duration::ZERO, steps % 7, last_arrives);
            drop(blobs);
            world.check(&open_without_grace(dir.path()), &what).await;
        }
        let died = live(dir.path(), &mut world, FOR_EVER, false).await;
        assert!(!died, "{what}");
        world.check_nothing_leaks(dir.path(), &what).await;
    }
}

/// What was stored, or said to be there, stays for the grace, whoever dies meanwhile.
#[tokio::test]
async fn a_promise_outlives_the_process() {
    for last_arrives in LAST_ARRIVES {
        let mut steps = 0;
        while dies_with_a_promise(steps, *last_arrives).await {
            steps += 1;
        }
        assert!(steps > 20, "{steps}");
    }
}

/// Says whether it died at this step.
async fn dies_with_a_promise(steps: i64, last_arrives: bool) -> bool {
    let dir = quick_dir();
    std::fs::create_dir_all(dir.path().join("grace")).unwrap();
    std::fs::write(dir.path().join("grace/clock"), "1 0 false false\n").unwrap();
    let mut world = World::default();
    // There before, and nobody's.
    let old = open_without_grace(dir.path());
    world.put_small(&old, 0..10).await.unwrap();
    world.put_large(&old, 100, 101).await.unwrap();
    drop(old);
    let unwanted: Vec<BlobId> = std::mem::take(&mut world.wanted).into_iter().collect();

    let (blobs, left) = open_to_die(dir.path(), GC_GRACE, steps, last_arrives);
    world.left = left;
    let died = match blobs {
        Ok(blobs) => promise(&mut world, &blobs, &unwanted).await.is_err() || !world.is_alive(),
        Err(_) => true,
    };
    let what = format!("died at step {steps}");
    change_machine_sometimes(dir.path(), steps);
    let blobs = open(dir.path());
    collect(&blobs, &[], false).await;
    world.check(&blobs, &what).await;
    let blobs = open_without_grace(dir.path());
    collect(&blobs, &[], false).await;
    assert_eq!(list(&blobs).await, [], "{what}");
    died
}

/// Nobody refers to anything yet.
async fn promise(world: &mut World, blobs: &Blobs, old: &[BlobId]) -> Done {
    world.put_small(blobs, 20..30).await?;
    // The large one and some small ones are asked for.
    let (large, _) = world.make_large(100, 101);
    let asked: Vec<BlobId> = old.iter().take(3).copied().chain([large]).collect();
    assert_eq!(blobs.missing(asked.clone()).await?, []);
    world.hears(&asked);
    blobs.collection().await.sweep(false).await?;
    world.send_large(blobs, 100, 102).await?;
    blobs.collection().await.sweep(false).await?;
    world.put_large(blobs, 200, 202).await
}

//! A page of the keys of a bucket, folder by folder, without reading what is not on it.
//!
//! Folders of creators, names, and versions or experiments are rows; what is below them is
//! the list of a version, of which only the blocks that are needed are fetched, or rows
//! again.  A folder is left out, or listed as one line, before it is looked into.

use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_core::id::{DatastoreVersionId, RunId, TeamId, UserId, WorkloadId};
use grid_core::name::RunName;
use grid_store::db::{self, tree};

use super::find::{Found, of_artifact};
use super::key::{ARTIFACTS, DATASTORES, NEXT};
use super::lines::{Lines, Read, Source};
use super::staged::SOURCE;
use super::{Listing, Result, Wanted, behind};
use crate::Engine;
use crate::access::Caller;
use crate::datastore::List;

/// Names, or artifacts, that are read at a time.  Higher: a page that is full soon reads
/// more than it shows; lower: more questions.
const STEP: u32 = 256;

/// Questions to the store for one page.  Higher: a request over many empty folders takes
/// longer; lower: such pages are shorter than asked for.
const QUESTIONS_MAX: u32 = 1_000;

/// Whether the page goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Full,
}

/// What becomes of a folder.
enum Folder {
    Skipped,
    Listed(Flow),
    Entered,
}

/// Reads a page.
pub(super) async fn walk(
    engine: &Engine,
    caller: &Caller,
    team: &db::team::Team,
    wanted: &Wanted<'_>,
) -> Result<Listing> {
    // No key has a zero byte: one that is not before such a text is behind what it begins
    // with.  Databases do not take it.
    let from = match wanted.from.find('\0') {
        Some(zero) => &wanted.from[..=zero],
        None => wanted.from,
    };
    if wanted.prefix.contains('\0') {
        return Ok(Listing::default());
    }
    let mut walk = Walk {
        engine,
        caller,
        team: team.id,
        wanted,
        bound: from.max(wanted.prefix).to_owned(),
        questions: 0,
        page: Listing::default(),
    };
    if wanted.limit == 0 || walk.top(Top::Artifacts).await? == Flow::Full {
        return Ok(walk.page);
    }
    walk.top(Top::Datastores).await?;
    Ok(walk.page)
}

/// The folders at the top.
#[derive(Debug, Clone, Copy)]
enum Top {
    Artifacts,
    Datastores,
}

struct Walk<'a> {
    engine: &'a Engine,
    caller: &'a Caller,
    team: TeamId,
    wanted: &'a Wanted<'a>,
    /// No key before this one any more.
    bound: String,
    questions: u32,
    page: Listing,
}

impl Walk<'_> {
    /// One of the two folders at the top, creator by creator.
    async fn top(&mut self, top: Top) -> Result<Flow> {
        let above = match top {
            Top::Artifacts => ARTIFACTS,
            Top::Datastores => DATASTORES,
        };
        match self.enter(above) {
            Folder::Skipped => return Ok(Flow::On),
            Folder::Listed(flow) => return Ok(flow),
            Folder::Entered => {}
        }
        let (team, looker) = (self.team, self.caller.id());
        let mut tx = self.engine.inner.db.read().await?;
        let creators = match top {
            Top::Artifacts => tree::run_creators(&mut tx, team).await?,
            Top::Datastores => tree::datastore_creators(&mut tx, team, looker).await?,
        };
        drop(tx);
        for creator in sorted(creators) {
            let dir = format!("{above}{}/", creator.username);
            let flow = match (self.enter(&dir), top) {
                (Folder::Skipped, _) => continue,
                (Folder::Listed(flow), _) => flow,
                (Folder::Entered, Top::Artifacts) => self.runs(&dir, creator.id).await?,
                (Folder::Entered, Top::Datastores) => self.stores(&dir, creator.id).await?,
            };
            if flow == Flow::Full {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    async fn runs(&mut self, above: &str, creator: UserId) -> Result<Flow> {
        let Some(mut from) = self.first_name_below(above) else {
            return Ok(Flow::On);
        };
        loop {
            let mut tx = self.engine.inner.db.read().await?;
            let runs = tree::runs(&mut tx, (self.team, creator), &from, STEP).await?;
            drop(tx);
            let is_last = runs.len() < STEP as usize;
            for (run, name) in runs {
                let dir = format!("{above}{name}/");
                // What sorts directly behind `name/`.
                from = format!("{name}0");
                if self.is_past(&dir) {
                    return Ok(Flow::On);
                }
                let flow = match self.enter(&dir) {
                    Folder::Skipped => continue,
                    Folder::Listed(flow) => flow,
                    Folder::Entered => self.experiments(&dir, run, &name).await?,
                };
                if flow == Flow::Full {
                    return Ok(flow);
                }
            }
            if is_last {
                return Ok(Flow::On);
            }
        }
    }

    async fn experiments(&mut self, above: &str, run: RunId, name: &str) -> Result<Flow> {
        if self.is_tired(above) {
            return Ok(Flow::Full);
        }
        let mut tx = self.engine.inner.db.read().await?;
        let Some(row) = db::run::by_id(&mut tx, run).await? else {
            return Ok(Flow::On);
        };
        self.caller
            .check(&mut tx, &row, Action::ReadArtifacts)
            .await?;
        let experiments = tree::experiments(&mut tx, run).await?;
        drop(tx);
        let Ok(name) = RunName::parse(name) else {
            return Ok(Flow::On);
        };
        let dir = |(index, id)| (format!("{above}{}/", name.experiment(index)), id);
        let mut dirs: Vec<(String, WorkloadId)> = experiments.into_iter().map(dir).collect();
        dirs.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (dir, workload) in dirs {
            let flow = match self.enter(&dir) {
                Folder::Skipped => continue,
                Folder::Listed(flow) => flow,
                Folder::Entered => self.left_behind(&dir, workload).await?,
            };
            if flow == Flow::Full {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    async fn left_behind(&mut self, dir: &str, workload: WorkloadId) -> Result<Flow> {
        loop {
            if self.is_tired(dir) {
                return Ok(Flow::Full);
            }
            let Some(from) = self.first_below(dir) else {
                return Ok(Flow::On);
            };
            let mut tx = self.engine.inner.db.read().await?;
            let files = match from.strip_suffix('\0') {
                Some(after) => db::artifact::list_after(&mut tx, workload, after, STEP).await?,
                None => db::artifact::list_from(&mut tx, workload, &from, STEP).await?,
            };
            drop(tx);
            let is_last = files.len() < STEP as usize;
            for artifact in files {
                let key = format!("{dir}{}", artifact.path);
                if self.is_past(&key) {
                    return Ok(Flow::On);
                }
                if self.take(of_artifact(key, &artifact)) == Flow::Full {
                    return Ok(Flow::Full);
                }
            }
            if is_last {
                return Ok(Flow::On);
            }
        }
    }

    async fn stores(&mut self, above: &str, creator: UserId) -> Result<Flow> {
        let is_looker = creator == self.caller.id();
        let Some(mut from) = self.first_name_below(above) else {
            return Ok(Flow::On);
        };
        loop {
            let mut tx = self.engine.inner.db.read().await?;
            let of = (self.team, creator);
            let stores = tree::datastores(&mut tx, of, is_looker, &from, STEP).await?;
            drop(tx);
            let is_last = stores.len() < STEP as usize;
            for store in stores {
                let dir = format!("{above}{}/", store.name);
                from = format!("{}0", store.name);
                if self.is_past(&dir) {
                    return Ok(Flow::On);
                }
                let flow = match self.enter(&dir) {
                    Folder::Skipped => continue,
                    Folder::Listed(flow) => flow,
                    Folder::Entered => self.versions(&dir, &store).await?,
                };
                if flow == Flow::Full {
                    return Ok(flow);
                }
            }
            if is_last {
                return Ok(Flow::On);
            }
        }
    }

    async fn versions(&mut self, above: &str, store: &db::datastore::Datastore) -> Result<Flow> {
        if self.is_tired(above) {
            return Ok(Flow::Full);
        }
        let mut tx = self.engine.inner.db.read().await?;
        self.caller
            .check(&mut tx, store, Action::SeeDatastore)
            .await?;
        let versions = tree::versions(&mut tx, store.id).await?;
        let next = match store.creator == self.caller.id() {
            true => tree::staged(&mut tx, store.id, SOURCE).await?,
            false => None,
        };
        drop(tx);
        let mut dirs: Vec<(String, DatastoreVersionId, Option<BlobId>)> = versions
            .into_iter()
            .map(|(number, id, list)| (format!("{above}{number}/"), id, Some(list)))
            .collect();
        dirs.extend(next.map(|id| (format!("{above}{NEXT}/"), id, None)));
        dirs.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        for (dir, id, list) in dirs {
            let flow = match self.enter(&dir) {
                Folder::Skipped => continue,
                Folder::Listed(flow) => flow,
                Folder::Entered => self.files(&dir, id, list).await?,
            };
            if flow == Flow::Full {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// What is below a version: of one that is finished, its list says so.
    async fn files(
        &mut self,
        dir: &str,
        id: DatastoreVersionId,
        list: Option<BlobId>,
    ) -> Result<Flow> {
        if self.is_tired(dir) {
            return Ok(Flow::Full);
        }
        let Some(from) = self.first_below(dir) else {
            return Ok(Flow::On);
        };
        let source = match list {
            Some(list) => Source::Listed(id, List::of(self.engine, list).await?),
            None => Source::Staged(self.engine.clone(), id, Read::default()),
        };
        let mut lines = Lines::new(source, &from).await?;
        let mut questions = 0;
        loop {
            let Some(from) = self.first_below(dir) else {
                return Ok(Flow::On);
            };
            let Some(found) = lines.next(dir, &from).await? else {
                return Ok(Flow::On);
            };
            if self.is_past(&found.object.key) {
                return Ok(Flow::On);
            }
            for _ in questions..lines.questions() {
                if self.is_tired(&found.object.key) {
                    return Ok(Flow::Full);
                }
            }
            questions = lines.questions();
            if self.take(found) == Flow::Full {
                return Ok(Flow::Full);
            }
        }
    }

    /// Whether a folder is looked into, or is one line of the page.
    fn enter(&mut self, dir: &str) -> Folder {
        let Wanted {
            prefix, delimiter, ..
        } = *self.wanted;
        let is_on_the_way = dir.starts_with(prefix) || prefix.starts_with(dir);
        let is_behind_us = dir < self.bound.as_str() && !self.bound.starts_with(dir);
        if !is_on_the_way || is_behind_us {
            return Folder::Skipped;
        }
        match common(dir, prefix, delimiter) {
            Some(common) => Folder::Listed(self.list(common.to_owned())),
            None => Folder::Entered,
        }
    }

    /// Whether this and all that is behind it does not begin with the prefix.
    fn is_past(&self, key: &str) -> bool {
        let prefix = self.wanted.prefix;
        key > prefix && !key.starts_with(prefix)
    }

    /// The first path below a folder that may still be listed; `None` when none may.
    fn first_below(&self, dir: &str) -> Option<String> {
        if self.bound.as_str() < dir {
            return Some(String::new());
        }
        self.bound.strip_prefix(dir).map(str::to_owned)
    }

    /// The same, of a folder that has folders only: the first of their names.
    fn first_name_below(&self, dir: &str) -> Option<String> {
        let mut below = self.first_below(dir)?;
        if let Some(end) = below.find('/') {
            below.truncate(end + 1);
        }
        Some(below)
    }

    /// Adds an object, or what it has in common with others.
    fn take(&mut self, found: Found) -> Flow {
        let key = &found.object.key;
        // Behind what they have in common, more of them may come.
        if key.as_str() < self.bound.as_str() {
            return Flow::On;
        }
        if let Some(common) = common(key, self.wanted.prefix, self.wanted.delimiter) {
            let common = common.to_owned();
            return self.list(common);
        }
        if self.is_full() {
            self.page.next = Some(found.object.key);
            return Flow::Full;
        }
        self.bound = format!("{key}\0");
        self.page.objects.push(found.object);
        Flow::On
    }

    fn list(&mut self, common: String) -> Flow {
        if self.is_full() {
            self.page.next = Some(common);
            return Flow::Full;
        }
        // Nothing is behind the last character there is.
        self.bound = behind(&common).unwrap_or_else(|| format!("{common}\u{10FFFF}"));
        self.page.prefixes.push(common);
        Flow::On
    }

    fn is_full(&self) -> bool {
        self.page.objects.len() + self.page.prefixes.len() >= self.wanted.limit
    }

    /// Counts a question; when there were too many, the next page goes on at `place`, or
    /// where this one was.
    fn is_tired(&mut self, place: &str) -> bool {
        self.questions += 1;
        if self.questions <= QUESTIONS_MAX {
            return false;
        }
        self.page.next = Some(self.bound.as_str().max(place).to_owned());
        true
    }
}

fn sorted(mut creators: Vec<tree::Creator>) -> Vec<tree::Creator> {
    creators.sort_by_cached_key(|creator| format!("{}/", creator.username));
    creators
}

/// The beginning of a key up to the first delimiter behind the prefix, if there is one.
fn common<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

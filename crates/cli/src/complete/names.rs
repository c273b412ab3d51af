//! Names that the server knows, for who types the beginning of one.

use std::sync::Mutex;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use grid_api::client::{Auth, Client, segment};
use grid_api::datastore::{
    DatastoreView, DatastoresQuery, DatastoresResponse, FileKind, FilesQuery, FilesResponse,
};
use grid_api::run::{RunView, RunsQuery, RunsResponse};
use grid_api::team::{TeamsQuery, TeamsResponse};
use grid_api::user::{UserResponse, UsersResponse};
use grid_core::duration::format_size;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::kinds::Kind;
use crate::context;
use crate::settings::Settings;

/// How long the server may take.  Higher: who presses Tab while it is away waits, and the
/// shell seems to hang; lower: a server far away has nothing to offer.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);

/// Things that are looked through for names; what the server gives at a time.  Higher: slower;
/// lower: an older name is not offered.
const LOOKED_THROUGH: u32 = 500;

/// Experiments of one run that are offered.  More do not fit a screen.
const EXPERIMENTS_OFFERED: u64 = 200;

/// What a shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Offer the words.
    Words,
    /// Offer files, as it always does.
    Files,
    /// Offer folders.
    Folders,
}

/// Who is asked for names, and what was typed.
pub(super) struct Names {
    settings: Option<Settings>,
    typed: Vec<String>,
    offer: Mutex<Offer>,
}

impl Names {
    pub(super) fn new(settings: Option<Settings>, typed: &[String]) -> Self {
        Self {
            settings,
            typed: typed.to_vec(),
            offer: Mutex::new(Offer::Words),
        }
    }

    /// What the shell is to do.
    pub(super) fn offer(&self) -> Offer {
        self.offer.lock().map_or(Offer::Words, |offer| *offer)
    }

    fn set(&self, wanted: Offer) -> Vec<CompletionCandidate> {
        if let Ok(mut offer) = self.offer.lock() {
            *offer = wanted;
        }
        Vec::new()
    }

    /// The names of a kind that begin with `word`, as far as they are known in time.
    pub(super) fn candidates(&self, kind: Kind, word: &str) -> Vec<CompletionCandidate> {
        match kind {
            Kind::File => return self.set(Offer::Files),
            Kind::Folder => return self.set(Offer::Folders),
            _ => {}
        }
        let Some(asker) = self.settings.as_ref().and_then(Asker::of) else {
            return Vec::new();
        };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return Vec::new();
        };
        let found = runtime.block_on(async {
            let asked = self.ask(&asker, kind, word);
            tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?
        });
        // A name that is looked up in the network may take longer than anybody waits.
        runtime.shutdown_background();
        let found = found.unwrap_or_default().into_iter();
        let begun = found.filter(|(value, _)| value.starts_with(word));
        begun
            .map(|(value, help)| {
                let help = Some(help).filter(|help| !help.is_empty());
                CompletionCandidate::new(value).help(help.map(Into::into))
            })
            .collect()
    }

    async fn ask(&self, asker: &Asker, kind: Kind, word: &str) -> Option<Vec<Named>> {
        match kind {
            Kind::Run | Kind::Experiment | Kind::RunOrExperiment | Kind::RunInTrash => {
                runs(asker, kind, word).await
            }
            Kind::Version | Kind::Datastore | Kind::VersionInTrash => {
                versions(asker, kind, word).await
            }
            Kind::VersionNumber => {
                let named = self.value_of(&["--name", "--datastore_name"])?;
                numbers(asker, &named).await
            }
            Kind::PathInVersion => paths(asker, &self.first_of_datastore()?, word).await,
            Kind::User => {
                let UsersResponse { users } = asker.get("/users", &()).await?;
                let named = |user: grid_api::user::UserView| (user.username, user.display_name);
                Some(users.into_iter().map(named).collect())
            }
            Kind::Team => {
                let TeamsResponse { teams } = asker.get("/teams", &TeamsQuery::default()).await?;
                let named = |team: grid_api::team::TeamView| (team.name, String::new());
                Some(teams.into_iter().map(named).collect())
            }
            Kind::File | Kind::Folder => None,
        }
    }

    /// The last value that one of these flags was given.
    fn value_of(&self, flags: &[&str]) -> Option<String> {
        let last = self.typed.len().saturating_sub(1);
        let mut found = None;
        for (index, word) in self.typed[..last].iter().enumerate() {
            for flag in flags {
                if word == flag && index + 1 < last {
                    found = self.typed.get(index + 1).cloned();
                } else if let Some(value) =
                    word.strip_prefix(flag).and_then(|w| w.strip_prefix('='))
                {
                    found = Some(value.to_owned());
                }
            }
        }
        found
    }

    /// The datastore of `grid datastore COMMAND DATASTORE`.
    fn first_of_datastore(&self) -> Option<String> {
        let last = self.typed.len().saturating_sub(1);
        let words = self.typed[..last].iter();
        let behind = words
            .skip_while(|word| !word.starts_with("datastore"))
            .skip(2);
        let mut behind = behind.peekable();
        while let Some(word) = behind.next() {
            match word.as_str() {
                "--to" | "-o" | "--output" => drop(behind.next()),
                flag if flag.starts_with('-') => {}
                name => return Some(name.to_owned()),
            }
        }
        None
    }
}

/// A name, and what there is to say about it.
type Named = (String, String);

/// A way to the server.
struct Asker(Client);

impl Asker {
    fn of(settings: &Settings) -> Option<Self> {
        let credentials = settings.credentials.as_ref()?;
        let auth = Auth::User {
            user_id: credentials.user_id.clone(),
            api_key: credentials.api_key.clone(),
        };
        context::open(settings, &settings.url, auth).ok().map(Self)
    }

    async fn get<Q: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Q,
    ) -> Option<T> {
        self.0.get(path, query).await.ok()
    }

    async fn me(&self) -> Option<String> {
        let answer: UserResponse = self.get("/user", &()).await?;
        Some(answer.user.username)
    }
}

/// A word as `USER:REST`, or as one's own.
fn split(word: &str) -> (Option<String>, &str) {
    match word.split_once(':') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, word),
    }
}

async fn runs(asker: &Asker, kind: Kind, word: &str) -> Option<Vec<Named>> {
    let (user, rest) = split(word);
    let name = run_of(rest);
    let query = RunsQuery {
        global: Some(true),
        created_by: user,
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        deleted: (kind == Kind::RunInTrash).then_some(true),
        limit: Some(LOOKED_THROUGH),
        ..RunsQuery::default()
    };
    let (me, found) = futures::join!(asker.me(), asker.get::<_, RunsResponse>("/runs", &query));
    let me = me?;
    let runs = found?.runs;
    let mut named = Vec::new();
    for run in &runs {
        let called = called(&me, &run.created_by, &run.name);
        let is_begun = word.starts_with(&format!("{called}-"));
        if kind != Kind::Experiment {
            named.push((called.clone(), run.status.to_string()));
        }
        if kind == Kind::Experiment || (kind == Kind::RunOrExperiment && is_begun) {
            experiments(&mut named, &called, run, word);
        }
    }
    Some(named)
}

/// The run of what may be the beginning of an experiment's name.
fn run_of(word: &str) -> &str {
    if let Some((run, _)) = word.rsplit_once("-exp") {
        return run;
    }
    let begun = ["-ex", "-e", "-"];
    let cut = begun.iter().find_map(|end| word.strip_suffix(end));
    cut.unwrap_or(word)
}

/// The experiments of a run; only their beginning, until the run is clear.
fn experiments(named: &mut Vec<Named>, called: &str, run: &RunView, word: &str) {
    let total = run.counts.total();
    let stem = format!("{called}-exp");
    if total > 1 && !word.starts_with(&stem) {
        named.push((stem, String::new()));
        return;
    }
    let all = 0..total;
    let begun = all.filter(|number| format!("{stem}{number}").starts_with(word));
    let few = begun.take(usize::try_from(EXPERIMENTS_OFFERED).unwrap_or(usize::MAX));
    named.extend(few.map(|number| (format!("{stem}{number}"), String::new())));
}

/// What something of `creator` is called by `me`.
fn called(me: &str, creator: &str, name: &str) -> String {
    match creator == me {
        true => name.to_owned(),
        false => format!("{creator}:{name}"),
    }
}

async fn datastores(asker: &Asker, query: DatastoresQuery) -> Option<Vec<DatastoreView>> {
    let query = DatastoresQuery {
        limit: Some(LOOKED_THROUGH),
        ..query
    };
    let answer: DatastoresResponse = asker.get("/datastores", &query).await?;
    Some(answer.datastores)
}

async fn versions(asker: &Asker, kind: Kind, word: &str) -> Option<Vec<Named>> {
    let query = DatastoresQuery {
        global: (kind != Kind::Datastore).then_some(true),
        deleted: (kind == Kind::VersionInTrash).then_some(true),
        ..DatastoresQuery::default()
    };
    let (me, found) = futures::join!(asker.me(), datastores(asker, query));
    let me = me?;
    let mut named: Vec<Named> = Vec::new();
    for one in found? {
        let called = called(&me, &one.created_by, &one.name);
        let exact = format!("{called}:{}", one.version);
        if kind == Kind::VersionInTrash
            || (kind == Kind::Version && word.starts_with(&format!("{called}:")))
        {
            named.push((exact, about(&one)));
        } else if named.iter().all(|(known, _)| *known != called) {
            named.push((called, format!("newest: {}", one.version)));
        }
    }
    Some(named)
}

fn about(one: &DatastoreView) -> String {
    let size = format_size(one.size_bytes);
    format!("{} file(s), {size}, {}", one.files, one.state)
}

async fn numbers(asker: &Asker, named: &str) -> Option<Vec<Named>> {
    let (user, name) = split(named);
    let query = DatastoresQuery {
        global: user.is_some().then_some(true),
        created_by: user,
        name: Some(name.to_owned()),
        ..DatastoresQuery::default()
    };
    let found = datastores(asker, query).await?;
    let numbered = |one: DatastoreView| (one.version.to_string(), about(&one));
    Some(found.into_iter().map(numbered).collect())
}

async fn paths(asker: &Asker, datastore: &str, word: &str) -> Option<Vec<Named>> {
    let folder = word.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let query = FilesQuery {
        path: folder,
        limit: Some(LOOKED_THROUGH),
        ..FilesQuery::default()
    };
    let path = format!("/datastores/{}/files", segment(datastore));
    let answer: FilesResponse = asker.get(&path, &query).await?;
    let named = answer.files.into_iter().map(|file| match file.kind {
        FileKind::Folder => (format!("{}/", file.path), String::new()),
        _ => (file.path, format_size(file.size_bytes)),
    });
    Some(named.collect())
}

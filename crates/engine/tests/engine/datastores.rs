//! Uploads of datastores that end at the same time.

use grid_core::datastore::{SourceKind, State};
use grid_engine::datastore::{self, BucketWish, NewVersion, Outcome};
use grid_manifest::{Entry, Node};

use crate::world::World;

/// More than are filed at a time.
const UPLOADS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upload_that_ends_is_filed_at_once_however_many_end_together() {
    let dir = tempfile::tempdir().expect("a folder");
    // Nobody looks after what was left over here: what is not begun at once never is.
    let world = World::new(dir.path()).await;
    let (engine, ada) = (&world.engine, &world.ada);
    let mut versions = Vec::new();
    for number in 0..UPLOADS {
        let new = NewVersion {
            name: format!("data-{number}x"),
            team: None,
            source: String::new(),
            source_kind: SourceKind::Folder,
            description: String::new(),
            bucket: BucketWish::default(),
        };
        let begun = datastore::begin(engine, ada, new).await.expect("begun");
        let id = begun.row.id.to_string();
        let entry = Entry {
            path: "empty".to_owned(),
            mode: 0o755,
            modified_ms: 0,
            node: Node::Folder,
        };
        let put = datastore::put_part(engine, ada, &id, 0, vec![entry], 0).await;
        assert!(matches!(put, Ok(Outcome::Kept)), "{put:?}");
        versions.push(id);
    }
    let ends = versions
        .iter()
        .map(|id| datastore::commit(engine, ada, id, 1));
    for ended in futures::future::join_all(ends).await {
        assert_eq!(ended.expect("ended").row.state, State::Available);
    }
}

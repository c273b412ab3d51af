//! The SQL store: every row that survives a restart, in SQLite or PostgreSQL.
//!
//! One text serves both databases, in the closed dialect that the migrations show: columns
//! are text or bigint, parameters are `$n`, and SQL is written in this folder and nowhere
//! else.  Here are only durable reads and writes; nobody here decides anything.
//!
//! # How to use it
//!
//! ```no_run
//! # async fn f(user: grid_core::id::UserId) -> grid_store::db::Result<()> {
//! use grid_store::db::{self, Db, Options};
//! let db = Db::connect("sqlite:///var/lib/grid/grid.db", &Options::default()).await?;
//! let mut tx = db.read().await?;                        // one consistent view
//! let teams = db::team::teams_of(&mut tx, user).await?;
//! drop(tx);
//! let mut tx = db.write().await?;                       // SQLite: one writer at a time
//! db::setting::put(&mut tx, "motd", "hello").await?;
//! tx.commit().await?;                                   // dropping it instead undoes everything
//! # Ok(()) }
//! ```
//!
//! # What it promises
//!
//! * What is not there is `None` (or `false`, or an empty list), never an error.
//! * A write that depends on what was read names it in its condition and says whether it
//!   happened: `bool`, `Vec<bool>`.
//! * A list is read in [`Page`]s by position, so that nothing is skipped or seen twice
//!   while rows come and go.
//! * Keep transactions short: nothing of the network belongs inside one.
//!
//! # One file per noun
//!
//! | module | functions |
//! | --- | --- |
//! | [`user`] | `insert`, `by_id`, `by_username`, `by_login` (name or e-mail), `by_ids`, `list`, `set_current_team`, `set_disabled`, `of_service_team` |
//! | [`key`] | `insert`, `insert_signing`, `by_hash` (with its user), `by_access_key` (with its sealed secret), `touch`, `revoke`, `of_user`, `sealed_otherwise` |
//! | [`team`] | `insert`, `by_id`, `by_ids`, `by_name`, `teams_of`, `visible_teams`, `members`, `role_of`, `set_role`, `remove_member`, `set_policy`, `lock`, `rename`, `owners`, `sizes`, `list` |
//! | [`team_blob`] | `put_many`, `not_sent`, `remove_before`: which bytes a team has sent |
//! | [`invitation`] | `insert`, `of_team`, `to_user`, `by_hash`, `end` |
//! | [`share`] | `insert_many`, `by_hash`, `by_id`, `list`, `revoke`, `touch`, `remove_before` |
//! | [`run`] | `insert`, `by_id`, `by_ids`, `by_name`, `names_taken`, `list` (with tallies), `tallies`, `set_deleted`, `restore` |
//! | [`workload`] | `insert`, `get`, `by_run_and_idx`, `list_of_run`, `list`, `open`, `all_ids`, `set_deleted`, `restore` |
//! | [`purge`] | `runs`, `workloads` (what has been in the trash for long), `run`, `single` |
//! | [`event`] | `record_many`, `of_workload`, `since` |
//! | [`snapshot`] | `insert_or_get`, `by_id`, `by_digest`, `all`, `unreferenced`, `remove` |
//! | [`datastore`] | `insert_or_get`, `by_id`, `by_ids`, `by_name`, `next_number`, `skip_numbers`, `rename`, `remove_empty` |
//! | [`datastore_version`] | `insert`, `by_id`, `by_number`, `newest`, `has_any`, `list`, `list_open`, `all`, `advance`, `sum_up`, `set_processing`, `set_uploading`, `finish`, `fail`, `describe`, `set_deleted`, `restore`, `purge` |
//! | [`datastore_page`] | `put`, `list` |
//! | [`staged`] | `hold`, `grow`, `begin`, `upload`, `uploads`, `count_uploads`, `end_upload`, `put_part`, `parts`, `file`, `files`, `files_among`, `put_file`, `remove_file`, `blobs_referenced` |
//! | [`mount`] | `insert`, `hold`, `open_users`, `users` |
//! | [`tree`] | `datastore_creators`, `run_creators`, `datastores`, `runs`, `versions`, `staged`, `ended`, `all_staged`, `experiments`: names as folders sort |
//! | [`artifact`] | `put_many`, `list`, `list_from`, `get`, `totals`, `blobs_referenced` |
//! | [`idempotency`] | `get`, `put`, `remove_before` |
//! | [`lease`] | `acquire`, `release`, `holder` |
//! | [`runner_token`] | `put`, `node_by_hash`, `remove` |
//! | [`ssh_key`] | `insert`, `of_user`, `remove` |
//! | [`credential`] | `insert`, `by_id`, `by_name`, `of_creator`, `of_teams`, `update`, `remove`, `sealed_otherwise` |
//! | [`setting`] | `get`, `put`, `remove` |
//! | [`audit`] | `insert`, `insert_many`, `list`, `remove_before` |

mod connect;
mod error;
mod page;
mod scope;
mod sql;
#[cfg(test)]
mod tests;
mod tx;
mod upkeep;

pub mod artifact;
pub mod audit;
pub mod credential;
pub mod datastore;
pub mod datastore_page;
pub mod datastore_version;
pub mod draft;
pub mod event;
pub mod idempotency;
pub mod invitation;
pub mod key;
pub mod lease;
pub mod mount;
pub mod purge;
pub mod run;
pub mod runner_token;
pub mod setting;
pub mod share;
pub mod snapshot;
pub mod ssh_key;
pub mod staged;
pub mod team;
pub mod team_blob;
pub mod tree;
pub mod user;
pub mod workload;

pub use connect::{Backend, Db, Options, sqlite_url};
pub use error::{Error, Result};
pub use page::{Deletion, PAGE_ROWS_MAX, Page, Position, Trash};
pub use scope::Scope;
pub use tx::{Tx, counted};

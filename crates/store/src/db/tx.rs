//! Transactions: reading ones see one state, writing ones happen wholly or not at all.

use std::cell::Cell;

use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow};
use sqlx::{Any, SqlSafeStr, SqlStr, Transaction};

use super::error::{Error, Result};
use super::sql::{Value, arguments};

tokio::task_local! {
    static STATEMENTS: Cell<u64>;
}

/// Does something, and says how many statements its task made meanwhile: what a request
/// costs, and that two of them cost the same.  Tasks that it starts are not counted.
pub async fn counted<F: Future>(work: F) -> (F::Output, u64) {
    let counting = async {
        let output = work.await;
        (output, STATEMENTS.with(Cell::get))
    };
    STATEMENTS.scope(Cell::new(0), counting).await
}

/// A transaction, for reading ([`super::Db::read`]) or writing ([`super::Db::write`]).
///
/// Dropping it undoes what it wrote.  After an error it can only be dropped: PostgreSQL
/// refuses everything else, and SQLite may have ended it already and would make each
/// further statement durable by itself.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    failed: bool,
    /// The texts of its statements, for tests of how the database goes about them.
    #[cfg(test)]
    pub(super) statements: Vec<String>,
}

impl Tx {
    pub(super) fn new(inner: Transaction<'static, Any>) -> Self {
        Self {
            inner,
            failed: false,
            #[cfg(test)]
            statements: Vec::new(),
        }
    }

    /// What sorts and compares text by its bytes, whatever the database was set up with.
    pub(super) fn bytewise(&self) -> &'static str {
        // SQLite does so by itself.
        match self.inner.backend_name() {
            "PostgreSQL" => "collate \"C\"",
            _ => "",
        }
    }

    /// Makes everything that was written durable and visible.
    pub async fn commit(self) -> Result<()> {
        const DOING: &str = "committing";
        self.usable(DOING)?;
        self.inner.commit().await.map_err(|e| Error::of(DOING, e))
    }

    /// All rows that a statement yields.
    pub(super) async fn rows(
        &mut self,
        doing: &'static str,
        sql: impl SqlSafeStr,
        values: Vec<Value>,
    ) -> Result<Vec<AnyRow>> {
        let (sql, arguments) = self.prepare(doing, sql, values)?;
        let rows = sqlx::query_with(sql, arguments)
            .fetch_all(&mut *self.inner)
            .await;
        rows.map_err(|e| self.fail(doing, e))
    }

    /// The one row that a statement yields, if it does.
    pub(super) async fn row(
        &mut self,
        doing: &'static str,
        sql: impl SqlSafeStr,
        values: Vec<Value>,
    ) -> Result<Option<AnyRow>> {
        // Not `fetch_optional`: that stops a writing statement after its first row.
        Ok(self.rows(doing, sql, values).await?.into_iter().next())
    }

    /// Runs a statement that yields nothing; says how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        doing: &'static str,
        sql: impl SqlSafeStr,
        values: Vec<Value>,
    ) -> Result<u64> {
        let (sql, arguments) = self.prepare(doing, sql, values)?;
        let done = sqlx::query_with(sql, arguments)
            .execute(&mut *self.inner)
            .await;
        done.map(|done: AnyQueryResult| done.rows_affected())
            .map_err(|e| self.fail(doing, e))
    }

    fn prepare(
        &mut self,
        doing: &'static str,
        sql: impl SqlSafeStr,
        values: Vec<Value>,
    ) -> Result<(SqlStr, AnyArguments)> {
        self.usable(doing)?;
        // Nobody counts outside of `counted`.
        let _ = STATEMENTS.try_with(|made| made.set(made.get() + 1));
        let sql = sql.into_sql_str();
        #[cfg(test)]
        self.statements.push(sql.as_str().to_owned());
        let arguments = arguments(values).map_err(|e| Error::internal(doing, e))?;
        Ok((sql, arguments))
    }

    fn usable(&self, doing: &'static str) -> Result<()> {
        if self.failed {
            return Err(Error::internal(
                doing,
                "an earlier statement of the transaction failed",
            ));
        }
        Ok(())
    }

    fn fail(&mut self, doing: &'static str, error: sqlx::Error) -> Error {
        self.failed = true;
        Error::of(doing, error)
    }
}

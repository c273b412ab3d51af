//! Looking after the database: is it there, how large is it, a copy of it.

use std::path::{Path, PathBuf};

use sqlx::{AnyConnection, Connection};

use super::connect::{Backend, Db};
use super::error::{Error, Result};
use super::sql::Columns;

impl Db {
    /// Whether it answers.
    pub async fn ping(&self) -> Result<()> {
        self.read()
            .await?
            .rows("asking whether it is there", "select 1", vec![])
            .await
            .map(drop)
    }

    /// How many bytes it takes on disk, without the log of what is not yet merged.
    pub async fn size_bytes(&self) -> Result<u64> {
        const DOING: &str = "asking for its size";
        let sql = match self.backend() {
            Backend::Sqlite => {
                "select cast(page_count * page_size as bigint) \
                   from pragma_page_count(), pragma_page_size()"
            }
            Backend::Postgres => "select cast(pg_database_size(current_database()) as bigint)",
        };
        let row = self.read().await?.row(DOING, sql, vec![]).await?;
        row.as_ref()
            .map_or(Ok(0), |row| Columns::of(DOING, row).number())
    }

    /// Writes a consistent copy to a new file, while everything goes on.
    ///
    /// The file is there only once it is complete.  PostgreSQL has a better program for
    /// this, and the error names it.
    pub async fn backup(&self, path: &Path) -> Result<()> {
        if self.backend() == Backend::Postgres {
            return Err(Error::Refused(format!(
                "the database is a PostgreSQL server: copy it with `pg_dump --format=custom --file={} '{}'`",
                path.display(),
                without_password(&self.url),
            )));
        }
        if path.exists() {
            let message = format!(
                "{} exists: choose a new name for the backup",
                path.display()
            );
            return Err(Error::Refused(message));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let copied = self
            .copy_to(&partial)
            .await
            .and_then(|()| publish(&partial, path));
        if copied.is_err() {
            // The error says why; a leftover would only take room.
            let _ = std::fs::remove_file(&partial);
        }
        copied
    }

    async fn copy_to(&self, partial: &Path) -> Result<()> {
        const DOING: &str = "writing a backup";
        // A leftover of a backup that was killed.
        if partial.exists() {
            std::fs::remove_file(partial).map_err(|e| Error::of(DOING, e.into()))?;
        }
        let name = partial.to_str().ok_or_else(|| {
            Error::Refused(format!(
                "the name of the backup is not UTF-8: {}",
                partial.display()
            ))
        })?;
        // A connection of its own, because those of the pool may not write any file.
        let mut connection = AnyConnection::connect(&self.url)
            .await
            .map_err(|e| Error::of(DOING, e))?;
        let copied = sqlx::query("vacuum into $1")
            .bind(name)
            .execute(&mut connection)
            .await;
        let closed = connection.close().await;
        copied.map_err(|e| Error::of(DOING, e))?;
        closed.map_err(|e| Error::of(DOING, e))
    }
}

/// Makes the copy durable, then visible.
fn publish(partial: &Path, path: &Path) -> Result<()> {
    const DOING: &str = "finishing a backup";
    let sync = || {
        std::fs::File::open(partial)?.sync_all()?;
        std::fs::rename(partial, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    sync().map_err(|e: std::io::Error| Error::of(DOING, e.into()))
}

/// The address, fit for a terminal.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let Some((user, place)) = rest.split_once('@') else {
        return url.to_owned();
    };
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{place}")
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(
            without_password("postgres://ada:secret@host:5432/grid"),
            "postgres://ada@host:5432/grid"
        );
        assert_eq!(
            without_password("postgres://host/grid"),
            "postgres://host/grid"
        );
    }
}

//! SQL lives in one folder and in one dialect that two databases understand.

use super::sources::Sources;
use super::{Exception, Finding, stale};

/// The only folder that names a table.
const HOME: &str = "crates/store/src/db/";

const ELSEWHERE: &[Exception] = &[Exception {
    path: "xtask/src/tidy/sql.rs",
    reason: "the samples of this rule",
}];

/// Column types that mean the same to both databases are `text` and `bigint`.
/// These are the others that people reach for.
const FOREIGN_TYPES: &[&str] = &[
    "blob",
    "bool",
    "boolean",
    "bytea",
    "char",
    "date",
    "datetime",
    "decimal",
    "double",
    "float",
    "int",
    "int4",
    "int8",
    "integer",
    "json",
    "jsonb",
    "numeric",
    "real",
    "serial",
    "bigserial",
    "smallint",
    "time",
    "timestamp",
    "timestamptz",
    "tinyint",
    "uuid",
    "varchar",
];

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for (source, rust) in sources.rust() {
        for (line, _) in rust.strings.iter().filter(|(_, text)| is_sql(text)) {
            if ELSEWHERE
                .iter()
                .any(|exception| exception.path == source.path)
            {
                used.push(source.path.as_str());
            } else if !source.path.starts_with(HOME) {
                let message = format!("is SQL; it belongs under {HOME}");
                findings.push(Finding::new(&source.path, *line, message));
            }
        }
        for (line, text) in rust.lines() {
            if words(text).any(|word| word == concat!("Query", "Builder")) {
                let message = "builds SQL from pieces, which one of the two databases does not understand: write it out";
                findings.push(Finding::new(&source.path, line, message));
            }
        }
    }
    for source in sources
        .all()
        .filter(|source| source.path.starts_with(HOME) && source.path.ends_with(".sql"))
    {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(word) = foreign_type(line) {
                let message = format!(
                    "has a column of type {word}; only text and bigint mean the same everywhere"
                );
                findings.push(Finding::new(&source.path, index + 1, message));
            }
        }
    }
    findings.extend(stale(sources, ELSEWHERE, &used, "the place of SQL"));
    findings
}

/// Whether a text is a statement, as opposed to a sentence that begins like one.
fn is_sql(text: &str) -> bool {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    match words.as_slice() {
        ["select", ..] => {
            has("from") && (has("where") || has("*") || text.contains('$') || text.contains('('))
        }
        ["insert", "into", ..] => has("values") || has("select") || text.contains('('),
        ["update", _, "set", ..] => text.contains('='),
        ["delete", "from", ..] => has("where"),
        ["create" | "alter" | "drop", "table" | "index", ..] => true,
        ["create", "unique", "index", ..] => true,
        _ => false,
    }
}

/// The first type of another dialect on this line, outside of comments and quoted values.
fn foreign_type(line: &str) -> Option<String> {
    let line = line.split("--").next().unwrap_or_default().to_lowercase();
    let code: String = line.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
    let mut words = words(&code);
    // The first word of a column is its name, which may be any.
    let first = words.next();
    let declares = !matches!(
        first,
        Some("create" | "insert" | "update" | "select" | "values" | "where" | "primary" | "unique")
    );
    words
        .find(|word| declares && FOREIGN_TYPES.contains(word))
        .map(str::to_owned)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{check, foreign_type, is_sql};
    use crate::tidy::sources::Sources;

    #[test]
    fn statements_are_sql_and_sentences_are_not() {
        let statements = [
            "select id from run where id = $1",
            "SELECT *\n  FROM run",
            "insert into run (id) values ($1)",
            "update run set name = $2 where id = $1",
            "delete from run where id = $1",
            "create table run (id text)",
        ];
        let sentences = [
            "select one from the list",
            "update the set of nodes",
            "insert into the queue",
            "delete from disk",
            "created",
        ];
        assert!(statements.iter().all(|text| is_sql(text)));
        for text in sentences {
            assert!(!is_sql(text), "{text}");
        }
    }

    #[test]
    fn sql_outside_of_its_folder_is_found() {
        let text = "fn f() { q(\"update run set a = $1\"); }";
        let found = check(&Sources::of(&[
            ("crates/engine/src/run.rs", text),
            ("crates/store/src/db/run.rs", text),
        ]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "crates/engine/src/run.rs");
    }

    #[test]
    fn built_sql_is_found_everywhere() {
        let text = concat!("use sqlx::Query", "Builder;");
        assert_eq!(
            check(&Sources::of(&[("crates/store/src/db/run.rs", text)])).len(),
            1
        );
    }

    #[test]
    fn columns_are_text_or_bigint() {
        let good = [
            "id text primary key,",
            "at bigint not null, -- no timestamp",
            "kind text check (kind in ('json', 'date')),",
            "date bigint,",
        ];
        for line in good {
            assert_eq!(foreign_type(line), None, "{line}");
        }
        assert_eq!(
            foreign_type("seen boolean not null").as_deref(),
            Some("boolean")
        );
        let found = check(&Sources::of(&[(
            "crates/store/src/db/migrations/0001_initial.sql",
            "create table run (\n  at TIMESTAMP\n);",
        )]));
        assert_eq!((found.len(), found[0].line), (1, 2));
    }
}

//! The log of each workload: recording what happened, and reading it.

use std::collections::HashSet;

use grid_core::id::WorkloadId;
use grid_core::time::Timestamp;
use grid_core::workload::{Actor, Event, Workload};
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::error::{Error, Result};
use super::page::one_more;
use super::sql::{Columns, Value, json, pieces, tuples, values};
use super::tx::Tx;

/// Something that happened to a workload, to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The workload as it is afterwards.
    pub workload: &'a Workload,
    /// The version that it was decided on: the number of events it had.
    pub expected_version: u64,
    /// What happened, in order.
    pub events: &'a [Event],
    /// Who caused it.
    pub actor: Actor,
    /// When, for people.
    pub at: Timestamp,
}

/// An event of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was recorded, for people.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    pub event: Event,
}

/// Records what happened to many workloads.
///
/// Each record happens only if its workload still has the expected version; whether it did
/// is told in the order of the records.  `false` means that somebody was faster: read the
/// workload again and decide again.  Several records of one workload are taken in order.
pub async fn record_many(tx: &mut Tx, records: &[Record<'_>]) -> Result<Vec<bool>> {
    let mut done = vec![false; records.len()];
    for (start, wave) in waves(records) {
        let mut written = HashSet::with_capacity(wave.len());
        for piece in pieces(wave) {
            written.extend(update(tx, piece).await?);
        }
        let mut rows = Vec::with_capacity(wave.len());
        for (offset, record) in wave.iter().enumerate() {
            if written.contains(&record.workload.id) {
                done[start + offset] = true;
                rows.extend(log_rows(record)?);
            }
        }
        insert(tx, rows).await?;
    }
    Ok(done)
}

/// Splits records so that no part names a workload twice: one statement must not.
fn waves<'s, 'a>(records: &'s [Record<'a>]) -> Vec<(usize, &'s [Record<'a>])> {
    let mut waves = Vec::new();
    let mut seen = HashSet::with_capacity(records.len());
    let mut start = 0;
    for (index, record) in records.iter().enumerate() {
        if !seen.insert(record.workload.id) {
            waves.push((start, &records[start..index]));
            seen.clear();
            seen.insert(record.workload.id);
            start = index;
        }
    }
    waves.push((start, &records[start..]));
    waves
}

/// Updates those whose version is the expected one, and says which they were.
async fn update(tx: &mut Tx, piece: &[Record<'_>]) -> Result<Vec<WorkloadId>> {
    const DOING: &str = "recording events";
    const COLUMNS_N: usize = 7;
    let sql = format!(
        "with now (workload, expected, events, state, status, started_at, finished_at) \
              as (values {}) \
         update workload set status = now.status, state = now.state, \
                version = version + now.events, \
                started_at = now.started_at, finished_at = now.finished_at \
           from now where workload.id = now.workload and version = now.expected \
         returning id",
        tuples(piece.len(), COLUMNS_N, 1)
    );
    let mut values = Vec::with_capacity(piece.len() * COLUMNS_N);
    for record in piece {
        let workload = record.workload;
        values.extend(values![
            workload.id,
            record.expected_version,
            record.events.len() as u64,
            json(workload)?,
            workload.state.status().as_str(),
            workload.started_at,
            workload.state.finished_at(),
        ]);
    }
    let rows = tx.rows(DOING, AssertSqlSafe(sql), values).await?;
    rows.iter()
        .map(|row| Columns::of(DOING, row).parse())
        .collect()
}

/// A row of the log, by its values.
pub(super) type LogRow = [Value; LOG_COLUMNS_N];
const LOG_COLUMNS_N: usize = 6;

pub(super) fn log_row(
    workload: WorkloadId,
    seq: u64,
    at: Timestamp,
    actor: &str,
    event: &Event,
) -> Result<LogRow> {
    /// The part of an event that says which it is.
    #[derive(Deserialize)]
    struct Kind<'a> {
        kind: &'a str,
    }

    let body = json(event)?;
    let kind: Kind<'_> =
        serde_json::from_str(&body).map_err(|e| Error::internal("writing an event", e))?;
    let kind = Value::from(kind.kind);
    Ok([
        workload.into(),
        seq.into(),
        at.into(),
        actor.into(),
        kind,
        body.into(),
    ])
}

fn log_rows(record: &Record<'_>) -> Result<Vec<LogRow>> {
    let actor = actor_text(record.actor);
    let row =
        |(event, seq): (&Event, u64)| log_row(record.workload.id, seq, record.at, &actor, event);
    record
        .events
        .iter()
        .zip(record.expected_version + 1..)
        .map(row)
        .collect()
}

/// Adds rows to the log.
pub(super) async fn insert(tx: &mut Tx, rows: Vec<LogRow>) -> Result<()> {
    for piece in pieces(&rows) {
        let sql = format!(
            "insert into event (workload, seq, at, actor, kind, body) values {}",
            tuples(piece.len(), LOG_COLUMNS_N, 1)
        );
        let values = piece.iter().flatten().cloned().collect();
        tx.execute("writing the event log", AssertSqlSafe(sql), values)
            .await?;
    }
    Ok(())
}

/// The whole log of a workload; empty when there is no such workload.
pub async fn of_workload(tx: &mut Tx, workload: WorkloadId) -> Result<Vec<Logged>> {
    let sql = "select seq, at, actor, body from event where workload = $1 order by seq";
    let rows = tx
        .rows("reading the event log", sql, values![workload])
        .await?;
    rows.iter().map(of_row).collect()
}

/// The log of a workload after the event `seq` (0 for all), at most `limit` of it.
pub async fn since(tx: &mut Tx, workload: WorkloadId, seq: u64, limit: u32) -> Result<Vec<Logged>> {
    let sql = "select seq, at, actor, body from event \
          where workload = $1 and seq > $2 order by seq limit $3";
    let values = values![workload, seq, one_more(limit) - 1];
    let rows = tx.rows("reading the event log", sql, values).await?;
    rows.iter().map(of_row).collect()
}

fn of_row(row: &AnyRow) -> Result<Logged> {
    let mut columns = Columns::of("reading an event", row);
    Ok(Logged {
        seq: columns.number()?,
        at: columns.time()?,
        actor: columns.word(actor_of)?,
        event: columns.json()?,
    })
}

pub(super) fn actor_text(actor: Actor) -> String {
    match actor {
        Actor::Engine => "engine".to_owned(),
        Actor::User(user) => format!("user:{user}"),
        Actor::Runner(attempt) => format!("runner:{attempt}"),
    }
}

fn actor_of(text: &str) -> Option<Actor> {
    match text.split_once(':') {
        None => (text == "engine").then_some(Actor::Engine),
        Some(("user", user)) => user.parse().ok().map(Actor::User),
        Some(("runner", attempt)) => attempt.parse().ok().map(Actor::Runner),
        Some(_) => None,
    }
}

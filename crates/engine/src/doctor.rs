//! Proving that what is stored is consistent.

use grid_core::id::WorkloadId;
use grid_core::workload::Workload;
use grid_store::blobs::Health;
use grid_store::db;

use crate::Engine;
use crate::error::Result;
use crate::trash::{AllReferenced, referenced};

/// Workloads read at a time.
const PAGE: u32 = 1_000;

/// Findings that are told in words; more are only counted.
const TOLD_MAX: usize = 100;

/// What was looked at and found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Workloads whose log was folded.
    pub workloads: u64,
    /// Events in their logs.
    pub events: u64,
    /// Blobs that something names.
    pub blobs: u64,
    /// What is wrong, in sentences; at most 100.
    pub findings: Vec<String>,
    /// How much is wrong.
    pub wrong: u64,
    /// What is not wrong here, but elsewhere, in sentences.
    pub notes: Vec<String>,
}

impl Report {
    fn find(&mut self, finding: String) {
        self.wrong += 1;
        if self.findings.len() < TOLD_MAX {
            self.findings.push(finding);
        }
    }
}

/// Looks at everything.  With `deep` every blob is read and hashed, and buckets in which
/// versions were left are listed; without it a blob is only looked for.
pub async fn examine(engine: &Engine, deep: bool) -> Result<Report> {
    let mut report = Report::default();
    let mut after = None;
    loop {
        let mut tx = engine.inner.db.read().await?;
        let page = db::workload::all_ids(&mut tx, after, PAGE).await?;
        for id in &page.items {
            examine_workload(&mut tx, *id, &mut report).await?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let AllReferenced { blobs, lost } = referenced(engine).await?;
    for list in lost {
        report.find(list);
    }
    report.blobs = blobs.len() as u64;
    // A bucket is read a pack at a time, and then it is known of each blob.
    let is_reread = deep && engine.inner.blobs.reread().await?;
    if deep {
        for id in blobs {
            let health = match is_reread {
                true => engine.inner.blobs.known_health(id).await?,
                false => engine.inner.blobs.check(id).await?,
            };
            match health {
                Health::Ok => {}
                Health::Missing => report.find(format!("blob {id} is named but not stored")),
                Health::Corrupt => {
                    report.find(format!("blob {id} is damaged: its bytes have another hash"));
                }
            }
        }
    } else {
        for part in blobs.chunks(PAGE as usize) {
            for id in engine.inner.blobs.missing(part.to_vec()).await? {
                report.find(format!("blob {id} is named but not stored"));
            }
        }
    }
    let closed = crate::credential::sealed_otherwise(engine).await?;
    if !closed.is_nothing() {
        report.find(format!(
            "{closed} were encrypted with another key than the server has"
        ));
    }
    if deep {
        let mut notes = crate::datastore::drifted(engine).await?;
        notes.truncate(TOLD_MAX);
        report.notes = notes;
    }
    Ok(report)
}

async fn examine_workload(tx: &mut db::Tx, id: WorkloadId, report: &mut Report) -> Result<()> {
    let log = db::event::of_workload(tx, id).await?;
    let Some(stored) = db::workload::get(tx, id).await? else {
        return Ok(());
    };
    report.workloads += 1;
    report.events += log.len() as u64;
    if log.len() as u64 != stored.version {
        report.find(format!(
            "experiment {id} has {} events and says it has {}",
            log.len(),
            stored.version
        ));
    }
    if log.iter().zip(1..).any(|(event, seq)| event.seq != seq) {
        report.find(format!("the log of experiment {id} has a gap"));
        return Ok(());
    }
    // A log that does not replay panics, by design; here that is a finding.
    let events: Vec<_> = log
        .into_iter()
        .map(|logged| (logged.event, logged.at))
        .collect();
    let folded = std::panic::catch_unwind(|| {
        Workload::fold(id, events.iter().map(|(event, at)| (event, *at)))
    });
    match folded {
        Ok(folded) if folded == stored.workload => {}
        Ok(_) => report.find(format!(
            "the state of experiment {id} is not what its log comes to"
        )),
        Err(_) => report.find(format!("the log of experiment {id} does not replay")),
    }
    Ok(())
}

//! Lists that the server gives page by page.

use anyhow::Result;
use grid_api::artifact::{ArtifactView, ArtifactsQuery, ArtifactsResponse};
use grid_api::client::Client;
use grid_api::experiment::{ExperimentView, ExperimentsQuery, ExperimentsResponse};
use grid_api::run::{RunView, RunsQuery, RunsResponse};

/// Entries of a page; the most that the server gives.  Lower: more round trips.
const PAGE: u32 = 1_000;

/// Artifacts of a page; the most that the server gives.
const ARTIFACTS_PAGE: u32 = 10_000;

/// At most `limit` runs of a list, and whether there are more.
pub(crate) async fn runs(
    client: &Client,
    mut query: RunsQuery,
    limit: usize,
) -> Result<(Vec<RunView>, bool)> {
    let mut runs: Vec<RunView> = Vec::new();
    loop {
        let wanted = (limit - runs.len()).min(PAGE as usize);
        query.limit = Some(u32::try_from(wanted).unwrap_or(PAGE));
        let page: RunsResponse = client.get("/runs", &query).await?;
        runs.extend(page.runs);
        let has_more = page.next.is_some() || runs.len() > limit;
        if !has_more || runs.len() >= limit {
            runs.truncate(limit);
            return Ok((runs, has_more));
        }
        query.cursor = page.next;
    }
}

/// All experiments of the run at `path`, by number.
pub(crate) async fn experiments(client: &Client, path: &str) -> Result<Vec<ExperimentView>> {
    let mut query = ExperimentsQuery {
        limit: Some(PAGE),
        ..ExperimentsQuery::default()
    };
    let mut experiments = Vec::new();
    loop {
        let page: ExperimentsResponse = client.get(&format!("{path}/experiments"), &query).await?;
        let is_last = page.next.is_none() || page.experiments.is_empty();
        experiments.extend(page.experiments);
        if is_last {
            return Ok(experiments);
        }
        query.cursor = page.next;
    }
}

/// All artifacts of the experiment at `path`.
pub(crate) async fn artifacts(client: &Client, path: &str) -> Result<Vec<ArtifactView>> {
    let mut query = ArtifactsQuery {
        limit: Some(ARTIFACTS_PAGE),
        after: None,
    };
    let mut artifacts = Vec::new();
    loop {
        let page: ArtifactsResponse = client.get(&format!("{path}/artifacts"), &query).await?;
        let is_last = page.next.is_none() || page.artifacts.is_empty();
        artifacts.extend(page.artifacts);
        if is_last {
            return Ok(artifacts);
        }
        query.after = page.next;
    }
}

//! Links that work without an account.

use std::process::ExitCode;

use anyhow::Result;
use grid_api::artifact::{ArtifactLinkCreate, ArtifactLinksResponse};
use grid_api::client::{Client, segment};

use super::Source;
use crate::context::Ctx;
use crate::table::{Cell, Table};

/// Paths of one request.  Higher: bodies that the server refuses.
const PATHS_MAX: usize = 1_000;

/// Makes the links and prints them.
pub(super) async fn print(ctx: &Ctx, client: &Client, sources: &[Source]) -> Result<ExitCode> {
    let mut table = Table::new(["Experiment", "Artifact", "Link", "Until"]);
    let mut links = Vec::new();
    for source in sources {
        let path = format!(
            "/experiments/{}/artifact-links",
            segment(&source.experiment.id)
        );
        for part in source.artifacts.chunks(PATHS_MAX) {
            let create = ArtifactLinkCreate {
                paths: part.iter().map(|a| a.path.clone()).collect(),
            };
            let answer: ArtifactLinksResponse = client.post(&path, &create).await?;
            for link in answer.links {
                table.row([
                    Cell::text(&source.experiment.name),
                    Cell::text(&link.path),
                    Cell::text(&link.url),
                    Cell::time(&link.expires_at),
                ]);
                links.push(serde_json::json!({
                    "experiment": source.experiment.name,
                    "path": link.path,
                    "url": link.url,
                    "expires_at": link.expires_at,
                }));
            }
        }
    }
    if ctx.printer.is_json() {
        ctx.printer.json(&serde_json::json!({ "links": links }))?;
    } else if table.is_empty() {
        ctx.printer.note("No artifacts.");
    } else {
        ctx.printer.table(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `grid clusters`: where things run.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use grid_api::cluster::{ClusterView, ClustersResponse, NodeView};
use grid_core::duration::format_size;

use crate::context::Ctx;
use crate::table::{Cell, Table};

/// Show the clusters, what they have and what is in use
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  grid clusters\n  grid clusters -o json")]
pub(crate) struct ClustersArgs {}

/// Shows the clusters.
pub(crate) fn run(ctx: &Ctx) -> Result<ExitCode> {
    let client = ctx.client()?;
    let answer: ClustersResponse = ctx.block_on(client.get("/clusters", &()))??;
    if ctx.printer.is_json() {
        ctx.printer.json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    ctx.printer.table(&table(&answer.clusters))?;
    for node in answer.clusters.iter().flat_map(|cluster| &cluster.nodes) {
        for warning in &node.warnings {
            ctx.printer.warn(&format!("{}: {warning}", node.name));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(clusters: &[ClusterView]) -> Table {
    let mut table = Table::new([
        "id",
        "type",
        "status",
        "node",
        "CPUs in use",
        "GPUs in use",
        "memory",
        "waiting",
    ])
    .short(&[("CPUs in use", "CPUs"), ("GPUs in use", "GPUs")]);
    for cluster in clusters {
        let waiting = Cell::number(cluster.waiting);
        if cluster.nodes.is_empty() {
            let none = || Cell::text("-");
            let cells = [
                Cell::text("no nodes"),
                none(),
                none(),
                none(),
                none(),
                waiting.clone(),
            ];
            table.row(
                [Cell::text(&cluster.name), Cell::text(&cluster.kind)]
                    .into_iter()
                    .chain(cells),
            );
        }
        for node in &cluster.nodes {
            let cells = node_cells(node).into_iter().chain([waiting.clone()]);
            table.row(
                [Cell::text(&cluster.name), Cell::text(&cluster.kind)]
                    .into_iter()
                    .chain(cells),
            );
        }
    }
    table
}

fn node_cells(node: &NodeView) -> [Cell; 5] {
    [
        Cell::text(if node.connected {
            "running"
        } else {
            "not connected"
        }),
        Cell::text(&node.name),
        Cell::text(format!("{} of {}", node.cpus_used, node.cpus)),
        Cell::text(format!("{} of {}", node.gpus_used, node.gpus)),
        Cell::text(format_size(node.memory_bytes)),
    ]
}

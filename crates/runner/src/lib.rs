//! `grid runner`: beside the users' processes, one per node, many attempts each.
//!
//! It calls the server, is told which attempts to run, prepares their code and
//! environments, has them run by the [`keeper`], and sends home what they write and
//! leave.  It may be killed at any moment: processes and what they write belong to
//! the keeper, orders are on disk, and the next runner goes on where this one was.
//! When the server is away, everything goes on, and is told later.

pub mod detect;
pub mod keeper;
pub mod limits;
pub mod sandbox;
pub mod settings;

mod attempt;
mod clock;
mod context;
mod folder;
mod keeping;
mod prepare;
mod remains;
mod server;
mod ship;
mod spare;
mod sync;
mod system;
mod table;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use grid_core::id::AttemptId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::attempt::{Attempt, drive, saved};
use crate::context::Context;
use crate::settings::Settings;
use crate::sync::{Conversation, Over, Signal};

/// After how long without the server a runner with nothing to run ends.  Lower: a server
/// that takes long to start again starts another runner for nothing; higher: a stopped
/// server leaves two idle processes behind for longer.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Runs a runner until it is told to go: by SIGTERM or SIGINT, which leave running
/// what runs, or by the server, once nothing runs.  SIGUSR1 says that the machine
/// goes away: scripts are asked to save and end.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    run_with(settings, None).await
}

/// The same with another way to start the keeper than by this program; for tests.
#[doc(hidden)]
pub async fn run_with(
    settings: Settings,
    starter: Option<keeper::client::Starter>,
) -> anyhow::Result<()> {
    // Fails when there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let silence_max = settings.config.silence_max_ms.map(Duration::from_millis);
    let context = Arc::new(system::open(&settings, starter).await?);
    let signals = hear_signals()?;
    for warning in &context.warnings {
        tracing::warn!("{warning}");
    }
    adopt(&context).await;
    let keeping = Arc::clone(&context);
    tokio::spawn(async move { keeping.prepare.keep(&keeping).await });
    let idle_max = settings
        .config
        .idle_max_ms
        .map_or(IDLE_MAX, Duration::from_millis);
    let mut conversation = Conversation::new(Arc::clone(&context), epoch(), silence_max, idle_max);
    match conversation.hold(signals).await {
        Over::Asked => tracing::info!("this runner ends; what runs goes on"),
        Over::Retired => {
            tracing::info!("nothing is left to run; this runner ends, and its keeper");
            context.keeper.dismiss().await;
            context.confinement.driver.retire();
        }
    }
    Ok(())
}

/// Goes on with the attempts of the former runner process, and removes what is left
/// of those that it had not begun or not finished removing.
async fn adopt(context: &Arc<Context>) {
    let mut orders = Vec::new();
    for entry in std::fs::read_dir(context.folder.attempts())
        .into_iter()
        .flatten()
        .flatten()
    {
        let id: Option<AttemptId> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let (Some(id), Some(order)) = (id, saved::read_order(&entry.path()))
            && order.launch.attempt == id
        {
            orders.push(order);
        }
    }
    orders.sort_by_key(|order| order.launch.attempt);
    let known: HashSet<AttemptId> = orders.iter().map(|order| order.launch.attempt).collect();
    remains::sweep(context, &known).await;
    for order in orders {
        let attempt = Arc::new(Attempt::new(order.launch, &context.folder, false));
        drive::begin(context, &attempt, false);
        context.table.adopt(Arc::clone(&attempt), &order.grant);
        tokio::spawn(drive::drive(
            Arc::clone(context),
            attempt,
            order.grant,
            false,
        ));
    }
    if !known.is_empty() {
        tracing::info!(
            attempts = known.len(),
            "found the attempts of the former runner"
        );
    }
}

fn hear_signals() -> anyhow::Result<mpsc::Receiver<Signal>> {
    let (tell, told) = mpsc::channel(4);
    let kinds = [
        (SignalKind::terminate(), Signal::Leave),
        (SignalKind::interrupt(), Signal::Leave),
        (SignalKind::user_defined1(), Signal::Interrupt),
    ];
    for (kind, meaning) in kinds {
        let mut heard = signal(kind).context("cannot listen to signals")?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                if tell.send(meaning).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(told)
}

/// A number that no other runner process has.
fn epoch() -> u64 {
    let mut bytes = [0; 8];
    // It never fails for so few bytes once the system is up; the time serves as well.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_le_bytes(bytes),
        Err(_) => clock::wall_ms().unsigned_abs(),
    }
}

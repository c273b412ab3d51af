//! Versions whose bytes do not lie on this machine: standard input, and what the server
//! fetches by itself.

use std::io;
use std::time::Duration;

use anyhow::Result;
use grid_api::client::{Client, segment};
use grid_api::datastore::{DatastoreCreate, DatastoreResponse, DatastoreView};
use grid_core::datastore::State;
use reqwest::Method;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::change::called;
use crate::context::Ctx;
use crate::error::Problem;
use crate::progress::Progress;
use crate::table::printable;

/// How often it is asked how far the server is.
const POLL: Duration = Duration::from_millis(500);

/// How long nothing comes until it is said what is waited for.  Higher: people wonder;
/// lower: sources that take a while to begin are told of.
const QUIET_TOLD: Duration = Duration::from_secs(15);

/// How long a server that does not answer is waited for.  Higher: one that is gone is waited
/// for; lower: one that is started again is taken for gone.
const SERVER_AWAITED: Duration = Duration::from_secs(15 * 60);

/// Bytes of standard input that are sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// Sends an archive from standard input.
pub(super) async fn stream(
    ctx: &Ctx,
    client: &Client,
    create: &DatastoreCreate,
) -> Result<DatastoreView> {
    let begun: DatastoreResponse = client.post("/datastores", create).await?;
    let name = called(&begun.datastore);
    let progress = Progress::new(&ctx.printer, &name, 0);
    let counted = progress.clone();
    let body = futures::stream::try_unfold(tokio::io::stdin(), move |mut input| {
        let counted = counted.clone();
        async move {
            let mut piece = vec![0; PIECE_BYTES];
            let length = input.read(&mut piece).await?;
            piece.truncate(length);
            counted.add(length as u64);
            io::Result::Ok((length > 0).then_some((piece, input)))
        }
    });
    let route = format!("/datastores/{}", segment(&begun.datastore.id));
    let archive = format!("{route}/archive");
    let sent = tokio::select! {
        sent = client.put_stream::<_, _, DatastoreResponse>(&archive, body) => sent,
        _ = tokio::signal::ctrl_c() => {
            progress.finish();
            return Err(Problem::new(format!("interrupted: {name} is given up"))
                .hint("what comes from a pipe cannot be resumed; a folder can")
                .into());
        }
    };
    progress.finish();
    Ok(sent?.datastore)
}

/// Has the server fetch something, and waits until it has.
pub(super) async fn fetched(
    ctx: &Ctx,
    client: &Client,
    create: &DatastoreCreate,
) -> Result<DatastoreView> {
    let begun: DatastoreResponse = client.post("/datastores", create).await?;
    let mut now = begun.datastore;
    let name = called(&now);
    let route = format!("/datastores/{}", segment(&now.id));
    let progress = Progress::new(&ctx.printer, &name, 0);
    let (mut seen, mut total) = (0, 0);
    let mut waits_for: Option<String> = None;
    let (mut moved, mut is_quiet_told) = (Instant::now(), false);
    let mut away: Option<Instant> = None;
    while now.state == State::Processing {
        if let Some(known) = now.progress_total_bytes.filter(|known| *known != total) {
            progress.restart(&name, known);
            (seen, total) = (0, known);
        }
        if now.progress_bytes > seen {
            (moved, is_quiet_told) = (Instant::now(), false);
        }
        progress.add(now.progress_bytes.saturating_sub(seen));
        seen = now.progress_bytes.max(seen);
        if moved.elapsed() > QUIET_TOLD && !is_quiet_told && now.message.is_none() {
            is_quiet_told = true;
            tell_quiet(ctx, &name, &now.source);
        }
        if now.message.is_some() && now.message != waits_for {
            progress.finish();
            tell_wait(ctx, &name, now.message.as_deref().unwrap_or_default());
        }
        if now.message.is_some() {
            waits_for.clone_from(&now.message);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = tokio::signal::ctrl_c() => {
                progress.finish();
                return Err(Problem::new(format!("the server goes on with {name}"))
                    .hint("`grid datastore` shows how far it is; `grid datastore delete` gives it up")
                    .into());
            }
        }
        let asked: Result<DatastoreResponse, _> =
            client.json(client.request(Method::GET, &route)).await;
        match asked {
            Ok(answer) => {
                now = answer.datastore;
                away = None;
            }
            // The server may be starting again; it goes on with what it fetches.
            Err(error) if error.is_transient() => match away {
                None => {
                    ctx.printer.warn(&format!(
                        "the server does not answer; it goes on with {name} when it is there again"
                    ));
                    away = Some(Instant::now());
                }
                Some(since) if since.elapsed() < SERVER_AWAITED => {}
                Some(_) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    progress.finish();
    Ok(now)
}

/// Says why the server does not go on.
fn tell_wait(ctx: &Ctx, name: &str, why: &str) {
    ctx.printer.warn(&format!(
        "{name} waits: {}; the server tries again every half minute, also after Ctrl-C, until `grid datastore delete {name}`",
        printable(why)
    ));
}

/// Says what is waited for where nothing is known.
fn tell_quiet(ctx: &Ctx, name: &str, source: &str) {
    ctx.printer.warn(&format!(
        "nothing of {name} came for {} seconds: the server waits for {}, or for its turn behind others",
        QUIET_TOLD.as_secs(),
        printable(source)
    ));
}

//! What the original client follows: the same logs, by the same follower, as
//! `/api/v1/experiments/{experiment}/logs/follow`.

use std::future::ready;

use async_graphql::{Context, ID, Result, Subscription};
use futures::{Stream, StreamExt};
use grid_api::log::LogStream;
use grid_core::time::Timestamp;
use grid_engine::log::{Cursor, LINES_MAX};

use super::types::LogLine;
use super::{FOLLOW_COST, asked, refused};
use crate::live::{Follower, Start, Told};

pub(super) struct Live;

/// What the original client follows.
#[Subscription(name = "Subscription")]
impl Live {
    /// What the script prints, some lines at a time, to the end of the experiment.
    #[graphql(complexity = "FOLLOW_COST + child_complexity")]
    async fn get_live_experiment_logs(
        &self,
        ctx: &Context<'_>,
        experiment_id: ID,
        limit: Option<i32>,
    ) -> Result<impl Stream<Item = Result<Vec<LogLine>>> + use<>> {
        let follower = follow(ctx, &experiment_id, LogStream::Experiment, limit).await?;
        Ok(lines(follower))
    }

    /// What building the environment prints, line by line, until the script runs.
    #[graphql(complexity = "FOLLOW_COST + child_complexity")]
    async fn get_live_build_logs(
        &self,
        ctx: &Context<'_>,
        experiment_id: ID,
        tail_lines: Option<i32>,
    ) -> Result<impl Stream<Item = Result<LogLine>> + use<>> {
        let follower = follow(ctx, &experiment_id, LogStream::Build, tail_lines).await?;
        let lines = lines(follower.until_built());
        Ok(lines.flat_map(|lines| {
            let lines: Vec<Result<LogLine>> = match lines {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(lines)
        }))
    }
}

/// A follower who was let in; from the beginning, or with so many last lines.
async fn follow(
    ctx: &Context<'_>,
    experiment: &str,
    stream: LogStream,
    tail: Option<i32>,
) -> Result<Follower> {
    let start = match tail {
        // The client sends 0 for nothing chosen, and what it was given else.
        None | Some(..=0) => Start::At(Cursor::START),
        Some(lines) => Start::Tail(usize::try_from(lines).unwrap_or(0).min(LINES_MAX)),
    };
    let asked = asked(ctx)?;
    let engine = &asked.app.engine;
    // Before it is asked: what changes from then on is not missed.
    let watchers = (engine.watch(), engine.watch_people());
    let reader = grid_engine::log::open(engine, &asked.caller, experiment, stream).await;
    let reader = reader.map_err(refused)?;
    let stop = asked.app.stop.clone();
    Ok(Follower::new(reader, stream, start, watchers, stop))
}

/// The whole lines of a log; one that is not over is told when it is.
fn lines(follower: Follower) -> impl Stream<Item = Result<Vec<LogLine>>> {
    follower.told().filter_map(|told| {
        let told = match told {
            Ok(told) => told,
            Err(error) => return ready(Some(Err(refused(error)))),
        };
        let lines: Vec<LogLine> = told
            .into_iter()
            .filter_map(|one| match one {
                Told::Line { at: Some(_), line } => {
                    let at = Timestamp::parse(&line.at).unwrap_or_default();
                    Some(LogLine::new(&line.text, at))
                }
                Told::Line { at: None, .. } | Told::Status(_) | Told::End(_) => None,
            })
            .collect();
        ready((!lines.is_empty()).then_some(Ok(lines)))
    })
}

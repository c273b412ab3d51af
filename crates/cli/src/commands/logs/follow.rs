//! Logs as they are written.
//!
//! A connection that breaks is made again from where it was, so that no line is
//! missing and none comes twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use grid_api::client::{self, Client};
use grid_api::error::ErrorBody;
use grid_api::experiment::{ExperimentResponse, ExperimentView};
use grid_api::log::{LogLine, LogStream, LogsEnd, LogsStatus};
use grid_core::workload::Status;
use tokio::sync::mpsc;

use super::lines::Lines;
use super::{path_of, waiting};
use crate::clock;
use crate::context::Ctx;
use crate::printer::Printer;
use crate::table::printable;

/// Logs that are followed at the same time; others when these have ended.  Higher:
/// a large sweep opens as many connections.
const FOLLOWED_MAX: usize = 64;

/// Events that wait to be printed.  Higher: memory when the terminal is slow.
const WAITING_MAX: usize = 1_024;

/// The pause before a broken connection is made again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// How long a server may be away.  Higher: a server that was taken down is waited for in vain.
const AWAY_MAX: Duration = Duration::from_secs(15 * 60);

/// Something that was heard about one experiment.
enum Heard {
    Line(LogLine),
    Status(LogsStatus),
    /// The connection broke, and is being made again.
    Lost,
    /// With what there is to say about it.
    Ended(Status, Option<String>),
    Failed(anyhow::Error),
}

/// Prints the logs of experiments until all have ended; tells how they did.
pub(super) async fn follow(
    ctx: &Ctx,
    client: &Client,
    experiments: &[ExperimentView],
    with_name: bool,
    tail: Option<u32>,
    streams: &dyn Fn(&ExperimentView) -> Vec<LogStream>,
) -> Result<BTreeMap<String, Status>> {
    let (sender, mut heard) = mpsc::channel(WAITING_MAX);
    let mut followers = Vec::new();
    let mut open = BTreeMap::new();
    for experiment in experiments {
        let streams = streams(experiment);
        open.insert(experiment.name.clone(), streams.len());
        followers.extend(streams.into_iter().map(|stream| Follower {
            name: experiment.name.clone(),
            experiment: path_of(experiment),
            path: format!(
                "{}/logs/follow?stream={}",
                path_of(experiment),
                stream.as_str()
            ),
            tail,
            sender: sender.clone(),
        }));
    }
    // The last follower that goes closes the channel.
    drop(sender);
    let client = client.clone();
    let work = tokio::spawn(async move {
        futures::stream::iter(followers)
            .for_each_concurrent(FOLLOWED_MAX, |follower| follower.run(client.clone()))
            .await;
    });
    let mut screen = Screen {
        printer: &ctx.printer,
        lines: Lines::new(&ctx.printer, with_name, true),
        with_name,
        open,
        ended: BTreeMap::new(),
        said: BTreeMap::new(),
        is_lost: false,
    };
    while let Some((name, event)) = heard.recv().await {
        if let Err(error) = screen.show(name, event) {
            work.abort();
            screen.lines.settle()?;
            return Err(error);
        }
        // Lines that came together are written together.
        if heard.is_empty() {
            ctx.printer.flush()?;
        }
    }
    screen.lines.end()?;
    work.await.context("following the logs")?;
    Ok(screen.ended)
}

/// What has been printed and said so far.
struct Screen<'p> {
    printer: &'p Printer,
    lines: Lines<'p>,
    with_name: bool,
    /// How many logs of each experiment are not over.
    open: BTreeMap<String, usize>,
    /// How experiments ended.
    ended: BTreeMap<String, Status>,
    /// What was last said about waiting ones.
    said: BTreeMap<String, String>,
    is_lost: bool,
}

impl Screen<'_> {
    fn show(&mut self, name: String, event: Heard) -> Result<()> {
        match event {
            Heard::Line(line) => {
                self.is_lost = false;
                self.lines.write(&name, &line)?;
            }
            Heard::Status(status) if matches!(status.status, Status::Queued | Status::Pending) => {
                let text = waiting(
                    self.with_name.then_some(name.as_str()),
                    status.message.as_deref(),
                );
                if self.said.insert(name, text.clone()).as_ref() != Some(&text) {
                    self.lines.clear()?;
                    self.printer.note(&text);
                }
            }
            Heard::Status(_) => {}
            Heard::Lost => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    self.lines.clear()?;
                    self.printer
                        .warn("the connection to the server was lost; trying again");
                }
            }
            Heard::Ended(status, why) => {
                self.ended.insert(name.clone(), status);
                let open = self.open.entry(name.clone()).or_default();
                *open = open.saturating_sub(1);
                // The end of one log may be heard before the last lines of the other.
                if *open == 0 {
                    self.lines.settle_one(&name)?;
                    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                    self.printer
                        .note(&format!("Experiment {name}: {status}{why}"));
                }
            }
            Heard::Failed(error) => {
                return Err(error.context(format!("following the log of {name}")));
            }
        }
        Ok(())
    }
}

/// Follows one log of one experiment.
struct Follower {
    name: String,
    /// Where the experiment is.
    experiment: String,
    /// Where its log is.
    path: String,
    tail: Option<u32>,
    sender: mpsc::Sender<(String, Heard)>,
}

/// How listening to one connection ended.
enum Broken {
    /// The experiment has ended, or nobody listens any more.
    Over,
    /// It can be made again.
    Lost,
}

impl Follower {
    async fn run(self, client: Client) {
        if let Err(error) = self.listen(&client).await {
            self.tell(Heard::Failed(error)).await;
        }
    }

    /// Listens until the end, over as many connections as it takes.
    async fn listen(&self, client: &Client) -> Result<()> {
        let mut last_id: Option<String> = None;
        let mut pause = PAUSE_MIN;
        let mut heard_at = clock::instant();
        loop {
            let before = last_id.clone();
            let lost = match self.connection(client, &mut last_id).await {
                Ok(Broken::Over) => return Ok(()),
                Ok(Broken::Lost) => None,
                Err(error) if error.is_transient() => Some(error),
                Err(error) => return Err(error.into()),
            };
            if last_id != before || lost.is_none() {
                (pause, heard_at) = (PAUSE_MIN, clock::instant());
            }
            if let Some(error) = lost
                && heard_at.elapsed() > AWAY_MAX
            {
                return Err(error.into());
            }
            if !self.tell(Heard::Lost).await {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connection(
        &self,
        client: &Client,
        last_id: &mut Option<String>,
    ) -> Result<Broken, client::Error> {
        // What was heard before is not heard again, so the tail counts only at first.
        let path = match (&last_id, self.tail) {
            (None, Some(tail)) => format!("{}&tail={tail}", self.path),
            _ => self.path.clone(),
        };
        let mut events = Box::pin(client.events(&path, last_id.as_deref()).await?);
        while let Some(event) = events.next().await {
            let event = event?;
            let data = event.data.as_str();
            let heard = match event.event.as_str() {
                "log" => serde_json::from_str(data).ok().map(Heard::Line),
                "status" => serde_json::from_str(data).ok().map(Heard::Status),
                "end" => serde_json::from_str::<LogsEnd>(data)
                    .ok()
                    .map(|end| Heard::Ended(end.status, None)),
                "error" => return Err(refusal(data)),
                _ => None,
            };
            if event.id.is_some() {
                *last_id = event.id;
            }
            let Some(heard) = heard else {
                continue;
            };
            let (heard, is_end) = match heard {
                Heard::Ended(status, _) => {
                    let why = self.why(client, status).await;
                    (Heard::Ended(status, why), true)
                }
                heard => (heard, false),
            };
            if !self.tell(heard).await || is_end {
                return Ok(Broken::Over);
            }
        }
        Ok(Broken::Lost)
    }

    /// What there is to say about how it ended.  The log of what failed often does not: it
    /// may have run out of memory or time, or not have begun at all.
    async fn why(&self, client: &Client, status: Status) -> Option<String> {
        if status == Status::Succeeded {
            return None;
        }
        let answer = client.get(&self.experiment, &()).await;
        let answer: ExperimentResponse = answer.ok()?;
        let message = answer.experiment.message?;
        let first = message.lines().next()?.trim_end_matches(':');
        (!first.is_empty()).then(|| printable(first))
    }

    /// False when nobody listens any more.
    async fn tell(&self, heard: Heard) -> bool {
        self.sender.send((self.name.clone(), heard)).await.is_ok()
    }
}

/// What the server says instead of going on.
fn refusal(data: &str) -> client::Error {
    match serde_json::from_str::<ErrorBody>(data) {
        Ok(body) => client::Error::Refused {
            status: body.error.code.status(),
            detail: body.error,
        },
        Err(error) => client::Error::Broken {
            url: "the log".to_owned(),
            source: error.into(),
        },
    }
}

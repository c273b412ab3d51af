//! How many experiments that do nothing are carried from submit to recorded in a second.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, median};
use crate::http::Api;
use crate::hyperqueue;
use crate::machine;

/// Experiments of a round.
const EXPERIMENTS: usize = 1_000;

/// Rounds of which the middle one counts.
const ROUNDS: usize = 3;

/// Experiments before the first round: nothing is cold then.
const WARM_UP: usize = 100;

/// What the design plans for, per second.
const PLAN: f64 = 1_000.0;

/// What is asked for in sandboxes, per second.
const SANDBOXED: f64 = 200.0;

/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    let ours = rounds(&server)?;
    drop(server);
    let rate = median(&ours).context("no round was measured")?;
    let theirs = hyperqueue::measure(EXPERIMENTS, ROUNDS)?;
    let other = median(&theirs).context("no round was measured")?;
    machine::say(&format!("  grid {ours:.0?}, HyperQueue {theirs:.0?}"));
    figures.add("HyperQueue 0.27", other, "/s", Goal::None);
    figures.add("experiments", rate, "/s", Goal::AtLeast(PLAN));
    figures.add(
        "experiments / HyperQueue",
        rate / other,
        "",
        Goal::AtLeast(1.0),
    );

    let server = Server::start(&["--sandbox", "require"]);
    let sandboxed = rounds(&server)?;
    machine::say(&format!("  sandboxed {sandboxed:.0?}"));
    let rate = median(&sandboxed).context("no round was measured")?;
    figures.add(
        "experiments, sandboxed",
        rate,
        "/s",
        Goal::AtLeast(SANDBOXED),
    );
    Ok(())
}

fn rounds(server: &Server) -> Result<Vec<f64>> {
    let mut api = Api::open(server)?;
    round(server, &mut api, "warm-up", WARM_UP)?;
    (0..ROUNDS)
        .map(|number| round(server, &mut api, &format!("round-{number}"), EXPERIMENTS))
        .collect()
}

/// Submits, and waits until all of it is recorded: processes, logs and artifacts.
fn round(server: &Server, api: &mut Api, name: &str, experiments: usize) -> Result<f64> {
    let range = format!("range({experiments})");
    let begin = machine::now();
    server.run(name, &["--", "true", "--i", &range]);
    let path = format!("/runs/{name}");
    let counts = wait_up_to(PATIENCE, "all experiments to be over", || {
        let counts = api.get(&path).ok()?["run"]["counts"].clone();
        let open = ["queued", "pending", "running", "stopping"];
        let open: u64 = open.iter().filter_map(|name| counts[name].as_u64()).sum();
        (open == 0).then_some(counts)
    });
    let took = begin.elapsed();
    if counts["succeeded"].as_u64() != u64::try_from(experiments).ok() {
        bail!("not all succeeded: {counts}\n{}", server.runner_log());
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let experiments = experiments as f64;
    Ok(experiments / took.as_secs_f64())
}

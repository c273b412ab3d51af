//! From `grid run` to the first line of the script, with the code sent before.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, percentile};
use crate::http::Api;
use crate::machine;

/// How often a person submits.
const SUBMITS: usize = 50;

/// Submits before the first that counts.
const WARM_UP: usize = 3;

/// The code: so many files of so many bytes, all new each time.
const FILES: usize = 16;
const FILE_BYTES: usize = 64 << 10;

/// What is asked for.
const P50_MS: f64 = 30.0;
const P99_MS: f64 = 150.0;

/// The script says itself when it started: seconds since 1970, without starting anything.
const SCRIPT: &str = "#!/bin/bash\necho started $EPOCHREALTIME\n";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    for (mode, suffix) in [("off", ""), ("require", ", sandboxed")] {
        let server = Server::start(&["--sandbox", mode]);
        let mut api = Api::open(&server)?;
        server.script("start.sh", SCRIPT);
        for number in 0..WARM_UP {
            submit(&server, &mut api, &format!("warm-up-{number}"), number)?;
        }
        let mut whole = Vec::new();
        let mut within = Vec::new();
        for number in 0..SUBMITS {
            let times = submit(
                &server,
                &mut api,
                &format!("run-{number}"),
                WARM_UP + number,
            )?;
            whole.push(times.whole);
            within.push(times.within);
        }
        let at =
            |values: &[f64], percent| percentile(values, percent).context("nothing was measured");
        let goals = [(50, P50_MS), (99, P99_MS)];
        for (percent, goal) in goals {
            let name = format!("submit to started, p{percent}{suffix}");
            figures.add(&name, at(&whole, percent)?, "ms", Goal::AtMost(goal));
        }
        let name = format!("  of it from recorded to started, p50{suffix}");
        figures.add(&name, at(&within, 50)?, "ms", Goal::None);
    }
    Ok(())
}

/// Milliseconds.
struct Times {
    /// From before the client is started to the first line of the script.
    whole: f64,
    /// From when the run was recorded.
    within: f64,
}

fn submit(server: &Server, api: &mut Api, name: &str, number: usize) -> Result<Times> {
    change_code(server, number)?;
    let begin = machine::wall_s();
    server.run(name, &["start.sh"]);
    let path = format!("/experiments/{name}-exp0");
    let experiment = wait_up_to(Duration::from_secs(60), "the experiment to end", || {
        let experiment = api.get(&path).ok()?["experiment"].clone();
        experiment["finished_at"].is_string().then_some(experiment)
    });
    if experiment["status"] != "succeeded" {
        bail!("{name} did not succeed: {experiment}");
    }
    let log = api.get(&format!("{path}/logs"))?;
    let lines = log["lines"].as_array().context("a log has lines")?;
    let started: f64 = lines
        .iter()
        .filter_map(|line| line["text"].as_str()?.strip_prefix("started "))
        .find_map(|text| text.parse().ok())
        .with_context(|| format!("the script did not say when it started: {log}"))?;
    let created = experiment["created_at"].as_str().unwrap_or_default();
    Ok(Times {
        whole: (started - begin) * 1e3,
        within: (started - seconds_of(created)?) * 1e3,
    })
}

/// Makes the whole code different from what the server has.
fn change_code(server: &Server, number: usize) -> Result<()> {
    for file in 0..FILES {
        let seed = (number * FILES + file) as u64;
        let path = server.work().join(format!("module_{file}.py"));
        std::fs::write(path, noise(seed, FILE_BYTES)).context("writing code")?;
    }
    Ok(())
}

/// Bytes that nothing can make smaller.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Seconds since midnight today, as 1970 counts them: `2026-01-31T12:00:00.123Z`.
fn seconds_of(time: &str) -> Result<f64> {
    let (_, clock) = time.split_once('T').context("a time without a T")?;
    let parts: Vec<f64> = clock
        .trim_end_matches('Z')
        .split(':')
        .filter_map(|part| part.parse().ok())
        .collect();
    let [hours, minutes, seconds] = parts[..] else {
        bail!("'{time}' is not a time");
    };
    let of_day = (hours * 60.0 + minutes) * 60.0 + seconds;
    const DAY: f64 = 86_400.0;
    // The day of now: a benchmark over midnight is made again.
    Ok((machine::wall_s() / DAY).floor() * DAY + of_day)
}

//! A team: what its rules cost, how long its lists take when there is much, and whether a
//! hundred people can watch while a sweep runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::figures::{Figures, Goal, median, millis, percentile};
use crate::http::Api;
use crate::machine;
use crate::team_server::{TeamServer, program};

/// The large team.
const PEOPLE: usize = 1_000;
const RUNS: usize = 100_000;

/// How often each list is asked for.
const TRIES: usize = 50;

/// How many runs are made and read one by one.
const REQUESTS: usize = 300;

/// At most this part of a request goes into the audit log.
const AUDIT_PERCENT: f64 = 5.0;

/// What is asked for of a list, in milliseconds.
const LIST_MS: f64 = 30.0;

/// Who watches, and what.
const WATCHERS: usize = 100;
const EXPERIMENTS: usize = 1_000;
const LINES: usize = 20;

/// How long somebody who watches looks at what they see before they look again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long the sweep may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Prints lines, without starting anything.
const SCRIPT: &str = "#!/bin/bash
for ((line = 0; line < 20; line++)); do echo \"line $line of $2\"; done
";

/// What `grid status --global` asks for.
const STATUS: &str = "/runs?active=true&global=true&limit=1000";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let rules = program(&["rules"])?;
    figures.pass_on(&rules);
    let team = large_team()?;
    audit(&team, &rules, figures)?;
    lists(&team, figures)?;
    drop(team);
    watching(figures)
}

/// A team that has made many runs.
fn large_team() -> Result<TeamServer> {
    let begin = machine::now();
    let flags = ["--sandbox", "off", "--cpus", "1"];
    let team = TeamServer::start(&flags, PEOPLE, RUNS, |server| {
        // While this has the only CPU nothing else starts.
        server.run("busy", &["--", "sleep", "100000"]);
        server.reaches("busy-exp0", "running");
    })?;
    machine::say(&format!("  made in {:.0?}", begin.elapsed()));
    Ok(team)
}

/// Which part of a request the audit log is.
fn audit(team: &TeamServer, rules: &str, figures: &mut Figures) -> Result<()> {
    let mut api = Api::of(&team.server.url, member(team)?)?;
    let (mut made, mut read) = (Vec::new(), Vec::new());
    for number in 0..REQUESTS {
        let name = format!("new-{number}");
        let new = json!({
            "name": name,
            "spec": { "command": ["true"], "source": { "kind": "nothing" } },
            "invocation": "grid run true",
        });
        let begin = machine::now();
        api.post("/runs", &new)?;
        made.push(begin.elapsed());
        let begin = machine::now();
        api.get(&format!("/runs/{name}"))?;
        read.push(begin.elapsed());
    }
    for (what, times, part) in [
        ("a run is made", made, "audit: an event, in its transaction"),
        ("a run is read", read, "audit: a request without an event"),
    ] {
        let whole = median(&times).context("nothing was measured")?;
        figures.time(what, whole, Goal::None);
        let percent = told(rules, part)? / 1e3 / millis(whole) * 100.0;
        let name = format!("  {what}: of it the audit log");
        figures.add(&name, percent, "%", Goal::AtMost(AUDIT_PERCENT));
    }
    Ok(())
}

/// A figure of those that another program has told.
fn told(lines: &str, name: &str) -> Result<f64> {
    lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|figure| figure["name"] == name)
        .and_then(|figure| figure["value"].as_f64())
        .with_context(|| format!("bench_team did not tell '{name}'"))
}

fn member(team: &TeamServer) -> Result<&Value> {
    team.members.first().context("a team without members")
}

/// The lists of a team that has made many runs.
fn lists(team: &TeamServer, figures: &mut Figures) -> Result<()> {
    let member = team.members.last().context("a team without members")?;
    let name = member["username"].as_str().context("a member's name")?;
    let mut api = Api::of(&team.server.url, member)?;
    let second = api.get("/runs?global=true&active=false")?["next"].clone();
    let second = second.as_str().context("a second page")?.to_owned();
    let of_one = format!("{STATUS}&created_by={name}");
    let past = "/runs?global=true&active=false";
    for (what, path) in [
        ("status --global", STATUS.to_owned()),
        ("status --global USERNAME", of_one),
        (
            "status --global --state queued",
            format!("{STATUS}&state=queued"),
        ),
        (
            "status --global --state running",
            format!("{STATUS}&state=running"),
        ),
        ("history --global", past.to_owned()),
        (
            "history --global, second page",
            format!("{past}&cursor={second}"),
        ),
        (
            "history --global USERNAME",
            format!("{past}&created_by={name}"),
        ),
        ("history --state failed", format!("{past}&state=failed")),
        ("history --state stopped", format!("{past}&state=stopped")),
        (
            "history --state succeeded",
            format!("{past}&state=succeeded"),
        ),
        (
            "history USERNAME --state failed",
            format!("{past}&state=failed&created_by={name}"),
        ),
        (
            "history --state failed,stopped",
            format!("{past}&state=failed,stopped"),
        ),
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..TRIES {
            let begin = machine::now();
            let answer = api.get(&path)?;
            times.push(millis(begin.elapsed()));
            found = answer["runs"].as_array().map_or(0, Vec::len);
        }
        machine::say(&format!("  {what}: {found} runs"));
        let time = median(&times).context("nothing was measured")?;
        let name = format!("100,000 runs: {what}");
        figures.add(&name, time, "ms", Goal::AtMost(LIST_MS));
    }
    Ok(())
}

/// A hundred people look at the list and follow logs, while a sweep runs.
fn watching(figures: &mut Figures) -> Result<()> {
    let team = TeamServer::start(&["--sandbox", "off"], WATCHERS, 0, |_| {})?;
    let server = &team.server;
    server.script("lines.sh", SCRIPT);
    let (over, given_up) = (AtomicBool::new(false), AtomicBool::new(false));
    let range = format!("range({EXPERIMENTS})");
    let begin = machine::now();
    server.run("sweep", &["lines.sh", "--i", &range]);
    let (polled, followed, took) = thread::scope(|scope| {
        let (over, given_up) = (&over, &given_up);
        let url = server.url.as_str();
        let polling: Vec<_> = team
            .members
            .iter()
            .map(|member| scope.spawn(move || poll(url, member, over)))
            .collect();
        let following: Vec<_> = (0..)
            .zip(&team.members)
            .map(|(first, member)| scope.spawn(move || follow(url, member, first, given_up)))
            .collect();
        let waited = Api::open(server).and_then(|api| wait(api, begin));
        over.store(true, Ordering::Relaxed);
        given_up.store(waited.is_err(), Ordering::Relaxed);
        let polled: Vec<Result<Vec<f64>>> = polling.into_iter().map(joined).collect();
        let followed: Vec<Result<usize>> = following.into_iter().map(joined).collect();
        (polled, followed, waited)
    });
    let took = took?;
    let polled: Vec<f64> = polled.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let followed: usize = followed.into_iter().sum::<Result<usize>>()?;
    ensure!(followed == EXPERIMENTS, "only {followed} logs were whole");
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (asked, sweep) = (polled.len() as f64, EXPERIMENTS as f64);
    let at = |percent| percentile(&polled, percent).context("nobody looked");
    let seconds = took.as_secs_f64();
    figures.add(
        "100 watch: sweep of 1,000",
        sweep / seconds,
        "/s",
        Goal::None,
    );
    figures.add(
        "100 watch: status --global",
        asked / seconds,
        "/s",
        Goal::None,
    );
    figures.add("100 watch: status --global, p50", at(50)?, "ms", Goal::None);
    figures.add("100 watch: status --global, p99", at(99)?, "ms", Goal::None);
    Ok(())
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("somebody who watches panicked"),
    }
}

/// Waits until the sweep is over; says how long it took.
fn wait(mut api: Api, begin: std::time::Instant) -> Result<Duration> {
    loop {
        let run = api.get("/runs/sweep")?["run"].clone();
        let took = begin.elapsed();
        if run["finished_at"].is_string() {
            let succeeded = run["counts"]["succeeded"].as_u64();
            let all = u64::try_from(EXPERIMENTS).ok();
            ensure!(succeeded == all, "not all succeeded: {}", run["counts"]);
            return Ok(took);
        }
        ensure!(took < PATIENCE, "the sweep is not over: {}", run["counts"]);
        machine::pause(LOOK_EVERY / 10);
    }
}

/// Looks at the list again and again; milliseconds of each time.  Any error ends the
/// measurement.
fn poll(url: &str, member: &Value, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut api = Api::of(url, member)?;
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begin = machine::now();
        let answer = api.get(STATUS)?;
        times.push(millis(begin.elapsed()));
        ensure!(answer["runs"].is_array(), "no list: {answer}");
        machine::pause(LOOK_EVERY);
    }
    Ok(times)
}

/// Follows every hundredth experiment from `first` on to its end; says how many logs were
/// whole.
fn follow(url: &str, member: &Value, first: usize, given_up: &AtomicBool) -> Result<usize> {
    let mut api = Api::of(url, member)?;
    let mut whole = 0;
    for number in (first..EXPERIMENTS).step_by(WATCHERS) {
        let (mut lines, mut end) = (0, Value::Null);
        let path = format!("/experiments/ada:sweep-exp{number}/logs/follow");
        let wanted = || !given_up.load(Ordering::Relaxed);
        api.follow(&path, wanted, |event, data| match event {
            "log" => {
                let line: Value = serde_json::from_str(data).unwrap_or_default();
                let is_ours = line["text"]
                    .as_str()
                    .is_some_and(|text| text.starts_with("line "));
                lines += usize::from(is_ours && line["partial"] != true);
            }
            "end" => end = serde_json::from_str(data).unwrap_or_default(),
            _ => {}
        })?;
        ensure!(
            end["status"] == "succeeded" && lines == LINES,
            "{lines} lines of sweep-exp{number}, and the end {end}"
        );
        whole += 1;
    }
    Ok(whole)
}

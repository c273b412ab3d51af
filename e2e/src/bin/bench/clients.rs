//! The original client: what each of its calls costs the server, and five hundred of them who
//! follow one log.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use grid_e2e::Server;
use grid_e2e::original::raw::{self, Socket, Wire};
use grid_e2e::original::{NEWEST, Person};
use serde_json::{Value, json};

use crate::figures::{Figures, Goal, median, millis, percentile};
use crate::machine;

/// What there is when the client asks.
const RUNS: usize = 50;
const EXPERIMENTS: usize = 20;

/// How often each call is made.
const TRIES: usize = 50;

/// What is asked for: a call costs the server no more, in milliseconds.
const CALL_MS: f64 = 10.0;

/// Who follows, and what.
const FOLLOWERS: usize = 500;
const LINES: usize = 100;

/// What is asked for of a follower, in milliseconds.
const FOLLOW_P95_MS: f64 = 250.0;

/// Waits for its cue, then says the time again and again.
const TICKING: &str = "#!/usr/bin/env python3
import os, sys, time
print('ready', flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
for i in range(int(sys.argv[2])):
    print('at', repr(time.time()), flush=True)
    time.sleep(0.05)
";

/// The question that each process of the client asks first.
const SCHEMA: &str = "query IntrospectionQuery { __schema { queryType { name } mutationType { name } subscriptionType { name } types { ...FullType } directives { name description locations args { ...InputValue } } } } fragment FullType on __Type { kind name description fields(includeDeprecated: true) { name description args { ...InputValue } type { ...TypeRef } isDeprecated deprecationReason } inputFields { ...InputValue } interfaces { ...TypeRef } enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } possibleTypes { ...TypeRef } } fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue } fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    calls(figures)?;
    followers(figures)
}

/// What one call costs, over a connection that stays open.
fn calls(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off", "--cpus", "2"]);
    server.script("say.sh", "#!/bin/sh\necho said\necho kept > file.txt\n");
    let values: Vec<String> = (0..EXPERIMENTS).map(|n| n.to_string()).collect();
    let values = format!("[{}]", values.join(","));
    for run in 0..RUNS {
        server.run(&format!("past-{run}"), &["say.sh", "--n", &values]);
    }
    for run in 0..RUNS {
        server.finished(&format!("past-{run}"));
    }
    let ada = Person::new(&server, "ada", NEWEST);
    let headers = raw::signed(&ada);
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut wire = Wire::open(&server.url)?;
    let id = raw::experiment_id(&ada, "past-7-exp3");
    for (name, method, path, body) in questions(&id) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let begin = machine::now();
            let answer = wire.ask(method, &path, &headers, body.as_bytes())?;
            took.push(millis(begin.elapsed()));
            if answer.status != 200 || answer.json()["errors"].is_array() {
                bail!("{name}: {}", String::from_utf8_lossy(&answer.body));
            }
        }
        let middle = median(&took).context("nothing was asked")?;
        figures.add(
            &format!("original client: {name}"),
            middle,
            "ms",
            Goal::AtMost(CALL_MS),
        );
    }
    Ok(())
}

/// What the client asks most: a name, the method, the path and the body.
fn questions(id: &str) -> [(&'static str, &'static str, String, Value); 8] {
    let team = "query { getUserTeams { success message teams { id name createdAt role members { id username firstName lastName } } } }";
    let log = "query ($experimentId: ID!) { getExperimentLogs(experimentId: $experimentId) { success message lines { message timestamp } } }";
    let question = |query: &str| json!({ "query": query, "variables": { "experimentId": id } });
    let core = "/v1/core/local";
    [
        (
            "the schema",
            "POST",
            "/graphql".to_owned(),
            question(SCHEMA),
        ),
        ("the teams", "POST", "/graphql".to_owned(), question(team)),
        ("a log", "POST", "/graphql".to_owned(), question(log)),
        (
            "the clusters",
            "GET",
            "/v1/core/clusters".to_owned(),
            Value::Null,
        ),
        ("50 runs", "GET", format!("{core}/runs"), Value::Null),
        (
            "a run by name",
            "GET",
            format!("{core}/runs?query=past-7"),
            Value::Null,
        ),
        (
            "an experiment",
            "GET",
            format!("{core}/experiments/{id}"),
            Value::Null,
        ),
        (
            "the artifacts",
            "GET",
            format!("{core}/experiments/{id}/artifacts"),
            Value::Null,
        ),
    ]
}

/// Many who follow one log, each over a socket of its own.
fn followers(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off", "--cpus", "2"]);
    let cue = server.folder.path().join("cue");
    let cue_text = cue.to_str().context("a path in UTF-8")?.to_owned();
    server.script("tick.py", TICKING);
    server.run("tick", &["tick.py", &cue_text, &LINES.to_string()]);
    server.reaches("tick-exp0", "running");
    let ada = Person::new(&server, "ada", NEWEST);
    let id = raw::experiment_id(&ada, "tick-exp0");
    // Everybody has seen the first line before the ticking begins.
    let ready = Barrier::new(FOLLOWERS + 1);
    let whole = AtomicUsize::new(0);
    let late: Vec<f64> = thread::scope(|scope| {
        let (ada, id, ready, whole) = (&ada, id.as_str(), &ready, &whole);
        let started: Vec<_> = (0..FOLLOWERS)
            .map(|_| {
                let follower = move || follow(ada, id, ready, whole);
                // They only wait and read: a small stack each is enough.
                let builder = thread::Builder::new().stack_size(256 << 10);
                builder.spawn_scoped(scope, follower)
            })
            .collect::<std::io::Result<_>>()
            .context("starting a follower")?;
        ready.wait();
        std::fs::write(&cue, "").context("giving the cue")?;
        let mut late = Vec::new();
        for follower in started {
            let own = follower
                .join()
                .map_err(|_| anyhow::anyhow!("a follower panicked"))??;
            late.extend(own);
        }
        anyhow::Ok(late)
    })?;
    let whole = whole.into_inner();
    ensure!(
        whole == FOLLOWERS,
        "only {whole} of {FOLLOWERS} saw every line in order"
    );
    let at = |percent| percentile(&late, percent).context("nothing was followed");
    figures.add("500 followers of one log, p50", at(50)?, "ms", Goal::None);
    figures.add(
        "500 followers of one log, p95",
        at(95)?,
        "ms",
        Goal::AtMost(FOLLOW_P95_MS),
    );
    Ok(())
}

/// One of them: how late each line was, in milliseconds.
fn follow(
    ada: &Person<'_>,
    experiment: &str,
    ready: &Barrier,
    whole: &AtomicUsize,
) -> Result<Vec<f64>> {
    let begun = Socket::of(ada, "graphql-transport-ws").and_then(|mut socket| {
        socket.follow("1", experiment)?;
        let first = socket.hear()?.context("the socket was closed")?;
        ensure!(first["type"] == "next", "instead of a line: {first}");
        Ok(socket)
    });
    // Whoever failed comes here, too: the others would wait for ever.
    ready.wait();
    let mut socket = begun?;
    let mut seen: Vec<(f64, f64)> = Vec::new();
    while let Some(said) = socket.hear()? {
        let at = machine::wall_s();
        if said["type"] == "complete" {
            break;
        }
        let lines = said["payload"]["data"]["getLiveExperimentLogs"].as_array();
        for line in lines.into_iter().flatten() {
            let text = line["message"].as_str().unwrap_or_default();
            let written = text
                .trim()
                .strip_prefix("at ")
                .and_then(|text| text.parse().ok());
            seen.extend(written.map(|written: f64| (written, at)));
        }
    }
    if seen.len() == LINES && seen.is_sorted_by_key(|(written, _)| *written) {
        whole.fetch_add(1, Ordering::Relaxed);
    }
    Ok(seen
        .iter()
        .map(|(written, at)| (at - written) * 1e3)
        .collect())
}

//! What the product takes when it does nothing, and when much is open.

use std::time::Duration;

use anyhow::{Context, Result};
use grid_e2e::{Server, wait_up_to};

use crate::figures::{Figures, Goal, millis};
use crate::http::Api;
use crate::machine;

/// How long an idle server is watched.
const WATCHED: Duration = Duration::from_secs(20);

/// How long it may settle before.
const SETTLE: Duration = Duration::from_secs(3);

/// What is asked for.
const IDLE_MIB: f64 = 30.0;
const IDLE_CPU_PERCENT: f64 = 0.1;
const OPEN: usize = 10_000;
const OPEN_MIB: f64 = 150.0;

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let server = Server::start(&["--sandbox", "off"]);
    machine::pause(SETTLE);
    let processes = machine::processes(server.folder.path());
    let before: Vec<Duration> = processes.iter().map(|p| machine::cpu_time(p.pid)).collect();
    machine::pause(WATCHED);
    for (process, before) in processes.iter().zip(before) {
        let role = &process.role;
        let used = machine::cpu_time(process.pid).saturating_sub(before);
        let (memory, cpu) = match role.as_str() {
            "server" => (Goal::AtMost(IDLE_MIB), Goal::AtMost(IDLE_CPU_PERCENT)),
            _ => (Goal::None, Goal::None),
        };
        let resident = machine::resident_mib(process.pid)?;
        figures.add(&format!("idle {role}, resident"), resident, "MiB", memory);
        let percent = millis(used) / millis(WATCHED) * 100.0;
        figures.add(&format!("idle {role}, CPU"), percent, "%", cpu);
    }

    let range = format!("range({OPEN})");
    server.script("wait.sh", "#!/bin/sh\nexec sleep 100000\n");
    server.run("open", &["wait.sh", "--i", &range]);
    let mut api = Api::open(&server)?;
    wait_up_to(Duration::from_secs(120), "the first to run", || {
        let run = api.get("/runs/open").ok()?;
        (run["run"]["counts"]["running"].as_u64()? > 0).then_some(())
    });
    machine::pause(SETTLE);
    for process in &processes {
        let role = &process.role;
        let goal = match role.as_str() {
            "server" => Goal::AtMost(OPEN_MIB),
            _ => Goal::None,
        };
        let resident = machine::resident_mib(process.pid)?;
        figures.add(
            &format!("10,000 open: {role}, resident"),
            resident,
            "MiB",
            goal,
        );
    }
    processes
        .iter()
        .find(|process| process.role == "server")
        .map(drop)
        .context("the server was not found among the processes")
}

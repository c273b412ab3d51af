//! `bench [NAME…]`: how fast the product is, seen from outside.
//!
//! Each benchmark drives the real `grid` as server, runner and client.  It prints one JSON
//! object on a line for each figure: `name`, `value`, `unit`, and where there is one `goal`,
//! with `better` saying whether `higher` or `lower` is better.  What it is about to do goes to
//! standard error.

mod artifacts;
mod clients;
mod datastores;
mod figures;
mod http;
mod hyperqueue;
mod latency;
mod logs;
mod machine;
mod memory;
mod status;
mod team_server;
mod teams;
mod throughput;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::Result;

use crate::figures::Figures;

type Bench = fn(&mut Figures) -> Result<()>;

/// In the order in which they run: what is short first.
const BENCHES: [(&str, Bench); 9] = [
    ("throughput", throughput::measure),
    ("latency", latency::measure),
    ("logs", logs::measure),
    ("status", status::measure),
    ("clients", clients::measure),
    ("teams", teams::measure),
    ("memory", memory::measure),
    ("artifacts", artifacts::measure),
    ("datastores", datastores::measure),
];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| BENCHES.iter().any(|(known, _)| known == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        let all = all.join(", ");
        machine::say(&format!("error: there is no benchmark '{unknown}': {all}"));
        return ExitCode::from(2);
    }
    let mut figures = Figures::new();
    let mut code = ExitCode::SUCCESS;
    for (name, bench) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        machine::say(&format!("measuring {name} ({})", machine::load()));
        // The harness panics when it waits in vain; what comes after is measured all the same.
        let outcome = catch_unwind(AssertUnwindSafe(|| bench(&mut figures)));
        if let Ok(Err(error)) = &outcome {
            machine::say(&format!("error: measuring {name}: {error:#}"));
        }
        if !matches!(outcome, Ok(Ok(()))) {
            code = ExitCode::FAILURE;
        }
    }
    code
}

//! What a team costs, measured without HTTP, and the large team that is measured with it.
//!
//! * `bench_team rules` tells how long the access table takes, and how much of a request
//!   goes into the audit log, as JSON objects, one figure a line.
//! * `bench_team seed DATABASE PEOPLE RUNS` puts a team into a database of a server that
//!   does not run, and prints the keys of some of its members as JSON.
//!
//! `cargo xtask bench teams` does both.

#![expect(clippy::print_stdout, reason = "a measurement is for reading")]
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement looks at the clock"
)]

mod rules;
mod seed;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["rules"] => rules::measure().await,
        ["seed", database, people, runs] => {
            seed::seed(database, people.parse()?, runs.parse()?).await
        }
        _ => Err("usage: bench_team rules | bench_team seed DATABASE PEOPLE RUNS".into()),
    }
}

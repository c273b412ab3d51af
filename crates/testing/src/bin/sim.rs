//! `sim`: tells simulated stories, and hunts planted bugs.
//!
//! One seed is told in words; of many only the summary, and the command that
//! repeats the first bad one.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use grid_testing::mutants::{self, Mutant};
use grid_testing::sim::{self, Story};

/// How many seeds a planted bug may survive.
const MUTANT_SEEDS_MAX: u64 = 2_000;

const USAGE: &str = "\
usage: sim --seed N [--mutant NAME]      tell one story in words
       sim --seeds N [--from M]          tell many, and print a summary
       sim --mutants [--seeds N]         plant each bug, and print as what it is found
";

#[derive(Default)]
struct Args {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    mutants: bool,
    mutant: Option<Mutant>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            let _ = write!(io::stderr(), "error: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A corrupt log panics, and is reported with its seed; the usual message
    // would only come between.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout().lock();
    let result = match (args.mutants, args.seed) {
        (true, _) => hunt_all(&mut out, args.from, args.seeds.unwrap_or(MUTANT_SEEDS_MAX)),
        (false, Some(seed)) => tell_one(&mut out, seed, args.mutant),
        (false, None) => tell_many(&mut out, args.from, args.seeds.unwrap_or(1), args.mutant),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // A pipe that nobody reads any more is no failure of ours.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|_| format!("'{text}' is not a number"))
        };
        match word.as_str() {
            "--seed" => args.seed = Some(number(value()?)?),
            "--seeds" => args.seeds = Some(number(value()?)?),
            "--from" => args.from = number(value()?)?,
            "--mutants" => args.mutants = true,
            "--mutant" => {
                let name = value()?;
                let mutant = Mutant::parse(&name)
                    .ok_or_else(|| format!("no planted bug is called '{name}'"))?;
                args.mutant = Some(mutant);
            }
            _ => return Err(format!("'{word}' is not known")),
        }
    }
    if args.seed.is_none() && args.seeds.is_none() && !args.mutants {
        return Err("nothing to do".to_owned());
    }
    Ok(args)
}

fn tell_one(out: &mut impl Write, seed: u64, mutant: Option<Mutant>) -> io::Result<bool> {
    let story = sim::tell(seed, mutant, true);
    for line in &story.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "\nseed {seed}: {} steps, {} events, {} attempts, {} crashes, {} virtual seconds",
        story.steps,
        story.events,
        story.attempts,
        story.crashes,
        story.virtual_ms / 1000,
    )?;
    match &story.broken {
        None => writeln!(out, "everything came to rest")?,
        Some(broken) => writeln!(out, "BROKEN: {broken}")?,
    }
    Ok(story.broken.is_none())
}

fn tell_many(
    out: &mut impl Write,
    from: u64,
    seeds: u64,
    mutant: Option<Mutant>,
) -> io::Result<bool> {
    let began = now();
    let (total, bad) = tell_in_parallel(from, seeds, mutant);
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "{seeds} stories in {seconds:.1} s ({:.0} a second): {} steps, {} events, {} attempts, {} crashes, {} virtual seconds",
        seeds as f64 / seconds.max(1e-9),
        total.steps,
        total.events,
        total.attempts,
        total.crashes,
        total.virtual_ms / 1000,
    )?;
    for (seed, story) in bad.iter().take(5) {
        if let Some(broken) = &story.broken {
            let planted = mutant
                .map(|mutant| format!(" --mutant {}", mutant.name()))
                .unwrap_or_default();
            writeln!(out, "seed {seed}: {broken}")?;
            writeln!(
                out,
                "  again: cargo run -q -p grid-testing --bin sim -- --seed {seed}{planted}"
            )?;
        }
    }
    if !bad.is_empty() {
        writeln!(out, "{} of {seeds} stories are broken", bad.len())?;
    }
    Ok(bad.is_empty())
}

/// Tells the stories on every processor; the sums, and the broken ones by seed.
fn tell_in_parallel(from: u64, seeds: u64, mutant: Option<Mutant>) -> (Story, Vec<(u64, Story)>) {
    let next = AtomicU64::new(from);
    let end = from.saturating_add(seeds);
    let result = Mutex::new((Story::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let story = sim::tell(seed, mutant, false);
                    let mut result = result
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    let total = &mut result.0;
                    total.steps += story.steps;
                    total.events += story.events;
                    total.attempts += story.attempts;
                    total.crashes += story.crashes;
                    total.virtual_ms += story.virtual_ms;
                    if story.broken.is_some() {
                        result.1.push((seed, story));
                    }
                }
            });
        }
    });
    let (total, mut bad) = result
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    bad.sort_by_key(|(seed, _)| *seed);
    (total, bad)
}

fn hunt_all(out: &mut impl Write, from: u64, seeds: u64) -> io::Result<bool> {
    let mut all_found = true;
    writeln!(
        out,
        "| planted bug | found as | first seed |\n| --- | --- | ---: |"
    )?;
    for mutant in Mutant::ALL {
        match mutants::hunt(mutant, from, seeds) {
            Some(found) => writeln!(
                out,
                "| {} | {} | {} |",
                mutant.words(),
                found.what,
                found.seed
            )?,
            None => {
                all_found = false;
                writeln!(
                    out,
                    "| {} | **not found in {seeds} seeds** | – |",
                    mutant.words()
                )?;
            }
        }
        out.flush()?;
    }
    Ok(all_found)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the summary says how fast the stories were told"
)]
fn now() -> Instant {
    Instant::now()
}

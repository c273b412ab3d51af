//! The only place of this tool that prints.

/// What the person asked for.
#[expect(
    clippy::print_stdout,
    reason = "the tool talks to a person, and only here"
)]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// What went wrong, and what other programs say while they work.
#[expect(
    clippy::print_stderr,
    reason = "the tool talks to a person, and only here"
)]
pub(crate) fn warn(text: &str) {
    eprintln!("{text}");
}

/// The beginning of a step.
pub(crate) fn heading(name: &str, detail: &str) {
    say(format!("\n── {name} ── {detail}").trim_end());
}

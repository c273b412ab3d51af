//! The `grid` command: what is typed, what it means, doing it.

mod args;
mod capture;
mod clock;
mod commands;
mod complete;
mod config;
mod context;
mod each;
mod error;
mod examples;
mod filter;
mod lists;
mod misread;
mod printer;
mod progress;
#[cfg(feature = "server")]
pub mod runner;
mod settings;
mod table;
mod target;
mod time;
mod upload;
mod values;
mod views;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;

use args::{Cli, Command};
use context::Ctx;
use error::{EXIT_OK, EXIT_USAGE, Problem, Report};
use printer::{Format, Printer};
use settings::Settings;

/// Runs the command that `words` are, the name of the program first.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let words = match texts(words) {
        Ok(words) => words,
        Err(problem) => return failed(&Printer::new(Format::Console, false), &problem.into()),
    };
    if words.get(1).is_some_and(|word| word == complete::WORD) {
        let printer = Printer::new(Format::Console, false);
        return complete::main(words.get(2..).unwrap_or_default(), &printer);
    }
    let cli = match args::parse(&words) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&words, &error),
    };
    let settings = Settings::load();
    let debug = cli.debug || settings.as_ref().is_ok_and(|settings| settings.debug);
    let printer = Printer::new(cli.output, debug);
    match settings {
        Ok(settings) => run(cli, &words, &Ctx { settings, printer }),
        Err(error) => failed(&printer, &error),
    }
}

fn run(cli: Cli, words: &[String], ctx: &Ctx) -> ExitCode {
    let done = dispatch(cli.command, words, ctx).and_then(|code| {
        ctx.printer.flush()?;
        Ok(code)
    });
    done.unwrap_or_else(|error| failed(&ctx.printer, &error))
}

fn dispatch(command: Command, words: &[String], ctx: &Ctx) -> Result<ExitCode> {
    use commands as c;
    match command {
        Command::Run(args) => c::run::run(*args, words, ctx),
        Command::Status(args) => c::status::run(&args, ctx),
        Command::History(args) => c::history::run(&args, ctx),
        Command::Logs(args) => c::logs::run(&args, ctx),
        Command::Artifacts(args) => c::artifacts::run(&args, ctx),
        Command::Stop(args) => c::stop::run(args, ctx),
        Command::Delete(args) => c::delete::run(args, ctx),
        Command::Restore(args) => c::restore::run(args, ctx),
        Command::Clone(args) => c::clone::run(args, ctx),
        Command::Retry(args) => c::retry::run(&args, ctx),
        Command::View(args) => c::view::run(&args, ctx),
        Command::Clusters(_) => c::clusters::run(ctx),
        Command::Login(args) => c::login::run(args, ctx),
        Command::User(args) => c::user::run(args, ctx),
        Command::Team(args) => c::team::run(args, ctx),
        Command::SshKeys(args) => c::ssh_keys::run(args, ctx),
        Command::Credential(args) => c::credential::run(args, ctx),
        Command::Datastore(args) => c::datastore::run(args, ctx),
        Command::Share(args) => c::share::run(args, ctx),
        #[cfg(feature = "server")]
        Command::Server(args) => c::server::run(args, ctx),
        Command::Docs(_) => c::docs::run(ctx),
        Command::Version(_) => c::version::run(ctx),
        Command::Completion(args) => c::completion::run(&args, ctx),
        Command::HelpMarkdown => c::help_markdown::run(ctx),
    }
}

/// Everything that is sent is text, so what is typed has to be.
fn texts(words: Vec<OsString>) -> Result<Vec<String>, Problem> {
    let read = |word: OsString| {
        word.into_string().map_err(|word| {
            Problem::usage(format!("the argument '{}' is not UTF-8", word.display()))
                .hint("rename the file, or set a UTF-8 locale (LANG=C.UTF-8)")
        })
    };
    words.into_iter().map(read).collect()
}

/// Help goes to standard output; everything else is a mistake.
fn not_understood(words: &[String], error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let printer = Printer::new(
        if !is_help && wants_json(words) {
            Format::Json
        } else {
            Format::Console
        },
        false,
    );
    if is_help {
        let shown = printer
            .text(&error.render().to_string())
            .and_then(|()| printer.flush());
        return shown.map_or_else(
            |error| failed(&printer, &error),
            |()| ExitCode::from(EXIT_OK),
        );
    }
    if printer.is_json() || misread::is_ours(words, error) {
        return failed(&printer, &misread::problem(words, error).into());
    }
    printer.ask(&error.render().to_string());
    ExitCode::from(EXIT_USAGE)
}

fn wants_json(words: &[String]) -> bool {
    let follows = words
        .windows(2)
        .any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json");
    follows
        || words
            .iter()
            .any(|word| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json"))
}

fn failed(printer: &Printer, error: &anyhow::Error) -> ExitCode {
    let report = Report::of(error);
    if report.exit != EXIT_OK {
        printer.error(&report);
    }
    ExitCode::from(report.exit)
}

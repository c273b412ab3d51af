//! `grid login`: remembers who calls, and which server.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use grid_api::user::{LoginRequest, UserResponse};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::context::Ctx;
use crate::error::Problem;
use crate::settings::Credentials;

const EXAMPLES: &str = "\
What is not given is asked for.  The key is kept in ~/.grid/credentials.json, which
only you can read.

Examples:
  grid login
  grid login --url https://grid.example.org --username ada
  grid login --username ada --key KEY";

/// Sign in on this machine
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoginArgs {
    /// Address of the server
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Your user name or e-mail address
    #[arg(long, value_name = "USERNAME")]
    username: Option<String>,

    /// Your API key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

// The key must not reach a log by way of `{:?}`.
impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Signs in.
pub(crate) fn run(args: LoginArgs, ctx: &Ctx) -> Result<ExitCode> {
    let url = args.url.unwrap_or_else(|| ctx.settings.url.clone());
    let url = with_scheme(url.trim_end_matches('/'));
    let client = ctx.anonymous(&url)?;
    let username = match args.username {
        Some(username) => username,
        None => ask(ctx, "Please provide your Grid username: ", "--username")?,
    };
    let api_key = match args.key {
        Some(key) => key,
        None => ask_secret(ctx, "Please provide your Grid API key: ", "--key")?,
    };
    let request = LoginRequest { username, api_key };
    let answer: UserResponse = ctx.block_on(client.post("/auth/login", &request))??;
    let credentials = Credentials {
        user_id: answer.user.user_id.clone(),
        api_key: request.api_key,
    };
    ctx.settings.save_credentials(&credentials)?;
    ctx.settings.save_url(&url)?;
    if ctx.printer.is_json() {
        ctx.printer
            .json(&serde_json::json!({ "users": [answer.user] }))?;
    } else {
        ctx.printer.line("Login successful. Welcome to Grid.")?;
    }
    for name in ["GRID_URL", "GRID_USER_ID", "GRID_API_KEY"] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            ctx.printer.warn(&format!(
                "{name} is set, and wins over what was just remembered"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `HOST:PORT` alone is what `--listen` takes: on this machine it is plain HTTP, elsewhere
/// a key is not sent in the open unless somebody asks for it.
fn with_scheme(url: &str) -> String {
    let host = url.split(['/', ':']).next().unwrap_or_default();
    let is_bare = !url.contains("://") && !host.is_empty() && !host.contains('@');
    match (is_bare, host) {
        (false, _) => url.to_owned(),
        (true, "localhost" | "127.0.0.1") => format!("http://{url}"),
        (true, _) => format!("https://{url}"),
    }
}

/// Reads one line from the person, or from whatever stands in for one.
fn ask(ctx: &Ctx, question: &str, flag: &str) -> Result<String> {
    ctx.printer.ask(question);
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("reading the answer")?;
    let answer = line.trim().to_owned();
    if answer.is_empty() {
        return Err(Problem::usage("no answer was given")
            .hint(format!("give it with {flag}"))
            .into());
    }
    Ok(answer)
}

/// The same, without showing what is typed.
pub(super) fn ask_secret(ctx: &Ctx, question: &str, flag: &str) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return ask(ctx, question, flag);
    }
    let shown = tcgetattr(&stdin).context("looking at the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("hiding what is typed")?;
    let answer = ask(ctx, question, flag);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).context("showing again what is typed")?;
    answer
}

#[cfg(test)]
mod tests {
    use super::with_scheme;

    #[test]
    fn an_address_without_a_scheme_is_understood() {
        for (typed, meant) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost", "http://localhost"),
            ("grid.example.org", "https://grid.example.org"),
            ("grid.example.org:8443/x", "https://grid.example.org:8443/x"),
            ("http://grid.example.org", "http://grid.example.org"),
            ("", ""),
        ] {
            assert_eq!(with_scheme(typed), meant);
        }
    }
}

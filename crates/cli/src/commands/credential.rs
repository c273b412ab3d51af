//! `grid credential`: what opens buckets elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_api::credential::{
    CredentialContent, CredentialCreate, CredentialResponse, CredentialUpdate, CredentialView,
    CredentialsQuery, CredentialsResponse,
};
use grid_core::credential::Kind;

use crate::commands::delete::confirmed;
use crate::commands::login::ask_secret;
use crate::context::Ctx;
use crate::error::Problem;
use crate::table::{Cell, Table};

/// Where the tools of Amazon look for the secret, too.
const SECRET_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN_VARIABLE: &str = "AWS_SESSION_TOKEN";

const EXAMPLES: &str = "\
The server keeps credentials encrypted.  You and the members of your team can use one;
its secret is never shown again, to nobody.  The secret is taken from a file, from
AWS_SECRET_ACCESS_KEY, or asked for: on a command line others would see it.

Examples:
  grid credential
  grid credential create --name lab --access-key-id AKIA...
  grid credential create --name minio --access-key-id ada --secret-file key.txt \\
      --endpoint https://minio.example.org
  grid credential create --role-arn arn:aws:iam::123456789012:role/data --external-id ID
  grid credential update lab --access-key-id AKIA...
  grid credential delete lab";

/// Look after credentials for buckets
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: Option<CredentialCommand>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Make one
    Create(CreateArgs),
    /// List yours
    List(ListArgs),
    /// Put something else into one of yours
    Update {
        /// Its name or id
        credential: String,
        #[command(flatten)]
        content: ContentArgs,
    },
    /// Delete one at once: what uses it cannot any more
    Delete {
        /// NAME, USER:NAME or an id
        credential: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        known: KnownArgs,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Your teammates' that you can use, too
    #[arg(long)]
    global: bool,

    #[command(flatten)]
    known: KnownArgs,
}

/// What scripts say and there is only one of.
#[derive(Debug, Args)]
struct KnownArgs {
    /// The kind: s3
    #[arg(long = "type", value_name = "TYPE", value_parser = ["s3"], hide = true)]
    _kind: Option<String>,

    /// The cluster
    #[arg(long = "cluster", value_name = "CLUSTER", hide = true)]
    _cluster: Option<String>,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What to call it [default: s3, s3-2, …]
    #[arg(long)]
    name: Option<String>,

    /// The team whose members may use it [default: your current one]
    #[arg(long)]
    team: Option<String>,

    #[command(flatten)]
    content: ContentArgs,

    #[command(flatten)]
    known: KnownArgs,
}

#[derive(Debug, Args)]
struct ContentArgs {
    /// The public part of a pair of keys
    #[arg(long, value_name = "ID", required_unless_present = "role_arn")]
    access_key_id: Option<String>,

    /// A file with the secret part of the pair; - is the standard input
    #[arg(long, value_name = "FILE", requires = "access_key_id")]
    secret_file: Option<PathBuf>,

    /// Where the S3 server is [default: Amazon's]
    #[arg(long, value_name = "URL", requires = "access_key_id")]
    endpoint: Option<String>,

    /// The region [default: us-east-1]
    #[arg(long, requires = "access_key_id")]
    region: Option<String>,

    /// A role that may be taken on, instead of keys
    #[arg(
        long,
        value_name = "ARN",
        alias = "s3-role-arn",
        requires = "external_id",
        conflicts_with = "access_key_id"
    )]
    role_arn: Option<String>,

    /// The id that has to be known to take on the role
    #[arg(
        long,
        value_name = "ID",
        alias = "s3-external-id",
        requires = "role_arn"
    )]
    external_id: Option<String>,
}

/// Shows or changes credentials.
pub(crate) fn run(args: CredentialArgs, ctx: &Ctx) -> Result<ExitCode> {
    match args.command {
        None => list(ctx, args.list.global)?,
        Some(CredentialCommand::List(args)) => list(ctx, args.global)?,
        Some(CredentialCommand::Create(args)) => create(ctx, args)?,
        Some(CredentialCommand::Update {
            credential,
            content,
        }) => update(ctx, &credential, content)?,
        Some(CredentialCommand::Delete {
            credential, yes, ..
        }) => delete(ctx, &credential, yes)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What was given, with the secret from where it is safe.
fn content(ctx: &Ctx, args: ContentArgs) -> Result<CredentialContent> {
    if let (Some(role_arn), Some(external_id)) = (args.role_arn, args.external_id) {
        return Ok(CredentialContent::S3Role {
            role_arn,
            external_id,
        });
    }
    let Some(access_key_id) = args.access_key_id else {
        return Err(Problem::usage("name keys or a role")
            .hint("give --access-key-id, or --role-arn with --external-id")
            .into());
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (secret, session_token) = match &args.secret_file {
        Some(file) => (read(file)?, None),
        None => match variable(SECRET_VARIABLE) {
            Some(secret) => (secret, variable(TOKEN_VARIABLE)),
            None => {
                let question = "Please provide the secret access key: ";
                (ask_secret(ctx, question, "--secret-file FILE")?, None)
            }
        },
    };
    Ok(CredentialContent::S3Key {
        access_key_id,
        secret_access_key: secret.trim().to_owned(),
        session_token,
        endpoint: args.endpoint,
        region: args.region,
    })
}

fn read(file: &PathBuf) -> Result<String> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| {
        Problem::new(format!("cannot read {}: {error}", file.display()))
            .hint("the file holds the secret access key and nothing else")
            .into()
    })
}

fn create(ctx: &Ctx, args: CreateArgs) -> Result<()> {
    let body = CredentialCreate {
        name: args.name,
        team: args.team,
        content: content(ctx, args.content)?,
    };
    let client = ctx.client()?;
    let made: CredentialResponse = ctx.block_on(client.post("/credentials", &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&made);
    }
    let credential = &made.credential;
    ctx.printer.line(&format!(
        "Made credential {} with id: {}",
        credential.name, credential.id
    ))?;
    ctx.printer.note(&format!(
        "Members of team {} can use it; its secret is never shown again.",
        credential.team
    ));
    Ok(())
}

fn update(ctx: &Ctx, credential: &str, args: ContentArgs) -> Result<()> {
    let body = CredentialUpdate {
        content: content(ctx, args)?,
    };
    let route = format!("/credentials/{}", segment(credential));
    let client = ctx.client()?;
    let changed: CredentialResponse = ctx.block_on(client.put(&route, &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&changed);
    }
    ctx.printer
        .line(&format!("Changed credential {}", changed.credential.name))
}

fn list(ctx: &Ctx, global: bool) -> Result<()> {
    let client = ctx.client()?;
    let query = CredentialsQuery {
        global: global.then_some(true),
    };
    let answer: CredentialsResponse = ctx.block_on(client.get("/credentials", &query))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let mut head = vec!["Id", "Name", "Type", "Credential", "Team"];
    head.extend(global.then_some("Created by"));
    head.push("Created At");
    let mut table = Table::new(head);
    for credential in &answer.credentials {
        let mut row = vec![
            Cell::text(&credential.id),
            Cell::text(&credential.name),
            Cell::text(kind(credential.kind)),
            Cell::text(described(credential)),
            Cell::text(&credential.team),
        ];
        row.extend(global.then(|| Cell::text(&credential.created_by)));
        row.push(Cell::time(&credential.created_at));
        table.row(row);
    }
    if table.is_empty() {
        ctx.printer
            .note("There are none: `grid credential create` makes one.");
    }
    ctx.printer.table(&table)
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::S3Role => "s3 role",
        Kind::S3Key => "s3 key",
    }
}

/// What may be read of it, in one cell.
fn described(credential: &CredentialView) -> String {
    if let Some(problem) = &credential.problem {
        return format!("unusable: {problem}");
    }
    let parts = [
        &credential.role_arn,
        &credential.external_id,
        &credential.access_key_id,
        &credential.endpoint,
        &credential.region,
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(" ")
    }
}

fn delete(ctx: &Ctx, which: &str, yes: bool) -> Result<()> {
    let client = ctx.client()?;
    let route = format!("/credentials/{}", segment(which));
    if !yes && !ctx.settings.ignore_warnings {
        let found: CredentialResponse = ctx.block_on(client.get(&route, &()))??;
        let question = format!(
            "Credential {which}, created by {}, is deleted at once and for ever; what uses it \
             cannot any more.\nAre you sure? [y/N]: ",
            found.credential.created_by
        );
        if !confirmed(ctx, &question)? {
            ctx.printer.note(&format!("{which} was not deleted"));
            return Ok(());
        }
    }
    let gone: CredentialResponse = ctx.block_on(client.delete(&route))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&gone);
    }
    ctx.printer
        .line(&format!("Deleted credential {}", gone.credential.name))
}

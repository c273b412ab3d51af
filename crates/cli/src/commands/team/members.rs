//! Who is in a team: inviting, joining, roles, removing.

use anyhow::Result;
use clap::Args;
use grid_api::client::segment;
use grid_api::team::{
    InvitationAnswer, InvitationCreate, InvitationCreated, InvitationRegister, InvitationResponse,
    InvitationView, InvitationsResponse, MemberUpdate, TeamResponse,
};
use grid_api::user::UserKey;
use grid_core::name::UserName;
use grid_core::team::Role;

use super::{note_current, path};
use crate::context::Ctx;
use crate::error::Problem;
use crate::settings::Credentials;
use crate::table::{Cell, Table};
use crate::time::civil;
use crate::values;

/// Hex digits of the token of an invitation.
const TOKEN_DIGITS: usize = 32;

const INVITE_EXAMPLES: &str = "\
An invitation is good for 7 days, and only as long as you could still make it.

Examples:
  grid team invite vision bob                    bob types `grid team join vision`
  grid team invite vision eve@example.org        shows a link, once:  whoever has it can
                                                 use it once, also without an account
  grid team invite vision bob --role admin";

const JOIN_EXAMPLES: &str = "\
Examples:
  grid team join vision                          you were invited by name
  grid team join TOKEN                           a token or a link somebody gave you
  grid team join TOKEN --username eve            you have no account yet";

/// Invite somebody into a team
#[derive(Debug, Args)]
#[command(after_help = INVITE_EXAMPLES)]
pub(super) struct InviteArgs {
    /// The team
    team: String,

    /// User name, or e-mail address
    #[arg(value_name = "USER|EMAIL")]
    to: String,

    /// What they will be: viewer, member, admin or owner [default: member]
    #[arg(long, value_parser = values::role)]
    role: Option<Role>,
}

/// Accept an invitation
#[derive(Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub(super) struct JoinArgs {
    /// The team that invited you, or the token or link that you were given
    #[arg(value_name = "TEAM|TOKEN")]
    what: String,

    /// Make an account with this user name, and sign in with it on this machine
    #[arg(long, value_name = "USERNAME")]
    username: Option<String>,

    /// First name of the new account
    #[arg(long = "first-name", value_name = "NAME", requires = "username")]
    first_name: Option<String>,

    /// Last name of the new account
    #[arg(long = "last-name", value_name = "NAME", requires = "username")]
    last_name: Option<String>,
}

// The token must not reach a log by way of `{:?}`.
impl std::fmt::Debug for JoinArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinArgs")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Decline an invitation
#[derive(Args)]
pub(super) struct DeclineArgs {
    /// The team that invited you, or the token or link that you were given
    #[arg(value_name = "TEAM|TOKEN")]
    what: String,
}

impl std::fmt::Debug for DeclineArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeclineArgs").finish_non_exhaustive()
    }
}

/// List the invitations that wait for you, or those of a team
#[derive(Debug, Args)]
pub(super) struct InvitationsArgs {
    /// The team whose open invitations are shown (admins) [default: those to you]
    team: Option<String>,
}

/// Take an invitation back
#[derive(Debug, Args)]
pub(super) struct UninviteArgs {
    /// The team
    team: String,

    /// Whom you invited, or the id of the invitation
    #[arg(value_name = "USER|EMAIL|ID")]
    whom: String,
}

/// Change what somebody is in a team
#[derive(Debug, Args)]
pub(super) struct RoleArgs {
    /// The team
    team: String,

    /// Their user name
    user: String,

    /// viewer, member, admin or owner
    #[arg(value_parser = values::role)]
    role: Role,
}

pub(super) fn invite(ctx: &Ctx, args: InviteArgs) -> Result<()> {
    UserName::parse(&args.to).map_err(|error| Problem::usage(error.to_string()))?;
    let client = ctx.client()?;
    let body = InvitationCreate {
        to: args.to,
        role: args.role,
    };
    let route = format!("{}/invitations", path(&args.team));
    let created: InvitationCreated = ctx.block_on(client.post(&route, &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&created);
    }
    let InvitationView {
        team,
        to,
        role,
        expires_at,
        ..
    } = &created.invitation;
    match &created.token {
        None => ctx
            .printer
            .line(&format!("{to} can join with: grid team join {team}"))?,
        Some(token) => {
            // The link also says which server it is; the token in it is all that counts.
            let what = created.url.as_deref().unwrap_or(token);
            ctx.printer
                .line(&format!("{to} can join with: grid team join {what}"))?;
            ctx.printer.note(
                "Without an account, add --username NAME. It is shown this once; \
                 whoever has it can use it once.",
            );
        }
    }
    ctx.printer
        .note(&format!("Invited as {role}, until {}.", civil(expires_at)));
    Ok(())
}

/// Whether a word is a token or a link, and not the name of a team.
fn is_token(word: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    is_link(word) || (word.len() == TOKEN_DIGITS && word.chars().all(is_hex))
}

fn is_link(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

fn answer_to(what: String) -> InvitationAnswer {
    if is_token(&what) {
        InvitationAnswer {
            token: Some(what),
            team: None,
        }
    } else {
        InvitationAnswer {
            team: Some(what),
            token: None,
        }
    }
}

pub(super) fn join(ctx: &Ctx, args: JoinArgs) -> Result<()> {
    if let Some(username) = args.username.clone() {
        return register(ctx, args, username);
    }
    if ctx.settings.credentials.is_none() && is_token(&args.what) {
        return Err(Problem::new("nobody has signed in on this machine")
            .hint("run `grid login`; without an account, add --username NAME to make one")
            .into());
    }
    let client = ctx.client()?;
    let answer: TeamResponse =
        ctx.block_on(client.post("/invitations/accept", &answer_to(args.what)))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let team = &answer.team;
    let role = team.role.unwrap_or(Role::Member);
    ctx.printer
        .line(&format!("You are in team {} now, as {role}", team.name))?;
    note_current(ctx, team);
    ctx.printer.note(&format!(
        "`grid team policy {}` says what you may do there",
        team.name
    ));
    Ok(())
}

/// Makes an account with the token, and signs in with it here.
fn register(ctx: &Ctx, args: JoinArgs, username: String) -> Result<()> {
    UserName::parse(&username).map_err(|error| Problem::usage(error.to_string()))?;
    if !is_token(&args.what) {
        return Err(Problem::usage(format!("'{}' is not a token", args.what))
            .hint("a new account needs the token or the link of an invitation")
            .into());
    }
    if ctx.settings.credentials.is_some() {
        return Err(
            Problem::new("somebody has signed in on this machine already")
                .hint("without --username, the account that is signed in joins the team")
                .into(),
        );
    }
    // A link says by itself which server it is of.
    let url = origin(&args.what).unwrap_or_else(|| ctx.settings.url.clone());
    let client = ctx.anonymous(&url)?;
    let body = InvitationRegister {
        token: args.what,
        username,
        first_name: args.first_name,
        last_name: args.last_name,
    };
    let key: UserKey = ctx.block_on(client.post("/invitations/register", &body))??;
    // Shown before it is kept: should keeping it fail, it is not lost.
    if ctx.printer.is_json() {
        ctx.printer.json(&key)?;
    } else {
        ctx.printer.text(&format!(
            "Username        : {}\nUserID          : {}\nAPI key         : {}\n",
            key.username, key.user_id, key.api_key
        ))?;
    }
    ctx.printer.flush()?;
    let credentials = Credentials {
        user_id: key.user_id,
        api_key: key.api_key,
    };
    ctx.settings.save_credentials(&credentials)?;
    ctx.settings.save_url(&url)?;
    ctx.printer
        .note("You are signed in on this machine. The key is shown this once; other machines need it for `grid login`.");
    Ok(())
}

fn origin(link: &str) -> Option<String> {
    let url = reqwest::Url::parse(link).ok()?;
    is_link(link).then(|| url.origin().ascii_serialization())
}

pub(super) fn decline(ctx: &Ctx, args: DeclineArgs) -> Result<()> {
    let client = ctx.client()?;
    let answer: InvitationResponse =
        ctx.block_on(client.post("/invitations/decline", &answer_to(args.what)))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let team = &answer.invitation.team;
    ctx.printer
        .line(&format!("The invitation into team {team} is declined"))
}

pub(super) fn invitations(ctx: &Ctx, args: &InvitationsArgs) -> Result<()> {
    let client = ctx.client()?;
    let route = match &args.team {
        Some(team) => format!("{}/invitations", path(team)),
        None => "/invitations".to_owned(),
    };
    let answer: InvitationsResponse = ctx.block_on(client.get(&route, &()))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    if answer.invitations.is_empty() {
        return ctx.printer.line("No invitations.");
    }
    let mut table = Table::new(["Team", "To", "Role", "Invited by", "Until", "Id"]);
    for invitation in &answer.invitations {
        table.row([
            Cell::text(&invitation.team),
            Cell::text(&invitation.to),
            Cell::text(invitation.role.to_string()),
            Cell::text(&invitation.invited_by),
            Cell::time(&invitation.expires_at),
            Cell::text(&invitation.id),
        ]);
    }
    ctx.printer.table(&table)
}

pub(super) fn uninvite(ctx: &Ctx, args: &UninviteArgs) -> Result<()> {
    let client = ctx.client()?;
    let route = format!("{}/invitations", path(&args.team));
    let answers = ctx.block_on(async {
        let open: InvitationsResponse = client.get(&route, &()).await?;
        let is_meant =
            |one: &InvitationView| one.id == args.whom || one.to.eq_ignore_ascii_case(&args.whom);
        // Somebody may have been invited twice: then both are taken back.
        let meant: Vec<String> = open
            .invitations
            .into_iter()
            .filter(is_meant)
            .map(|one| one.id)
            .collect();
        if meant.is_empty() {
            return Err(Problem::new(format!(
                "no open invitation of team {} to '{}'",
                args.team, args.whom
            ))
            .hint(format!("`grid team invitations {}` lists them", args.team))
            .into());
        }
        let mut revoked = Vec::new();
        for id in meant {
            let one: InvitationResponse =
                client.delete(&format!("{route}/{}", segment(&id))).await?;
            revoked.push(one.invitation);
        }
        anyhow::Ok(revoked)
    })??;
    if ctx.printer.is_json() {
        return ctx
            .printer
            .json(&serde_json::json!({ "invitations": answers }));
    }
    for invitation in &answers {
        ctx.printer.line(&format!(
            "The invitation of {} into team {} is taken back",
            invitation.to, invitation.team
        ))?;
    }
    Ok(())
}

fn member_path(team: &str, user: &str) -> String {
    format!("{}/members/{}", path(team), segment(user))
}

pub(super) fn remove(ctx: &Ctx, team: &str, user: &str) -> Result<()> {
    let client = ctx.client()?;
    let answer: TeamResponse = ctx.block_on(client.delete(&member_path(team, user)))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    ctx.printer.line(&format!(
        "{user} is no longer in team {}; their runs stay in it",
        answer.team.name
    ))
}

pub(super) fn role(ctx: &Ctx, args: &RoleArgs) -> Result<()> {
    let client = ctx.client()?;
    let body = MemberUpdate { role: args.role };
    let answer: TeamResponse =
        ctx.block_on(client.put(&member_path(&args.team, &args.user), &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    ctx.printer.line(&format!(
        "{} is {} of team {} now",
        args.user, args.role, answer.team.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_the_name_of_a_team() {
        for (word, expected) in [
            ("vision", false),
            ("abcdef", false),
            ("0123456789abcdef0123456789abcdef", true),
            ("0123456789abcdef0123456789abcdeF", false),
            ("https://grid.example/join/x", true),
        ] {
            assert_eq!(is_token(word), expected, "{word}");
        }
        assert_eq!(
            origin("https://grid.example:8443/join/x?a#b").as_deref(),
            Some("https://grid.example:8443")
        );
        assert_eq!(origin("0123456789abcdef0123456789abcdef"), None);
    }
}

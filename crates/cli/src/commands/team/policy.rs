//! The rules of a team, as they are for whoever asks.

use anyhow::Result;
use clap::Args;
use grid_api::team::{PolicyResponse, PolicyUpdate};
use grid_core::nearest::nearest;
use grid_core::team::Sharing;

use super::{or_current, path};
use crate::context::Ctx;
use crate::table::{Cell, Table};
use crate::values::{self, sharing_word};

const EXAMPLES: &str = "\
Switches:
  run_control=team|creator           whether members may stop, delete and retry a teammate's
                                     runs; their creator and admins always may
  jupyter_access=team|creator        whether members may open a teammate's JupyterLab

Examples:
  grid team policy                   of your current team
  grid team policy vision
  grid team policy vision --set run_control=creator";

/// Show what you may do in a team, or change its switches
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PolicyArgs {
    /// The team [default: your current one]
    team: Option<String>,

    /// Change a switch (admins); may be repeated
    #[arg(long, value_name = "SWITCH=VALUE", value_parser = switch)]
    set: Vec<Switch>,
}

/// One `--set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    RunControl(Sharing),
    JupyterAccess(Sharing),
}

const SWITCHES: [&str; 2] = ["run_control", "jupyter_access"];

fn switch(text: &str) -> Result<Switch, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write it like run_control=creator".to_owned());
    };
    let name = name.replace('-', "_");
    match name.as_str() {
        "run_control" => values::sharing(value).map(Switch::RunControl),
        "jupyter_access" => values::sharing(value).map(Switch::JupyterAccess),
        _ => Err(match nearest(&name, &SWITCHES) {
            Some(meant) => format!("there is no switch {name}; did you mean {meant}?"),
            None => format!("the switches are {}", SWITCHES.join(" and ")),
        }),
    }
}

pub(super) fn run(ctx: &Ctx, args: &PolicyArgs) -> Result<()> {
    let mut update = PolicyUpdate::default();
    for switch in &args.set {
        match *switch {
            Switch::RunControl(sharing) => update.run_control = Some(sharing),
            Switch::JupyterAccess(sharing) => update.jupyter_access = Some(sharing),
        }
    }
    let client = ctx.client()?;
    let answer: PolicyResponse = ctx.block_on(async {
        let team = or_current(&client, args.team.as_deref()).await?;
        let route = format!("{}/policy", path(&team));
        Ok::<_, anyhow::Error>(if args.set.is_empty() {
            client.get(&route, &()).await?
        } else {
            client.put(&route, &update).await?
        })
    })??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let role = match answer.role {
        Some(role) => role.to_string(),
        None => "none (operator)".to_owned(),
    };
    let head = [
        ("Team", answer.team.as_str()),
        ("My role", &role),
        ("run_control", sharing_word(answer.policy.run_control)),
        ("jupyter_access", sharing_word(answer.policy.jupyter_access)),
    ];
    ctx.printer.text(
        &head
            .map(|(key, value)| format!("{key:<16}: {value}\n"))
            .concat(),
    )?;
    let mut table = Table::new(["You may", "Yours", "A teammate's, or the team's"]);
    for rule in &answer.rules {
        table.row([
            Cell::text(&rule.what),
            Cell::maybe(rule.mine.as_deref()),
            Cell::text(&rule.theirs),
        ]);
    }
    ctx.printer.table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_and_slips_are_told() {
        assert_eq!(
            switch("run_control=creator"),
            Ok(Switch::RunControl(Sharing::Creator))
        );
        assert_eq!(
            switch("jupyter-access=team"),
            Ok(Switch::JupyterAccess(Sharing::Team))
        );
        let said = switch("run_controll=team").err().unwrap_or_default();
        assert!(said.contains("did you mean run_control?"), "{said}");
        for wrong in ["run_control", "run_control=all", "colour=team"] {
            assert!(switch(wrong).is_err(), "{wrong}");
        }
    }
}

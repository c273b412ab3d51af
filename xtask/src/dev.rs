//! `cargo xtask dev`: a server to develop against, with people in it.

use anyhow::{Context, Result};

use crate::args::Args;
use crate::local::Server;
use crate::process::must;
use crate::{build, paths, setup, ui};

/// Where the server of everyday work listens, unless `--port` says otherwise.
const PORT: u64 = 8080;

/// People that are there from the beginning.
const USERS: &[&str] = &["ada", "grace", "alan"];

/// Runs the server on `.grid` until Ctrl-C; its data stays for the next time.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let port = args.number("--port")?.unwrap_or(PORT);
    args.end()?;
    let port = u16::try_from(port).context("a port is a number below 65536")?;
    setup::ensure()?;
    must(&mut build::grid_only())?;
    let mut server = Server::start(&paths::root().join(".grid"), port)?;
    let operator = server.operator()?;
    for name in USERS {
        let person = server.person(name)?;
        if person
            .grid(&["user"])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            continue;
        }
        let created = operator.asks(&["user", "create", name])?;
        let key = created["api_key"]
            .as_str()
            .context("the new user has no api_key")?;
        let login = [
            "login",
            "--url",
            &server.url,
            "--username",
            name,
            "--key",
            key,
        ];
        must(&mut person.grid(&login))?;
    }
    ui::say(&format!(
        "\nserver at {}; to be one of {} in another terminal:\n",
        server.url,
        USERS.join(", ")
    ));
    for name in USERS {
        ui::say(&server.person(name)?.exports());
    }
    ui::say("\nCtrl-C stops it; its data stays in .grid");
    server.wait_for_interrupt()?;
    Ok(true)
}

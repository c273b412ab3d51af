//! `cargo xtask hooks`: the quick check before every commit, and nothing else.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::process::{command as program, output_of};
use crate::{paths, ui};

const HOOK: &str = "#!/bin/sh\n# Installed by `cargo xtask hooks`; skip it once with `git commit --no-verify`.\nexec cargo xtask check --quick\n";

/// Installs the hook; one that somebody else wrote is left alone.
pub(crate) fn command(args: Args<'_>) -> Result<bool> {
    args.end()?;
    let mut git = program("git");
    let folder = output_of(
        git.args(["rev-parse", "--git-path", "hooks"])
            .current_dir(paths::root()),
    )?;
    let hook = paths::root().join(folder.trim()).join("pre-commit");
    if std::fs::read_to_string(&hook).is_ok_and(|text| text != HOOK) {
        bail!(
            "{} is there already and not ours; remove it first",
            hook.display()
        );
    }
    if let Some(folder) = hook.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(&hook, HOOK).with_context(|| format!("writing {}", hook.display()))?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&hook, executable)
        .with_context(|| format!("making {} executable", hook.display()))?;
    ui::say(&format!(
        "{} runs `cargo xtask check --quick` from now on",
        hook.display()
    ));
    Ok(true)
}

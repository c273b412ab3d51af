//! Gets what the tests need and cargo does not bring: system packages, `uv`, the test runner.
//!
//! Nothing outside the folder `target/tools` is changed, with one exception: as root, missing
//! system packages are installed, in one call, because each call costs seconds however small
//! the package is. What stays missing is said in one line, and the tests that need it say so too.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{cargo, command, must, output_of, run};
use crate::{paths, postgres, ui};

/// The version of `uv` that the tests use. Anything newer works as well; one version for
/// everybody means that a failure repeats on the next machine.
const UV_VERSION: &str = "0.13.9";

/// What a child of this tool finds on its `PATH` and beside it.
pub(crate) struct Tools {
    /// Whether `cargo nextest` runs; without it the tests run under `cargo test`.
    pub(crate) nextest: bool,
}

/// A system package, and how to see whether it is there.
struct Package {
    name: &'static str,
    used_for: &'static str,
    present: fn() -> bool,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "bubblewrap",
        used_for: "the sandbox",
        present: || works("bwrap", &["--version"]),
    },
    Package {
        name: "git",
        used_for: "code capture",
        present: || works("git", &["--version"]),
    },
    Package {
        name: "openssl",
        used_for: "the certificate of the HTTPS test",
        present: || works("openssl", &["version"]),
    },
    Package {
        name: "rclone",
        used_for: "the test of S3 with rclone",
        present: || works("rclone", &["version"]),
    },
    Package {
        name: "python3-venv",
        used_for: "uv and the examples",
        present: || works("python3", &["-c", "import ensurepip, venv"]),
    },
    Package {
        name: "postgresql",
        used_for: "the store's second database",
        present: postgres::installed,
    },
];

/// Installs what is missing, or says what to install.
pub(crate) fn ensure() -> Result<Tools> {
    system_packages()?;
    if let Err(error) = uv() {
        ui::warn(&format!(
            "note: uv could not be installed, environments will not build: {error:#}"
        ));
    }
    Ok(Tools {
        nextest: nextest()?,
    })
}

/// Puts the kept programs first on the `PATH` of a command, and its caches beside them.
pub(crate) fn with_tools(command: &mut Command) -> &mut Command {
    let mut path = OsString::from(bin());
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    command
        .env("PATH", path)
        .env("UV_CACHE_DIR", paths::tools().join("uv-cache"))
}

fn bin() -> PathBuf {
    paths::tools().join("bin")
}

fn system_packages() -> Result<()> {
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| !(package.present)())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if rustix::process::geteuid().is_root() && works("apt-get", &["--version"]) {
        ui::say(&format!("installing {}", names.join(", ")));
        if apt_install(&names)? || (run(apt_get().arg("update"))? && apt_install(&names)?) {
            return Ok(());
        }
    }
    for package in missing {
        ui::warn(&format!(
            "note: {} is missing ({})",
            package.name, package.used_for
        ));
    }
    ui::warn(&format!(
        "note: to have everything, as root: apt-get install {}",
        names.join(" ")
    ));
    Ok(())
}

fn apt_install(names: &[&str]) -> Result<bool> {
    run(apt_get()
        .args(["install", "-y", "--no-install-recommends"])
        .args(names))
}

fn apt_get() -> Command {
    let mut apt_get = command("apt-get");
    apt_get
        .arg("-qq")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    apt_get
}

/// A private `uv`, so that neither the person's own nor its absence changes a test.
fn uv() -> Result<()> {
    let linked = bin().join("uv");
    let version = output_of(command(&linked).arg("--version"));
    if version.is_ok_and(|text| text.split_whitespace().nth(1) == Some(UV_VERSION)) {
        return Ok(());
    }
    ui::say(&format!(
        "installing uv {UV_VERSION} into {}",
        paths::tools().display()
    ));
    let venv = paths::tools().join("python");
    must(
        command("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pip = venv.join("bin").join("pip");
    must(command(pip).args(["install", "--quiet", &format!("uv=={UV_VERSION}")]))?;
    std::fs::create_dir_all(bin()).context("making the folder for tools")?;
    if linked.symlink_metadata().is_ok() {
        std::fs::remove_file(&linked).context("removing the old link to uv")?;
    }
    std::os::unix::fs::symlink(venv.join("bin").join("uv"), &linked).context("linking uv")
}

/// Whether tests can run under nextest, installing it if need be.
fn nextest() -> Result<bool> {
    let works = || works_with_tools(cargo().args(["nextest", "--version"]));
    if works() {
        return Ok(true);
    }
    ui::say("installing cargo-nextest (once, a few minutes)");
    let mut install = cargo();
    install
        .args(["install", "cargo-nextest", "--locked", "--quiet", "--root"])
        .arg(paths::tools());
    if run(&mut install)? && works() {
        return Ok(true);
    }
    ui::warn("note: cargo-nextest could not be installed, the tests run under cargo test");
    Ok(false)
}

fn works(program: &str, args: &[&str]) -> bool {
    works_with_tools(command(program).args(args))
}

fn works_with_tools(command: &mut Command) -> bool {
    let quiet = with_tools(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::{bin, command, with_tools, works};

    #[test]
    fn kept_programs_come_first_on_the_path() {
        let mut env = command("env");
        let path = with_tools(&mut env)
            .get_envs()
            .find(|(key, _)| *key == "PATH")
            .and_then(|(_, value)| value);
        assert!(path.is_some_and(|path| {
            path.to_string_lossy()
                .starts_with(&*bin().to_string_lossy())
        }));
    }

    #[test]
    fn a_missing_program_does_not_work() {
        assert!(works("sh", &["-c", "exit 0"]));
        assert!(!works("sh", &["-c", "exit 1"]));
        assert!(!works("no-program-has-this-name", &[]));
    }
}

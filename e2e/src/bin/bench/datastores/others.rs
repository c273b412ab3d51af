//! The same data by `dvc add`, and by `aws s3 sync` to an S3 server on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use grid_e2e::Server;
use grid_e2e::s3::{Bucket, KEY, NAME, SECRET};

use super::{Kind, create, make, run, scaled};
use crate::figures::{Figures, Goal};
use crate::machine;

/// Small files of this comparison: the others take minutes for more.
const SMALL_FILES: usize = 10_000;

/// How many times faster we are to be.
const TIMES: f64 = 3.0;

/// The version that is compared with, where it has to be installed.
const DVC: &str = "dvc";

pub(super) fn measure(figures: &mut Figures, server: &Server) -> Result<()> {
    let tools = std::env::temp_dir().join("grid-bench-tools");
    let dvc = program("dvc").or_else(|| install(&tools));
    let aws = program("aws");
    if dvc.is_none() {
        machine::say("  dvc is not there and cannot be installed by uv: it is not compared with");
    }
    if aws.is_none() {
        machine::say("  aws is not there: it is not compared with");
    }
    for kind in [Kind::Large, Kind::Small] {
        let files = match kind {
            Kind::Large => kind.files(),
            Kind::Small => scaled(SMALL_FILES),
        };
        let bytes = kind.bytes_of_one();
        let what = format!("{files} files of {} KiB", bytes >> 10);
        let folder = server.folder.path().join(format!("race-{}", kind.name()));
        let data = folder.join("data");
        make(&data, (files, bytes), 600 + files)?;
        let (own, _) = create(server, "ada", &data, &format!("race-{}", kind.name()))?;
        figures.add(&format!("datastore create, {what}"), own, "s", Goal::None);
        let mut compared = |than: &str, time: f64| {
            figures.add(&format!("{than}, {what}"), time, "s", Goal::None);
            let name = format!("datastore create, {what} / {than} (speed)");
            figures.add(&name, time / own, "", Goal::AtLeast(TIMES));
        };
        if let Some(aws) = &aws {
            compared("aws s3 sync", sync(aws, server, &data)?);
        }
        if let Some(dvc) = &dvc {
            compared("dvc add", add(dvc, &folder)?);
        }
    }
    Ok(())
}

fn program(name: &str) -> Option<PathBuf> {
    let works = Command::new(name).arg("--version").output();
    works
        .is_ok_and(|ran| ran.status.success())
        .then(|| name.into())
}

/// Installs dvc where the next run finds it.
fn install(tools: &Path) -> Option<PathBuf> {
    let found = tools.join("bin").join("dvc");
    if found.exists() {
        return Some(found);
    }
    machine::say("  installing dvc");
    run(Command::new("uv").arg("venv").arg("--clear").arg(tools)).ok()?;
    let mut install = Command::new("uv");
    install
        .args(["pip", "install", "--python"])
        .arg(tools)
        .arg(DVC);
    run(&mut install).ok()?;
    found.exists().then_some(found)
}

/// Seconds of `aws s3 sync` to an empty bucket.
fn sync(aws: &Path, server: &Server, data: &Path) -> Result<f64> {
    let bucket = Bucket::start(server.folder.path());
    let mut command = Command::new(aws);
    command
        .args([
            "s3",
            "sync",
            "--only-show-errors",
            "--endpoint-url",
            &bucket.url,
        ])
        .arg(data)
        .arg(format!("s3://{NAME}/data/"))
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_PROFILE")
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy");
    run(&mut command)
}

/// Seconds of `dvc add` in a fresh repository.
fn add(dvc: &Path, folder: &Path) -> Result<f64> {
    let name = folder.join("data");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(dvc);
        command
            .args(arguments)
            .current_dir(folder)
            .env("DVC_NO_ANALYTICS", "1");
        command
    };
    run(&mut command(&["init", "--no-scm", "-q"])).context("dvc init")?;
    anyhow::ensure!(name.is_dir(), "the data went away");
    run(&mut command(&["add", "-q", "data"])).context("dvc add")
}

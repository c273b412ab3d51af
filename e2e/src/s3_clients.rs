//! The programs that people use with S3, put where the tests find them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Ran;

/// The Python programs that speak S3, as they are found today.
const PROGRAMS: [&str; 5] = ["boto3", "s3fs>=2025", "pandas", "pyarrow", "awscli"];

/// The folder with the programs, made once and kept beside the builds.  Two tests that want
/// it at once wait for each other by a lock on a file.
///
/// # Panics
/// When it cannot be made: there is no test without them.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let mut above = own.ancestors().skip(1);
    let target = above.find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target
        .expect("the folder of the build")
        .join("tools/s3-clients");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = std::fs::File::create(folder.join("lock")).expect("a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let (made, environment) = (folder.join("made"), folder.join("environment"));
    let wanted = PROGRAMS.join(" ");
    if std::fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return environment;
    }
    let uv = |arguments: &[&str]| {
        let mut command = Command::new("uv");
        command.args(arguments).stdin(Stdio::null());
        command.env("VIRTUAL_ENV", &environment);
        Ran::of(&command.output().expect("uv")).ok();
    };
    let text = environment.to_str().expect("UTF-8");
    uv(&["venv", "--quiet", "--clear", text]);
    let mut install = vec!["pip", "install", "--quiet"];
    install.extend(PROGRAMS);
    uv(&install);
    std::fs::write(made, wanted).expect("written");
    environment
}

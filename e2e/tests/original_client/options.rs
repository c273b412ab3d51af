//! What can be asked of a run besides its script.

use std::process::Command;

use grid_e2e::Server;
use grid_e2e::original::{NEWEST, Person, Story};

use crate::{settled, two_teams};

/// Prints what it was started with, and what it found around it.
const SHOW: &str = "import os, sys
print('arguments', sys.argv[1:])
print('colour', os.environ.get('COLOUR'))
print('framework', os.environ.get('GRID_FRAMEWORK'))
print('files', sorted(os.listdir('.')))
try:
    import tiny
    print('tiny', tiny.WORD)
except ImportError:
    print('tiny is not installed')
";

/// What the experiment printed, line by line.
fn printed(server: &Server, experiment: &str) -> Vec<String> {
    server
        .log_text(experiment)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The arguments of each experiment, sorted.
fn arguments(server: &Server, run: &str) -> Vec<String> {
    let words = |it: &serde_json::Value| -> Vec<String> {
        let words = it["command"].as_array().into_iter().flatten();
        let words = words.filter_map(|word| word.as_str().map(str::to_owned));
        words.collect()
    };
    let all = server.experiments(run);
    let mut all: Vec<String> = all.iter().map(|it| words(it).join(" ")).collect();
    all.sort();
    all
}

#[test]
fn three_strategies() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file("show.py", SHOW);
    ada.types("run -l --name all show.py --a '[1,2]' --b '[3,4]'");
    ada.types("run -l --name same --strategy none show.py --a '[1,2]'");
    let by_chance = "--strategy random_search --num_trials 3 --seed 7";
    let values = "--x 'uniform(0,1,100)' --y '[1,2,3]'";
    for name in ["chance", "again"] {
        ada.types(&format!(
            "run -l --name {name} {by_chance} show.py {values}"
        ));
    }
    assert_eq!(
        arguments(&server, "all"),
        [
            "show.py --a 1 --b 3",
            "show.py --a 1 --b 4",
            "show.py --a 2 --b 3",
            "show.py --a 2 --b 4"
        ]
    );
    assert_eq!(server.experiments("same").len(), 1);
    assert_eq!(arguments(&server, "chance").len(), 3);
    assert_eq!(
        arguments(&server, "chance"),
        arguments(&server, "again"),
        "the seed decides"
    );
    settled(&server, "same");
    assert_eq!(
        printed(&server, "same-exp0")[0],
        "arguments ['--a', '[1,2]']"
    );
    let refused = ada.grid(&[
        "run",
        "-l",
        "--strategy",
        "random_search",
        "show.py",
        "--a",
        "[1]",
    ]);
    assert_eq!(refused.code, 1, "how many is not said");
}

#[test]
fn a_configuration_file() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file("show.py", SHOW);
    ada.file(
        "grid.yml",
        "compute:
  provider:
    cluster: local
  train:
    cpus: 1
    framework: torch
    environment:
      COLOUR: dark blue
    actions:
      on_build_start: ['echo building']
      on_experiment_start: ['echo before']
      on_experiment_end: ['echo after']
hyper_params:
  settings:
    strategy: grid_search
  params:
    --lr: [0.1, 0.2]
    --layers: 3
",
    );
    ada.types("run -l --name told --config grid.yml show.py");
    settled(&server, "told");
    assert_eq!(
        arguments(&server, "told"),
        ["show.py --lr 0.1 --layers 3", "show.py --lr 0.2 --layers 3"]
    );
    let lines = printed(&server, "told-exp0");
    assert!(lines.contains(&"colour dark blue".to_owned()), "{lines:?}");
    let at = |text: &str| lines.iter().position(|line| line == text);
    assert!(at("before") < at("colour dark blue"), "{lines:?}");
    assert!(at("after") > at("colour dark blue"), "{lines:?}");
    // One of the two builds what both use.
    let build = ["told-exp0", "told-exp1"]
        .map(|experiment| ada.types(&format!("logs {experiment} --show-build-logs")));
    assert!(build.iter().all(|log| log.contains("[build]")), "{build:?}");
    let own = |log: &&String| log.lines().any(|line| line.ends_with("] building"));
    assert_eq!(build.iter().filter(own).count(), 1, "{build:?}");
}

#[test]
fn packages_that_the_script_needs() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file("show.py", SHOW);
    // A package that lies beside the script: nothing is fetched.
    ada.file("needs/tiny/tiny.py", "WORD = 'is here'\n");
    ada.file(
        "needs/tiny/setup.py",
        "from setuptools import setup\nsetup(name='tiny', version='1', py_modules=['tiny'])\n",
    );
    ada.file("needs/more.txt", "./needs/tiny\n");
    ada.types("run -l --name with --dependency_file needs/more.txt show.py");
    ada.types("run -l --name without show.py");
    settled(&server, "with");
    settled(&server, "without");
    let lines = printed(&server, "with-exp0");
    assert!(lines.contains(&"tiny is here".to_owned()), "{lines:?}");
    let lines = printed(&server, "without-exp0");
    assert!(
        lines.contains(&"tiny is not installed".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn what_this_machine_does_not_have_is_refused_in_words() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file("show.py", SHOW);
    ada.file("Dockerfile", "FROM scratch\n");
    let mut story = Story::default();
    for line in [
        "run -l --name too-many --gpus 8 --instance_type p3.16xlarge show.py",
        "run -l --name named-exp1 show.py",
        "run -l --name Loud show.py",
        "run -l --name spot --use_spot show.py",
        "run -l --name elsewhere --cluster nowhere show.py",
        "run -l --name data --datastore_name nothing show.py",
        "run -l --name missing not-there.py",
        "run --name unversioned show.py",
    ] {
        story.types(&ada, line);
    }
    insta::assert_snapshot!("refused_runs", story.told());
}

/// Runs Git where somebody types.
fn git(person: &Person<'_>, folder: &str, line: &str) -> String {
    let output = Command::new("git")
        .args(line.split(' '))
        .current_dir(person.work().join(folder))
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_COMMITTER_NAME", "Ada")])
        .envs([
            ("GIT_AUTHOR_EMAIL", "ada@example.org"),
            ("GIT_COMMITTER_EMAIL", "ada@example.org"),
        ])
        .output()
        .expect("git starts");
    assert!(output.status.success(), "git {line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Git's own server, of one folder.
struct Daemon {
    child: std::process::Child,
    url: String,
}

impl Daemon {
    fn of(folder: &std::path::Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("a port");
        drop(free);
        let child = Command::new("git")
            .args([
                "daemon",
                "--export-all",
                "--reuseaddr",
                "--listen=127.0.0.1",
            ])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--base-path={}", folder.display()))
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("git starts");
        grid_e2e::wait_for("git's server", || {
            std::net::TcpStream::connect(address).ok()
        });
        let url = format!("git://{address}/");
        Self { child, url }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        grid_e2e::signal(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn a_run_from_a_repository_on_github() {
    // The client wants a remote on GitHub, and the server fetches from there.  For both of them
    // that address stands for a server beside, by Git's own means.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let bare = elsewhere.path().join("acme/widgets.git");
    let config = elsewhere.path().join("gitconfig");
    let daemon = Daemon::of(elsewhere.path());
    let instead = format!(
        "[url \"{}\"]\n\tinsteadOf = https://github.com/\n",
        daemon.url
    );
    std::fs::write(&config, instead).expect("written");
    let server = crate::two_teams_with(&[("GIT_CONFIG_GLOBAL", &config.display().to_string())]);
    let ada = Person::signed_in(&server, "ada");
    ada.file("code/sub/show.py", SHOW);
    std::fs::create_dir_all(&bare).expect("a folder");
    git(&ada, "code", "init -q -b main");
    git(&ada, "code", "add .");
    git(&ada, "code", "commit -q -m first");
    git(
        &ada,
        "code",
        &format!("clone -q --bare . {}", bare.display()),
    );
    git(
        &ada,
        "code",
        "remote add origin https://github.com/acme/widgets.git",
    );
    let commit = git(&ada, "code", "rev-parse HEAD");
    let in_sub = |arguments: &[&str]| {
        let mut command = ada.command(arguments);
        command
            .current_dir(ada.work().join("code/sub"))
            .env("GIT_CONFIG_GLOBAL", &config)
            .env("IGNORE_WARNINGS", "1");
        grid_e2e::Ran::of(&command.output().expect("it starts"))
    };
    let said = in_sub(&["run", "--name", "cloned", "show.py", "--a", "1"]).ok();
    assert!(said.contains("Run submitted!"), "{said}");
    settled(&server, "cloned");
    let lines = printed(&server, "cloned-exp0");
    assert!(
        lines.contains(&"arguments ['--a', '1']".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"files ['show.py']".to_owned()),
        "in its folder: {lines:?}"
    );
    let shown = ada.python("from grid import Experiment; print(Experiment('cloned-exp0'))");
    let shown = shown.ok();
    assert!(
        shown.contains(&commit) && shown.contains("github.com/acme/widgets"),
        "{shown}"
    );
}

#[test]
fn what_older_servers_would_have_taken() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    ada.login().ok();
    ada.file("show.py", SHOW);
    // Without a name the client makes one up.
    let said = ada.types("run -l show.py");
    assert!(said.contains("Run submitted!"), "{said}");
    // More CPUs than are asked for by default, and room on disk.
    ada.types("run -l --name sized --cpus 2 --memory 200 --scratch_size 10 show.py");
    settled(&server, "sized");
    let own = server
        .grid("ada", &["-o", "json", "status", "sized"])
        .json();
    let resources = &own["runs"][0]["spec"]["resources"];
    assert_eq!(resources["cpus"], 2, "{own}");
}

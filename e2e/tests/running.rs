//! How experiments run: environments, actions, limits, retries, interruptions.

use std::io::BufRead;

use grid_e2e::{Server, signal, wait_for};
use rustix::process::Signal;

#[test]
fn requirements_become_an_environment_that_is_shared() {
    let server = Server::start(&[]);
    std::fs::write(server.work().join("requirements.txt"), "six==1.16.0\n").expect("written");
    server.script("uses.py", "import six\nprint('six', six.__version__)\n");
    server.run("uses", &["uses.py", "--n", "[1,2]"]);
    let ended = server.finished("uses");
    assert!(
        ended.iter().all(|e| e["status"] == "succeeded"),
        "{ended:?}\n{}",
        server.runner_log()
    );
    assert_eq!(server.log_text("uses-exp1"), "six 1.16.0");
    let build = |name: &str| {
        let args = ["-o", "json", "logs", name, "--build"];
        server.grid("ada", &args).json()["lines"].to_string()
    };
    server.run("again", &["uses.py"]);
    server.finished("again");
    let first = build("uses-exp0") + &build("uses-exp1");
    assert!(first.contains("six"), "the build is told: {first}");
    let again = build("again-exp0");
    assert!(
        again.contains("cached"),
        "the second time it is there: {again}"
    );

    std::fs::write(
        server.work().join("requirements.txt"),
        "no-such-package-anywhere-1==9\n",
    )
    .expect("written");
    server.run("broken", &["uses.py"]);
    let broken = server.finished("broken");
    assert_eq!(broken[0]["reason"]["code"], "build", "{broken:?}");
    assert!(
        broken[0]["message"]
            .as_str()
            .is_some_and(|m| m.contains("no-such-package-anywhere-1")),
        "{broken:?}"
    );
    server.doctor();
}

#[test]
fn actions_run_around_the_script() {
    let server = Server::start(&[]);
    server.script(
        "act.sh",
        "#!/bin/bash\ncat made-before\necho middle > made-by-script\n",
    );
    let config = r#"
compute:
  train:
    environment: {COLOUR: blue}
    actions:
      on_experiment_start: ["echo ${COLOUR^^} of ${GRID_EXPERIMENT_NAME:0:3} > made-before"]
      on_experiment_end: ["cat made-by-script", "echo end"]
hyper_params:
  params: {--lr: "[1, 2]"}
"#;
    std::fs::write(server.work().join("config.yml"), config).expect("written");
    server.run("act", &["--config", "config.yml", "act.sh"]);
    let ended = server.finished("act");
    assert_eq!(ended.len(), 2);
    assert!(
        ended.iter().all(|e| e["status"] == "succeeded"),
        "{ended:?}"
    );
    assert_eq!(server.log_text("act-exp0"), "BLUE of act\nmiddle\nend");
    let bad = config
        .replace("cat made-by-script", "exit 7")
        .replace("echo ${COLOUR", "false; echo ${COLOUR");
    std::fs::write(server.work().join("config.yml"), bad).expect("written");
    server.run("bad", &["--config", "config.yml", "act.sh"]);
    let ended = server.finished("bad");
    assert_eq!(ended[0]["reason"]["code"], "action", "{ended:?}");
}

#[test]
fn limits_and_patience() {
    let server = Server::start(&[]);
    server.script("slow.sh", "#!/bin/bash\necho on; sleep 1000\n");
    server.script(
        "flaky.sh",
        "#!/bin/bash\necho try $GRID_ATTEMPT\n[ \"$GRID_ATTEMPT\" = 3 ]\n",
    );
    server.script("eat.py", "x = []\nwhile True: x.append(' ' * 10_000_000)\n");
    server.run("slow", &["--max-duration", "1s", "slow.sh"]);
    server.run("flaky", &["--retries", "3", "flaky.sh"]);
    let slow = server.finished("slow");
    assert_eq!(slow[0]["reason"]["code"], "max_duration", "{slow:?}");
    let flaky = server.finished("flaky");
    assert_eq!(
        (flaky[0]["status"].as_str(), flaky[0]["attempts"].as_u64()),
        (Some("succeeded"), Some(3))
    );
    assert_eq!(server.log_text("flaky-exp0"), "try 1\ntry 2\ntry 3");
    let nodes = server.grid("ada", &["-o", "json", "clusters"]).json();
    let told = nodes["clusters"][0]["nodes"][0]["warnings"].to_string();
    if !told.contains("memory") {
        server.run("eat", &["--memory", "200M", "eat.py"]);
        let eat = server.finished("eat");
        assert_eq!(eat[0]["reason"]["code"], "out_of_memory", "{eat:?}");
        assert!(
            eat[0]["message"]
                .as_str()
                .is_some_and(|m| m.contains("200 MiB")),
            "{eat:?}"
        );
    }
    let refused = server
        .grid("ada", &["run", "--localdir", "--cpus", "4000", "slow.sh"])
        .fails(1);
    assert!(refused.contains("4000 CPUs"), "{refused}");
    server.doctor();
}

/// A script that saves when it is told to end, and goes on from what it saved.
const RESUMES: &str = r#"#!/bin/bash
step=0
[ -f checkpoint/step ] && step=$(cat checkpoint/step) && echo "resumed at $step"
save() { mkdir -p checkpoint; echo $step > checkpoint/step; echo "saved $step"; exit 0; }
trap save TERM
echo ready
while [ $step -lt 1000000 ]; do
  step=$((step + 1)); sleep 0.02
  [ -f checkpoint/step ] && echo "done" && exit 0
done
"#;

#[test]
fn an_interrupted_experiment_goes_on_with_what_it_saved() {
    let server = Server::start(&[]);
    server.script("resumes.sh", RESUMES);
    server.run("resumes", &["--auto_resume", "resumes.sh"]);
    server.run("plain", &["resumes.sh"]);
    for name in ["resumes-exp0", "plain-exp0"] {
        wait_for("the script to be ready", || {
            server.log_text(name).contains("ready").then_some(())
        });
    }
    // The machine goes away: its runner is told, as a notice of the provider would.
    signal(server.runner_pid(), Signal::USR1);
    let ended = server.finished("resumes");
    let log = server.log_text("resumes-exp0");
    assert_eq!(ended[0]["status"], "succeeded", "{ended:?}\n{log}");
    assert_eq!(ended[0]["attempts"], 2);
    assert!(
        log.contains("saved ") && log.contains("resumed at "),
        "{log}"
    );
    server.finished("plain");
    server.doctor();
}

#[test]
fn code_is_what_is_on_disk_now() {
    let server = Server::start(&[]);
    let work = server.work();
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(args)
            .current_dir(&work)
            .status();
        assert!(done.is_ok_and(|status| status.success()));
    };
    server.script("show.sh", "#!/bin/bash\necho old\n");
    std::fs::create_dir(work.join("sub")).expect("a folder");
    std::fs::write(work.join("gone.txt"), "x").expect("written");
    std::fs::write(work.join(".gitignore"), "secret.txt\n").expect("written");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "first"]);
    server.script(
        "show.sh",
        "#!/bin/bash\necho new; find . -type f -o -type l | sort\n",
    );
    std::fs::remove_file(work.join("gone.txt")).expect("removed");
    std::fs::write(work.join("secret.txt"), "x").expect("written");
    std::fs::write(work.join("sub/un tracked.txt"), "x").expect("written");
    std::os::unix::fs::symlink("sub", work.join("link")).expect("linked");
    server
        .grid("ada", &["run", "--name", "now", "show.sh"])
        .ok();
    server.finished("now");
    assert_eq!(
        server.log_text("now-exp0"),
        "new\n./.gitignore\n./link\n./show.sh\n./sub/un tracked.txt"
    );
    std::os::unix::fs::symlink("/etc/passwd", work.join("outside")).expect("linked");
    let refused = server.grid("ada", &["run", "show.sh"]).fails(1);
    assert!(refused.contains("outside"), "{refused}");
}

#[test]
fn a_log_is_followed_while_it_is_written() {
    let server = Server::start(&[]);
    server.script(
        "talks.sh",
        "#!/bin/bash\nfor i in 1 2 3; do printf '\\rat %s%%' $i; sleep 0.1; done; echo\necho waiting\n\
         while [ ! -e /tmp/go ] && [ $((n++)) -lt 600 ]; do sleep 0.05; [ -e go ] && break; echo $n; done\necho over\n",
    );
    server.run("talks", &["talks.sh"]);
    let mut child = server
        .command("ada", &["logs", "talks-exp0", "--follow"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.ends_with("] 5")) {
        seen.push(lines.next().expect("more lines").expect("text"));
    }
    let experiment = server.experiments("talks");
    assert_eq!(
        experiment[0]["status"], "running",
        "it was read while it ran"
    );
    server.grid("ada", &["stop", "run", "talks"]).ok();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(
        child.wait().expect("it ends").code().is_some(),
        "following ends with the experiment"
    );
    assert!(seen.iter().any(|line| line.ends_with("at 3%")), "{seen:?}");
    let _ = rest;
}

#[test]
fn links_work_without_an_account() {
    let server = Server::start(&[]);
    server.script("makes.sh", "#!/bin/bash\necho content > 'a file.txt'\n");
    server.run("makes", &["makes.sh"]);
    server.finished("makes");
    let links = server
        .grid("ada", &["-o", "json", "artifacts", "--link", "makes-exp0"])
        .json();
    let url = links["links"][0]["url"]
        .as_str()
        .expect("a link")
        .to_owned();
    let fetch = |url: &str| {
        let python = "import sys,urllib.request as u\ntry: print(u.urlopen(sys.argv[1]).read().decode())\n\
                      except Exception as e: print(e)";
        let output = std::process::Command::new("python3")
            .args(["-c", python, url])
            .env_remove("http_proxy")
            .output();
        String::from_utf8_lossy(&output.expect("python").stdout).into_owned()
    };
    assert_eq!(fetch(&url).trim(), "content");
    assert!(fetch(&url.replace("a%20file", "b%20file")).contains("404"));
    server
        .grid("ada", &["delete", "run", "makes", "--yes"])
        .ok();
    assert!(fetch(&url).contains("404"), "not of what is in the trash");
}

//! What bash offers when Tab is pressed, with the script that `grid completion bash` prints.

use std::path::Path;
use std::process::{Command, Stdio};

use grid_e2e::{Server, grid_program};

/// Completes lines as bash does: it takes words apart at `:` and `=`, and puts what is offered
/// in the place of the last piece.
const DRIVER: &str = r#"
source "$SCRIPT"
complete -p grid >/dev/null || exit 9
while IFS= read -r line; do
    # The same rules by which readline finds the words.
    COMP_LINE="$line" COMP_POINT=${#line} COMP_WORDS=() word=""
    for ((at = 0; at < ${#line}; at++)); do
        letter="${line:at:1}"
        case "$letter" in
            \\) ((++at)); word+="$letter${line:at:1}" ;;
            ' ') [[ -n "$word" ]] && COMP_WORDS+=("$word"); word="" ;;
            [:=]) [[ -n "$word" ]] && COMP_WORDS+=("$word"); COMP_WORDS+=("$letter"); word="" ;;
            *) word+="$letter" ;;
        esac
    done
    [[ -n "$word" || "$line" == *' ' ]] && COMP_WORDS+=("$word")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _grid "$PROGRAM" "${COMP_WORDS[COMP_CWORD]}" ""
    echo "${COMPREPLY[*]}"
done
"#;

/// What is offered for each line.
fn offered(server: &Server, who: &str, lines: &[&str]) -> Vec<Vec<String>> {
    let script = server.folder.path().join("grid.bash");
    let printed = server.grid(who, &["completion", "bash"]).ok();
    std::fs::write(&script, printed).expect("written");
    // The environment of this person, for bash instead of grid.
    let person = server.command(who, &[]);
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", DRIVER]).env_clear();
    for (name, value) in person.get_envs() {
        if let Some(value) = value {
            bash.env(name, value);
        }
    }
    bash.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    bash.env("SCRIPT", &script).env("PROGRAM", grid_program());
    bash.current_dir(server.work());
    let mut child = bash
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut input = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, format!("{}\n", lines.join("\n")).as_bytes())
        .expect("written");
    drop(input);
    let output = child.wait_with_output().expect("bash ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines().map(words).collect()
}

/// Looks that these lines offer these words.
fn asked(server: &Server, who: &str, cases: &[(&str, &[&str])]) {
    let lines: Vec<&str> = cases.iter().map(|(line, _)| *line).collect();
    let found = offered(server, who, &lines);
    assert_eq!(found.len(), cases.len(), "{found:?}");
    for ((line, expected), found) in cases.iter().zip(found) {
        assert_eq!(found, *expected, "{who} typed '{line}'");
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
}

#[test]
fn bash_completes_the_names_that_the_server_knows() {
    let mut server = Server::start(&[]);
    server.person("bob");
    server.grid("ada", &["team", "create", "vision"]).ok();
    server
        .grid("ada", &["team", "invite", "vision", "bob"])
        .ok();
    server.grid("bob", &["team", "join", "vision"]).ok();
    server.grid("ada", &["user", "set-team", "vision"]).ok();
    write(&server.work().join("cats/train/one.txt"), "meow");
    write(&server.work().join("cats/it's one"), "purr");
    for _ in 0..2 {
        server.grid("ada", &["datastore", "create", "cats"]).ok();
    }
    server.script("true.sh", "#!/bin/bash\n");
    let swept = [
        "run",
        "--localdir",
        "--name",
        "felis",
        "true.sh",
        "--n",
        "[1, 2]",
    ];
    server.grid("ada", &swept).ok();
    server.finished("felis");

    asked(
        &server,
        "ada",
        &[
            ("grid datas", &["datastore"]),
            ("grid datastore files c", &["cats"]),
            ("grid datastore files cats:", &["2", "1"]),
            ("grid datastore diff cats:1 cats:2", &["2"]),
            ("grid datastore delete --name cats --version ", &["2", "1"]),
            ("grid datastore delete --name=c", &["cats"]),
            ("grid run --datastore_name c", &["cats"]),
            ("grid datastore cat cats train/", &["train/one.txt"]),
            ("grid datastore cat cats tr", &["train/"]),
            ("grid datastore cat cats it", &[r"it\'s\", "one"]),
            (r"grid datastore cat cats it\'s\ o", &[r"it\'s\", "one"]),
            ("grid status fe", &["felis"]),
            ("grid logs felis-e", &["felis-exp"]),
            ("grid logs felis-exp", &["felis-exp0", "felis-exp1"]),
            ("grid datastore --global b", &["bob"]),
            ("grid run --team vi", &["vision"]),
            ("grid status --glo", &["--global"]),
            // What bash does better, or what belongs to the script.
            ("grid run tr", &[]),
            ("grid run true.sh --n", &[]),
        ],
    );
    asked(
        &server,
        "bob",
        &[
            ("grid datastore files c", &[]),
            ("grid datastore files a", &["ada:cats"]),
            ("grid datastore files ada:", &["cats"]),
            ("grid datastore files ada:cats:", &["2", "1"]),
            ("grid status ada:f", &["felis"]),
        ],
    );
    // When nobody answers there is nothing to say.
    server.kill();
    asked(
        &server,
        "ada",
        &[
            ("grid datastore files c", &[]),
            ("grid datastore fi", &["files"]),
        ],
    );
}

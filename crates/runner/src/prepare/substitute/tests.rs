use std::process::Command;

use super::*;

fn variables() -> BTreeMap<String, String> {
    let pairs = [
        ("p", "hello World"),
        ("ID", "01arz3ndektsv4rrffq69g5fav"),
        ("PATHNAME", "/a/b.c/d.tar.gz"),
        ("EMPTY", ""),
        ("QUOTES", "it's \"so\" $p `x` \\ *"),
        ("U", "äÖü ß"),
        ("GLOB", "a*b?c[d]"),
        ("N", "2"),
        ("X", "l"),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn run(shell: &str, command: &str, all: &BTreeMap<String, String>) -> String {
    let output = Command::new(shell)
        .args(["-c", command])
        .env_clear()
        .envs(all)
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .output()
        .expect("the shell runs");
    assert!(
        output.status.success(),
        "{shell} -c {command:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_operator_gives_what_bash_gives() {
    let operators = [
        "^",
        "^^",
        ",",
        ",,",
        ":0",
        ":4",
        ":0:4",
        ":2:3",
        ":20",
        ": -3",
        ": -3:2",
        ":1:-2",
        ":(-4)",
        ":0:0",
        "#h",
        "#*/",
        "##*/",
        "#?",
        "%?",
        "##*",
        "%%*",
        "#",
        "%",
        "%.*",
        "%%.*",
        "%d",
        "%%l*",
        "/l/L",
        "//l/L",
        "/l",
        "//l",
        "/#h/H",
        "/#x/H",
        "/%d/D",
        "/%x/D",
        "/l*o/_",
        "//[a-z]/x",
        "//[!a-z]/_",
        "//?/.",
        "/*/all",
        "///-",
        "/\\//-",
        "//\\//-",
        "/#/pre",
        "/%/post",
        "//'l'/\"X Y\"",
        "/$X/1",
        "//${X}/${N}${p^}",
        "//\"$X\"/'$N'",
        "/#*/all",
        "/%*/all",
        "//[]a]/x",
        "//\\*/star",
        "//[0-9]/#",
        "=d",
        ":=d",
        ":-d",
        "",
    ];
    let all = variables();
    let names = ["p", "ID", "PATHNAME", "EMPTY", "QUOTES", "U", "GLOB"];
    let mut commands: Vec<String> = Vec::new();
    for operator in operators {
        for name in names {
            // A part that ends before it begins is an error in bash.
            if name == "EMPTY" && operator.contains(":1:-2") {
                continue;
            }
            // In a shell of its own, since some of them assign.
            commands.push(format!("(printf '<%s>' \"${{{name}{operator}}}\")"));
        }
    }
    let lengths = names.map(|name| format!("printf '<%s>' \"${{#{name}}}\""));
    commands.extend(lengths);
    let script = |commands: &[String]| commands.join("\necho\n");
    let expected = run("bash", &script(&commands), &all);
    let mut own = all.clone();
    let mut substituted = Vec::new();
    for command in &commands {
        let done = substitute(command, &own);
        own.extend(done.variables);
        substituted.push(done.command);
    }
    let got = run("sh", &script(&substituted), &own);
    for ((command, expected), got) in commands
        .iter()
        .zip(expected.split('\n'))
        .zip(got.split('\n'))
    {
        assert_eq!(got, expected, "{command}");
    }
    assert_eq!(got, expected);
}

#[test]
fn the_shell_treats_the_result_as_it_would_the_expression() {
    let all = variables();
    for command in [
        "printf '<%s>' ${p^^}",
        "printf '<%s>' \"${p^^}\" x${ID:0:4}y",
        "printf '%s' '${p^^}' \\${p} \\$",
        "p=own; printf '<%s>' \"$p\" \"${p}\"",
        "printf '<%s>' \"${QUOTES,,}\"",
        "printf '<%s>' \"${UNSET:-${N}}\" \"${UNSET:-d e}\"",
        "q=1; printf '%s' \"${q:-2}\" \"${#q}\"",
        "echo \"it's ${ID:0:4}\" 'and \"${ID:0:4}\"'",
        "printf '%s' \"${p//o/$(printf 'a b')}\" 2>/dev/null || true",
    ] {
        let done = substitute(command, &all);
        let mut own = all.clone();
        own.extend(done.variables.clone());
        if command.contains("$(") {
            assert_eq!(done.command, command, "left to the shell");
            continue;
        }
        assert_eq!(
            run("sh", &done.command, &own),
            run("bash", command, &all),
            "{command} -> {}",
            done.command
        );
    }
}

#[test]
fn nothing_panics() {
    let all = variables();
    for command in [
        "${",
        "${p",
        "${p/",
        "$",
        "\\",
        "'",
        "\"${p//\"",
        "${p:",
        "${p:x}",
        "${p/[/x}",
        "${p^é}",
        "é${p:1}é",
    ] {
        substitute(command, &all);
    }
}

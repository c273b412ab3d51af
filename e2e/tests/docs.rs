//! The commands of README and guide, typed as they stand there: what a page shows is
//! what the program says today.
//!
//! Of every page each block that begins with ```` ```console ```` is tried, from the top, in
//! one shell, against a server of the page's own.  A line `$ COMMAND` is typed, lines that
//! begin with `> ` go on with it, and what follows until the next `$` must come out,
//! standard output and standard error together.  Besides:
//!
//! * a line `...` stands for any number of lines;
//! * a command that ends in `# exit code N` has to end with that code, any other with 0;
//! * `<!-- $ COMMAND -->` is typed without being shown, to bring about what the page tells of;
//! * a block whose first line ends in `file=NAME` is written to that file;
//! * what was drawn over, and colours, are not there;
//! * what differs each time (times, ids, ports, spaces that fill a column) is not compared.
//!
//! `GRID_DOCS=write cargo nextest run -p grid-e2e --test docs` writes the real output into
//! the pages; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grid_e2e::original::{Clients, screen};
use grid_e2e::s3_clients::programs;
use grid_e2e::{Server, grid_program, wait_for};
use regex::Regex;

/// The pages, each with a test of its own.
const PAGES: [&str; 14] = [
    "README.md",
    "docs/guide/api.md",
    "docs/guide/config-file.md",
    "docs/guide/datastores.md",
    "docs/guide/first-steps.md",
    "docs/guide/json.md",
    "docs/guide/logs-and-artifacts.md",
    "docs/guide/original-client.md",
    "docs/guide/runs.md",
    "docs/guide/s3.md",
    "docs/guide/secrets.md",
    "docs/guide/server.md",
    "docs/guide/sweeps.md",
    "docs/guide/teams.md",
];

/// The home folder in the pages.
const HOME: &str = "/home/ada";

/// Where the server of the pages listens.
const URL: &str = "http://127.0.0.1:8080";

/// The variable with the folder of the original client's programs, on the page about it.
const ORIGINAL_CLIENT: &str = "ORIGINAL_CLIENT";

/// The variable with the folder of the programs that speak S3, on the page about it.
const S3_CLIENTS: &str = "S3_CLIENTS";

/// Ends the text of a file.
const END_OF_FILE: &str = "END-OF-FILE";

/// What stands for any number of lines.
const ANYTHING: &str = "...";

#[test]
fn readme() {
    try_page("README.md");
}

#[test]
fn api() {
    try_page("docs/guide/api.md");
}

#[test]
fn config_file() {
    try_page("docs/guide/config-file.md");
}

#[test]
fn datastores() {
    try_page("docs/guide/datastores.md");
}

#[test]
fn first_steps() {
    try_page("docs/guide/first-steps.md");
}

#[test]
fn json() {
    try_page("docs/guide/json.md");
}

#[test]
fn logs_and_artifacts() {
    try_page("docs/guide/logs-and-artifacts.md");
}

#[test]
fn original_client() {
    try_page("docs/guide/original-client.md");
}

#[test]
fn runs() {
    try_page("docs/guide/runs.md");
}

#[test]
fn s3() {
    try_page("docs/guide/s3.md");
}

#[test]
fn secrets() {
    try_page("docs/guide/secrets.md");
}

#[test]
fn server() {
    try_page("docs/guide/server.md");
}

#[test]
fn sweeps() {
    try_page("docs/guide/sweeps.md");
}

#[test]
fn teams() {
    try_page("docs/guide/teams.md");
}

#[test]
fn no_page_is_forgotten() {
    let mut found = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs/guide")).expect("the guide") {
        let name = entry.expect("an entry").file_name();
        found.push(format!("docs/guide/{}", name.to_string_lossy()));
    }
    found.sort();
    let mut known = PAGES.to_vec();
    known.sort_unstable();
    assert_eq!(found, known, "give each page a test here");
}

#[test]
fn a_difference_is_found() {
    let differs = |expected: &str, said: &str| !matches(&plain(expected), &plain(said));
    assert!(!differs("a  b\n...\nend\n", "a b\n1\n2\nend\n"));
    assert!(!differs(
        "at 2026-11-22T05:52:42.1Z in 0d-00:00:01",
        "at 2027-01-01T00:00:00Z in 1d-00:00:09"
    ));
    assert!(differs("a\n...\nend", "a\nend of it"));
    assert!(differs("2 experiments", "3 experiments"));
    assert!(differs("", "warning: something"));
    let steps = steps(
        "x\n<!-- $ cd y -->\n```py file=z\n1\n```\n```console\n$ a \\\n> b  # exit code 2\nout\n\n$ c\n```\n```sh\n$ d\n```\n",
    );
    let read: Vec<_> = steps
        .iter()
        .map(|step| (step.command.as_str(), step.code, step.expected.as_deref()))
        .collect();
    assert_eq!(
        read,
        [
            ("cd y", 0, None),
            ("cat >'z' <<'END-OF-FILE'\n1\nEND-OF-FILE", 0, None),
            ("a \\\nb  # exit code 2", 2, Some("out\n\n")),
            ("c", 0, Some(""))
        ]
    );
}

/// One command of a page.
struct Step {
    command: String,
    code: i32,
    /// The text below it; none when the page does not show the command.
    expected: Option<String>,
    /// The lines of the page that `expected` is, from and up to.
    lines: (usize, usize),
}

impl Step {
    fn new(command: String, expected: Option<String>, below: usize) -> Self {
        Self {
            command,
            code: 0,
            expected,
            lines: (below, below),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the repository")
}

fn try_page(page: &str) {
    let path = root().join(page);
    let text = std::fs::read_to_string(&path).expect("the page");
    let steps = steps(&text);
    if steps.is_empty() {
        return;
    }
    let mut flags = vec!["--cpus", "2"];
    if needs(&steps, S3_CLIENTS) {
        flags.extend(["--s3-listen", "127.0.0.1:0"]);
    }
    let server = Server::start(&flags);
    let said = type_all(&server, &steps);
    if std::env::var_os("GRID_DOCS").is_some_and(|wish| wish == "write") {
        let written = rewritten(&text, &steps, &said);
        std::fs::write(&path, written).expect("the page can be written");
    }
    for (step, (code, output)) in steps.iter().zip(&said) {
        let at = format!("{page}:{}: $ {}", step.lines.0, step.command);
        assert_eq!(*code, step.code, "{at}\n{output}");
        if let Some(expected) = &step.expected {
            assert!(
                matches(&plain(expected), &plain(output)),
                "{at}\n--- the page says\n{expected}\n--- it is\n{output}"
            );
        }
    }
}

/// Where a line of a page stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Prose,
    Command,
    Output,
    File,
    Other,
}

/// Takes a page apart.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = At::Prose;
    for (number, line) in text.lines().enumerate() {
        let below = number + 1;
        if at == At::Prose || line == "```" {
            at = prose(line, at, below, &mut steps);
            continue;
        }
        match (at, line.strip_prefix("$ "), steps.last_mut()) {
            (At::Command | At::Output, Some(command), _) => {
                at = At::Command;
                steps.push(Step::new(command.to_owned(), Some(String::new()), below));
            }
            (At::Command, None, Some(step)) if line.starts_with("> ") || line == ">" => {
                step.command.push('\n');
                step.command.push_str(line.get(2..).unwrap_or_default());
                step.lines = (below, below);
            }
            (At::Command | At::Output, None, Some(step)) => {
                at = At::Output;
                step.expected
                    .get_or_insert_default()
                    .push_str(&format!("{line}\n"));
                step.lines.1 = below;
            }
            (At::File, _, Some(step)) => step.command.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    for step in &mut steps {
        let code = step
            .command
            .rsplit_once("# exit code ")
            .and_then(|(_, code)| code.trim().parse().ok());
        step.code = code.unwrap_or(0);
    }
    steps
}

/// A line outside of blocks, or one that ends a block.
fn prose(line: &str, at: At, below: usize, steps: &mut Vec<Step>) -> At {
    if at == At::File
        && let Some(step) = steps.last_mut()
    {
        step.command.push_str(END_OF_FILE);
    }
    if at != At::Prose {
        return At::Prose;
    }
    let hidden = line
        .strip_prefix("<!-- $ ")
        .and_then(|rest| rest.strip_suffix(" -->"));
    if let Some(command) = hidden {
        steps.push(Step::new(command.to_owned(), None, below));
    }
    match line
        .strip_prefix("```")
        .map(|info| (info, info.split_once("file=")))
    {
        Some((_, Some((_, name)))) => {
            let command = format!("cat >'{name}' <<'{END_OF_FILE}'\n");
            steps.push(Step::new(command, None, below));
            At::File
        }
        Some(("console", _)) => At::Command,
        Some(_) => At::Other,
        None => At::Prose,
    }
}

/// Types all commands into one shell; answers with exit code and output of each.
fn type_all(server: &Server, steps: &[Step]) -> Vec<(i32, String)> {
    let home = server.folder.path().join("reader");
    let said = server.folder.path().join("said");
    let script = server.folder.path().join("page.sh");
    std::fs::create_dir_all(home.join(".grid")).expect("a home");
    std::fs::create_dir_all(&said).expect("a folder");
    std::os::unix::fs::symlink(server.data(), home.join(".grid/server")).expect("a link");
    let settings = format!("{{\"grid_url\": \"{}\"}}", server.url);
    std::fs::write(home.join(".grid/settings.json"), settings).expect("written");
    let typed: String = steps
        .iter()
        .enumerate()
        .map(|(n, step)| {
            let out = said.join(n.to_string());
            let out = out.display();
            format!(
                "{{\n{}\n}} >{out} 2>&1 </dev/null\necho $? >{out}.code\n",
                step.command.replace(URL, &server.url)
            )
        })
        .collect();
    std::fs::write(&script, typed).expect("written");
    let programs = grid_program().parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = format!("{}:{}", programs.display(), path.to_string_lossy());
    let mut child = Command::new("bash")
        .arg(&script)
        .current_dir(&home)
        .env_clear()
        .envs([
            ("PATH", path.as_str()),
            ("LANG", "C.UTF-8"),
            ("USER", "ada"),
        ])
        .env("HOME", &home)
        // Pages show a repository as anybody's, whatever Git is set to here.
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ])
        .envs([
            ("GIT_AUTHOR_NAME", "Ada"),
            ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "Ada"),
            ("GIT_COMMITTER_EMAIL", "ada@example.org"),
        ])
        .envs(asked_for(steps))
        .stdin(Stdio::null())
        .spawn()
        .expect("bash starts");
    wait_for("the commands of the page", || {
        child.try_wait().expect("a child")
    });
    let read = |n: usize| {
        let output = std::fs::read(said.join(n.to_string())).unwrap_or_default();
        let code = std::fs::read_to_string(said.join(format!("{n}.code"))).unwrap_or_default();
        let output = screen::shown(&String::from_utf8_lossy(&output))
            .replace(&home.display().to_string(), HOME)
            .replace(&server.url, URL);
        (code.trim().parse().unwrap_or(-1), output)
    };
    (0..steps.len()).map(read).collect()
}

/// What pages find in their environment only when they ask for it, because it has to be made.
fn asked_for(steps: &[Step]) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    if needs(steps, ORIGINAL_CLIENT) {
        let folder = Clients::ready().python().parent().map(Path::to_owned);
        found.extend(folder.map(|folder| (ORIGINAL_CLIENT, folder)));
    }
    if needs(steps, S3_CLIENTS) {
        found.push((S3_CLIENTS, programs().join("bin")));
    }
    found
}

fn needs(steps: &[Step], variable: &str) -> bool {
    steps.iter().any(|step| step.command.contains(variable))
}

/// The page with what was said instead of what it says; where both agree, as it is.
fn rewritten(text: &str, steps: &[Step], said: &[(i32, String)]) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for (step, (_, output)) in steps.iter().zip(said).rev() {
        let Some(expected) = &step.expected else {
            continue;
        };
        if !matches(&plain(expected), &plain(output)) {
            let (from, to) = step.lines;
            let keeps_gap = expected.ends_with("\n\n") || expected == "\n";
            let new = output.lines().chain(keeps_gap.then_some(""));
            lines.splice(from..to, new);
        }
    }
    lines.join("\n") + "\n"
}

/// Text without what differs each time.
fn plain(text: &str) -> Vec<String> {
    let rules = [
        (
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+0000|\+00:00)",
            "TIME",
        ),
        (r"\d+d-\d\d:\d\d:\d\d", "DURATION"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
        (r"\b[0-9a-f]{32,}\b", "HASH"),
        (r"\b[0-9a-f]{12}\b", "COMMIT"),
        (r"\b[0-9][0-9a-hjkmnp-tv-z]{25}\b", "ID"),
        (r"http://127\.0\.0\.1:\d+", "URL"),
        (r"(seed\W+)\d{6,}", "${1}SEED"),
        (r"\b[a-z]+-[a-z]+-\d{1,4}\b", "NAME"),
        (r#""(cursor|next)":"[^"]*""#, "CURSOR"),
        (r#"_ms":\d{12,}"#, "_ms:TIME"),
        (r"\.\d{13}\.", ".TIME."),
        (r"[─━-]{3,}", "LINE"),
        (r"[ \t]+", " "),
    ];
    let mut text = text.to_owned();
    for (pattern, name) in rules {
        text = Regex::new(pattern)
            .expect("a pattern")
            .replace_all(&text, name)
            .into_owned();
    }
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !is_passing(line))
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// What is said only when one looks soon enough.
fn is_passing(line: &str) -> bool {
    line.starts_with("Experiment ") && line.contains(" is pending. Logs will be available")
}

/// Whether `said` is what was expected.
fn matches(expected: &[String], said: &[String]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == ANYTHING => {
            (0..=said.len()).any(|n| matches(rest, &said[n..]))
        }
        Some((first, rest)) => said
            .split_first()
            .is_some_and(|(line, more)| line == first && matches(rest, more)),
    }
}

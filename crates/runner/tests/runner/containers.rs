//! Images: how podman is called, by a program that stands for it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::support::Rig;

/// Notes how it was called, with what around it, and runs the command in the folder that
/// would be seen in the image.
const PODMAN: &str = r#"#!/bin/bash
{ echo "called $*"; env | sed 's/^/own /'; } >>"${0%/*}/calls"
case $1 in
  build) cp "${@: -1}/Dockerfile" "${0%/*}/built" ;;
  run)
    while [ "$1" != --entrypoint ]; do
      case $1 in
        --env-file) cp "$2" "${0%/*}/variables" ;;
        --volume) [ -n "$work" ] || work=${2%%:*} ;;
      esac
      shift
    done
    shift 3
    cd "$work" && exec "$@"
    ;;
esac
"#;

/// A machine with that program, and with settings for it.
async fn rig(bin: &Path) -> Rig {
    let podman = bin.join("podman");
    std::fs::write(&podman, PODMAN).expect("written");
    std::fs::set_permissions(&podman, std::fs::Permissions::from_mode(0o755)).expect("set");
    let path = std::env::var("PATH").unwrap_or_default();
    let variables = [
        ("PATH", format!("{}:{path}", bin.display())),
        ("CONTAINERS_CONF", "/of/the/machine".to_owned()),
    ];
    Rig::with_variables(json!({}), &variables).await
}

const FILES: [(&str, u32, &[u8]); 2] = [
    ("train.sh", 0o755, b"#!/bin/bash\necho ran \"$@\"\n"),
    ("Dockerfile", 0o644, b"FROM scratch\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_and_run_without_what_users_set() {
    let bin = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut rig = rig(bin.path()).await;
    let mut launch = rig.with_code(&["train.sh"], &FILES);
    launch.args = vec!["--lr".to_owned(), "0.1".to_owned()];
    launch.spec.environment.dockerfile = Some("Dockerfile".to_owned());
    for (name, value) in [
        ("COLOUR", "dark blue"),
        ("LD_PRELOAD", "/evil.so"),
        ("CONTAINERS_CONF", "/evil.conf"),
        ("PIP_INDEX_URL", "http://evil"),
        ("LINES_OF_TEXT", "a\nb"),
    ] {
        let variables = &mut launch.spec.environment.variables;
        variables.insert(name.to_owned(), value.to_owned());
    }
    let attempt = rig.launch(launch);
    let end = rig.end_in_words(attempt).await;
    assert_eq!(end, "Succeeded", "{}", rig.runner_log());
    assert_eq!(rig.text(attempt).trim(), "ran --lr 0.1");
    let read = |name: &str| std::fs::read_to_string(bin.path().join(name)).expect(name);
    assert_eq!(read("built"), "FROM scratch\n");
    let calls = read("calls");
    assert!(
        calls.contains("called build -t localhost/grid-environment:"),
        "{calls}"
    );
    assert!(
        calls.contains("called run --rm --init --name grid-"),
        "{calls}"
    );
    assert!(
        calls.contains("--env LINES_OF_TEXT=a\nb --entrypoint"),
        "{calls}"
    );
    for (line, count) in [
        ("own CONTAINERS_CONF=/of/the/machine\n", 2),
        ("own COLOUR=", 0),
        ("own LD_PRELOAD=", 0),
        ("own PIP_INDEX_URL=", 0),
        ("/evil", 0),
    ] {
        let found = calls.matches(line).count();
        assert!(
            found >= count && (count > 0 || found == 0),
            "{line}: {calls}"
        );
    }
    let variables = read("variables");
    for line in [
        "COLOUR=dark blue\n",
        "LD_PRELOAD=/evil.so\n",
        "CONTAINERS_CONF=/evil.conf\n",
        "GRID_RUN_NAME=quick-fox\n",
    ] {
        assert!(variables.contains(line), "{line}: {variables}");
    }
    assert!(!variables.contains("HOME="), "{variables}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_happens_beside_an_image() {
    let bin = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut rig = rig(bin.path()).await;
    let here = bin.path().join("was-here");
    let mut launch = rig.with_code(&["train.sh"], &FILES);
    launch.spec.environment.dockerfile = Some("Dockerfile".to_owned());
    launch.spec.actions.on_build_start = vec![format!("touch {}", here.display())];
    let attempt = rig.launch(launch);
    let end = rig.end_in_words(attempt).await;
    assert!(end.contains("RUN"), "{end}");
    assert!(!here.exists(), "an action ran outside of a sandbox");
    for file in ["/etc/passwd", "../../../../../etc/passwd", "missing"] {
        let mut launch = rig.with_code(&["train.sh"], &FILES);
        launch.spec.environment.dockerfile = Some(file.to_owned());
        let attempt = rig.launch(launch);
        let end = rig.end_in_words(attempt).await;
        assert!(end.contains("there is no Dockerfile"), "{file}: {end}");
    }
    assert!(
        !bin.path().join("calls").exists(),
        "podman was asked nothing"
    );
}

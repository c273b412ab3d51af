use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::*;

/// A folder that goes away, with Git in it if wanted.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn repository() -> Self {
        let tree = Self::new();
        tree.git(&["init", "-q", "-b", "main"]);
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn git(&self, arguments: &[&str]) {
        git(self.path(), arguments);
    }

    fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let settings = [
        "user.name=a",
        "user.email=a@example.org",
        "protocol.file.allow=always",
    ];
    let mut git = Command::new("git");
    git.current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    for setting in settings {
        git.args(["-c", setting]);
    }
    let output = git.args(arguments).output().expect("git starts");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn captured(cwd: &Path, how: How) -> Capture {
    match scan(cwd, how, BYTES_MAX) {
        Ok(captured) => captured,
        Err(error) => panic!("{error:#}"),
    }
}

fn refused(cwd: &Path, how: How, bytes_max: u64) -> String {
    match scan(cwd, how, bytes_max) {
        Ok(captured) => panic!("taken: {:?}", names(&captured)),
        Err(error) => format!("{error:#}"),
    }
}

fn names(captured: &Capture) -> Vec<&str> {
    captured
        .found
        .iter()
        .map(|found| found.path.as_str())
        .collect()
}

#[test]
fn a_work_tree_is_taken_as_it_is_on_the_disk() {
    let tree = Tree::repository();
    tree.write(".gitignore", "*.log\ndata/\n");
    for name in ["train.py", "gone.py", "a b/ünï 100%.txt", "lib/util.py"] {
        tree.write(name, "1");
    }
    tree.commit();
    fs::remove_file(tree.path().join("gone.py")).expect("removed");
    tree.write("train.py", "changed");
    tree.write("new.py", "not added");
    tree.write("x.log", "ignored");
    tree.write("data/big.bin", "ignored");

    let taken = captured(tree.path(), How::Automatic);
    assert_eq!(
        names(&taken),
        [
            ".gitignore",
            "a b/ünï 100%.txt",
            "lib/util.py",
            "new.py",
            "train.py"
        ]
    );
    let git = taken.git.as_ref().expect("a commit");
    assert!(git.dirty && git.commit.len() == 40, "{git:?}");
    assert_eq!(git.branch.as_deref(), Some("main"));
    assert_eq!(taken.found[4].size_bytes, 7, "the change is there");
    assert!(
        taken.has("train.py") && taken.has("lib") && !taken.has("gone.py") && !taken.has("x.log")
    );
}

#[test]
fn a_command_in_a_folder_of_the_tree_takes_the_whole_tree() {
    let tree = Tree::repository();
    tree.write("src/deep/train.py", "1");
    tree.write("util.py", "1");
    tree.commit();
    let cwd = tree.path().join("src/deep");
    let taken = captured(&cwd, How::Automatic);
    assert_eq!(taken.workdir, "src/deep");
    assert_eq!(names(&taken), ["src/deep/train.py", "util.py"]);
    assert!(taken.has("train.py") && taken.has("../../util.py") && !taken.has("../../../x"));
    assert_eq!(
        taken.within(&cwd.join("train.py")).as_deref(),
        Some("train.py")
    );
    assert_eq!(
        taken.within(&tree.path().join("util.py")).as_deref(),
        Some("../../util.py")
    );
    assert_eq!(taken.within(Path::new("/bin/sh")), None);
    assert!(!taken.git.as_ref().is_some_and(|git| git.dirty));
}

#[test]
fn commit_branch_and_remote_are_recorded_without_secrets() {
    let tree = Tree::repository();
    tree.write("a.py", "1");
    tree.git(&[
        "remote",
        "add",
        "origin",
        "https://ada:token@git.example.org/ada/bert.git",
    ]);
    let taken = captured(tree.path(), How::Automatic);
    assert_eq!(taken.project.as_deref(), Some("ada/bert"));
    let state = taken.git.expect("a state");
    assert_eq!(
        (state.commit.as_str(), state.dirty),
        ("", true),
        "before the first commit"
    );
    assert_eq!(
        state.remote.as_deref(),
        Some("https://git.example.org/ada/bert.git")
    );

    assert_eq!(
        project("git@git.example.org:ada/bert.git").as_deref(),
        Some("ada/bert")
    );
    assert_eq!(project("/srv/git/bert.git").as_deref(), Some("git/bert"));
    assert_eq!(git::without_credentials("ssh://git@h/x"), "ssh://git@h/x");
}

#[test]
fn files_of_submodules_come_along() {
    let inner = Tree::repository();
    inner.write("inner.py", "1");
    inner.commit();
    let tree = Tree::repository();
    tree.write("a.py", "1");
    let url = inner.path().display().to_string();
    tree.git(&["submodule", "--quiet", "add", &url, "vendor/inner"]);
    tree.commit();
    tree.write("vendor/inner/new.py", "not added");
    let taken = captured(tree.path(), How::Automatic);
    assert_eq!(
        names(&taken),
        [
            ".gitmodules",
            "a.py",
            "vendor/inner/inner.py",
            "vendor/inner/new.py"
        ]
    );
    assert!(
        taken.git.as_ref().is_some_and(|git| git.dirty),
        "a changed submodule is a change"
    );

    let clone = Tree::new();
    git(
        clone.path(),
        &["clone", "-q", &tree.path().display().to_string(), "."],
    );
    let taken = captured(clone.path(), How::Automatic);
    assert_eq!(names(&taken), [".gitmodules", "a.py"]);
    assert!(
        taken.notes.iter().any(|note| note.contains("vendor/inner")),
        "{:?}",
        taken.notes
    );
}

#[test]
fn links_are_kept_inside_and_refused_by_name_outside() {
    let tree = Tree::repository();
    tree.write("lib/util.py", "1");
    symlink("lib", tree.path().join("alias")).expect("linked");
    symlink("../lib/util.py", tree.path().join("lib/self.py")).expect("linked");
    symlink("nowhere", tree.path().join("dangling")).expect("linked");
    let taken = captured(tree.path(), How::Automatic);
    assert_eq!(
        names(&taken),
        ["alias", "dangling", "lib/self.py", "lib/util.py"]
    );
    assert_eq!(taken.found[0].kind, inspect::Kind::Link("lib".to_owned()));

    symlink("/etc", tree.path().join("config")).expect("linked");
    symlink("../../x", tree.path().join("lib/up")).expect("linked");
    // It climbs by way of another link.
    symlink("..", tree.path().join("lib/top")).expect("linked");
    symlink("top/../x", tree.path().join("lib/over")).expect("linked");
    fs::write(tree.path().join("../x"), "").ok();
    for how in [How::Automatic, How::Folder] {
        let said = refused(tree.path(), how, BYTES_MAX);
        assert!(
            said.contains("config -> /etc") && said.contains("lib/up -> ../../x"),
            "{said}"
        );
        assert!(
            !said.contains("alias") && !said.contains("lib/top ->"),
            "{said}"
        );
    }
}

#[test]
fn a_folder_that_became_a_link_is_taken_as_the_link() {
    let tree = Tree::repository();
    tree.write("d/f.py", "1");
    tree.write("e/f.py", "1");
    tree.commit();
    fs::remove_dir_all(tree.path().join("d")).expect("removed");
    symlink("e", tree.path().join("d")).expect("linked");
    assert_eq!(
        names(&captured(tree.path(), How::Automatic)),
        ["d", "e/f.py"]
    );
}

#[test]
fn a_folder_is_taken_without_what_its_ignore_files_name() {
    let tree = Tree::repository();
    for name in [
        "a.py",
        "x.tmp",
        "deep/x.tmp",
        "deep/y.out",
        "deep/er/y.out",
        "docker.txt",
        "empty/.keep",
    ] {
        tree.write(name, "1");
    }
    fs::remove_file(tree.path().join("empty/.keep")).expect("removed");
    tree.write(".gitignore", "*.tmp\n");
    tree.write(".dockerignore", "docker.txt\n");
    tree.write("deep/.gitignore", "y.out\n");
    let taken = captured(tree.path(), How::Folder);
    assert_eq!(
        names(&taken),
        [
            ".dockerignore",
            ".gitignore",
            "a.py",
            "deep/.gitignore",
            "deep/er",
            "empty"
        ]
    );
    assert!(taken.git.is_none() && taken.notes.is_empty());
}

#[test]
fn gridignore_at_the_top_replaces_all_others() {
    let tree = Tree::new();
    for name in [
        "a.py",
        "b.md",
        "nested/b.md",
        "nested/c.pyc",
        "__pycache__/x",
        "deep/__pycache__/x",
        "k.tmp",
    ] {
        tree.write(name, "1");
    }
    tree.write(".gitignore", "*.tmp\n");
    tree.write("nested/.gridignore", "*\n");
    tree.write(
        ".gridignore",
        "# comment\n*.pyc\n__pycache__/\n__pycache__/\n/*.md\n",
    );
    let taken = captured(tree.path(), How::Folder);
    let all = [
        ".gitignore",
        ".gridignore",
        "a.py",
        "deep",
        "k.tmp",
        "nested/.gridignore",
        "nested/b.md",
    ];
    assert_eq!(names(&taken), all);
}

#[test]
fn outside_of_git_the_folder_is_taken_and_it_is_said() {
    let tree = Tree::new();
    tree.write("train.py", "1");
    let taken = captured(tree.path(), How::Automatic);
    assert_eq!(names(&taken), ["train.py"]);
    assert!(
        taken.notes[0].contains("not in a Git work tree"),
        "{:?}",
        taken.notes
    );
}

#[test]
fn what_cannot_be_sent_is_refused_by_name() {
    let tree = Tree::new();
    tree.write("train.py", "1");
    let _socket =
        std::os::unix::net::UnixListener::bind(tree.path().join("my socket")).expect("bound");
    let said = refused(tree.path(), How::Folder, BYTES_MAX);
    assert!(said.contains("my socket (socket)"), "{said}");
    fs::remove_file(tree.path().join("my socket")).expect("removed");

    use std::os::unix::ffi::OsStrExt as _;
    let bad = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(tree.path().join(bad), "1").expect("written");
    let said = refused(tree.path(), How::Folder, BYTES_MAX);
    assert!(said.contains("not UTF-8") && said.contains("caf"), "{said}");
    tree.git(&["init", "-q"]);
    let said = refused(tree.path(), How::Automatic, BYTES_MAX);
    assert!(said.contains("not UTF-8") && said.contains("caf"), "{said}");
}

#[test]
fn too_much_is_refused_with_the_largest_files() {
    let tree = Tree::new();
    tree.write("small.py", "1");
    tree.write("weights/large.bin", &"x".repeat(3_000));
    tree.write("weights/larger.bin", &"x".repeat(5_000));
    let said = refused(tree.path(), How::Folder, 4_000);
    assert!(
        said.contains("weights/larger.bin (4.9 KiB), weights/large.bin (2.9 KiB)"),
        "{said}"
    );
}

#[test]
fn hashes_are_remembered_until_a_file_changes() -> Result<()> {
    let tree = Tree::new();
    let memory = tempfile::tempdir()?;
    tree.write("old.py", "one");
    tree.write("fresh.py", "one");
    fs::set_permissions(
        tree.path().join("old.py"),
        fs::Permissions::from_mode(0o755),
    )?;
    let mut taken = captured(tree.path(), How::Folder);
    assert_eq!(taken.found[1].mode, 0o755);
    let progress = crate::progress::Progress::hidden();
    let open = || cache::Cache::open(memory.path(), tree.path());
    let hashes = hash::all(tree.path(), &mut taken.found, &open(), &progress)?;
    assert_eq!(hashes[1], Some(*blake3::hash(b"one").as_bytes()));
    // Both were changed a moment ago, so neither is remembered.
    assert_eq!(open().get(&taken.found[1]), None);

    // Seen from far in the future, both have settled.
    let later = grid_core::time::Timestamp::from_millis(crate::clock::now().as_millis() + 60_000);
    let files = taken
        .found
        .iter()
        .zip(&hashes)
        .filter_map(|(found, hash)| Some((found, (*hash)?)));
    open().save(later, files);
    assert_eq!(open().get(&taken.found[1]), hashes[1]);
    tree.write("old.py", "two");
    let again = captured(tree.path(), How::Folder);
    assert_eq!(open().get(&again.found[1]), None, "same size, other times");
    assert_eq!(open().get(&again.found[0]), hashes[0]);

    for entry in fs::read_dir(memory.path().join("trees"))? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, bytes)?;
    }
    assert_eq!(open().get(&again.found[0]), None, "a torn memory is none");
    Ok(())
}

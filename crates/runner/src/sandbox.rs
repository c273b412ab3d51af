//! What a user's process may see: bubblewrap where there is one.
//!
//! Inside the sandbox the system is there to be read, and nothing else is there:
//! no home folders, no data of the server, no work of other people, no sockets of
//! services, no processes but its own.  It may write to its work and scratch
//! folders, to a `/tmp` of its own, and to memory.  The network is shared.
//!
//! A process that was started by root is root inside too, but without any
//! capability: it can do what the owner of root's files can, which is why files
//! that hold secrets are hidden by name ([`SECRET_FILES`], [`HIDDEN_FOLDERS`]).

mod rooms;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keeper::protocol::{STATUS_FD_ARGUMENT, Spawn};

/// Said at start-up and to whoever starts something, when there is no sandbox.
pub const PLAIN_WARNING: &str = "experiments run without a sandbox: each can read and change whatever the user who runs \
                                 the server can, the work of other people included. Install bubblewrap (the program \
                                 bwrap) to separate them";

/// Folders that are empty inside, where they exist.  `/run` holds the sockets of
/// services, some of which give whoever reaches them all power over the machine.
const HIDDEN_FOLDERS: [&str; 27] = [
    "/boot",
    "/etc/NetworkManager/system-connections",
    "/etc/kubernetes",
    "/etc/letsencrypt",
    "/etc/munge",
    "/etc/rancher",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers.d",
    "/etc/wireguard",
    "/home",
    "/lost+found",
    "/root",
    "/run",
    "/tmp",
    "/var/backups",
    "/var/crash",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/private",
    "/var/lib/systemd",
    "/var/log",
    "/var/mail",
    "/var/spool",
    "/var/tmp",
];

/// Files that cannot be opened inside, where they exist.
const SECRET_FILES: [&str; 7] = [
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/sudoers",
    "/var/cache/debconf/passwords.dat",
];

/// Parts of hidden folders without which programs do not work: how names of
/// machines are resolved.
const SHOWN_AGAIN: [&str; 4] = [
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/run/nscd",
];

/// What GPUs need beside their own device.
const GPU_DEVICES: [&str; 7] = [
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/kfd",
    "/dev/dri",
];

/// Variables that change what a program does before its `main`.  They are meant
/// for the user's program, and bubblewrap, which runs outside, must not obey them.
const LOADER_VARIABLES: [&str; 4] = ["GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"];
const LOADER_PREFIXES: [&str; 2] = ["LD_", "MALLOC_"];

/// People's home folders are those of users from this number on.
const FIRST_PERSON_UID: u32 = 1_000;

/// What the operator wants: `--sandbox auto|require|off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Bubblewrap if it works here, else none, with a warning.
    #[default]
    Auto,
    /// Bubblewrap, or nothing is started.
    Require,
    Off,
}

/// Why there is no sandbox though one is required, or why a word names none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "a sandbox is required, and there is none: {0}; install bubblewrap, or start with --sandbox auto"
    )]
    Unavailable(String),
    #[error("{0:?} is no way to use a sandbox: auto, require or off")]
    Unknown(String),
}

impl FromStr for Sandbox {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "require" => Ok(Self::Require),
            "off" => Ok(Self::Off),
            other => Err(Error::Unknown(other.to_owned())),
        }
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Require => "require",
            Self::Off => "off",
        })
    }
}

impl Sandbox {
    /// What this comes to on a machine where bubblewrap was found, or was not for a reason.
    pub fn resolve(self, bubblewrap: &Result<PathBuf, String>) -> Result<Isolation, Error> {
        match (self, bubblewrap) {
            (Self::Auto | Self::Require, Ok(program)) => Ok(Isolation::Bubblewrap(program.clone())),
            (Self::Require, Err(reason)) => Err(Error::Unavailable(reason.clone())),
            (Self::Auto, Err(_)) | (Self::Off, _) => Ok(Isolation::Plain),
        }
    }
}

/// How processes are kept apart on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    Bubblewrap(PathBuf),
    Plain,
}

impl Isolation {
    /// What people are to be warned of.
    pub fn warning(&self) -> Option<&'static str> {
        (*self == Self::Plain).then_some(PLAIN_WARNING)
    }

    /// Puts a process into its room.  Without a sandbox: leaves it as it is.
    pub fn enclose(&self, spawn: Spawn, room: &Room) -> Spawn {
        match self {
            Self::Bubblewrap(program) => enclose(program, spawn, room),
            Self::Plain => spawn,
        }
    }
}

/// What one process may see and change.  All paths are absolute, and are the same
/// inside as outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Folders it may write to: its work folder, its scratch folder.
    pub writable: Vec<PathBuf>,
    /// What it may read though it lies in something hidden: environments, datastores, code.
    pub readable: Vec<PathBuf>,
    /// Folders that it finds elsewhere than they are: from where, and to where.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Folders that are empty inside: the server's data, the runner's.
    pub hidden: Vec<PathBuf>,
    /// What `/tmp` is.  Without: memory.
    pub tmp: Option<PathBuf>,
    /// Numbers of the GPUs it was given.
    pub gpus: Vec<u32>,
}

/// Words of [`base_arguments`] that show the whole root as it is.
const WHOLE_ROOT_WORDS: usize = 3;

/// The arguments that every sandbox has; also what is tried to see whether one works.
pub(crate) fn base_arguments() -> Vec<String> {
    let words = "--ro-bind / / --dev /dev --proc /proc --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try \
                 --die-with-parent --new-session --cap-drop ALL";
    words.split(' ').map(str::to_owned).collect()
}

fn enclose(program: &Path, spawn: Spawn, room: &Room) -> Spawn {
    let mut line = Line(vec![text(program)]);
    let opened = rooms::opened(&room.mounts);
    if opened.is_empty() {
        line.0.extend(base_arguments());
    } else {
        line.0.extend(rooms::with_room(&opened));
        let own = base_arguments().into_iter().skip(WHOLE_ROOT_WORDS);
        line.0.extend(own);
    }
    line.add(&["--json-status-fd", STATUS_FD_ARGUMENT]);
    line.devices(room);
    line.hide(room);
    // Outer folders before inner ones, or the inner would be covered.
    let readable: BTreeSet<&PathBuf> = room.readable.iter().collect();
    let writable: BTreeSet<&PathBuf> = room.writable.iter().collect();
    for path in readable {
        line.add(&["--ro-bind", &text(path), &text(path)]);
    }
    for path in writable {
        line.add(&["--bind", &text(path), &text(path)]);
    }
    for (from, to) in &room.mounts {
        line.add(&["--ro-bind", &text(from), &text(to)]);
    }
    for folder in &opened {
        line.add(&["--remount-ro", &text(folder)]);
    }
    line.add(&["--chdir", &text(&spawn.cwd)]);
    let (for_loader, env) = spawn
        .env
        .into_iter()
        .partition(|(name, _)| is_for_loader(name));
    let for_loader: Vec<(String, String)> = for_loader;
    for (name, value) in for_loader {
        line.add(&["--setenv", &name, &value]);
    }
    line.add(&["--"]);
    line.0.extend(spawn.argv);
    Spawn {
        argv: line.0,
        env,
        sandboxed: true,
        ..spawn
    }
}

/// Whether a variable would make bubblewrap itself, outside, load what users wrote.
fn is_for_loader(name: &str) -> bool {
    LOADER_VARIABLES.contains(&name)
        || LOADER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A command line under construction.
struct Line(Vec<String>);

impl Line {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn devices(&mut self, room: &Room) {
        if room.gpus.is_empty() {
            return;
        }
        let own = room.gpus.iter().map(|gpu| format!("/dev/nvidia{gpu}"));
        for device in own.chain(GPU_DEVICES.map(str::to_owned)) {
            self.add(&["--dev-bind-try", &device, &device]);
        }
    }

    fn hide(&mut self, room: &Room) {
        let named = HIDDEN_FOLDERS.iter().map(PathBuf::from);
        let wanted = named
            .chain(people_homes())
            .chain(room.hidden.iter().cloned());
        // Where the folder really is: a link to it then leads to nothing, too.
        let real: BTreeSet<PathBuf> = wanted
            .filter_map(|path| fs::canonicalize(path).ok())
            .collect();
        let mut covered: Option<PathBuf> = None;
        for path in real {
            if path == Path::new("/")
                || covered
                    .as_ref()
                    .is_some_and(|outer| path.starts_with(outer))
            {
                continue;
            }
            match &room.tmp {
                Some(tmp) if path == Path::new("/tmp") => self.add(&["--bind", &text(tmp), "/tmp"]),
                _ => self.add(&["--tmpfs", &text(&path)]),
            }
            covered = Some(path);
        }
        for file in SECRET_FILES.iter().filter(|file| Path::new(file).exists()) {
            self.add(&["--ro-bind", "/dev/null", file]);
        }
        for path in SHOWN_AGAIN {
            self.add(&["--ro-bind-try", path, path]);
        }
    }
}

/// Home folders of people, wherever they are.
fn people_homes() -> Vec<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid: u32 = fields.get(2)?.parse().ok()?;
        let home = Path::new(fields.get(5)?);
        let is_person = (FIRST_PERSON_UID..NOBODY_UID).contains(&uid);
        // A folder directly below the root is no home, whatever the table says.
        (is_person && home.is_absolute() && home.components().count() > 2).then(|| home.to_owned())
    };
    passwd.lines().filter_map(home).collect()
}

/// The user without rights, whose home is no home.
const NOBODY_UID: u32 = 65_534;

/// Paths here come from settings and from ourselves, and went through JSON: they are text.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolution() {
        let there = Ok(PathBuf::from("/usr/bin/bwrap"));
        let missing = Err("no program bwrap".to_owned());
        let bubblewrap = Ok(Isolation::Bubblewrap("/usr/bin/bwrap".into()));
        assert_eq!(Sandbox::Auto.resolve(&there), bubblewrap);
        assert_eq!(Sandbox::Require.resolve(&there), bubblewrap);
        assert_eq!(Sandbox::Off.resolve(&there), Ok(Isolation::Plain));
        assert_eq!(Sandbox::Auto.resolve(&missing), Ok(Isolation::Plain));
        assert_eq!(
            Sandbox::Require.resolve(&missing),
            Err(Error::Unavailable("no program bwrap".to_owned()))
        );
        for sandbox in [Sandbox::Auto, Sandbox::Require, Sandbox::Off] {
            assert_eq!(sandbox.to_string().parse(), Ok(sandbox));
        }
        assert!("maybe".parse::<Sandbox>().is_err());
    }

    #[test]
    fn loader_variables_do_not_reach_bubblewrap() {
        let variable = |name: &str| (name.to_owned(), "x".to_owned());
        let spawn = Spawn {
            argv: vec!["true".to_owned()],
            env: vec![
                variable("LD_PRELOAD"),
                variable("PATH"),
                variable("GLIBC_TUNABLES"),
            ],
            cwd: "/".into(),
            ..Spawn::default()
        };
        let enclosed = Isolation::Bubblewrap("/b".into()).enclose(spawn.clone(), &Room::default());
        assert_eq!(enclosed.env, [variable("PATH")]);
        assert!(
            enclosed
                .argv
                .windows(3)
                .any(|words| words == ["--setenv", "LD_PRELOAD", "x"])
        );
        assert_eq!(enclosed.argv.last().map(String::as_str), Some("true"));
        assert_eq!(
            Isolation::Plain.enclose(spawn.clone(), &Room::default()),
            spawn
        );
    }

    #[test]
    fn only_the_given_gpus_are_there() {
        let enclosed = |gpus: Vec<u32>| {
            let room = Room {
                gpus,
                ..Room::default()
            };
            let isolation = Isolation::Bubblewrap("/b".into());
            isolation.enclose(Spawn::default(), &room).argv
        };
        let devices = enclosed(vec![1, 3]);
        for (device, is_there) in [
            ("/dev/nvidia0", false),
            ("/dev/nvidia1", true),
            ("/dev/nvidia3", true),
            ("/dev/nvidia-uvm", true),
        ] {
            let bound = ["--dev-bind-try", device, device];
            let found = devices.windows(3).any(|words| words == bound);
            assert_eq!(found, is_there, "{device}");
        }
        assert!(
            !enclosed(Vec::new())
                .iter()
                .any(|word| word.contains("nvidia"))
        );
    }

    #[test]
    fn inner_folders_come_after_outer_ones() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let room = Room {
            hidden: vec![inner.clone(), folder.path().to_owned()],
            writable: vec![inner.clone()],
            tmp: Some("/somewhere".into()),
            ..Room::default()
        };
        let argv = Isolation::Bubblewrap("/b".into())
            .enclose(Spawn::default(), &room)
            .argv;
        let at = |words: &[&str]| argv.windows(words.len()).position(|window| window == words);
        let tmp = at(&["--bind", "/somewhere", "/tmp"]).unwrap();
        let work = at(&["--bind", &text(&inner), &text(&inner)]).unwrap();
        assert!(tmp < work);
        // What is hidden already is not hidden once more.
        assert_eq!(at(&["--tmpfs", &text(&inner)]), None);
        assert_eq!(at(&["--tmpfs", "/tmp"]), None);
    }
}

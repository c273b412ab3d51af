//! The original client as people have it: the unmodified `lightning-grid` of the Python package
//! index, pointed at a server by one variable of the environment.

pub mod install;
pub mod raw;
pub mod screen;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Ran, Server};
pub use install::{Clients, NEWEST, OLDER_VERSIONS};

/// Columns of the terminal in which people read: no cell of a table is cut.
const COLUMNS: &str = "220";

/// Where nobody listens: the client asks the package index for its newest version at each
/// start, and goes on when it cannot be reached.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Somebody who uses the original client.
pub struct Person<'a> {
    server: &'a Server,
    /// Their user name.
    pub name: String,
    version: &'static str,
}

impl<'a> Person<'a> {
    /// Somebody with an account, who has the newest client and is signed in.
    ///
    /// # Panics
    /// When signing in fails.
    pub fn signed_in(server: &'a Server, name: &str) -> Self {
        let person = Self::new(server, name, NEWEST);
        person.login().ok();
        person
    }

    /// Somebody who has just installed this version.
    pub fn new(server: &'a Server, name: &str, version: &'static str) -> Self {
        Self {
            server,
            name: name.to_owned(),
            version,
        }
    }

    /// Signs in with the key of the account.
    pub fn login(&self) -> Ran {
        let (_, key) = self.credentials();
        self.grid(&["login", "--username", &self.name, "--key", &key])
    }

    /// User id and key, as they were handed out.
    ///
    /// # Panics
    /// When there is no such account.
    pub fn credentials(&self) -> (String, String) {
        let (path, id, key) = if self.name == "ada" {
            let path = self.server.data().join("operator.json");
            (path, "user_id", "api_key")
        } else {
            let home = self.server.folder.path().join("home").join(&self.name);
            (home.join(".grid/credentials.json"), "UserID", "APIKey")
        };
        let text = std::fs::read_to_string(&path).expect("their credentials");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let word = |name: &str| json[name].as_str().expect("text").to_owned();
        (word(id), word(key))
    }

    /// Their home: one for each version, so that nothing is left over from another.
    pub fn home(&self) -> PathBuf {
        self.folder("homes").join(self.version)
    }

    /// The folder in which they type.
    pub fn work(&self) -> PathBuf {
        self.folder("work")
    }

    fn folder(&self, kind: &str) -> PathBuf {
        self.server
            .folder
            .path()
            .join("original")
            .join(kind)
            .join(&self.name)
    }

    /// Writes a file where they type.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.work().join(name);
        let folder = path.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    /// A command of theirs.
    ///
    /// # Panics
    /// When their folders cannot be made.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Clients::ready().command(self.version);
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// A script of theirs that uses the client as a library.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn python(&self, script: &str) -> Ran {
        let mut command = Command::new(Clients::ready().python());
        self.prepare(&mut command);
        Ran::of(
            &command
                .args(["-c", script])
                .output()
                .expect("Python starts"),
        )
    }

    fn prepare(&self, command: &mut Command) {
        let (home, work) = (self.home(), self.work());
        std::fs::create_dir_all(home.join(".ssh")).expect("a home");
        std::fs::create_dir_all(&work).expect("a folder");
        // What the command was given already says where the client is.
        let search_path = command
            .get_envs()
            .find_map(|(key, value)| (key == "PYTHONPATH").then(|| value.map(ToOwned::to_owned)))
            .flatten();
        command
            .env_clear()
            .current_dir(work)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("COLUMNS", COLUMNS)
            .env("GRID_URL", &self.server.url)
            .env("https_proxy", NOWHERE)
            .env("BROWSER", "true")
            .stdin(Stdio::null());
        if let Some(search_path) = search_path {
            command.env("PYTHONPATH", search_path);
        }
    }

    /// Runs a command of theirs to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn grid(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(arguments).output().expect("the client starts"))
    }

    /// Runs a command given as it is typed, to its end; it must work.  Answers with what is
    /// left on the screen.
    #[track_caller]
    pub fn types(&self, line: &str) -> String {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = self.grid(&words);
        assert_eq!(
            ran.code, 0,
            "{}$ grid {line}\n{}{}",
            self.name, ran.stdout, ran.stderr
        );
        screen::shown(&ran.stdout)
    }
}

/// The words of a line, with blanks kept between single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut blank) = (false, true);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => {
                if !blank {
                    words.push(String::new());
                }
                blank = true;
                continue;
            }
            c => words.last_mut().expect("never empty").push(c),
        }
        blank = false;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What several people type one after the other, and what they see: compared as a whole.
#[derive(Default)]
pub struct Story {
    text: String,
}

impl Story {
    /// Somebody types a line; it is noted with what they see.
    #[track_caller]
    pub fn types(&mut self, person: &Person<'_>, line: &str) -> &mut Self {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = person.grid(&words);
        self.note(person, &format!("grid {line}"), &ran)
    }

    /// Notes what came of something.
    pub fn note(&mut self, person: &Person<'_>, typed: &str, ran: &Ran) -> &mut Self {
        let folder = person.server.folder.path().display().to_string();
        let seen = |text: &str| screen::plain(&screen::shown(text).replace(&folder, "FOLDER"));
        self.text.push_str(&format!("{}$ {typed}\n", person.name));
        for part in [seen(&ran.stdout), seen(&ran.stderr)] {
            if !part.is_empty() {
                self.text.push_str(&part);
                self.text.push('\n');
            }
        }
        if ran.code != 0 {
            self.text.push_str(&format!("(exit code {})\n", ran.code));
        }
        self.text.push('\n');
        self
    }

    /// All of it.
    pub fn told(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_line_falls_into_words_as_in_a_shell() {
        assert_eq!(
            words("run  t.py --lr '[1, 2]'"),
            ["run", "t.py", "--lr", "[1, 2]"]
        );
    }
}

//! A server of a few lines, and the program started against it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A server with the given routes, and a home folder of a user who has signed in to it.
pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) home: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    _stop: mpsc::Sender<()>,
}

impl Fake {
    /// Serves `routes`, which are below the prefix of the API.
    pub(crate) fn serve(routes: Router) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let note = move |request: Request, next: Next| {
            let line = format!("{} {}", request.method(), request.uri());
            let headers = request.headers().clone();
            noted
                .lock()
                .expect("not poisoned")
                .push(Asked { line, headers });
            next.run(request)
        };
        let app = Router::new()
            .nest(grid_api::PREFIX, routes)
            .layer(middleware::from_fn(note));
        let (started, starting) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a port");
                started
                    .send(listener.local_addr().expect("an address"))
                    .expect("somebody waits");
                axum::serve(listener, app).await.expect("served");
            });
            // Ends when the test does.
            let _ = stopped.recv();
            runtime.shutdown_background();
        });
        let address = starting.recv().expect("the server started");
        let fake = Self {
            url: format!("http://{address}"),
            home: tempfile::tempdir().expect("a folder"),
            asked,
            _stop: stop,
        };
        let folder = fake.home.path().join(".grid");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::create_dir_all(fake.work()).expect("made");
        let credentials = json!({ "UserID": "u-1", "APIKey": "secret" }).to_string();
        std::fs::write(folder.join("credentials.json"), credentials).expect("written");
        let settings = json!({ "grid_url": fake.url, "theme": "dark" }).to_string();
        std::fs::write(folder.join("settings.json"), settings).expect("written");
        fake
    }

    /// The folder in which commands are typed.
    pub(crate) fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// What was asked so far: method and path, without the prefix.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// The same as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked()
            .iter()
            .map(|asked| asked.line.replacen(grid_api::PREFIX, "", 1))
            .collect()
    }

    /// The program, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grid"));
        command
            .args(arguments)
            .current_dir(self.work())
            .stdin(Stdio::null());
        command.env("HOME", self.home.path()).env("NO_COLOR", "1");
        for name in [
            "GRID_URL",
            "GRID_USER_ID",
            "GRID_API_KEY",
            "GRID_CREDENTIAL_PATH",
            "XDG_CACHE_HOME",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn grid(&self, arguments: &[&str]) -> Ran {
        Ran::of(
            self.command(arguments)
                .output()
                .expect("the program starts"),
        )
    }

    /// Runs the program with an answer to what it asks.
    pub(crate) fn grid_answering(&self, arguments: &[&str], answer: &str) -> Ran {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(answer.as_bytes())
            .expect("written");
        Ran::of(child.wait_with_output().expect("it ends"))
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// It did what it was asked to.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with this code.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok().stdout).expect("JSON")
    }
}

/// A run as the server shows it.
pub(crate) fn run(name: &str, counts: &Value) -> Value {
    json!({
        "id": format!("id-{name}"), "name": name, "created_by": "ada", "team": "ada",
        "project": "ada/bert", "status": "running", "counts": counts, "invocation": "grid run t.py",
        "seed": "7", "created_at": "2026-11-22T05:50:30.000Z",
        "started_at": "2026-11-22T05:50:31.000Z", "finished_at": "2026-11-22T05:52:43.000Z",
    })
}

/// Counts of experiments.
pub(crate) fn counts(running: u64, succeeded: u64, failed: u64) -> Value {
    json!({
        "queued": 0, "pending": 0, "running": running, "stopping": 0,
        "succeeded": succeeded, "failed": failed, "stopped": 0,
    })
}

/// An experiment as the server shows it.
pub(crate) fn experiment(run: &str, index: u64, status: &str) -> Value {
    let is_over = matches!(status, "succeeded" | "failed" | "stopped");
    json!({
        "id": format!("id-{run}-{index}"), "name": format!("{run}-exp{index}"), "run": run,
        "created_by": "ada", "index": index, "status": status,
        "command": ["t.py", "--lr", format!("0.{index}")], "parameters": [["lr", format!("0.{index}")]],
        "created_at": "2026-11-22T05:50:30.000Z", "started_at": "2026-11-22T05:50:31.000Z",
        "finished_at": is_over.then_some("2026-11-22T05:52:43.000Z"),
        "attempts": 1, "node": "n1", "reason": null, "message": null,
    })
}

/// Every file below a folder, with its text.
pub(crate) fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder_now) = open.pop() {
        for entry in std::fs::read_dir(&folder_now)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .expect("below")
                    .display()
                    .to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

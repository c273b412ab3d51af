//! What is executed for a command as people type it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::prepare::Prepared;

/// Finds a program on a search path.
pub(crate) fn find(program: &str, path: &[PathBuf]) -> Option<PathBuf> {
    path.iter()
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The directories of a `PATH`.
pub(crate) fn split_path(path: &str) -> Vec<PathBuf> {
    path.split(':')
        .filter(|part| part.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Where to look for things.
pub(crate) struct Places<'a> {
    /// Where the command runs.
    pub(crate) cwd: &'a Path,
    /// The same, as people know it: relative to the top of their code.
    pub(crate) workdir: &'a str,
    pub(crate) prepared: &'a Prepared,
    /// The system's search path, or the user's own.
    pub(crate) path: &'a [PathBuf],
    /// The interpreter when the environment has none.
    pub(crate) python: Option<&'a Path>,
}

impl Places<'_> {
    fn find(&self, program: &str) -> Option<String> {
        find(program, &self.prepared.path_first)
            .or_else(|| find(program, self.path))
            .map(|path| path.display().to_string())
    }

    fn python(&self) -> Result<String, String> {
        ["python", "python3"]
            .iter()
            .find_map(|name| find(name, &self.prepared.path_first))
            .or_else(|| self.python.map(Path::to_owned))
            .or_else(|| find("python3", self.path))
            .map(|path| path.display().to_string())
            .ok_or_else(|| {
                "this machine has no python3; name another program, or install Python on it"
                    .to_owned()
            })
    }

    fn needs(&self, program: &str, script: &str) -> Result<String, String> {
        self.find(program).ok_or_else(|| {
            format!("'{script}' needs the program {program}, which this machine does not have")
        })
    }

    fn here(&self) -> String {
        if self.workdir.is_empty() {
            "the top of the code".to_owned()
        } else {
            format!("the folder '{}' of the code", self.workdir)
        }
    }
}

/// Program and arguments to execute.
pub(crate) fn argv(
    program: &[String],
    args: &[String],
    places: &Places<'_>,
) -> Result<Vec<String>, String> {
    let Some((first, rest)) = program.split_first() else {
        return Err("there is no command to run".to_owned());
    };
    let mut argv = head(first, places)?;
    check_script(first, rest, places)?;
    argv.extend(rest.iter().chain(args).cloned());
    Ok(argv)
}

/// What stands for the first word.
fn head(first: &str, places: &Places<'_>) -> Result<Vec<String>, String> {
    if matches!(first, "python" | "python3") {
        return Ok(vec![places.python()?]);
    }
    let file = places.cwd.join(first);
    let interpreter = match Path::new(first)
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("py") => Some("python"),
        Some("sh") => Some("bash"),
        Some("jl") => Some("julia"),
        Some("R" | "r") => Some("Rscript"),
        _ => None,
    };
    if let Some(interpreter) = interpreter {
        if !file.is_file() {
            return Err(no_file(first, places));
        }
        let interpreter = match interpreter {
            "python" => places.python()?,
            other => places.needs(other, first)?,
        };
        return Ok(vec![interpreter, first.to_owned()]);
    }
    if first.contains('/') || file.is_file() {
        return own_program(first, &file, places);
    }
    places.find(first).map(|path| vec![path]).ok_or_else(|| {
        format!(
            "there is no program '{first}': it is neither a file in {} nor on the PATH of this machine or of the environment",
            places.here()
        )
    })
}

/// A file of the code itself, by its own first line.
fn own_program(first: &str, file: &Path, places: &Places<'_>) -> Result<Vec<String>, String> {
    if !file.is_file() {
        return Err(no_file(first, places));
    }
    if !is_executable(file) {
        return Err(format!(
            "'{first}' is not executable; run `chmod +x {first}`, or name its interpreter before it"
        ));
    }
    let program = if first.contains('/') {
        first.to_owned()
    } else {
        format!("./{first}")
    };
    Ok(vec![program])
}

/// `python train.py` with a wrong name would fail as well, but with more words.
fn check_script(first: &str, rest: &[String], places: &Places<'_>) -> Result<(), String> {
    let name = Path::new(first)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(first);
    let is_interpreter =
        name.starts_with("python") || matches!(name, "bash" | "sh" | "julia" | "Rscript");
    match rest.first() {
        Some(script)
            if is_interpreter && !script.starts_with('-') && !places.cwd.join(script).exists() =>
        {
            Err(no_file(script, places))
        }
        _ => Ok(()),
    }
}

fn no_file(name: &str, places: &Places<'_>) -> String {
    format!("there is no file '{name}' in {}", places.here())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: &str) -> String {
        let code = tempfile::tempdir().expect("a folder");
        let system = tempfile::tempdir().expect("a folder");
        let venv = tempfile::tempdir().expect("a folder");
        let file = |folder: &Path, name: &str, mode: u32| {
            std::fs::write(folder.join(name), "#!/bin/sh\n").expect("written");
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode))
                .expect("changed");
        };
        for name in ["train.py", "run.sh", "plain", "job.jl"] {
            file(code.path(), name, 0o644);
        }
        file(code.path(), "tool", 0o755);
        file(system.path(), "bash", 0o755);
        file(system.path(), "true", 0o755);
        file(venv.path(), "python", 0o755);
        let prepared = Prepared {
            path_first: vec![venv.path().to_owned()],
            ..Prepared::default()
        };
        let path = [system.path().to_owned()];
        let places = Places {
            cwd: code.path(),
            workdir: "",
            prepared: &prepared,
            path: &path,
            python: None,
        };
        let program: Vec<String> = program.split(' ').map(str::to_owned).collect();
        let text = match argv(&program, &["--lr".to_owned()], &places) {
            Ok(argv) => argv.join(" "),
            Err(message) => format!("! {message}"),
        };
        let text = text.replace(&system.path().display().to_string(), "SYS");
        text.replace(&venv.path().display().to_string(), "VENV")
    }

    #[test]
    fn the_first_word_decides() {
        for (program, expected) in [
            ("train.py", "VENV/python train.py --lr"),
            ("python -m pkg", "VENV/python -m pkg --lr"),
            ("python3 train.py", "VENV/python train.py --lr"),
            ("run.sh", "SYS/bash run.sh --lr"),
            ("tool", "./tool --lr"),
            ("./tool", "./tool --lr"),
            ("true", "SYS/true --lr"),
            (
                "job.jl",
                "! 'job.jl' needs the program julia, which this machine does not have",
            ),
            (
                "gone.py",
                "! there is no file 'gone.py' in the top of the code",
            ),
            (
                "python gone.py",
                "! there is no file 'gone.py' in the top of the code",
            ),
            (
                "plain",
                "! 'plain' is not executable; run `chmod +x plain`, or name its interpreter before it",
            ),
        ] {
            assert_eq!(check(program), expected, "{program}");
        }
        assert!(check("nothing").starts_with("! there is no program 'nothing'"));
    }
}

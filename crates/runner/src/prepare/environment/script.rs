//! The build as one shell script: one process, whose output is the build log.

use std::path::Path;

use grid_core::spec::{Actions, PackageManager};

use super::plan::{Kind, Plan};
use super::tools::Tools;

/// A word that the shell takes as it is.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// The whole script.  It notes each step before it begins, and at the end that all
/// is built: it is when, and only when, the last line was reached.
pub(super) fn script(
    plan: &Plan,
    env: &Path,
    tree: &Path,
    workdir: &str,
    actions: &Actions,
    tools: &Tools,
) -> String {
    let mut script = Script {
        text: String::new(),
    };
    let step = path(&env.join("step"));
    script.line("set -e");
    script.line(&format!(
        "step() {{ printf '%s\\n' \"$1\" >{step}; printf '%s\\n' \"$2\"; }}"
    ));
    script.line(&format!("cd {}", path(&tree.join(workdir))));
    script.actions("on_build_start", &actions.on_build_start);
    match &plan.kind {
        Kind::Actions => {}
        Kind::Packages {
            manager: PackageManager::Pip,
            file,
        } => script.pip(env, &tree.join(file), tools),
        Kind::Packages {
            manager: PackageManager::Conda,
            file,
        } => script.conda(env, &tree.join(file), tools),
        Kind::Packages {
            manager: PackageManager::Julia,
            file,
        } => script.julia(env, &tree.join(file), tools),
        Kind::Image { dockerfile } => script.image(plan, tree, dockerfile, tools),
    }
    script.actions("on_build", &actions.on_build);
    script.actions("on_build_end", &actions.on_build_end);
    script.line(&format!(": >{}", path(&env.join("built"))));
    script.text
}

/// The name of an image.
pub(super) fn image_name(key: &str) -> String {
    format!("localhost/grid-environment:{key}")
}

struct Script {
    text: String,
}

impl Script {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn step(&mut self, name: &str) {
        self.line(&format!(
            "step {} {}",
            quoted(name),
            quoted(&format!("==> {name}"))
        ));
    }

    fn actions(&mut self, when: &str, actions: &[String]) {
        for action in actions {
            let first = action.lines().next().unwrap_or_default();
            self.step(&format!("{when}: {first}"));
            self.line(&format!("/bin/sh -c {}", quoted(action)));
        }
    }

    fn pip(&mut self, env: &Path, file: &Path, tools: &Tools) {
        let venv = env.join("venv");
        let python = tools.python.as_deref().unwrap_or(Path::new("python3"));
        if let Some(uv) = &tools.uv {
            self.step("creating the virtual environment");
            self.line(&format!(
                "{} venv --quiet --python {} {}",
                path(uv),
                path(python),
                path(&venv)
            ));
            self.activate(&venv);
            self.step("installing packages");
            // Compiled now: nothing can be written there when experiments run.
            self.line(&format!(
                "{} pip install --compile-bytecode -r {}",
                path(uv),
                path(file)
            ));
            return;
        }
        self.step("creating the virtual environment");
        self.line("echo 'warning: there is no uv on this machine; installing with pip, which takes longer' >&2");
        self.line(&format!("{} -m venv {}", path(python), path(&venv)));
        self.activate(&venv);
        self.step("installing packages");
        self.line(&format!(
            "python -m pip install --disable-pip-version-check --compile -r {}",
            path(file)
        ));
    }

    fn activate(&mut self, folder: &Path) {
        self.line(&format!("export VIRTUAL_ENV={}", path(folder)));
        self.line("PATH=\"$VIRTUAL_ENV/bin:$PATH\"");
    }

    fn conda(&mut self, env: &Path, file: &Path, tools: &Tools) {
        let tool = tools.conda.as_deref().unwrap_or(Path::new("conda"));
        let prefix = env.join("conda");
        self.step("installing packages with conda");
        let is_micromamba = tool.file_name().is_some_and(|name| name == "micromamba");
        let create = if is_micromamba {
            "create --yes"
        } else {
            "env create --quiet"
        };
        self.line(&format!(
            "{} {create} -p {} -f {}",
            path(tool),
            path(&prefix),
            path(file)
        ));
        self.line(&format!("export CONDA_PREFIX={}", path(&prefix)));
        self.line("PATH=\"$CONDA_PREFIX/bin:$PATH\"");
    }

    fn julia(&mut self, env: &Path, file: &Path, tools: &Tools) {
        let julia = tools.julia.as_deref().unwrap_or(Path::new("julia"));
        let project = file.parent().unwrap_or(Path::new("."));
        self.step("installing packages with Julia");
        self.line(&format!(
            "export JULIA_DEPOT_PATH={}",
            path(&env.join("depot"))
        ));
        let code = "using Pkg; Pkg.instantiate(); Pkg.precompile()";
        self.line(&format!(
            "{} --project={} -e {}",
            path(julia),
            path(project),
            quoted(code)
        ));
    }

    fn image(&mut self, plan: &Plan, tree: &Path, dockerfile: &str, tools: &Tools) {
        let tool = tools.images.as_deref().unwrap_or(Path::new("docker"));
        self.step("building the image");
        let name = image_name(&plan.key);
        let file = tree.join(dockerfile);
        self.line(&format!(
            "{} build -t {} -f {} {}",
            path(tool),
            quoted(&name),
            path(&file),
            path(tree)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
    }
}

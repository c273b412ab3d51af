//! The client as a library: scripts and notebooks that people have kept.

use grid_e2e::original::{NEWEST, Person};

use crate::{TRAIN, two_teams};

/// What everybody has at the top of their notebook, and a way to wait.
const HEAD: &str = "
import time
from grid import *
def over(name, patience=60):
    until = time.time() + patience
    while time.time() < until:
        run = Run(name)
        counts = run.experiment_counts
        if counts['pending'] + counts['running'] == 0 and sum(counts.values()) > 0:
            return run
        time.sleep(0.1)
    raise SystemExit(f'{name} did not end: {counts}')
";

#[test]
fn a_notebook_from_login_to_delete() {
    let server = two_teams();
    let ada = Person::new(&server, "ada", NEWEST);
    ada.file("train.py", TRAIN);
    ada.file("lib/helper.py", "WORD = 'helped'\n");
    let (_, key) = ada.credentials();
    let script = format!(
        "{HEAD}
assert login(username='ada', api_key='{key}')
run = Run(name='book', run_command='train.py --lr [0.1,0.2] --flag', localdir=True,
          env_vars={{'COLOUR': 'green'}}, dependency_file=None,
          resources=Resources(instance_type='m5a.large', cpus=1),
          actions=Actions(on_experiment_start=['echo before']))
assert not run.exists
run.start()
assert run.exists
print('submitted', run.name, run.status.value, len(run.experiments))
run = over('book')
print('over', run.status.value, dict(run.experiment_counts))
for experiment in run.experiments:
    print(experiment.name, experiment.status.value, ' '.join(experiment.command))
    assert experiment.created_at <= experiment.start_timestamp <= experiment.finish_timestamp
    print(sorted((a.filename) for a in experiment.artifacts))
    print(experiment.env)
one = Experiment('book-exp1')
print(one.run_name, one.runner_framework)
files = list_artifacts('book-exp1', artifact_regex='txt$')
download_artifacts(files, 'here')
print(open('here/model.txt').read().strip())
print([r.name for r in list_runs()], [s.name for s in list_sessions()])
print(sorted(t.name for t in get_instance_types('local'))[:1] != [])
try:
    Run(name='book').start()
except Exception as error:
    print('refused:', type(error).__name__)
run.delete()
print([r.name for r in list_runs()])
"
    );
    let ran = ada.python(&script);
    let said = ran.ok();
    insta::assert_snapshot!(
        "notebook",
        grid_e2e::original::screen::plain(&grid_e2e::original::screen::shown(&said))
    );
    server.doctor();
}

#[test]
fn a_script_that_stops_what_it_started() {
    let server = two_teams();
    let ada = Person::signed_in(&server, "ada");
    ada.file(
        "talk.sh",
        "#!/bin/bash\nwhile true; do echo talking; sleep 0.1; done\n",
    );
    let script = format!(
        "{HEAD}
run = Run(name='long', run_command='talk.sh --n [1,2]', localdir=True, dependency_file=None)
run.start()
until = time.time() + 60
while Run('long').experiment_counts['running'] < 2:
    assert time.time() < until
    time.sleep(0.1)
Experiment('long-exp0').cancel()
Run('long').cancel()
run = over('long')
print(run.status.value, [e.status.value for e in run.experiments])
Experiment('long-exp1').delete()
print(len(Run('long').experiments))
"
    );
    let said = ada.python(&script).ok();
    let said: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(
        said[said.len() - 2..],
        ["cancelled ['cancelled', 'cancelled']", "1"]
    );
    server.doctor();
}

//! The original client, unmodified, as its people use it: command by command.
//!
//! Ada runs the server and owns the team `vision`; Bob is a member of it and of `sound`, which
//! is Eve's.  What they see is compared with what is written down in `snapshots`, without what
//! differs each time; what must be *right*, such as counts and durations, is asserted besides.

#[path = "original_client/account.rs"]
mod account;
#[path = "original_client/bad_input.rs"]
mod bad_input;
#[path = "original_client/datastores.rs"]
mod datastores;
#[path = "original_client/logs.rs"]
mod logs;
#[path = "original_client/options.rs"]
mod options;
#[path = "original_client/runs.rs"]
mod runs;
#[path = "original_client/sdk.rs"]
mod sdk;
#[path = "original_client/team.rs"]
mod team;
#[path = "original_client/versions.rs"]
mod versions;

use grid_e2e::{Server, wait_for};

/// A script as people have it: arguments, lines, files, and an end that depends on them.
const TRAIN: &str = "import argparse, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('--lr', type=float)
parser.add_argument('--flag', action='store_true')
args = parser.parse_args()
print('lr', args.lr, 'flag', args.flag)
for epoch in range(3):
    print('epoch', epoch, flush=True)
time.sleep(0.1)
print('to the other stream', file=sys.stderr)
pathlib.Path('model.txt').write_text(f'{args.lr}\\n')
pathlib.Path('empty').touch()
pathlib.Path('deep/er').mkdir(parents=True)
pathlib.Path('deep/er/metrics.csv').write_text(f'1,{args.lr}\\n')
sys.exit(args.lr > 1)
";

/// A server with three people in two teams.
fn two_teams() -> Server {
    two_teams_with(&[])
}

/// The same, where the server finds this in its environment.
fn two_teams_with(environment: &[(&str, &str)]) -> Server {
    let server = Server::start_with(&["--cpus", "4"], environment);
    let own = |who: &str, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.grid(who, &words).ok()
    };
    server.person("bob");
    server.person("eve");
    for (owner, team) in [("ada", "vision"), ("eve", "sound")] {
        own(owner, &format!("team create {team}"));
        own(owner, &format!("team invite {team} bob"));
        own("bob", &format!("team join {team}"));
    }
    server
}

/// Waits until each of Ada's experiments of this run is over.
fn settled(server: &Server, run: &str) {
    server.finished(run);
}

/// The same for a run of somebody else.
fn settled_of(server: &Server, who: &str, run: &str) {
    wait_for(&format!("{who}'s {run} to end"), || {
        let json = server.grid(who, &["-o", "json", "status", run]).json();
        let all = json["experiments"].as_array()?.clone();
        let over = |it: &serde_json::Value| it["finished_at"].is_string();
        all.iter().all(over).then_some(())
    });
}

//! How many processes per second the keeper starts, ends and forgets.
//!
//! `cargo run -p grid-runner --example spawn_rate -- [tasks] [at a time] [bytes of output] \
//! [plain|sandbox] [cgroup.procs …]`

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grid_runner::keeper::client::{Client, Starter};
use grid_runner::keeper::protocol::Spawn;
use grid_runner::sandbox::{Room, Sandbox};
use grid_runner::{detect, keeper};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, what, dir] = args.as_slice()
        && what == "keeper"
    {
        return keeper::main(Path::new(dir));
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let Ok(runtime) = builder.enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(measure(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &[String]) -> Result<(), Box<dyn Error>> {
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |text| text.parse());
    let (tasks, at_a_time, bytes) = (number(1, 2_000)?, number(2, 4)?, number(3, 0)?);
    let sandbox = match args.get(4).map(String::as_str) {
        Some("sandbox") => Sandbox::Require,
        _ => Sandbox::Off,
    };
    let isolation = sandbox.resolve(&detect::bubblewrap("/usr/bin:/bin".as_ref()))?;
    let cgroup: Vec<PathBuf> = args.iter().skip(5).map(PathBuf::from).collect();
    let dir = tempfile::tempdir()?;
    let starter = Starter {
        program: "/proc/self/exe".into(),
        args: vec!["keeper".into(), dir.path().into()],
        env: Vec::new(),
    };
    let (client, mut events) = Client::connect(dir.path(), &starter).await?;
    let drain = tokio::spawn(async move { while events.next().await.is_some() {} });
    let began = seconds();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (client, spawn) = (client.clone(), spawn(dir.path(), task, bytes, &cgroup));
        let spawn = isolation.enclose(spawn, &Room::default());
        running.spawn(async move { one(&client, spawn).await });
        if running.len() >= at_a_time
            && let Some(done) = running.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    let took = seconds() - began;
    let status = std::fs::read_to_string(format!("/proc/{}/status", client.hello().pid))?;
    let rss = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", client.hello().pid))?;
    let cpu: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .skip(12)
        .take(2)
        .collect();
    let rate = f64::from(u32::try_from(tasks)?) / took;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{tasks} tasks, {at_a_time} at a time, {bytes} bytes each: {took:.2} s, {rate:.0} per second"
    )?;
    writeln!(
        out,
        "keeper: {rss}, CPU {} + {} hundredths of a second",
        cpu[0], cpu[1]
    )?;
    client.stop_when_idle().await?;
    drain.await?;
    Ok(())
}

async fn one(client: &Client, spawn: Spawn) -> Result<(), keeper::client::Error> {
    let (key, folder) = (spawn.key.clone(), spawn.spool_dir.clone());
    client.spawn(spawn).await?;
    client.wait(&key).await?;
    client.forget(&key).await?;
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}

fn spawn(dir: &Path, task: usize, bytes: usize, cgroup: &[PathBuf]) -> Spawn {
    let argv = if bytes == 0 {
        vec!["/bin/true".to_owned()]
    } else {
        vec![
            "/usr/bin/head".to_owned(),
            "-c".to_owned(),
            bytes.to_string(),
            "/dev/zero".to_owned(),
        ]
    };
    Spawn {
        key: format!("task-{task}"),
        argv,
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: "/".into(),
        spool_dir: dir.join("spool").join(task.to_string()),
        cgroup: cgroup.to_vec(),
        ..Spawn::default()
    }
}

fn seconds() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

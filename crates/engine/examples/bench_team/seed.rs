//! A team as it is after a year, made as fast as the database can take it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grid_core::cluster::Placement;
use grid_core::id::{KeyId, RunId, TeamId, UserId, WorkloadId};
use grid_core::spec::{RunSpec, Source};
use grid_core::team::{Role, TeamPolicy};
use grid_core::time::Timestamp;
use grid_core::workload::{
    Actor, Attempt, Event, Kind, Outcome, Policy, Reason, ReasonCode, Workload,
};
use grid_engine::{Clock, SystemClock, hash_key};
use grid_store::db::event::Record;
use grid_store::db::run::{NewExperiment, Run};
use grid_store::db::team::Team;
use grid_store::db::user::User;
use grid_store::db::{self, Db, Options};
use serde_json::json;

use crate::Result;

/// Name of the team.
const TEAM: &str = "vision";

/// Members whose keys are printed.
const KEYS: usize = 100;

/// Runs of one transaction.
const RUNS_AT_ONCE: usize = 500;

/// Every so-manieth run goes on: it waits.
const OPEN_EVERY: usize = 100;

/// Every so-manieth run is a sweep.
const SWEEP_EVERY: usize = 20;

/// Experiments of a sweep.
const SWEEP: u32 = 20;

/// How long the team has been at it.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Fills a database with a team of so many people who made so many runs.
pub(crate) async fn seed(database: &str, people: usize, runs: usize) -> Result<()> {
    let db = Db::connect(database, &Options::default()).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)? - YEAR;
    let begun = i64::try_from(now.as_millis())?;
    let mut team = Seed {
        db,
        team: TeamId::from_parts(Timestamp::from_millis(begun), SystemClock.entropy()),
        begun,
    };
    let members = team.people(people).await?;
    let spec = json!({ "command": ["train.py", "--lr", "0.1"], "source": Source::Nothing });
    let spec: RunSpec = serde_json::from_value(spec)?;
    let spec = serde_json::to_string(&spec)?;
    let every = i64::try_from(YEAR.as_millis())? / i64::try_from(runs.max(1))?;
    for first in (0..runs).step_by(RUNS_AT_ONCE) {
        let numbers = first..runs.min(first + RUNS_AT_ONCE);
        team.runs(numbers, &members, &spec, every).await?;
    }
    team.db.close().await;
    Ok(())
}

struct Seed {
    db: Db,
    team: TeamId,
    begun: i64,
}

impl Seed {
    /// Makes the team and its people, and prints keys.
    async fn people(&mut self, people: usize) -> Result<Vec<UserId>> {
        let at = Timestamp::from_millis(self.begun);
        let mut tx = self.db.write().await?;
        let whole = |id, name: &str, personal| Team {
            id,
            name: name.to_owned(),
            personal,
            policy: TeamPolicy::default(),
            created_at: at,
        };
        let team = whole(self.team, TEAM, false);
        db::team::insert(&mut tx, &team).await?;
        // Whoever is there already runs the server, and owns the team.
        for user in db::user::list(&mut tx, None, 1).await?.items {
            db::team::set_role(&mut tx, self.team, user.id, Role::Owner, at).await?;
            db::user::set_current_team(&mut tx, user.id, self.team).await?;
        }
        let mut members = Vec::with_capacity(people);
        for number in 0..people {
            let username = format!("member-{number}");
            let own = whole(
                TeamId::from_parts(at, SystemClock.entropy()),
                &username,
                true,
            );
            let user = User {
                id: UserId::from_entropy(SystemClock.entropy()),
                username,
                email: String::new(),
                first_name: String::new(),
                last_name: String::new(),
                operator: false,
                current_team: Some(self.team),
                created_at: at,
                disabled_at: None,
                service_team: None,
            };
            db::user::insert(&mut tx, &user).await?;
            db::team::insert(&mut tx, &own).await?;
            db::team::set_role(&mut tx, own.id, user.id, Role::Owner, at).await?;
            db::team::set_role(&mut tx, self.team, user.id, Role::Member, at).await?;
            if number < KEYS {
                let secret = UserId::from_entropy(SystemClock.entropy()).to_string();
                let key = db::key::Key {
                    id: KeyId::from_parts(at, SystemClock.entropy()),
                    user: user.id,
                    name: "default".to_owned(),
                    scope: "all".to_owned(),
                    created_at: at,
                    expires_at: None,
                    last_used_at: None,
                    revoked_at: None,
                    access_key: None,
                };
                db::key::insert(&mut tx, &key, &hash_key(&secret)).await?;
                let line = json!({
                    "username": user.username,
                    "user_id": user.id.to_string(),
                    "api_key": secret,
                });
                println!("{line}");
            }
            members.push(user.id);
        }
        tx.commit().await?;
        Ok(members)
    }

    /// Some runs, one after the other, with all that ever happened to them.
    async fn runs(
        &mut self,
        numbers: std::ops::Range<usize>,
        members: &[UserId],
        spec: &str,
        every: i64,
    ) -> Result<()> {
        let mut tx = self.db.write().await?;
        let mut endings: [Vec<Workload>; 3] = Default::default();
        for number in numbers {
            let made = self.begun + i64::try_from(number)? * every;
            // Everybody makes as many, of every kind.
            let creator = members.get(mixed(number) % members.len().max(1));
            let creator = *creator.ok_or("runs need people")?;
            let is_sweep = number % SWEEP_EVERY == 0;
            let experiments = experiments(if is_sweep { SWEEP } else { 1 }, made);
            let of_run: Vec<Workload> =
                experiments.iter().map(|new| new.workload.clone()).collect();
            let run = self.run(number, creator, made, spec, of_run.len())?;
            db::run::insert(&mut tx, &run, experiments, Actor::User(creator)).await?;
            if number % OPEN_EVERY != OPEN_EVERY - 1 {
                // One in ten fails, one in twenty-five was stopped; of a sweep one does.
                let bad = usize::from(number % 10 == 1) + 2 * usize::from(number % 25 == 2);
                for (index, workload) in of_run.into_iter().enumerate() {
                    endings[if index == 0 { bad.min(2) } else { 0 }].push(workload);
                }
            }
        }
        for (workloads, end) in endings.iter_mut().zip(ends()) {
            happened(&mut tx, workloads, &end).await?;
        }
        Ok(tx.commit().await?)
    }

    fn run(
        &self,
        number: usize,
        creator: UserId,
        made: i64,
        spec: &str,
        experiments: usize,
    ) -> Result<Run> {
        let created_at = Timestamp::from_millis(made);
        Ok(Run {
            id: RunId::from_parts(created_at, SystemClock.entropy()),
            team: self.team,
            creator,
            name: format!("bert-{number}"),
            created_at,
            spec: spec.to_owned(),
            seed: number.to_string(),
            invocation: "grid run train.py --lr 0.1".to_owned(),
            project: Some("vision/bert".to_owned()),
            snapshot: None,
            cloned_from: None,
            experiments: u32::try_from(experiments)?,
            deleted: None,
        })
    }
}

/// A number that says nothing about the one it is made of.
fn mixed(number: usize) -> usize {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

fn experiments(count: u32, made: i64) -> Vec<NewExperiment> {
    let at = Timestamp::from_millis(made);
    let policy = Policy {
        losses_max: 3,
        retries: 0,
        auto_resume: false,
    };
    let created = Event::Created {
        workload: Kind::Experiment,
        policy,
    };
    let new = |index: u32| NewExperiment {
        workload: Workload::created(
            WorkloadId::from_parts(at, SystemClock.entropy()),
            &created,
            at,
        ),
        params: vec![("lr".to_owned(), format!("0.{index}"))],
        args: vec!["--lr".to_owned(), format!("0.{index}")],
    };
    (0..count).map(new).collect()
}

/// Well, badly, and because somebody said so.
fn ends() -> [Event; 3] {
    let reason = Reason {
        code: ReasonCode::ExitCode,
        message: "ended with exit code 1".to_owned(),
        exit_code: Some(1),
    };
    [
        Outcome::Succeeded,
        Outcome::Failed { reason },
        Outcome::Stopped { by: None },
    ]
    .map(|outcome| Event::Finished { outcome })
}

/// Records a whole life of each.
async fn happened(tx: &mut db::Tx, workloads: &mut [Workload], end: &Event) -> Result<()> {
    let placement = Placement {
        node: "local".parse()?,
        cpus: 1,
        gpus: vec![],
        memory_bytes: 1 << 30,
    };
    let attempt = Attempt {
        number: 1,
        placement,
    };
    let mut events = vec![Event::Placed { attempt }, Event::Started { attempt: 1 }];
    if matches!(
        end,
        Event::Finished {
            outcome: Outcome::Stopped { .. }
        }
    ) {
        events.push(Event::StopRequested { by: None });
    }
    events.push(end.clone());
    for workload in &mut *workloads {
        let at = workload.created_at.plus_millis(60_000);
        events.iter().for_each(|event| workload.apply(event, at));
    }
    let record = |workload| Record {
        workload,
        expected_version: 1,
        events: &events,
        actor: Actor::Engine,
        at: workload.created_at.plus_millis(60_000),
    };
    let records: Vec<Record<'_>> = workloads.iter().map(record).collect();
    let done = db::event::record_many(tx, &records).await?;
    if done.contains(&false) {
        return Err("an experiment was changed by somebody else".into());
    }
    Ok(())
}

//! What holds for a workload whatever it is told, in whatever order.

use grid_core::cluster::Placement;
use grid_core::id::{UserId, WorkloadId};
use grid_core::time::Timestamp;
use grid_core::workload::{
    Command, End, Event, Kind, Policy, Reason, ReasonCode, Refusal, State, Status, Workload,
};
use proptest::prelude::*;

fn placement() -> Placement {
    Placement {
        node: "local".parse().expect("a valid name"),
        cpus: 1,
        gpus: vec![0],
        memory_bytes: 7,
    }
}

fn ends() -> impl Strategy<Value = End> {
    let reason = || Reason {
        code: ReasonCode::ExitCode,
        message: "exit 1".to_owned(),
        exit_code: Some(1),
    };
    prop_oneof![
        1 => Just(End::Succeeded),
        3 => Just(End::Failed { reason: reason() }),
        4 => Just(End::Lost { message: "gone".to_owned() }),
        2 => Just(End::Interrupted),
        2 => Just(End::Returned),
        1 => Just(End::Stopped),
    ]
}

/// A command; reports name an attempt by its distance from the highest one so far.
#[derive(Debug, Clone)]
enum Told {
    Started { off: i64 },
    Ended { off: i64, end: End },
    Other(Command),
}

fn tolds() -> impl Strategy<Value = Told> {
    let off = || prop_oneof![6 => Just(0_i64), 1 => Just(-1), 1 => Just(1), 1 => Just(-3)];
    let by = || Some(UserId::from_entropy(3));
    prop_oneof![
        6 => Just(Told::Other(Command::Place(placement()))),
        5 => off().prop_map(|off| Told::Started { off }),
        5 => (off(), ends()).prop_map(|(off, end)| Told::Ended { off, end }),
        1 => Just(Told::Other(Command::Stop { by: by() })),
        1 => Just(Told::Other(Command::Stop { by: None })),
        1 => Just(Told::Other(Command::Pause)),
        2 => Just(Told::Other(Command::Resume)),
        2 => Just(Told::Other(Command::Retry)),
    ]
}

fn command(told: &Told, workload: &Workload) -> Command {
    let number = |off: i64| u32::try_from(i64::from(workload.attempts) + off).unwrap_or(0);
    match told {
        Told::Started { off } => Command::Started {
            attempt: number(*off),
        },
        Told::Ended { off, end } => Command::Ended {
            attempt: number(*off),
            end: end.clone(),
        },
        Told::Other(command) => command.clone(),
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Experiment), Just(Kind::Session)]
}

fn policies() -> impl Strategy<Value = Policy> {
    (0..3_u32, 0..3_u32, any::<bool>()).prop_map(|(losses_max, retries, auto_resume)| Policy {
        losses_max,
        retries,
        auto_resume,
    })
}

/// A log, and the workload that it makes.
struct Live {
    workload: Workload,
    log: Vec<(Event, Timestamp)>,
}

impl Live {
    fn new(kind: Kind, policy: Policy) -> Self {
        let id = WorkloadId::from_parts(Timestamp::from_millis(0), 1);
        let created = Event::Created {
            workload: kind,
            policy,
        };
        let at = Timestamp::from_millis(0);
        Self {
            workload: Workload::created(id, &created, at),
            log: vec![(created, at)],
        }
    }

    fn tell(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = self.workload.decide(command)?;
        for event in &events {
            // The clock goes backwards, which must not matter.
            let at = Timestamp::from_millis(-i64::try_from(self.log.len()).unwrap_or(0));
            self.workload.apply(event, at);
            self.log.push((event.clone(), at));
        }
        Ok(events)
    }
}

/// The attempt that a report is about.
fn reported(command: &Command) -> Option<u32> {
    match command {
        Command::Started { attempt } | Command::Ended { attempt, .. } => Some(*attempt),
        Command::Place(_)
        | Command::Stop { .. }
        | Command::Pause
        | Command::Resume
        | Command::Retry => None,
    }
}

/// What the policy allows has not been exceeded.
fn check_policy(workload: &Workload) -> Result<(), TestCaseError> {
    prop_assert!(workload.losses <= workload.policy.losses_max);
    prop_assert!(workload.failures <= workload.policy.retries);
    prop_assert!(workload.losses + workload.failures <= workload.attempts);
    Ok(())
}

/// What must be so of one step, whatever it was.
fn check_step(
    before: &Workload,
    command: &Command,
    answer: &Result<Vec<Event>, Refusal>,
    after: &Workload,
) -> Result<(), TestCaseError> {
    let present = before.state.attempt().map(|attempt| attempt.number);
    if let Some(number) = reported(command)
        && present != Some(number)
    {
        prop_assert_eq!(
            answer,
            &Err(Refusal::Stale(number)),
            "a report about another attempt"
        );
    }
    if answer.as_ref().map_or(true, Vec::is_empty) {
        prop_assert_eq!(before, after, "without an event nothing changes");
    }
    let placed = answer
        .as_ref()
        .is_ok_and(|events| matches!(events[..], [Event::Placed { .. }]));
    prop_assert_eq!(
        after.attempts,
        before.attempts + u32::from(placed),
        "a number for each attempt, and only for it"
    );
    if matches!(before.state, State::Finished { .. }) && *command != Command::Retry {
        prop_assert_eq!(&before.state, &after.state, "finished stays finished");
    }
    if before.state.status() == Status::Succeeded {
        prop_assert_eq!(&before.state, &after.state, "a success is for ever");
    }
    if let Some(attempt) = after.state.attempt() {
        prop_assert_eq!(
            attempt.number,
            after.attempts,
            "the present attempt is the highest"
        );
        prop_assert_eq!(&attempt.placement, &placement());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the machine stays sane, and its log tells all of it.
    #[test]
    fn any_history_is_survived_and_replays(
        kind in kinds(),
        policy in policies(),
        history in prop::collection::vec(tolds(), 0..80),
    ) {
        let mut live = Live::new(kind, policy);
        for told in &history {
            let command = command(told, &live.workload);
            let before = live.workload.clone();
            let answer = live.tell(&command);
            check_step(&before, &command, &answer, &live.workload)?;
            check_policy(&live.workload)?;
            let folded = Workload::fold(before.id, live.log.iter().map(|(event, at)| (event, *at)));
            prop_assert_eq!(&folded, &live.workload, "the log does not tell all");
        }
        let text = serde_json::to_string(&live.log).expect("events are JSON");
        let read: Vec<(Event, Timestamp)> = serde_json::from_str(&text).expect("and read back");
        prop_assert_eq!(read, live.log);
        let text = serde_json::to_string(&live.workload).expect("so is the cached state");
        let read: Workload = serde_json::from_str(&text).expect("and reads back");
        prop_assert_eq!(read, live.workload);
    }

    /// Who asks twice, because an answer was lost, is not told off.
    #[test]
    fn a_wish_repeated_is_obeyed_silently(
        kind in kinds(),
        policy in policies(),
        history in prop::collection::vec(tolds(), 0..40),
        wish in prop_oneof![
            Just(Command::Stop { by: None }), Just(Command::Pause), Just(Command::Resume), Just(Command::Retry),
        ],
    ) {
        let mut live = Live::new(kind, policy);
        for told in &history {
            let command = command(told, &live.workload);
            let _ = live.tell(&command);
        }
        if live.tell(&wish).is_ok() {
            prop_assert_eq!(live.tell(&wish), Ok(vec![]));
        }
        if let Some(attempt) = live.workload.state.attempt() {
            let started = Command::Started { attempt: attempt.number };
            let _ = live.tell(&started);
            prop_assert_eq!(live.tell(&started), Ok(vec![]));
        }
    }

    /// Stopping ends everything: two commands, and it is over.
    #[test]
    fn a_stop_always_comes_to_an_end(
        kind in kinds(),
        policy in policies(),
        history in prop::collection::vec(tolds(), 0..40),
        end in ends(),
    ) {
        let mut live = Live::new(kind, policy);
        for told in &history {
            let command = command(told, &live.workload);
            let _ = live.tell(&command);
        }
        let stop = Command::Stop { by: None };
        prop_assert!(live.tell(&stop).is_ok(), "a stop is never refused");
        if let Some(attempt) = live.workload.state.attempt() {
            let number = attempt.number;
            prop_assert_eq!(live.workload.state.status(), Status::Stopping);
            let ended = Command::Ended { attempt: number, end };
            prop_assert!(live.tell(&ended).is_ok());
        }
        prop_assert!(live.workload.state.finished_at().is_some());
    }
}

#[test]
fn a_log_with_a_hole_does_not_replay() {
    let mut live = Live::new(
        Kind::Experiment,
        Policy {
            losses_max: 3,
            retries: 0,
            auto_resume: false,
        },
    );
    let told = [
        Command::Place(placement()),
        Command::Started { attempt: 1 },
        Command::Ended {
            attempt: 1,
            end: End::Lost {
                message: "gone".to_owned(),
            },
        },
        Command::Place(placement()),
        Command::Started { attempt: 2 },
        Command::Stop { by: None },
        Command::Ended {
            attempt: 2,
            end: End::Stopped,
        },
    ];
    for command in &told {
        assert_eq!(
            live.tell(command).map(|events| events.len()),
            Ok(1),
            "{command:?}"
        );
    }
    let id = live.workload.id;
    for hole in 0..live.log.len() - 1 {
        let mut log = live.log.clone();
        let lost = log.remove(hole);
        let replayed = std::panic::catch_unwind(|| {
            Workload::fold(id, log.iter().map(|(event, at)| (event, *at)))
        });
        // Without these the rest still makes sense: it may end before it has started,
        // and as if stopped from outside.
        let harmless = matches!(lost.0, Event::Started { .. } | Event::StopRequested { .. });
        assert_eq!(replayed.is_ok(), harmless, "without {lost:?}");
    }
}

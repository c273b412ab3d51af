//! What the end of a process means for the attempt.

use grid_core::workload::{End, Reason, ReasonCode};

use super::saved::Cause;
use crate::keeper::protocol::{Ending, Exit};

/// Reports a failure.
pub(crate) fn failed(code: ReasonCode, message: impl Into<String>, exit_code: Option<i32>) -> End {
    End::Failed {
        reason: Reason {
            code,
            message: message.into(),
            exit_code,
        },
    }
}

/// What is known beside the exit itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    /// Why it was told to end.
    pub(crate) cause: Option<Cause>,
    /// The memory limit in words, if the kernel killed something for it.
    pub(crate) out_of_memory: Option<String>,
    /// The action before the script that failed, and with which code.
    pub(crate) failed_action: Option<(String, i32)>,
    /// The time limit in words.
    pub(crate) max_duration: Option<String>,
    /// Whether an interrupted attempt is started again.
    pub(crate) auto_resume: bool,
}

/// How the attempt ended.
pub(crate) fn of(exit: &Exit, circumstances: &Circumstances) -> End {
    let success = exit.how.is_success();
    match circumstances.cause {
        Some(Cause::Stopped) => return End::Stopped,
        Some(Cause::Interrupted) if success && circumstances.auto_resume => {
            return End::Interrupted;
        }
        Some(Cause::Interrupted) if !success => {
            let message = format!(
                "interrupted because the machine goes away, and {}",
                in_words(exit.how)
            );
            return failed(ReasonCode::Interrupted, message, exit.how.shell_code());
        }
        Some(Cause::Silence) => {
            return End::Lost {
                message: "the server could not be reached for too long, so the runner ended it"
                    .to_owned(),
            };
        }
        Some(Cause::OverTime) => {
            let limit = circumstances.max_duration.as_deref().unwrap_or("its limit");
            return failed(
                ReasonCode::MaxDuration,
                format!("ran longer than {limit}"),
                exit.how.shell_code(),
            );
        }
        Some(Cause::Interrupted) | None => {}
    }
    if success {
        return End::Succeeded;
    }
    if let Some(limit) = &circumstances.out_of_memory {
        return failed(
            ReasonCode::OutOfMemory,
            format!("out of memory: limit {limit}"),
            exit.how.shell_code(),
        );
    }
    if let Some((action, code)) = &circumstances.failed_action {
        let message = format!(
            "on_experiment_start failed with exit code {code}: {}",
            first_line(action)
        );
        return failed(ReasonCode::Action, message, Some(*code));
    }
    match exit.how {
        Ending::Code { code } => failed(
            ReasonCode::ExitCode,
            format!("exit code {code}"),
            Some(code),
        ),
        Ending::Signal { signal } | Ending::CodeOrSignal { signal, .. } => failed(
            ReasonCode::Signal,
            format!("killed by {}", signal_name(signal)),
            exit.how.shell_code(),
        ),
        Ending::SandboxFailed { code } => failed(
            ReasonCode::Start,
            "the sandbox could not be set up; the log says why",
            Some(code),
        ),
        Ending::Lost => End::Lost {
            message: "the keeper of this machine's processes died, and the process with it"
                .to_owned(),
        },
    }
}

/// The end of a process as part of a sentence.
pub(crate) fn in_words(how: Ending) -> String {
    match (how.signal(), how) {
        (Some(signal), _) => format!("was killed by {}", signal_name(signal)),
        (None, Ending::Lost) => "was lost".to_owned(),
        (None, _) => format!("ended with exit code {}", how.shell_code().unwrap_or(-1)),
    }
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The name of a signal as people know it.
pub(crate) fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 22] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGSTOP, "SIGSTOP"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or_else(
            || format!("signal {signal}"),
            |(_, name)| (*name).to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::protocol::Usage;

    fn exit(how: Ending) -> Exit {
        Exit {
            how,
            started_at_ms: 0,
            ended_at_ms: 1,
            usage: Usage::default(),
        }
    }

    fn message(end: End) -> String {
        match end {
            End::Failed { reason } => format!("{:?}: {}", reason.code, reason.message),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_end_is_said_as_it_was() {
        let plain = Circumstances::default();
        let with = |change: fn(&mut Circumstances)| {
            let mut circumstances = plain.clone();
            change(&mut circumstances);
            circumstances
        };
        let rows = [
            (Ending::Code { code: 0 }, plain.clone(), "Succeeded"),
            (
                Ending::Code { code: 3 },
                plain.clone(),
                "ExitCode: exit code 3",
            ),
            (
                Ending::Signal { signal: 11 },
                plain.clone(),
                "Signal: killed by SIGSEGV",
            ),
            (
                Ending::CodeOrSignal {
                    code: 139,
                    signal: 11,
                },
                plain.clone(),
                "Signal: killed by SIGSEGV",
            ),
            (
                Ending::Code { code: 0 },
                with(|c| c.cause = Some(Cause::Stopped)),
                "Stopped",
            ),
            (
                Ending::Signal { signal: 9 },
                with(|c| c.out_of_memory = Some("512 MiB".to_owned())),
                "OutOfMemory: out of memory: limit 512 MiB",
            ),
            (
                Ending::Code { code: 0 },
                with(|c| c.out_of_memory = Some("1 GiB".to_owned())),
                "Succeeded",
            ),
            (
                Ending::Code { code: 0 },
                with(|c| {
                    c.cause = Some(Cause::Interrupted);
                    c.auto_resume = true;
                }),
                "Interrupted",
            ),
            (
                Ending::Code { code: 0 },
                with(|c| c.cause = Some(Cause::Interrupted)),
                "Succeeded",
            ),
            (
                Ending::Signal { signal: 15 },
                with(|c| c.cause = Some(Cause::Interrupted)),
                "Interrupted: interrupted because the machine goes away, and was killed by SIGTERM",
            ),
            (
                Ending::Code { code: 0 },
                with(|c| {
                    c.cause = Some(Cause::OverTime);
                    c.max_duration = Some("2 s".to_owned());
                }),
                "MaxDuration: ran longer than 2 s",
            ),
            (
                Ending::Code { code: 7 },
                with(|c| c.failed_action = Some(("make x\ny".to_owned(), 7))),
                "Action: on_experiment_start failed with exit code 7: make x",
            ),
        ];
        for (how, circumstances, expected) in rows {
            assert_eq!(message(of(&exit(how), &circumstances)), expected, "{how:?}");
        }
    }
}

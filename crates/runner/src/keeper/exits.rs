//! What an exit status means, with and without a sandbox.

use std::fs;
use std::path::Path;

use super::protocol::Ending;
use super::spawn::SANDBOX_FILE;
use super::sys::Status;

/// Highest signal number there is.
const SIGNAL_MAX: i32 = 64;

/// How a process ended.  `sandbox` is the spool folder of a sandboxed task.
pub(crate) fn ending(status: Status, sandbox: Option<&Path>) -> Ending {
    match (status, sandbox) {
        (Status::Signal(signal), _) => Ending::Signal { signal },
        (Status::Code(code), None) | (Status::Code(code @ 0), Some(_)) => Ending::Code { code },
        (Status::Code(code), Some(folder)) => {
            let report = fs::read_to_string(folder.join(SANDBOX_FILE)).unwrap_or_default();
            sandboxed_ending(code, &report)
        }
    }
}

/// Bubblewrap reports an exit code only if the program was executed.
fn sandboxed_ending(code: i32, report: &str) -> Ending {
    let signal = code - 128;
    if (1..=SIGNAL_MAX).contains(&signal) {
        // Also without a report: it was killed just before it was executed.
        Ending::CodeOrSignal { code, signal }
    } else if !report.contains("\"exit-code\"") {
        Ending::SandboxFailed { code }
    } else {
        Ending::Code { code }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, sandboxed_ending};

    #[test]
    fn codes_of_the_sandbox() {
        let report = "{ \"child-pid\": 7 }\n{ \"exit-code\": 0 }\n";
        assert_eq!(sandboxed_ending(3, report), Ending::Code { code: 3 });
        assert_eq!(
            sandboxed_ending(137, report),
            Ending::CodeOrSignal {
                code: 137,
                signal: 9
            }
        );
        assert_eq!(sandboxed_ending(128, report), Ending::Code { code: 128 });
        assert_eq!(sandboxed_ending(255, report), Ending::Code { code: 255 });
        assert_eq!(
            sandboxed_ending(1, "{ \"child-pid\": 7 }\n"),
            Ending::SandboxFailed { code: 1 }
        );
    }
}

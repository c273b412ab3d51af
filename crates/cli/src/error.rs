//! What went wrong, as a person at a terminal reads it and as a script does.
//!
//! An error is one line that says what happened, the causes below it, and a hint
//! that says what to do next.  The exit code is 2 when the command line was wrong
//! and 1 when the thing was refused or failed.

use std::error::Error as StdError;
use std::fmt;

use grid_api::client;
use serde::Serialize;

/// The command did what it was asked to.
pub(crate) const EXIT_OK: u8 = 0;
/// Refused, or failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line or a file that it names is wrong; nothing was done.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Ctrl-C, as a shell counts it: 128 and the number of the signal.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// The code of what the rules forbid.
const REFUSED: &str = "forbidden";

/// What to do about a server whose certificate is not trusted.
const CERTIFICATE_HINT: &str = "set GRID_CA_FILE to the PEM file of the authority that signed the server's certificate, and check the host name in the address";

/// What to do about a certificate that `openssl req -x509` makes unless it is told otherwise.
const AUTHORITY_HINT: &str = "the server's certificate says that it is an authority's, and then it can be no server's; make it with `openssl req -x509 -addext basicConstraints=critical,CA:FALSE …`";

/// A failure that this program itself finds.
#[derive(Debug)]
pub(crate) struct Problem {
    message: String,
    hint: Option<String>,
    is_usage: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// Something was refused or did not work.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            is_usage: false,
            source: None,
        }
    }

    /// What was typed, or a file that was named, is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            is_usage: true,
            ..Self::new(message)
        }
    }

    /// What to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Why.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Whoever reads our output has seen enough: not a failure (`grid history | head`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PipeClosed;

impl fmt::Display for PipeClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl StdError for PipeClosed {}

/// An error taken apart for printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// For programs: that of the server, or `usage`, `unreachable`, `failed`.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// Why, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// What the process ends with.
    #[serde(skip)]
    pub(crate) exit: u8,
}

impl Report {
    /// Whether the rules of the team forbid it: nothing is broken, and the message says
    /// who could do it.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code == REFUSED
    }

    /// Takes an error apart.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut report = Self {
            code: "failed".to_owned(),
            message: error.to_string(),
            causes: Vec::new(),
            hint: None,
            exit: EXIT_FAILED,
        };
        for (depth, cause) in error.chain().enumerate() {
            if cause.is::<PipeClosed>() {
                report.exit = EXIT_OK;
            }
            if let Some(problem) = cause.downcast_ref::<Problem>() {
                report.hint = report.hint.or_else(|| problem.hint.clone());
                if problem.is_usage {
                    report.exit = EXIT_USAGE;
                    report.code = "usage".to_owned();
                }
            }
            let said = cause.to_string();
            // Many libraries end a message with that of its cause.
            let is_new = !report
                .causes
                .last()
                .unwrap_or(&report.message)
                .ends_with(&said);
            if depth > 0 && is_new {
                report.causes.push(said);
            }
            if let Some(refused) = cause.downcast_ref::<client::Error>() {
                report.add_client_error(refused);
                break;
            }
        }
        report
    }

    /// The layers of the HTTP client say the same thing four times: only the last
    /// one, which says why, is shown.
    fn add_client_error(&mut self, error: &client::Error) {
        self.hint = self.hint.take().or_else(|| error.hint());
        self.code = match error {
            client::Error::Refused { detail, .. } => serde_json::to_value(detail.code)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned)),
            client::Error::Unreachable { .. } => Some("unreachable".to_owned()),
            client::Error::Address { .. } => Some("usage".to_owned()),
            client::Error::Strange { .. } | client::Error::Broken { .. } => None,
        }
        .unwrap_or_else(|| "failed".to_owned());
        if let client::Error::Address { .. } = error {
            self.exit = EXIT_USAGE;
        }
        if let client::Error::Strange { .. } = error {
            self.hint = self
                .hint
                .take()
                .or_else(|| Some("check the address: `grid login --url`, or GRID_URL".to_owned()));
        }
        if self.is_refusal() {
            // The server's sentence says all; what this program was doing adds nothing.
            self.message = error.to_string();
            self.causes.clear();
        }
        let mut innermost = StdError::source(error);
        while let Some(deeper) = innermost.and_then(StdError::source) {
            innermost = Some(deeper);
        }
        let innermost = innermost.map(ToString::to_string);
        // Where somebody answers, starting a server is not what helps.
        if let Some(hint) = innermost.as_deref().and_then(line_hint) {
            self.hint = Some(hint.to_owned());
        }
        self.causes.extend(innermost);
    }
}

/// What helps where something answers, but not as it should.
fn line_hint(why: &str) -> Option<&'static str> {
    if why.contains("CaUsedAsEndEntity") {
        Some(AUTHORITY_HINT)
    } else if why.contains("certificate") {
        Some(CERTIFICATE_HINT)
    } else if why.contains("invalid HTTP version") {
        Some("what answers there does not speak plain HTTP: write https:// in the address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use grid_api::error::{ErrorCode, ErrorDetail};

    use super::*;

    #[test]
    fn an_error_is_taken_apart() {
        let io = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(Problem::usage("cannot read x").hint("mend x").because(io));
        let report = Report::of(&error);
        assert_eq!((report.exit, report.code.as_str()), (EXIT_USAGE, "usage"));
        assert_eq!(report.causes, ["disk on fire"]);
        assert_eq!(report.hint.as_deref(), Some("mend x"));
    }

    #[test]
    fn what_an_address_contains_gives_no_hint() {
        let said = "the address http://169.254.169.254/certificate is never asked";
        let hint = |error| Report::of(&error).hint;
        assert_eq!(
            hint(anyhow::Error::msg(said).context("cannot fetch it")),
            None
        );
        let detail = ErrorDetail {
            code: ErrorCode::Invalid,
            message: said.to_owned(),
            hint: None,
        };
        let refused = client::Error::Refused {
            status: 400,
            detail,
        };
        assert_eq!(hint(refused.into()), None);
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let io = std::io::Error::other("refused");
        let why = Problem::new("cannot connect: refused").because(io);
        let error = anyhow::Error::new(why).context("cannot use the database");
        assert_eq!(Report::of(&error).causes, ["cannot connect: refused"]);
    }

    #[test]
    fn a_refusal_of_the_server_keeps_its_code_and_hint() {
        let detail = ErrorDetail {
            code: ErrorCode::NotFound,
            message: "no run 'x' of yours".to_owned(),
            hint: Some("did you mean ada:x?".to_owned()),
        };
        let refused: Result<(), _> = Err(client::Error::Refused {
            status: 404,
            detail,
        });
        let report = Report::of(&refused.context("reading the run").expect_err("it is one"));
        assert_eq!(
            (report.exit, report.code.as_str()),
            (EXIT_FAILED, "not_found")
        );
        assert_eq!(report.causes, ["no run 'x' of yours"]);
        assert_eq!(report.hint.as_deref(), Some("did you mean ada:x?"));
    }

    #[test]
    fn what_the_rules_forbid_is_said_in_the_words_of_the_server() {
        let said = "run 'bert-1' belongs to ada; only ada or a team admin can stop it.";
        let detail = ErrorDetail {
            code: ErrorCode::Forbidden,
            message: said.to_owned(),
            hint: None,
        };
        let refused: Result<(), _> = Err(client::Error::Refused {
            status: 403,
            detail,
        });
        let report = Report::of(&refused.context("stopping the run").expect_err("it is one"));
        assert!(report.is_refusal());
        assert_eq!((report.exit, report.message.as_str()), (EXIT_FAILED, said));
        assert!(report.causes.is_empty());
    }

    #[test]
    fn what_answers_strangely_is_explained() {
        for (why, hint) in [
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "CA:FALSE",
            ),
            ("invalid peer certificate: UnknownIssuer", "GRID_CA_FILE"),
            ("invalid HTTP version parsed", "https://"),
        ] {
            let said = line_hint(why);
            assert!(said.is_some_and(|said| said.contains(hint)), "{why}");
        }
        assert_eq!(line_hint("Connection refused (os error 111)"), None);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        assert_eq!(Report::of(&anyhow::Error::new(PipeClosed)).exit, EXIT_OK);
    }
}

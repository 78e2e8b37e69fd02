//! How a command ends when it does not end well: what is said on stderr, and the exit code. What went wrong is decided by the
//! engine; here it is only told.

use std::fmt::Write as _;
use std::process::ExitCode;

use postroom::core::violation::{Invalid, Violation, Violations};
use postroom::engine::ErrorKind;
use serde_json::{Map, Value, json};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A rule refused it: exit code 1.
    Refused(Box<Account>),
    /// It was asked in a way that makes no sense: exit code 2.
    Usage(String),
    /// Storage or a mail server could not be reached: exit code 3.
    Unreachable(Box<Account>),
    /// Nobody reads our output any more: there is nobody to tell, and nothing went wrong.
    Closed,
}

/// What there is to say of a failure.
#[derive(Debug, Default)]
pub(crate) struct Account {
    code: String,
    message: String,
    violations: Vec<Violation>,
    causes: Vec<String>,
    details: Map<String, Value>,
}

impl Account {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), ..Self::default() }
    }

    pub(crate) fn with_detail(mut self, name: &str, value: Value) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }

    fn json(&self) -> Value {
        let mut out = self.details.clone();
        out.insert("error".into(), self.code.clone().into());
        out.insert("message".into(), self.message.clone().into());
        out.insert("violations".into(), json!(self.violations));
        out.into()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        if self.violations.is_empty() {
            out = format!("error [{}]: {}", self.code, self.message);
        } else {
            out.push_str("refused:");
            for violation in &self.violations {
                // Writing to a String does not fail.
                let _ = write!(out, "\n  {violation} [{}]", violation.code());
            }
        }
        for cause in &self.causes {
            let _ = write!(out, "\n  because: {cause}");
        }
        if let Some(remedy) = remedy(&self.code) {
            let _ = write!(out, "\n  what to do: {remedy}");
        }
        out
    }
}

/// What an operator can do where the engine's words don't say it.
fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "not-found" => "look up the id in a listing",
        "sealing" => {
            "give the key by --key-file FILE or the variable POSTROOM_KEY; `postroom key generate` prints a new one"
        }
        "conflict" => "show it again, and repeat the change if it is still wanted",
        "stale-decision" => "repeat the command: the links changed while it ran",
        "idempotency-conflict" => "use a new key for another mail, or send the same content again",
        "suppressed" => {
            "`postroom suppression list --contract C` shows why; `suppression allow|remove C ADDRESS` lets it through for good, `send --on-suppressed send` this once"
        }
        "storage" => {
            "check --database or POSTROOM_DATABASE: the file with its permissions and free space, or whether the server runs, its address and user; `postroom migrate` makes a new file"
        }
        "unfit-connection" => {
            "change what the message names in the server's settings, or give another database by --database or POSTROOM_DATABASE"
        }
        "schema" => "run `postroom migrate` of the newest release that is installed",
        _ => return None,
    })
}

impl Failure {
    pub(crate) fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused(Box::new(Account::new(code, message)))
    }

    pub(crate) fn unreachable(code: &str, message: impl Into<String>) -> Self {
        Self::Unreachable(Box::new(Account::new(code, message)))
    }

    /// A file that can't be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Usage(format!("{}: {error}", path.display()))
    }

    /// Adds to what is said of a failure; usage has nothing to add to.
    pub(crate) fn with_detail(mut self, name: &str, value: Value) -> Self {
        if let Self::Refused(account) | Self::Unreachable(account) = &mut self {
            **account = std::mem::take(account.as_mut()).with_detail(name, value);
        }
        self
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused(account) | Self::Unreachable(account) => &account.code,
            Self::Usage(_) => "usage",
            Self::Closed => "closed",
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Closed => 0,
        })
    }

    /// What is said on stderr, if anything.
    pub(crate) fn words(&self, json: bool) -> Option<String> {
        match self {
            Self::Refused(account) | Self::Unreachable(account) if json => Some(account.json().to_string()),
            Self::Refused(account) | Self::Unreachable(account) => Some(account.text()),
            Self::Usage(message) if json => Some(Account::new("usage", message).json().to_string()),
            Self::Usage(message) => Some(format!("error: {message}\n\nFor more information, try '--help'.")),
            Self::Closed => None,
        }
    }
}

impl From<postroom::engine::Error> for Failure {
    fn from(error: postroom::engine::Error) -> Self {
        let mut account = Account::new(error.code(), error.to_string());
        if let ErrorKind::Invalid(violations) = error.kind() {
            account.violations = violations.all().to_vec();
        }
        if error.is_refusal() {
            return Self::Refused(Box::new(account));
        }
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            // Each floor words the same failure in its own way; the same words twice help nobody.
            // The database driver's words end with those of their own cause.
            let is_said = account.causes.last().is_some_and(|last| last.ends_with(&text));
            if !account.message.contains(&text) && !is_said {
                account.causes.push(text);
            }
            source = cause.source();
        }
        Self::Unreachable(Box::new(account))
    }
}

impl From<postroom::storage::Error> for Failure {
    fn from(error: postroom::storage::Error) -> Self {
        postroom::engine::Error::from(error).into()
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        postroom::engine::Error::from(violations).into()
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        postroom::engine::Error::from(invalid).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroom::core::address::Address;
    use postroom::storage;

    #[test]
    fn a_refusal_names_each_violation_with_field_and_rule() {
        let failure = Failure::from(Address::parse("nobody").expect_err("no address"));
        let json: Value = serde_json::from_str(&failure.words(true).expect("words")).expect("json");
        assert_eq!(json["error"], "invalid");
        assert_eq!(json["violations"][0]["rule"], "address.form");
        assert_eq!(json["violations"][0]["field"], "address");
        assert!(failure.words(false).expect("words").contains("[address.form]"));
        assert_eq!(failure.exit(), ExitCode::from(1));
    }

    #[test]
    fn a_server_that_is_not_fit_is_no_refusal_and_no_file_is_offered() {
        let why = "the server does not sync its log";
        let error = storage::Error::new(storage::ErrorKind::UnfitConnection { why }, "open");
        let failure = Failure::from(error);
        assert_eq!((failure.exit(), failure.code()), (ExitCode::from(3), "unfit-connection"));
        let words = failure.words(false).expect("words");
        assert!(words.contains(why) && words.contains("settings") && !words.contains("new file"), "{words}");
    }

    #[test]
    fn a_store_that_is_away_is_no_refusal_and_its_cause_is_told() {
        let cause = std::io::Error::other("no such folder");
        let error = storage::Error::new(storage::ErrorKind::Unavailable, "open").with_source(cause);
        let failure = Failure::from(error);
        assert_eq!(failure.exit(), ExitCode::from(3));
        let words = failure.words(false).expect("words");
        assert!(words.contains("because: no such folder") && words.contains("--database"), "{words}");
    }
}

//! What is said of a value that breaks a rule: which rule, in which field, with which parameters. The rules
//! themselves stand in [`crate::rules`].

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::rules::Rule;

/// A value that breaks one rule, before it is known in which field of a form it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    rule: &'static Rule,
    parameters: Vec<(&'static str, String)>,
}

impl Invalid {
    /// A breach of `rule` without parameters.
    #[must_use]
    pub fn new(rule: &'static Rule) -> Self {
        Self { rule, parameters: Vec::new() }
    }

    /// Adds a parameter for the message in the user's language. Never pass a secret.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    /// Says in which field the value stood.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Violation {
        Violation { field: field.into(), invalid: self }
    }

    /// The rule that is broken.
    #[must_use]
    pub fn rule(&self) -> &'static Rule {
        self.rule
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.rule.limit, self.rule.remedy)?;
        for (name, value) in &self.parameters {
            write!(f, " ({name}: {value})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// A breach of one rule in one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    field: String,
    invalid: Invalid,
}

impl Violation {
    /// The field as the form names it, with an index where it is a list: `senders[2]`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The code of the broken rule, stable over releases.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.invalid.rule.code
    }

    /// The broken rule.
    #[must_use]
    pub fn rule(&self) -> &'static Rule {
        self.invalid.rule
    }

    /// The parameters for a message in the user's language.
    #[must_use]
    pub fn parameters(&self) -> &[(&'static str, String)] {
        &self.invalid.parameters
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.invalid)
    }
}

/// Written as `{"field", "rule", "message", "parameters"}`.
impl Serialize for Violation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Violation", 4)?;
        out.serialize_field("field", &self.field)?;
        out.serialize_field("rule", self.code())?;
        out.serialize_field("message", &self.invalid.to_string())?;
        let parameters: std::collections::BTreeMap<_, _> = self.invalid.parameters.iter().cloned().collect();
        out.serialize_field("parameters", &parameters)?;
        out.end()
    }
}

/// Every violation of one input, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// All of them, in the order of the form.
    #[must_use]
    pub fn all(&self) -> &[Violation] {
        &self.0
    }

    /// Whether a rule with this code is among them.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.0.iter().any(|violation| violation.code() == code)
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self(vec![violation])
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// Gathers violations while a form is read, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Findings(Vec<Violation>);

impl Findings {
    /// Records a violation.
    pub fn add(&mut self, violation: Violation) {
        self.0.push(violation);
    }

    /// Records all of another form's violations, their fields below `prefix` (`mailboxes[3].`).
    pub fn add_all(&mut self, prefix: &str, violations: Violations) {
        for violation in violations.0 {
            self.0.push(Violation { field: format!("{prefix}{}", violation.field), ..violation });
        }
    }

    /// Takes the value, or records why it is none.
    pub fn take<T>(&mut self, field: &str, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| self.add(invalid.at(field))).ok()
    }

    /// Records a breach of `rule` in `field` when `broken`.
    pub fn refuse_if(&mut self, broken: bool, field: &str, rule: &'static Rule) {
        if broken {
            self.add(Invalid::new(rule).at(field));
        }
    }

    /// The value when nothing was found and it could be made.
    ///
    /// # Errors
    /// Everything that was found.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Violations> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Violations(self.0)),
        }
    }
}

/// A piece of the user's text, short and without control characters, fit for a message.
#[must_use]
pub fn shown(text: &str) -> String {
    const LIMIT: usize = 60;
    let mut out: String =
        text.chars().take(LIMIT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LIMIT).is_some() {
        out.push('\u{2026}');
    }
    out
}

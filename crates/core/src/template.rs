//! A mail with gaps: `${KEY}` in subject, text and HTML, filled from values. `$${` writes a literal `${`. Nothing else is
//! interpreted: no conditions, no loops, no code.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::rules;
use crate::violation::{Findings, Invalid, Violations};

const SIZE_LIMIT: usize = 1 << 20;
const SUBJECT_LIMIT: usize = 1000;

/// Subject, text and HTML with gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Template {
    subject: String,
    text: String,
    html: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Form {
    subject: String,
    text: String,
    #[serde(default)]
    html: Option<String>,
}

impl TryFrom<Form> for Template {
    type Error = Invalid;

    fn try_from(form: Form) -> Result<Self, Invalid> {
        Self::new(&form.subject, &form.text, form.html.as_deref())
    }
}

impl From<Template> for Form {
    fn from(template: Template) -> Self {
        Self { subject: template.subject, text: template.text, html: template.html }
    }
}

/// What a template gives once its gaps are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filled {
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The HTML.
    pub html: Option<String>,
}

/// The values for the gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Values {
    text: BTreeMap<String, String>,
    html: BTreeMap<String, String>,
}

impl Values {
    /// Sets a value. It stands as it is in subject and text, and escaped in HTML.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.text.insert(key.into(), value.into());
        self
    }

    /// Sets the HTML form of a value. It stands as it is in the HTML part only; the host answers for it.
    #[must_use]
    pub fn with_html(mut self, key: impl Into<String>, html: impl Into<String>) -> Self {
        self.html.insert(key.into(), html.into());
        self
    }

    /// Kind, key and value of each, in a fixed order.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let all = [("text", &self.text), ("html", &self.html)];
        all.into_iter().flat_map(|(kind, all)| all.iter().flat_map(move |(key, value)| [kind, key, value]))
    }
}

impl Template {
    /// A template of its parts.
    ///
    /// # Errors
    /// [`rules::TEMPLATE`] when the subject has more than one line, a gap is malformed, or it is larger than 1 MiB.
    pub fn new(subject: &str, text: &str, html: Option<&str>) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::TEMPLATE);
        let subject = subject.trim();
        let size = subject.len() + text.len() + html.map_or(0, str::len);
        if size > SIZE_LIMIT || subject.len() > SUBJECT_LIMIT || subject.chars().any(char::is_control) {
            return Err(invalid().with("bytes", size.to_string()));
        }
        for part in [subject, text, html.unwrap_or_default()] {
            pieces(part).map_err(|near| invalid().with("near", near))?;
        }
        Ok(Self { subject: subject.to_owned(), text: text.to_owned(), html: html.map(ToOwned::to_owned) })
    }

    /// Reads the text form: a first line `Subject: ..`, an empty line, the text.
    ///
    /// # Errors
    /// [`rules::TEMPLATE`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::TEMPLATE).with("near", "the first line");
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let subject = first.trim_end().strip_prefix("Subject:").ok_or_else(invalid)?;
        let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
        Self::new(subject, rest, None)
    }

    /// The keys of its gaps.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<&str> {
        [self.subject.as_str(), &self.text, self.html.as_deref().unwrap_or_default()]
            .into_iter()
            .flat_map(|part| pieces(part).unwrap_or_default())
            .filter_map(|piece| match piece {
                Piece::Gap(key) => Some(key),
                Piece::Text(_) => None,
            })
            .collect()
    }

    /// Fills the gaps. A line break in a value becomes a space in the subject.
    ///
    /// # Errors
    /// [`rules::VALUES`] for each key that has no value.
    pub fn fill(&self, values: &Values) -> Result<Filled, Violations> {
        let mut findings = Findings::default();
        for key in self.keys() {
            if !values.text.contains_key(key) && !values.html.contains_key(key) {
                findings.add(Invalid::new(&rules::VALUES).with("key", key).at(format!("values.{key}")));
            }
        }
        let plain = |key: &str| Cow::Borrowed(values.text.get(key).map_or("", String::as_str));
        let one_line = |key: &str| {
            let value = plain(key);
            Cow::Owned(
                value
                    .split(|c: char| c.is_control())
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        let html = |key: &str| match values.html.get(key) {
            Some(html) => Cow::Borrowed(html.as_str()),
            None => Cow::Owned(escaped(&plain(key))),
        };
        let filled = Filled {
            subject: fill(&self.subject, one_line),
            text: fill(&self.text, plain),
            html: self.html.as_deref().map(|part| fill(part, html)),
        };
        findings.finish(Some(filled))
    }
}

/// Its text form; the HTML part is not in it.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subject: {}\n\n{}", self.subject, self.text)
    }
}

enum Piece<'a> {
    Text(&'a str),
    Gap(&'a str),
}

/// Cuts a part at its gaps; the error is the text near a malformed one.
fn pieces(mut part: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    while let Some(start) = part.find("${") {
        if part[..start].ends_with('$') {
            // `$${`: the first dollar goes, `${` stays as text.
            out.push(Piece::Text(&part[..start - 1]));
            out.push(Piece::Text("${"));
            part = &part[start + 2..];
            continue;
        }
        out.push(Piece::Text(&part[..start]));
        let rest = &part[start + 2..];
        let near = || crate::violation::shown(&part[start..]);
        let end = rest.find('}').ok_or_else(near)?;
        let key = &rest[..end];
        let valid = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        if key.is_empty() || key.len() > 100 || !key.chars().all(valid) {
            return Err(near());
        }
        out.push(Piece::Gap(key));
        part = &rest[end + 1..];
    }
    out.push(Piece::Text(part));
    Ok(out)
}

fn fill<'a>(part: &str, value: impl Fn(&str) -> Cow<'a, str>) -> String {
    let mut out = String::with_capacity(part.len());
    for piece in pieces(part).unwrap_or_default() {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Gap(key) => out.push_str(&value(key)),
        }
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_once_and_values_are_not_read_again() {
        let template = Template::new("Re ${N}", "Hi ${NAME}, $${N} is ${N}", Some("<b>${NAME}</b>${SIG}"))
            .expect("template");
        let values =
            Values::default().with("N", "7\r\nBcc: x@y").with("NAME", "<${N}>").with_html("SIG", "<i>s</i>");
        let filled = template.fill(&values).expect("every value is there");
        // Would miss a header injected by a value if the subject kept line breaks.
        assert_eq!(filled.subject, "Re 7 Bcc: x@y");
        assert_eq!(filled.text, "Hi <${N}>, ${N} is 7\r\nBcc: x@y");
        assert_eq!(filled.html.as_deref(), Some("<b>&lt;${N}&gt;</b><i>s</i>"));
    }

    #[test]
    fn every_missing_value_is_named_at_once() {
        let template = Template::parse("Subject: ${A}\n\n${B} ${A}").expect("template");
        let violations = template.fill(&Values::default()).expect_err("two are missing");
        let fields: Vec<_> = violations.all().iter().map(|v| v.field().to_owned()).collect();
        assert_eq!(fields, ["values.A", "values.B"]);
    }

    #[test]
    fn malformed_gaps_are_refused_where_they_are_written() {
        for bad in ["${", "${}", "${a b}", "a ${x", "${a\n}"] {
            assert!(Template::new("s", bad, None).is_err(), "{bad:?}");
        }
        assert!(Template::new("two\nlines", "", None).is_err());
        assert!(Template::parse("no subject").is_err());
    }
}

//! What a command prints on stdout: one JSON document, one JSON document per line, or a table; and notes on stderr. What is
//! printed is decided by the commands.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Where and how results are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One result: as a JSON document, or as `text`.
    pub(crate) fn document(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { line(&serialised(value)?) } else { line(&text()) }
    }

    /// Several results: one JSON document per line, or a table. An empty table has its header.
    pub(crate) fn listing<T: Serialize>(
        self,
        header: &[&str],
        items: &[T],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        if !self.json {
            return line(&table(header, items.iter().map(cells)));
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        for item in items {
            let item = serialised(item)?;
            writeln!(out, "{item}").map_err(unwritten)?;
        }
        out.flush().map_err(unwritten)
    }

    /// Something that only people are told on stdout.
    pub(crate) fn remark(self, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { Ok(()) } else { line(&text()) }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(unwritten)
    }

    /// A bar for long work: on a terminal only.
    pub(crate) fn progress(self, length: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length), drawn());
        bar.with_style(style("{bar:30} {pos}/{len} {elapsed}"))
    }

    /// A line that is rewritten while work without a known end goes on: on a terminal only.
    pub(crate) fn spinner(self) -> ProgressBar {
        ProgressBar::with_draw_target(None, drawn()).with_style(style("{spinner} {msg}"))
    }
}

fn drawn() -> ProgressDrawTarget {
    if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn serialised(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Failure::unreachable("output", error.to_string()))
}

fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(unwritten)
}

fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::unreachable("output", format!("standard output: {error}")),
    }
}

/// Something for the person at the terminal, beside the result.
pub(crate) fn note(text: &str) {
    // When stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Plain columns under a header.
pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table.add_rows(rows.map(|row| row.iter().map(|cell| shown(cell)).collect::<Vec<_>>()));
    let text = table.to_string();
    // Each column is padded on both sides.
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

const FIRST: &[&str] = &["id", "state", "status", "kind", "server", "port", "description"];

/// The fields of an object, one per line; empty ones are left out.
pub(crate) fn fields(value: &Value) -> String {
    let Value::Object(fields) = value else { return shown(&value.to_string()) };
    let filled = fields.iter().filter_map(|(name, value)| Some((name.replace('_', " "), plain(value)?)));
    let mut filled: Vec<(String, String)> = filled.collect();
    // What a person looks for first comes first.
    filled.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    let width = filled.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    filled.iter().map(|(name, text)| format!("{name:width$}  {text}")).collect::<Vec<_>>().join("\n")
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(shown(text)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.iter().filter_map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let pairs = fields.iter().filter_map(|(name, value)| Some(format!("{name} {}", plain(value)?)));
            let text = pairs.collect::<Vec<_>>().join(", ");
            Some(text).filter(|text| !text.is_empty())
        }
        other => Some(other.to_string()),
    }
}

/// A text without what a terminal would act on: strangers write subjects.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_control_character_of_a_stranger_reaches_the_terminal() {
        let rows = [vec!["a\u{1b}[2Jb".to_owned()]].into_iter();
        assert!(!table(&["Subject"], rows).contains('\u{1b}'));
        assert!(!fields(&json!({ "subject": "a\u{1b}[2Jb\r\n" })).contains(['\u{1b}', '\r']));
    }

    #[test]
    fn an_object_is_told_line_by_line_without_what_is_empty() {
        let told = fields(&json!({ "id": 7, "changed_by": "ana", "none": null, "all": ["a", 1] }));
        let mut lines: Vec<_> = told.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["all         a, 1", "changed by  ana", "id          7"]);
    }
}

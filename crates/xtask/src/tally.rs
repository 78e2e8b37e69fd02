//! Counting: from the lines that tests print to how many passed and failed. It starts nothing, and it believes no exit code that
//! says more than the lines do: what ended without a result counts as failed.

use std::process::ExitStatus;

use crate::process;

/// Results so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// What went wrong, one line each, for the end of the run.
    pub(crate) notes: Vec<String>,
}

impl Tally {
    /// One thing that failed as a whole.
    pub(crate) fn fail(&mut self, note: impl Into<String>) {
        self.failed += 1;
        self.notes.push(note.into());
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.notes.extend(other.notes);
    }
}

/// Reads what `cargo test` prints.
#[derive(Debug, Default)]
pub(crate) struct CargoLines {
    tally: Tally,
    begun: u64,
    closed: u64,
}

impl CargoLines {
    pub(crate) fn line(&mut self, line: &str) {
        if is_start(line) {
            self.begun += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            let failure = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
            self.tally.notes.extend(failure.map(|name| format!("failed: {name}")));
            return;
        };
        // "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        let count = |word: &str| -> Option<u64> {
            let words: Vec<&str> = result.split([' ', ';']).filter(|part| !part.is_empty()).collect();
            words.windows(2).find(|two| two[1] == word)?[0].parse().ok()
        };
        match (count("passed"), count("failed"), count("ignored")) {
            (Some(passed), Some(failed), Some(ignored)) => {
                self.closed += 1;
                self.tally.passed += passed;
                self.tally.failed += failed;
                self.tally.ignored += ignored;
            }
            _ => self.tally.fail(format!("a result line that says nothing: {line}")),
        }
    }

    pub(crate) fn finish(mut self, status: ExitStatus) -> Tally {
        for _ in self.closed..self.begun {
            self.tally.fail("a test binary ended without its result");
        }
        if !status.success() && self.tally.failed == 0 {
            self.tally.fail(format!("cargo test: {}, and no test says why", process::told(status)));
        }
        if self.closed == 0 && self.tally.failed == 0 {
            self.tally.fail("cargo test ran nothing");
        }
        self.tally
    }
}

/// `running 12 tests`, the first line of each test binary.
fn is_start(line: &str) -> bool {
    let rest = line.strip_prefix("running ").unwrap_or_default();
    let number = rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test"));
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Reads what a script prints: `ok - what holds` and `not ok - what does not`, and maybe the plan `1..N`.
#[derive(Debug, Default)]
pub(crate) struct ScriptLines {
    tally: Tally,
    planned: Option<u64>,
}

impl ScriptLines {
    pub(crate) fn line(&mut self, line: &str) {
        let says =
            |word: &str| line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if says("not ok") {
            self.tally.fail(line);
        } else if says("ok") && line.to_ascii_lowercase().contains("# skip") {
            self.tally.ignored += 1;
        } else if says("ok") {
            self.tally.passed += 1;
        } else if let Some(plan) = line.strip_prefix("1..") {
            self.planned = plan.trim().parse().ok();
        }
    }

    pub(crate) fn finish(mut self, name: &str, status: ExitStatus) -> Tally {
        let told = self.tally.passed + self.tally.failed + self.tally.ignored;
        if let Some(planned) = self.planned.filter(|planned| *planned != told) {
            self.tally.fail(format!("{name}: {told} results, {planned} were announced"));
        } else if told == 0 {
            self.tally.fail(format!("{name}: no result at all"));
        }
        if !status.success() && self.tally.failed == 0 {
            self.tally.fail(format!("{name}: {}, and no result says why", process::told(status)));
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use proptest::prelude::*;

    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[track_caller]
    fn cargo_says(lines: &str, code: i32, expected: (u64, u64)) {
        let mut reader = CargoLines::default();
        lines.lines().for_each(|line| reader.line(line));
        let tally = reader.finish(exit(code));
        assert_eq!((tally.passed, tally.failed), expected, "{tally:?}");
        assert!(tally.failed == 0 || !tally.notes.is_empty(), "a failure without a note");
    }

    const GOOD: &str = "running 2 tests\ntest a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    const BAD: &str = "running 1 test\ntest a::b ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn the_results_of_all_binaries_are_summed() {
        cargo_says(&format!("{GOOD}{GOOD}"), 0, (4, 0));
        cargo_says(&format!("{GOOD}{BAD}"), 101, (2, 1));
    }

    #[test]
    fn a_crash_a_build_error_and_an_empty_run_are_failures() {
        cargo_says(&format!("{GOOD}running 3 tests\ntest c ... ok\n"), 101, (2, 1));
        // Not hidden by a failure that another binary told.
        cargo_says(&format!("{BAD}running 3 tests\n{GOOD}"), 101, (2, 2));
        cargo_says(GOOD, 101, (2, 1));
        cargo_says("", 101, (0, 1));
        cargo_says("", 0, (0, 1));
        cargo_says("test result: ok.", 0, (0, 1));
    }

    #[track_caller]
    fn a_script_says(lines: &str, code: i32, expected: (u64, u64, u64)) {
        let mut reader = ScriptLines::default();
        lines.lines().for_each(|line| reader.line(line));
        let tally = reader.finish("x.sh", exit(code));
        assert_eq!((tally.passed, tally.failed, tally.ignored), expected, "{tally:?}");
    }

    #[test]
    fn a_script_is_counted_by_its_lines_and_never_trusted_beyond_them() {
        a_script_says("ok - a\nokay\n# ok\nok 2 - b\n", 0, (2, 0, 0));
        a_script_says("ok - a\nnot ok - b", 1, (1, 1, 0));
        a_script_says("ok - a\nok - b # SKIP no reason", 0, (1, 0, 1));
        a_script_says("1..2\nok - a", 0, (1, 1, 0));
        a_script_says("ok - a", 3, (1, 1, 0));
        a_script_says("", 0, (0, 1, 0));
    }

    proptest! {
        #[test]
        fn no_line_upsets_the_counting(lines in prop::collection::vec("(test result: |running |not ok|ok|1..)?.{0,30}", 0..20)) {
            let (mut cargo, mut script) = (CargoLines::default(), ScriptLines::default());
            for line in &lines {
                cargo.line(line);
                script.line(line);
            }
            prop_assert!(cargo.finish(exit(1)).failed > 0);
            prop_assert!(script.finish("x", exit(1)).failed > 0);
        }
    }
}

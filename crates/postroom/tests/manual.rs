//! The manual and the README against the code: the journeys name functions that are there and are called in that order, the defaults
//! are the lines of code that they say, links lead somewhere, and the README's example is the example that runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two folders down")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manual(page: &str) -> String {
    read(&format!("crates/postroom/manual/{page}.md"))
}

/// The texts between backticks.
fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Code without what stands in its comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether `name` stands before an opening bracket, as in a definition (`fn` before it) or in a call (anything else).
fn occurs(text: &str, name: &str, as_definition: bool) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let whole = !before.ends_with(is_word) && after.starts_with(['(', '<']);
        let defined = before.strip_suffix("fn ").is_some_and(|before| !before.ends_with(is_word));
        whole && defined == as_definition
    })
}

/// What is wrong with the steps of a journey: a missing function, one that no earlier file calls, one that is listed twice.
fn missteps(page: &str, source: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut files, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines() {
        if line.starts_with("## ") {
            files.clear();
            seen.clear();
        }
        let numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        let spans = spans(line);
        let (true, [file, name, ..]) = (numbered, &spans[..]) else { continue };
        let (file, name) = (*file, *name);
        let text = code(&source(file));
        if !occurs(&text, name, true) {
            wrong.push(format!("{file} has no function {name}"));
        }
        if !seen.insert((file, name)) {
            wrong.push(format!("{file} {name} is listed twice"));
        }
        let called = files.iter().chain([&file]).any(|file: &&str| occurs(&code(&source(file)), name, false));
        if !files.is_empty() && !called {
            wrong.push(format!("nothing before {file} {name} calls it"));
        }
        files.insert(file);
    }
    wrong
}

#[test]
fn every_step_of_the_journeys_is_a_function_that_an_earlier_step_leads_to() {
    let page = manual("journeys");
    let steps =
        page.lines().filter(|line| spans(line).len() >= 2 && line.starts_with(|c: char| c.is_ascii_digit()));
    assert!(steps.count() > 80, "the steps are not read any more");
    let wrong = missteps(&page, &|file| read(file));
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

/// Misses a renamed function, a step out of order and a doubled step if it does not find them here.
#[test]
fn a_step_that_is_missing_doubled_or_called_by_nobody_is_found() {
    let source = |file: &str| match file {
        "a.rs" => "pub async fn first() { second(1).await; // third()\n }".to_owned(),
        _ => "fn second() {}\nfn third() {}".to_owned(),
    };
    let page = "## J\n1. `a.rs` `first`: x\n2. `b.rs` `second`: x\n3. `b.rs` `second`: x\n4. `b.rs` `third`: x\n5. `b.rs` `gone`: x\n";
    assert_eq!(
        missteps(page, &source),
        [
            "b.rs second is listed twice",
            "nothing before b.rs third calls it",
            "b.rs has no function gone",
            "nothing before b.rs gone calls it"
        ]
    );
}

#[test]
fn every_default_is_the_line_of_code_that_the_page_quotes() {
    let page = manual("defaults");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|') && line.contains(".rs`")).collect();
    assert!(rows.len() > 40, "the rows are not read any more");
    let unknown: Vec<_> = rows
        .iter()
        .filter(|row| match spans(row)[..] {
            [.., file, line] => !read(file).contains(line),
            _ => true,
        })
        .collect();
    assert!(unknown.is_empty(), "not in the code: {unknown:#?}");
}

/// Where the links of a page lead that lead to no file.
fn dead_links(page: &str) -> Vec<String> {
    let folder = repository().join(page).parent().map(Path::to_path_buf).unwrap_or_default();
    let text = read(page);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets
        .filter(|target| !target.contains("://") && !target.contains("::") && !target.starts_with('#'));
    inside.filter(|target| !folder.join(target).exists()).map(|target| format!("{page}: {target}")).collect()
}

#[test]
fn every_proof_of_a_promise_is_a_file_that_is_there() {
    let page = manual("promises");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| **P")).collect();
    assert_eq!(rows.len(), 12, "the promises are twelve");
    let proofs: Vec<_> = rows.iter().flat_map(|row| spans(row)).filter(|span| span.contains('/')).collect();
    assert!(proofs.len() > 15, "the proofs are not read any more");
    let missing: Vec<_> = proofs.iter().filter(|proof| !repository().join(proof).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The functions that the page of faults names and that are not in the file before them.
fn missing_tests(page: &str, source: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let shown = row.split(" | ").nth(2).unwrap_or_default();
        let mut file = "no file";
        for span in spans(shown) {
            let is_function = span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if span.ends_with(".rs") {
                file = span;
            } else if is_function && !occurs(&code(&source(file)), span, true) {
                missing.push(format!("{file} has no test {span}"));
            }
        }
    }
    missing
}

#[test]
fn every_test_of_the_page_of_faults_is_in_the_file_that_it_names() {
    let page = manual("faults");
    let named = page.lines().flat_map(spans).filter(|span| span.contains('_')).count();
    assert!(named > 40, "the tests are not read any more");
    let missing = missing_tests(&page, &|file| read(file));
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Misses a renamed test if it does not find it here.
#[test]
fn a_test_that_the_page_of_faults_names_and_nobody_wrote_is_found() {
    let page = "| x | y | `a.rs` `is_there` `is_gone`; twin (`SELECT .. LIMIT`): `b.rs` `is_there` | |\n";
    let source = |file: &str| {
        if file == "a.rs" { "fn is_there() {} // fn is_gone()".to_owned() } else { String::new() }
    };
    assert_eq!(missing_tests(page, &source), ["a.rs has no test is_gone", "b.rs has no test is_there"]);
}

#[test]
fn every_link_of_the_readme_and_the_manual_leads_somewhere() {
    let pages = fs::read_dir(repository().join("crates/postroom/manual")).expect("the manual");
    let pages: Vec<PathBuf> = pages.map(|entry| entry.expect("an entry").path()).collect();
    let names = pages.iter().filter_map(|path| path.file_name()?.to_str());
    let mut dead: Vec<String> =
        names.flat_map(|name| dead_links(&format!("crates/postroom/manual/{name}"))).collect();
    dead.extend(dead_links("README.md"));
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_page_of_the_manual_is_in_the_documentation() {
    let modules = read("crates/postroom/src/manual.rs");
    for entry in fs::read_dir(repository().join("crates/postroom/manual")).expect("the manual") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        assert!(modules.contains(&format!("../manual/{name}")), "{name} is in no module");
    }
}

#[test]
fn the_example_of_the_readme_is_the_example_that_runs() {
    let readme = read("README.md");
    let block =
        readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Rust");
    let example = read("examples/embed.rs");
    let from = example.find("use std::sync::Arc;").expect("the example begins with its imports");
    assert_eq!(block, &example[from..], "copy examples/embed.rs, from its imports on, into the README");
}

#[test]
fn the_commands_of_the_readme_name_examples_that_are_there() {
    let (readme, manifest) = (read("README.md"), read("examples/Cargo.toml"));
    for name in
        ["service_desk", "send_once", "host_transaction", "mail_to_tickets", "mock_transport", "own_storage"]
    {
        assert!(readme.contains(name) && manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

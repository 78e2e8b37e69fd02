//! The house rules as tests: crate edges, circles of files, sizes, headers, names, migrations, forbidden words and where foreign
//! types may be named. Each guard is a function from a tree of files to its violations, so that its own test can hand it a small
//! tree that breaks the rule and see it fail. What the compiler and clippy check by themselves is not repeated here.

#[path = "house/circles.rs"]
mod circles;
#[path = "house/edges.rs"]
mod edges;
#[path = "house/shape.rs"]
mod shape;
#[path = "house/source.rs"]
mod source;
#[path = "house/tree.rs"]
mod tree;
#[path = "house/words.rs"]
mod words;

use tree::Tree;

#[track_caller]
fn check(guard: fn(&Tree) -> Vec<String>) {
    let violations = guard(&Tree::of_the_repository());
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}

#[test]
fn crates_depend_only_downwards() {
    check(edges::crossed);
}

#[test]
fn the_engine_pulls_in_no_adapter() {
    let listed = edges::engine_tree();
    let violations = edges::adapters_in(&listed);
    assert!(violations.is_empty(), "cargo tree -p postroom-engine -e normal names {violations:?}:\n{listed}");
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    check(circles::closed);
}

#[test]
fn no_file_is_over_the_hard_limit_of_lines() {
    for note in shape::over_soft_limit(&Tree::of_the_repository()) {
        println!("note: {note}");
    }
    check(shape::over_hard_limit);
}

#[test]
fn every_file_opens_by_saying_what_lives_there() {
    check(shape::without_header);
}

#[test]
fn every_file_has_a_name_that_says_something() {
    check(shape::vague_names);
}

#[test]
fn every_dialect_has_the_same_migrations() {
    check(shape::uneven_migrations);
}

#[test]
fn library_code_has_no_loose_ends() {
    check(words::loose_ends);
}

#[test]
fn foreign_types_stay_in_their_rooms() {
    check(words::strayed);
}

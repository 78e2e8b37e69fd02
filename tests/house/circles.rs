//! Circles of files inside a crate. A file uses another when its library code names something that is defined there, by `use` or
//! by an inline path; a name that was re-exported on the way counts for the file that defines it. A parent that declares a child
//! and re-exports from it does not use it by that; but then the child may not use what the parent itself defines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::test_only_modules;
use crate::tree::{File, Tree};

#[path = "names.rs"]
mod names;

use names::{Names, Path};

/// Each circle once, from its first file through the others back to it.
pub(crate) fn closed(tree: &Tree) -> Vec<String> {
    let sources =
        tree.under("crates/", ".rs").filter_map(|file| Some((file.path.split_once("/src/")?.0, file)));
    let mut crates: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for (folder, file) in sources {
        crates.entry(folder).or_default().push(file);
    }
    crates.values().flat_map(|files| circles_in(files)).collect()
}

/// The files of one crate with the modules that they are.
struct Crate<'a> {
    files: Vec<(&'a File, Names)>,
    modules: BTreeMap<Path, usize>,
}

fn circles_in(files: &[&File]) -> Vec<String> {
    let house = Crate::of(files);
    let mut uses: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut shows: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (from, (_, names)) in house.files.iter().enumerate() {
        let used = uses.entry(from).or_default();
        let imported =
            names.imported.iter().map(|(path, is_shown)| (house.definition(path, 0), *is_shown, false));
        let globs = names.globs.iter().map(|(path, is_shown)| (house.definition(path, 0), *is_shown, true));
        for (found, is_shown, is_glob) in imported.chain(globs) {
            match found {
                Some((to, _)) if is_shown => {
                    shows.insert((from, to));
                }
                // A module that is only brought into scope is used where its name stands.
                Some((_, Found::Module)) if !is_glob => {}
                Some((to, _)) => {
                    used.insert(to);
                }
                None => {}
            }
        }
        let inline = names.inline.iter().filter_map(|path| house.definition(&house.anchored(from, path)?, 0));
        used.extend(inline.map(|(to, _)| to));
    }
    for (file, others) in &mut uses {
        others.remove(file);
    }
    let path = |file: &usize| house.files[*file].0.path.as_str();
    let told =
        |circle: &[usize]| circle.iter().chain(&circle[..1]).map(path).collect::<Vec<_>>().join(" -> ");
    let mut found: Vec<String> = Vec::new();
    let mut seen: BTreeSet<BTreeSet<usize>> = BTreeSet::new();
    for start in 0..house.files.len() {
        if let Some(circle) = shortest_circle(&uses, start)
            && seen.insert(circle.iter().copied().collect())
        {
            found.push(told(&circle));
        }
    }
    let turned =
        shows.iter().filter(|(parent, child)| uses.get(child).is_some_and(|others| others.contains(parent)));
    found.extend(
        turned.filter(|(parent, child)| seen.insert([*parent, *child].into())).map(|(a, b)| told(&[*a, *b])),
    );
    found
}

fn shortest_circle(uses: &BTreeMap<usize, BTreeSet<usize>>, start: usize) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for next in uses.get(&at).into_iter().flatten() {
            if *next == start {
                let mut way = vec![at];
                while let Some(before) = came_from.get(&way[way.len() - 1]) {
                    way.push(*before);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next) {
                came_from.insert(*next, at);
                waiting.push_back(*next);
            }
        }
    }
    None
}

/// What a path ends at.
enum Found {
    Module,
    Item,
}

impl<'a> Crate<'a> {
    fn of(files: &[&'a File]) -> Self {
        let placed: Vec<(&File, Path)> = files.iter().map(|file| (*file, module_of(&file.path))).collect();
        let for_tests: Vec<Path> = placed
            .iter()
            .flat_map(|(file, module)| {
                test_only_modules(file).into_iter().map(|name| [module.clone(), vec![name]].concat())
            })
            .collect();
        let library =
            placed.iter().filter(|(_, module)| !for_tests.iter().any(|test| module.starts_with(test)));
        let mut house = Self { files: Vec::new(), modules: BTreeMap::new() };
        for (number, (file, module)) in library.enumerate() {
            let names = Names::of(file, module);
            house.modules.entry(module.clone()).or_insert(number);
            house.modules.extend(names.inner_modules.iter().map(|inner| (inner.clone(), number)));
            house.files.push((file, names));
        }
        house
    }

    /// The file that defines what a path from the root of the crate ends at; `None` for what is no part of the crate.
    fn definition(&self, path: &[String], steps: usize) -> Option<(usize, Found)> {
        let length = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let file = self.modules[&path[..length]];
        let Some(name) = path.get(length) else { return Some((file, Found::Module)) };
        let names = &self.files[file].1;
        // Re-exports in a ring would be refused by the compiler; the bound is for source that does not compile yet.
        if names.defined.contains(name) || steps > 16 {
            return Some((file, Found::Item));
        }
        let mut stations = names.aliases.get(name).into_iter().map(|target| (target, length + 1));
        if let Some((target, used)) = stations.next() {
            let further = [target.as_slice(), &path[used..]].concat();
            return self.definition(&further, steps + 1).or(Some((file, Found::Item)));
        }
        let through = names.globs.iter().filter_map(|(target, _)| {
            let further = [target.as_slice(), &path[length..]].concat();
            let (to, found) = self.definition(&further, steps + 1)?;
            self.files[to].1.defined.contains(name).then_some((to, found))
        });
        through.into_iter().next().or(Some((file, Found::Item)))
    }

    /// An inline path from the root of the crate: it starts with `crate` or the like, with an imported name or with a child module.
    fn anchored(&self, file: usize, path: &names::Inline) -> Option<Path> {
        match path {
            names::Inline::Anchored(path) => Some(path.clone()),
            names::Inline::Relative(module, path) => {
                let own = [module.as_slice(), &path[..1]].concat();
                if let Some(target) = self.files[file].1.aliases.get(&path[0]) {
                    return Some([target.as_slice(), &path[1..]].concat());
                }
                self.modules.contains_key(&own).then(|| [module.as_slice(), path].concat())
            }
        }
    }
}

/// The module that a file is: `crates/a/src/b/c.rs` is `b::c`, and the root of the crate is nothing.
fn module_of(path: &str) -> Path {
    let inner = path.split_once("/src/").map_or(path, |(_, inner)| inner).trim_end_matches(".rs");
    if ["lib", "main"].contains(&inner) { Path::new() } else { inner.split('/').map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], circles: &[&str]) {
        let files: Vec<_> =
            files.iter().map(|(name, text)| (format!("crates/x/src/{name}.rs"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let found: Vec<_> = closed(&Tree::made_up(&files))
            .iter()
            .map(|circle| circle.replace("crates/x/src/", "").replace(".rs", ""))
            .collect();
        assert_eq!(found, circles);
    }

    const ROOT: (&str, &str) = ("lib", "mod a; mod b; mod c; pub use a::A; pub use b::{B, inner};");

    #[test]
    fn a_circle_by_use_is_found_in_each_way_of_writing_it() {
        let a = ("a", "pub struct A; use crate::b::B;");
        for b in [
            "pub struct B; use crate::a::A;",
            "pub struct B; use crate::{a::{A as Other}};",
            "pub struct B; use super::a::A;",
            "pub struct B; fn f() -> Option<crate::a::A> { None }",
            "pub struct B; use crate::a; fn f(x: &a::A) {}",
            "pub struct B; use crate::A;",
            "pub struct B; use crate::a::*;",
            "pub struct B; fn f() { vec![super::a::A] }",
            "pub struct B; mod inner { use super::super::a::A; }",
            "pub struct B; impl crate::a::A {}",
        ] {
            check(&[ROOT, a, ("b", b), ("c", "")], &["a -> b -> a"]);
        }
    }

    #[test]
    fn a_circle_over_three_files_is_told_once() {
        let (a, b, c) = (
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "use crate::c::C; pub struct B;"),
            ("c", "use crate::a::A; pub struct C;"),
        );
        check(&[ROOT, a, b, c], &["a -> b -> c -> a"]);
    }

    #[test]
    fn a_parent_may_show_its_child_if_the_child_does_not_look_back() {
        let root = ("lib", "mod a;");
        let parent =
            "mod left; mod right; pub use left::Left; pub(crate) use self::right::Right; pub struct A;";
        let left = ("a/left", "pub struct Left;");
        check(&[root, ("a", parent), left, ("a/right", "use super::Left; pub struct Right;")], &[]);
        check(
            &[root, ("a", parent), left, ("a/right", "use super::A; pub struct Right;")],
            &["a -> a/right -> a"],
        );
    }

    #[test]
    fn a_parent_that_works_with_its_child_and_a_child_that_looks_back_are_a_circle() {
        let child = ("a/b", "pub struct B; use super::A;");
        for parent in [
            "mod b; pub struct A { b: b::B }",
            "mod b; use b::B; pub struct A;",
            "mod b; use self::b::B; pub struct A;",
        ] {
            check(&[("lib", "mod a;"), ("a", parent), child], &["a -> a/b -> a"]);
        }
    }

    #[test]
    fn tests_docs_visibility_and_the_bare_root_are_no_use() {
        let a = "use crate::b::B; pub struct A; #[cfg(test)] mod tests;";
        let b = "pub struct B; /// See [`crate::a::A`].\npub(in crate::a) struct P; #[cfg(test)] mod tests { use crate::a::A; }";
        check(&[ROOT, ("a", a), ("a/tests", "use super::*;"), ("b", b), ("c", "use other::a::A;")], &[]);
    }
}

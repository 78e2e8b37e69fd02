//! The names that one Rust file defines, brings in and uses, each path as it reads from the root of its crate. Where a path leads
//! is decided by whoever knows the other files.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenTree};

use crate::source::{inside, is_sign, is_word, library_tokens};
use crate::tree::File;

/// Segments from the root of the crate.
pub(crate) type Path = Vec<String>;

/// A path in the middle of code.
#[derive(Debug)]
pub(crate) enum Inline {
    /// It began with `crate`, `self` or `super`.
    Anchored(Path),
    /// It began with a plain name, in this module.
    Relative(Path, Path),
}

/// What one file says, tests left out.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) defined: BTreeSet<String>,
    pub(crate) inner_modules: Vec<Path>,
    /// Paths of `use`, and whether it is a re-export.
    pub(crate) imported: Vec<(Path, bool)>,
    pub(crate) globs: Vec<(Path, bool)>,
    /// What a name brought in by `use` stands for.
    pub(crate) aliases: BTreeMap<String, Path>,
    pub(crate) inline: Vec<Inline>,
    children: BTreeSet<String>,
}

impl Names {
    pub(crate) fn of(file: &File, module: &[String]) -> Self {
        let mut names = Self::default();
        let tokens = library_tokens(file);
        names.collect_children(&tokens);
        names.walk(&tokens, module);
        names
    }

    /// Child modules first: a `use` above the `mod` may begin with one.
    fn collect_children(&mut self, tokens: &[TokenTree]) {
        let declared = tokens.windows(2).filter(|two| is_word(&two[0], "mod")).map(|two| two[1].to_string());
        self.children.extend(declared);
    }

    fn walk(&mut self, tokens: &[TokenTree], module: &[String]) {
        let mut at = 0;
        let mut is_shown = false;
        while at < tokens.len() {
            let token = &tokens[at];
            let next = tokens.get(at + 1);
            if is_word(token, "pub") {
                is_shown = true;
                at +=
                    1 + usize::from(next.is_some_and(|next| inside(next, Delimiter::Parenthesis).is_some()));
                continue;
            }
            let before_shown = std::mem::take(&mut is_shown);
            if is_word(token, "use") {
                let end = tokens[at..]
                    .iter()
                    .position(|token| is_sign(token, ';'))
                    .map_or(tokens.len(), |length| at + length);
                self.import(&tokens[at + 1..end], Vec::new(), module, before_shown);
                at = end + 1;
                continue;
            }
            if let (true, Some(TokenTree::Ident(name))) = (is_word(token, "mod"), next) {
                let inner = [module, &[name.to_string()]].concat();
                match tokens.get(at + 2).and_then(|body| inside(body, Delimiter::Brace)) {
                    Some(body) => {
                        self.inner_modules.push(inner.clone());
                        self.walk(&body, &inner);
                        at += 3;
                    }
                    None => at += 2,
                }
                continue;
            }
            if let (TokenTree::Ident(word), Some(TokenTree::Ident(name))) = (token, next)
                && DEFINING.contains(&word.to_string().as_str())
            {
                self.defined.insert(name.to_string());
            }
            if let TokenTree::Group(group) = token {
                self.walk(&group.stream().into_iter().collect::<Vec<_>>(), module);
            }
            let path = path_at(tokens, at);
            if path.len() > 1 {
                self.mention(&path, module);
            }
            at += (3 * path.len()).saturating_sub(2).max(1);
        }
    }

    fn mention(&mut self, path: &[String], module: &[String]) {
        match anchored(path, module) {
            Some(path) => self.inline.push(Inline::Anchored(path)),
            None => self.inline.push(Inline::Relative(module.to_vec(), path.to_vec())),
        }
    }

    /// One branch of a `use`: the segments before it, and the tokens that are left.
    fn import(&mut self, tokens: &[TokenTree], mut before: Path, module: &[String], is_shown: bool) {
        let mut alias = None;
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            if let Some(branches) = inside(token, Delimiter::Brace) {
                for branch in branches.split(|token| is_sign(token, ',')).filter(|branch| !branch.is_empty())
                {
                    self.import(branch, before.clone(), module, is_shown);
                }
                return;
            }
            if is_sign(token, '*') {
                self.globs.extend(self.rooted(&before, module).map(|path| (path, is_shown)));
                return;
            }
            if is_word(token, "as") {
                alias = tokens.get(at + 1).map(ToString::to_string);
                break;
            }
            if let TokenTree::Ident(name) = token {
                before.push(name.to_string());
            } else if before.is_empty() {
                // `::name` is another crate.
                return;
            }
            at += 1;
        }
        if before.len() > 1 && before.last().is_some_and(|last| last == "self") {
            before.pop();
        }
        let name = alias.or_else(|| before.last().cloned()).filter(|name| name != "_");
        if let Some(path) = self.rooted(&before, module) {
            self.aliases.extend(name.map(|name| (name, path.clone())));
            self.imported.push((path, is_shown));
        }
    }

    fn rooted(&self, path: &[String], module: &[String]) -> Option<Path> {
        let child = || self.children.contains(path.first()?).then(|| [module, path].concat());
        anchored(path, module).or_else(child)
    }
}

const DEFINING: [&str; 9] =
    ["struct", "enum", "trait", "fn", "type", "const", "static", "union", "macro_rules"];

/// The path without `crate`, `self` and `super`, if it began with one of them.
fn anchored(path: &[String], module: &[String]) -> Option<Path> {
    let (mut base, mut rest) = match path.first()?.as_str() {
        "crate" => (Path::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => (module.to_vec(), path),
        _ => return None,
    };
    while rest.first().is_some_and(|word| word == "super") {
        base.pop();
        rest = &rest[1..];
    }
    Some([base.as_slice(), rest].concat())
}

/// The names joined by `::` that start here; one name alone is a path of length one.
fn path_at(tokens: &[TokenTree], start: usize) -> Path {
    let mut path = Path::new();
    let mut at = start;
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        let colons = tokens.get(at + 1).is_some_and(|one| is_sign(one, ':'))
            && tokens.get(at + 2).is_some_and(|two| is_sign(two, ':'));
        if !colons || !matches!(tokens.get(at + 3), Some(TokenTree::Ident(_))) {
            break;
        }
        at += 3;
    }
    path
}

//! Words that library code may not hold, and words that only one room may hold. Comments, strings and tests are no library code.

use proc_macro2::{Delimiter, TokenTree};

use crate::source::{all_tokens, inside, is_sign, is_word, library_tokens};
use crate::tree::{File, Tree};

/// Unfinished work, panics out of laziness, and lints that were switched off without a reason that is checked.
pub(crate) fn loose_ends(tree: &Tree) -> Vec<String> {
    let tests_in_files: Vec<String> = tree.under("crates/", ".rs").flat_map(test_files).collect();
    let library = tree.under("crates/", ".rs").filter(|file| file.path.contains("/src/"));
    library
        .filter(|file| !tests_in_files.iter().any(|test| file.path.starts_with(test.as_str())))
        .flat_map(|file| {
            loose_words(&library_tokens(file)).into_iter().map(|word| format!("{}: {word}", file.path))
        })
        .collect()
}

/// The path, without its ending, of each module that a file keeps in another file for tests only.
fn test_files(file: &File) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/lib").or_else(|| stem.strip_suffix("/main")).unwrap_or(stem);
    crate::source::test_only_modules(file)
        .into_iter()
        .flat_map(|name| [format!("{stem}/{name}.rs"), format!("{stem}/{name}/")])
        .collect()
}

fn loose_words(tokens: &[TokenTree]) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let is_macro = next.is_some_and(|next| is_sign(next, '!'));
        if is_macro && is_word(token, "todo") {
            found.push("`todo!`");
        }
        if is_macro && is_word(token, "unimplemented") {
            found.push("`unimplemented!`");
        }
        let called_bare =
            next.and_then(|next| inside(next, Delimiter::Parenthesis)).is_some_and(|list| list.is_empty());
        if at > 0 && is_sign(&tokens[at - 1], '.') && is_word(token, "unwrap") && called_bare {
            found.push("`.unwrap()`");
        }
        let attribute = inside(token, Delimiter::Bracket).and_then(|inner| inner.into_iter().next());
        let marked = at > 0 && (is_sign(&tokens[at - 1], '#') || is_sign(&tokens[at - 1], '!'));
        if marked && attribute.is_some_and(|word| is_word(&word, "allow")) {
            found.push("`#[allow(..)]`: write `#[expect(.., reason = \"..\")]`");
        }
        if let TokenTree::Group(group) = token {
            found.extend(loose_words(&group.stream().into_iter().collect::<Vec<_>>()));
        }
    }
    found
}

/// Which foreign crate may be named where: a name, and the beginnings of the paths that may say it.
const ROOMS: [(&[&str], &[&str]); 4] = [
    (&["lettre"], &["crates/core/src/mime/build"]),
    (&["mail_parser"], &["crates/core/src/mime/parse"]),
    (&["imap_codec", "imap_types", "imap_proto"], &["crates/transport/src/imap", "crates/testkit/src/"]),
    (&["chacha20poly1305"], &["crates/storage/src/keyring/aead.rs"]),
];

/// Foreign crates that are named outside their room, tests included.
pub(crate) fn strayed(tree: &Tree) -> Vec<String> {
    let sources = tree.under("crates/", ".rs").filter(|file| file.path.contains("/src/"));
    sources
        .flat_map(|file| {
            let tokens = all_tokens(file);
            let strays =
                ROOMS.iter().filter(|(_, rooms)| !rooms.iter().any(|room| file.path.starts_with(room)));
            let names = strays.flat_map(|(names, _)| *names).filter(|name| says(&tokens, name));
            names.map(|name| format!("{}: names `{name}`", file.path)).collect::<Vec<_>>()
        })
        .collect()
}

fn says(tokens: &[TokenTree], name: &str) -> bool {
    tokens.iter().any(|token| match token {
        TokenTree::Group(group) => says(&group.stream().into_iter().collect::<Vec<_>>(), name),
        other => is_word(other, name),
    })
}

#[test]
fn each_loose_end_is_found_and_the_same_words_in_tests_and_comments_are_not() {
    let loose = "#![allow(unused)] fn a() { #[allow(dead_code, reason = \"x\")] let b = c.unwrap(); if d { todo!(\"later\") } }\n\
        fn e() { unimplemented!() }";
    let fine = "/// Never `.unwrap()` or todo!() here.\n#[expect(unused, reason = \"r\")] fn unwrap() { a.unwrap_or(\"todo!\"); S::unwrap(1) }\n\
        #[cfg(test)] mod tests { fn x() { y.unwrap(); todo!() } }\n#[cfg(test)] mod apart;";
    let tree = Tree::made_up(&[
        ("crates/a/src/loose.rs", loose),
        ("crates/a/src/fine.rs", fine),
        ("crates/a/src/fine/apart.rs", "fn x() { y.unwrap() }"),
        ("crates/a/tests/x.rs", "fn x() { y.unwrap() }"),
    ]);
    let found = loose_ends(&tree);
    assert!(found.iter().all(|said| said.starts_with("crates/a/src/loose.rs")), "{found:?}");
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn a_foreign_name_outside_its_room_is_found() {
    let tree = Tree::made_up(&[
        ("crates/core/src/mime/build/part.rs", "use lettre::Message;"),
        ("crates/core/src/mail.rs", "fn a(b: &lettre::Message) {}"),
        ("crates/core/src/mime/build.rs", "use mail_parser as parser;"),
        ("crates/transport/src/imap/response.rs", "use imap_codec::X; // lettre"),
        ("crates/transport/src/pop3.rs", "mod a { use { imap_proto::Y }; }"),
        ("crates/storage/src/keyring.rs", "use chacha20poly1305::aead;"),
    ]);
    let found = strayed(&tree);
    assert_eq!(
        found,
        [
            "crates/core/src/mail.rs: names `lettre`",
            "crates/core/src/mime/build.rs: names `mail_parser`",
            "crates/transport/src/pop3.rs: names `imap_proto`",
            "crates/storage/src/keyring.rs: names `chacha20poly1305`",
        ]
    );
}

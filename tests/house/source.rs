//! Rust source as tokens, with the test-only parts left out, so that a comment, a string or a test is never taken for library
//! code. What the tokens mean is the business of the guards.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::tree::File;

/// The tokens of a file without anything under `#[cfg(test)]` or `#[test]`.
pub(crate) fn library_tokens(file: &File) -> Vec<TokenTree> {
    without_tests(all_tokens(file))
}

/// The tokens of a file, tests included.
pub(crate) fn all_tokens(file: &File) -> Vec<TokenTree> {
    let tokens: TokenStream = file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path));
    tokens.into_iter().collect()
}

/// The modules that a file declares for tests only and keeps in a file of their own (`#[cfg(test)] mod tests;`).
pub(crate) fn test_only_modules(file: &File) -> Vec<String> {
    let tokens = all_tokens(file);
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        if let Some(end) = test_item(&tokens, start) {
            let item = &tokens[start..end];
            let named = item.windows(3).find(|three| is_word(&three[0], "mod") && is_sign(&three[2], ';'));
            found.extend(named.map(|three| three[1].to_string()));
        }
    }
    found
}

pub(crate) fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if *ident == word)
}

pub(crate) fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// The tokens inside a group with this delimiter.
pub(crate) fn inside(token: &TokenTree, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match token {
        TokenTree::Group(group) if group.delimiter() == delimiter => {
            Some(group.stream().into_iter().collect())
        }
        _ => None,
    }
}

fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = test_item(&tokens, at) {
            at = end;
            continue;
        }
        kept.push(match &tokens[at] {
            TokenTree::Group(group) => {
                let stream = without_tests(group.stream().into_iter().collect()).into_iter().collect();
                Group::new(group.delimiter(), stream).into()
            }
            other => other.clone(),
        });
        at += 1;
    }
    kept
}

/// If a test-only item starts here with its attribute, where it ends.
fn test_item(tokens: &[TokenTree], start: usize) -> Option<usize> {
    let mut at = start;
    let mut test_only = false;
    while at + 1 < tokens.len() && is_sign(&tokens[at], '#') {
        let attribute = inside(&tokens[at + 1], Delimiter::Bracket)?;
        // Only an item's own attribute opens it; one of the attributes behind the first may be the telling one.
        test_only |= means_test(&attribute);
        at += 2;
    }
    if !test_only {
        return None;
    }
    let is_item = tokens[at..]
        .iter()
        .take(3)
        .any(|token| matches!(token, TokenTree::Ident(ident) if ITEMS.contains(&ident.to_string().as_str())));
    let to_semicolon =
        tokens[at..].iter().take(3).any(|token| is_word(token, "use") || is_word(token, "let"));
    while at < tokens.len() {
        let token = &tokens[at];
        at += 1;
        let block = !to_semicolon && is_item && inside(token, Delimiter::Brace).is_some();
        if block || is_sign(token, ';') || (!is_item && is_sign(token, ',')) {
            break;
        }
    }
    Some(at)
}

const ITEMS: [&str; 17] = [
    "fn",
    "mod",
    "use",
    "struct",
    "enum",
    "impl",
    "trait",
    "const",
    "static",
    "type",
    "async",
    "unsafe",
    "extern",
    "macro_rules",
    "let",
    "union",
    "macro",
];

/// `test`, `tokio::test`, `cfg(test)`, `cfg(all(test, ..))`, but not `cfg(not(test))`, `cfg(any(test, ..))` or `cfg_attr(test, ..)`.
fn means_test(attribute: &[TokenTree]) -> bool {
    match attribute {
        [name, group] if is_word(name, "cfg") || is_word(name, "all") => {
            let list = inside(group, Delimiter::Parenthesis).unwrap_or_default();
            list.split(|token| is_sign(token, ',')).any(|one| {
                matches!(one, [word] if is_word(word, "test")) || (one.len() == 2 && means_test(one))
            })
        }
        [.., last] if is_word(last, "test") => true,
        [.., name, _options] => is_word(name, "test"),
        [_] => false,
        [] => false,
    }
}

#[test]
fn test_code_is_left_out_and_library_code_is_kept() {
    let text = "
        #[cfg(test)] use a::{b, c};
        #[cfg(all(test, feature = \"x\"))] mod gone { fn hidden() {} }
        #[cfg(not(test))] fn kept_one() { #[cfg(test)] let hidden = S { a: 1 }; kept_two(); }
        #[test] #[should_panic] fn hidden() { hidden() }
        #[tokio::test(flavor = \"x\")] async fn hidden() {}
        #[cfg(any(test, feature = \"y\"))] fn kept_three<A, B>() {}
        struct S { #[cfg(test)] hidden: u8, kept_four: u8 }
        #[cfg(test)] mod apart;
        fn kept_five() { \"hidden\"; /* hidden */ }";
    let file = File { path: "a.rs".into(), text: text.into() };
    let kept = library_tokens(&file).into_iter().collect::<TokenStream>().to_string();
    for word in ["kept_one", "kept_two", "kept_three", "kept_four", "kept_five"] {
        assert!(kept.contains(word), "{word} is missing from {kept}");
    }
    assert!(!kept.replace("\"hidden\"", "").contains("hidden") && !kept.contains("apart"), "{kept}");
    assert_eq!(test_only_modules(&file), ["apart"]);
}

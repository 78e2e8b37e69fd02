//! File names that are fit to be written and shown, made of whatever a stranger called an attachment.

use std::collections::HashSet;

/// The greatest length of a name, in bytes: most file systems take 255.
const LIMIT: usize = 200;
const EXTENSION_LIMIT: usize = 20;

/// Makes names that differ from each other whatever the case.
#[derive(Debug, Default)]
pub(super) struct FileNames {
    taken: HashSet<String>,
    copies: std::collections::HashMap<String, u32>,
}

impl FileNames {
    /// A name for the next file of a mail.
    pub(super) fn next(&mut self, original: &str, media_type: &str) -> String {
        let name = clean(original, media_type);
        let key = name.to_lowercase();
        let copy = self.copies.entry(key).or_default();
        let (stem, extension) = halves(&name);
        loop {
            *copy += 1;
            let candidate = if *copy == 1 { name.clone() } else { format!("{stem} ({copy}){extension}") };
            if self.taken.insert(candidate.to_lowercase()) {
                return candidate;
            }
        }
    }
}

/// Without its path, without characters that hide or redirect, with its extension.
fn clean(original: &str, media_type: &str) -> String {
    let last = original.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last
        .chars()
        .filter(|c| !is_hidden(*c))
        .map(|c| if "<>:\"|?*".contains(c) { '_' } else { c })
        .collect();
    let plain = plain.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if plain.is_empty() {
        return if media_type == "message/rfc822" { "mail.eml" } else { "attachment" }.to_owned();
    }
    let (stem, extension) = halves(plain);
    let stem = crate::text::cut(stem, LIMIT - extension.len()).trim_end();
    let reserved = if is_reserved(stem) { "_" } else { "" };
    format!("{reserved}{stem}{extension}")
}

/// Control characters, marks that turn or hide text (Unicode TR 36 section 2.4), and what is no character.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}' | '\u{e0000}'..='\u{e007f}')
}

/// Names of devices, which Windows takes with any extension.
fn is_reserved(stem: &str) -> bool {
    let word = stem.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    matches!(word.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || word
            .strip_prefix("COM")
            .or(word.strip_prefix("LPT"))
            .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The stem, and the extension with its dot, if it is a short one.
fn halves(name: &str) -> (&str, &str) {
    let dot = name.rfind('.').filter(|dot| *dot > 0 && name.len() - dot <= EXTENSION_LIMIT);
    name.split_at(dot.unwrap_or(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_harmless_ones_and_good_ones_stay() {
        let check = |original: &str, want: &str| assert_eq!(clean(original, "x/y"), want, "{original:?}");
        check("relatório final.pdf", "relatório final.pdf");
        check("../../etc/passwd", "passwd");
        check("C:\\Windows\\system32\\cmd.exe", "cmd.exe");
        check("invoice\u{202e}fdp.exe", "invoicefdp.exe");
        check("a\0b\r\n.txt", "ab.txt");
        check("..", "attachment");
        check("", "attachment");
        check(".htaccess", "htaccess");
        check("nul.txt", "_nul.txt");
        check("COM1", "_COM1");
        check("compact.txt", "compact.txt");
        check("a<b>:c?.txt", "a_b__c_.txt");
        check(&format!("{}.pdf", "é".repeat(300)), &format!("{}.pdf", "é".repeat(98)));
        assert_eq!(clean("", "message/rfc822"), "mail.eml");
    }

    #[test]
    fn the_same_name_twice_becomes_two_names() {
        let mut names = FileNames::default();
        let all: Vec<String> = ["a.txt", "A.TXT", "a.txt", "a (2).txt", "b"]
            .iter()
            .map(|name| names.next(name, "x/y"))
            .collect();
        assert_eq!(all, ["a.txt", "A (2).TXT", "a (3).txt", "a (2) (2).txt", "b"]);
    }

    proptest! {
        #[test]
        fn every_name_is_short_and_plain(original in "\\PC*|.*") {
            let name = FileNames::default().next(&original, "x/y");
            prop_assert!(!name.is_empty() && name.len() <= LIMIT + 1);
            let hostile = name.contains(['/', '\\', '\0', '\u{202e}']) || name == "." || name == "..";
            prop_assert!(!hostile, "a hostile name");
        }
    }
}

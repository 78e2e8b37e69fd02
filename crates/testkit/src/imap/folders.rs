//! The commands about folders rather than about messages: LIST, STATUS, CREATE, DELETE, RENAME.

use crate::{
    folder::Folder,
    imap::reply::{Untagged, Verdict, quoted},
    store::{INBOX, Store},
    utf7,
};
use imap_codec::imap_types::{
    mailbox::{ListMailbox, Mailbox},
    status::StatusDataItemName,
};

/// The folder's name; an error when it is not modified UTF-7.
pub(crate) fn name(mailbox: &Mailbox<'_>) -> Result<String, Verdict> {
    match mailbox {
        Mailbox::Inbox => Ok(INBOX.to_owned()),
        Mailbox::Other(other) => {
            utf7::decode(other.inner().as_ref()).ok_or_else(|| Verdict::bad("not modified UTF-7"))
        }
    }
}

fn wire_name(folder: &str) -> String {
    quoted(&utf7::encode(folder))
}

/// LIST, or LSUB where every folder counts as subscribed.
pub(crate) fn list(
    verb: &str,
    store: &Store,
    login: &str,
    reference: &Mailbox<'_>,
    pattern: &ListMailbox<'_>,
    out: &mut Untagged,
) -> Result<Verdict, Verdict> {
    let reference = match reference {
        Mailbox::Inbox => b"INBOX",
        Mailbox::Other(other) => other.inner().as_ref(),
    };
    let pattern = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    if pattern.is_empty() {
        // RFC 3501 section 6.3.8: the special case that asks for the delimiter.
        out.line(&format!("{verb} (\\Noselect) \"/\" \"\""));
        return Ok(Verdict::ok("delimiter listed"));
    }
    let pattern = [reference, pattern].concat();
    let folders = store.account(login).map(|account| account.folders.keys()).into_iter().flatten();
    for folder in folders {
        // Patterns are matched on the wire form: the wildcards mean the same there.
        let wire = utf7::encode(folder);
        let inbox = folder == INBOX && matches(&pattern.to_ascii_uppercase(), wire.as_bytes());
        if inbox || matches(&pattern, wire.as_bytes()) {
            out.line(&format!("{verb} () \"/\" {}", quoted(&wire)));
        }
    }
    Ok(Verdict::ok("listed"))
}

/// RFC 3501 section 6.3.8: `*` matches anything, `%` anything but the delimiter.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // reached[i]: the pattern so far matches the first i bytes of the name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for &symbol in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            next[at] = match symbol {
                b'*' | b'%' => {
                    reached[at] || at > 0 && next[at - 1] && (symbol == b'*' || name[at - 1] != b'/')
                }
                byte => at > 0 && reached[at - 1] && name[at - 1] == byte,
            };
        }
        reached = next;
    }
    reached[name.len()]
}

pub(crate) fn status(
    store: &Store,
    login: &str,
    mailbox: &Mailbox<'_>,
    wanted: &[StatusDataItemName],
    out: &mut Untagged,
) -> Result<Verdict, Verdict> {
    let name = name(mailbox)?;
    let folder = store.folder(login, &name).ok_or_else(missing)?;
    let items: Vec<_> = wanted.iter().filter_map(|item| status_item(item, folder)).collect();
    if items.len() < wanted.len() {
        return Err(Verdict::no("[CANNOT] this status item is not served"));
    }
    out.line(&format!("STATUS {} ({})", wire_name(&name), items.join(" ")));
    Ok(Verdict::ok("status told"))
}

fn status_item(item: &StatusDataItemName, folder: &Folder) -> Option<String> {
    let with = |flag| folder.messages.iter().filter(|kept| kept.flags.contains(flag)).count();
    Some(match item {
        StatusDataItemName::Messages => format!("MESSAGES {}", folder.messages.len()),
        StatusDataItemName::Recent => "RECENT 0".to_owned(),
        StatusDataItemName::UidNext => format!("UIDNEXT {}", folder.uid_next),
        StatusDataItemName::UidValidity => format!("UIDVALIDITY {}", folder.uid_validity),
        StatusDataItemName::Unseen => format!("UNSEEN {}", folder.messages.len() - with("\\Seen")),
        StatusDataItemName::Deleted => format!("DELETED {}", with("\\Deleted")),
        _ => return None,
    })
}

pub(crate) fn missing() -> Verdict {
    Verdict::no("[NONEXISTENT] no such folder")
}

pub(crate) fn create(store: &mut Store, login: &str, mailbox: &Mailbox<'_>) -> Result<Verdict, Verdict> {
    let name = name(mailbox)?;
    let name = name.strip_suffix('/').unwrap_or(&name);
    match store.create_folder(login, name) {
        true => Ok(Verdict::ok("created")),
        false => Err(Verdict::no("[ALREADYEXISTS] there is such a folder")),
    }
}

pub(crate) fn delete(store: &mut Store, login: &str, mailbox: &Mailbox<'_>) -> Result<Verdict, Verdict> {
    let name = name(mailbox)?;
    if name == INBOX {
        return Err(Verdict::no("[CANNOT] INBOX stays"));
    }
    let folders = &mut store.account_mut(login).ok_or_else(missing)?.folders;
    folders.remove(&name).map(|_| Verdict::ok("deleted")).ok_or_else(missing)
}

pub(crate) fn rename(
    store: &mut Store,
    login: &str,
    from: &Mailbox<'_>,
    to: &Mailbox<'_>,
) -> Result<Verdict, Verdict> {
    let (from, to) = (name(from)?, name(to)?);
    if from == INBOX {
        return Err(Verdict::no("[CANNOT] INBOX stays"));
    }
    if store.folder(login, &to).is_some() {
        return Err(Verdict::no("[ALREADYEXISTS] there is such a folder"));
    }
    let folders = &mut store.account_mut(login).ok_or_else(missing)?.folders;
    let moved = folders.remove(&from).ok_or_else(missing)?;
    folders.insert(to.clone(), moved);
    let inner: Vec<_> =
        folders.keys().filter(|name| name.starts_with(&format!("{from}/"))).cloned().collect();
    for name in inner {
        if let Some(folder) = folders.remove(&name) {
            folders.insert(format!("{to}{}", &name[from.len()..]), folder);
        }
    }
    Ok(Verdict::ok("renamed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_the_standard_says() {
        for (pattern, name, fits) in [
            ("*", "A/B", true),
            ("%", "A/B", false),
            ("%", "A", true),
            ("A/%", "A/B", true),
            ("A/%", "A/B/C", false),
            ("A*C", "A/B/C", true),
            ("", "A", false),
            ("A", "AB", false),
            ("%/%", "A/B", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}

//! The commands that change messages: STORE, COPY, MOVE, APPEND, EXPUNGE, and `\Seen` after a FETCH.

use crate::{
    folder::Folder,
    imap::{
        folders,
        reply::{Untagged, Verdict, uid_set},
        view::{Access, Numbers, View, flag_list},
    },
    store::Store,
};
use bytes::Bytes;
use imap_codec::imap_types::{
    extensions::binary::LiteralOrLiteral8,
    flag::{Flag, StoreResponse, StoreType},
    mailbox::Mailbox,
    sequence::SequenceSet,
};
use std::{collections::BTreeSet, time::SystemTime};

fn flag_set(flags: &[Flag<'_>]) -> BTreeSet<String> {
    flags.iter().map(Flag::to_string).collect()
}

fn changeable<'a>(store: &'a mut Store, view: &View) -> Result<&'a mut Folder, Verdict> {
    if view.access == Access::ReadOnly {
        return Err(Verdict::no("[READ-ONLY] the folder was examined, not selected"));
    }
    view.folder_in(store)?;
    store.folder_mut(&view.login, &view.folder).ok_or_else(folders::missing)
}

/// A target that isn't there could be created (RFC 3501 section 7.1).
fn target(store: &Store, login: &str, mailbox: &Mailbox<'_>) -> Result<String, Verdict> {
    let name = folders::name(mailbox)?;
    store.folder(login, &name).ok_or_else(|| Verdict::no("[TRYCREATE] no such folder"))?;
    Ok(name)
}

/// What STORE is to do with the flags.
pub(crate) struct FlagChange<'a> {
    pub(crate) kind: &'a StoreType,
    pub(crate) response: &'a StoreResponse,
    pub(crate) flags: &'a [Flag<'a>],
}

pub(crate) fn store_flags(
    store: &mut Store,
    view: &mut View,
    set: &SequenceSet,
    numbers: Numbers,
    change: &FlagChange<'_>,
    out: &mut Untagged,
) -> Result<Verdict, Verdict> {
    let named = flag_set(change.flags);
    let chosen = view.resolve(set, numbers)?;
    let folder = changeable(store, view)?;
    for (number, this) in chosen {
        let Some(message) = folder.find_mut(this) else { continue };
        match change.kind {
            StoreType::Replace => message.flags.clone_from(&named),
            StoreType::Add => message.flags.extend(named.iter().cloned()),
            StoreType::Remove => message.flags.retain(|flag| !named.contains(flag)),
        }
        view.told(message);
        if *change.response == StoreResponse::Answer {
            let uid = if numbers == Numbers::Uid { format!("UID {this} ") } else { String::new() };
            out.line(&format!("{number} FETCH ({uid}FLAGS {})", flag_list(&message.flags)));
        }
    }
    Ok(Verdict::ok("flags stored"))
}

/// What a FETCH without PEEK does (RFC 3501 section 6.4.5); nothing in a folder that was examined.
pub(crate) fn mark_seen(store: &mut Store, view: &View, uids: &[(usize, u32)]) {
    let Ok(folder) = changeable(store, view) else { return };
    for (_, uid) in uids {
        if let Some(message) = folder.find_mut(*uid) {
            message.flags.insert("\\Seen".to_owned());
        }
    }
}

/// Whether COPY leaves the messages where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    Copy,
    Move,
}

/// Copies or moves; returns the COPYUID code (RFC 4315 section 3), or none when there was nothing to transfer.
pub(crate) fn transfer(
    store: &mut Store,
    view: &View,
    set: &SequenceSet,
    numbers: Numbers,
    to: &Mailbox<'_>,
    how: Transfer,
) -> Result<Option<String>, Verdict> {
    let to = target(store, &view.login, to)?;
    if how == Transfer::Move {
        changeable(store, view)?;
    }
    let folder = view.folder_in(store)?;
    let chosen = view.resolve(set, numbers)?;
    let chosen: Vec<_> = chosen.iter().filter_map(|(_, uid)| folder.find(*uid).cloned()).collect();
    let sources: Vec<_> = chosen.iter().map(|message| message.uid).collect();
    let target = store.folder_mut(&view.login, &to).ok_or_else(folders::missing)?;
    let validity = target.uid_validity;
    let added = chosen.into_iter().map(|message| target.add(message.bytes, message.flags, message.received));
    let added: Vec<_> = added.collect();
    if how == Transfer::Move {
        changeable(store, view)?.remove(&sources.iter().copied().collect());
    }
    let code = || format!("[COPYUID {validity} {} {}]", uid_set(&sources), uid_set(&added));
    Ok((!added.is_empty()).then(code))
}

/// Appends; returns the APPENDUID code (RFC 4315 section 3).
pub(crate) fn append(
    store: &mut Store,
    login: &str,
    to: &Mailbox<'_>,
    flags: &[Flag<'_>],
    received: SystemTime,
    message: &LiteralOrLiteral8<'_>,
) -> Result<String, Verdict> {
    let to = target(store, login, to)?;
    let bytes = match message {
        LiteralOrLiteral8::Literal(literal) => literal.as_ref(),
        LiteralOrLiteral8::Literal8(_) => return Err(Verdict::no("[UNKNOWN-CTE] BINARY is not served")),
    };
    let folder = store.folder_mut(login, &to).ok_or_else(folders::missing)?;
    let uid = folder.add(Bytes::copy_from_slice(bytes), flag_set(flags), received);
    Ok(format!("[APPENDUID {} {uid}]", folder.uid_validity))
}

/// EXPUNGE, CLOSE, and UID EXPUNGE with its set (RFC 4315 section 2.1).
pub(crate) fn expunge(store: &mut Store, view: &View, set: Option<&SequenceSet>) -> Result<Verdict, Verdict> {
    let chosen: Vec<_> = match set {
        Some(set) => view.resolve(set, Numbers::Uid)?,
        None => view.all().collect(),
    };
    let folder = changeable(store, view)?;
    let deleted = |uid: &u32| folder.find(*uid).is_some_and(|message| message.flags.contains("\\Deleted"));
    let gone = chosen.into_iter().map(|(_, uid)| uid).filter(deleted).collect();
    folder.remove(&gone);
    Ok(Verdict::ok("expunged"))
}

//! The commands of the selected state (RFC 3501 section 6.4), each led to the room that does it.

use crate::{
    imap::{
        change::{self, FlagChange, Transfer},
        fetch,
        reply::{Untagged, Verdict, with_code},
        search,
        view::{Access, Numbers, View},
    },
    session::Connection,
};
use imap_codec::imap_types::command::CommandBody;

/// Obeys a command that needs a folder; what it leaves untold about the folder is told by the caller.
pub(crate) fn obey(
    connection: &Connection,
    selected: &mut Option<View>,
    out: &mut Untagged,
    body: &CommandBody<'_>,
) -> Result<Verdict, Verdict> {
    let shared = &connection.shared;
    let Some(view) = selected else {
        return Err(Verdict::bad("unknown command, or no folder is selected"));
    };
    match body {
        CommandBody::Check => Ok(Verdict::ok("checked")),
        CommandBody::Unselect if connection.offers("UNSELECT") => {
            *selected = None;
            Ok(Verdict::ok("unselected"))
        }
        CommandBody::Close => {
            if view.access == Access::ReadWrite {
                shared.change(|store| change::expunge(store, view, None))?;
            }
            *selected = None;
            Ok(Verdict::ok("closed"))
        }
        CommandBody::Expunge => shared.change(|store| change::expunge(store, view, None)),
        CommandBody::ExpungeUid { sequence_set } if connection.offers("UIDPLUS") => {
            shared.change(|store| change::expunge(store, view, Some(sequence_set)))
        }
        CommandBody::Fetch { sequence_set, macro_or_item_names, uid } => {
            let numbers = Numbers::of(*uid);
            let items = fetch::items(macro_or_item_names, numbers)
                .ok_or_else(|| Verdict::no("[CANNOT] this data item is not served"))?;
            let chosen = view.resolve(sequence_set, numbers)?;
            if items.iter().any(fetch::reads) {
                shared.change(|store| change::mark_seen(store, view, &chosen));
            }
            let told = shared.read(|store| -> Result<usize, Verdict> {
                let folder = view.folder_in(store)?;
                let found = chosen.iter().filter_map(|(number, uid)| Some((*number, folder.find(*uid)?)));
                let parts = shared.settings.partial_fetch;
                Ok(found.map(|(number, kept)| out.raw(&fetch::response(number, kept, &items, parts))).count())
            })?;
            match numbers == Numbers::Sequence && told < chosen.len() {
                true => Err(Verdict::no("[EXPUNGEISSUED] some of these messages are gone")),
                false => Ok(Verdict::ok("fetched")),
            }
        }
        CommandBody::Store { sequence_set, kind, response, flags, uid } => {
            let change = FlagChange { kind, response, flags };
            let numbers = Numbers::of(*uid);
            shared.change(|store| change::store_flags(store, view, sequence_set, numbers, &change, out))
        }
        CommandBody::Search { criteria, uid, .. } => {
            let found = shared.read(|store| -> Result<Vec<String>, Verdict> {
                let folder = view.folder_in(store)?;
                let mut found = Vec::new();
                for (number, this) in view.all() {
                    let Some(kept) = folder.find(this) else { continue };
                    let mut keys = criteria.as_ref().iter();
                    if keys.try_fold(true, |all, key| Ok(all && search::fits(key, number, kept, view)?))? {
                        found.push(if *uid { this.to_string() } else { number.to_string() });
                    }
                }
                Ok(found)
            })?;
            out.line(["SEARCH".to_owned()].into_iter().chain(found).collect::<Vec<_>>().join(" ").as_str());
            Ok(Verdict::ok("searched"))
        }
        CommandBody::Copy { sequence_set, mailbox, uid } => {
            let numbers = Numbers::of(*uid);
            let code = shared.change(|store| {
                change::transfer(store, view, sequence_set, numbers, mailbox, Transfer::Copy)
            })?;
            Ok(with_code(code.filter(|_| connection.offers("UIDPLUS")), "copied"))
        }
        CommandBody::Move { sequence_set, mailbox, uid } if connection.offers("MOVE") => {
            let numbers = Numbers::of(*uid);
            let code = shared.change(|store| {
                change::transfer(store, view, sequence_set, numbers, mailbox, Transfer::Move)
            })?;
            // RFC 6851 section 4.3: the code comes before the EXPUNGE responses.
            if let Some(code) = code.filter(|_| connection.offers("UIDPLUS")) {
                out.line(&format!("OK {code} moved"));
            }
            Ok(Verdict::ok("moved"))
        }
        _ => Err(Verdict::bad("unknown command")),
    }
}

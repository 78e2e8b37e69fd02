//! FETCH and UID FETCH (RFC 3501 section 6.4.5): the data items of one message. Which messages is the view's matter.

use crate::{
    folder::Stored,
    imap::view::{Numbers, flag_list},
    message,
    shared::PartialFetch,
};
use chrono::{DateTime, Utc};
use imap_codec::imap_types::{
    core::AString,
    fetch::{MacroOrMessageDataItemNames, MessageDataItemName, Section},
};

/// The items asked for, in order, with UID where the command implies it; none when one is not served.
pub(crate) fn items<'a>(
    wanted: &'a MacroOrMessageDataItemNames<'a>,
    numbers: Numbers,
) -> Option<Vec<MessageDataItemName<'a>>> {
    let mut items = match wanted {
        MacroOrMessageDataItemNames::Macro(all) => all.expand(),
        MacroOrMessageDataItemNames::MessageDataItemNames(names) => names.clone(),
    };
    // RFC 3501 section 6.4.8: a UID command always tells the UID.
    if numbers == Numbers::Uid && !items.contains(&MessageDataItemName::Uid) {
        items.insert(0, MessageDataItemName::Uid);
    }
    items.iter().all(serves).then_some(items)
}

fn serves(item: &MessageDataItemName<'_>) -> bool {
    use MessageDataItemName as Name;
    match item {
        Name::BodyExt { section, .. } => matches!(
            section,
            None | Some(
                Section::Header(None)
                    | Section::Text(None)
                    | Section::HeaderFields(None, _)
                    | Section::HeaderFieldsNot(None, _)
            )
        ),
        Name::Flags | Name::InternalDate | Name::Uid => true,
        Name::Rfc822 | Name::Rfc822Header | Name::Rfc822Size | Name::Rfc822Text => true,
        _ => false,
    }
}

/// Whether an item sets `\Seen`.
pub(crate) fn reads(item: &MessageDataItemName<'_>) -> bool {
    matches!(
        item,
        MessageDataItemName::BodyExt { peek: false, .. }
            | MessageDataItemName::Rfc822
            | MessageDataItemName::Rfc822Text
    )
}

/// The whole `n FETCH (...)`, literals included.
pub(crate) fn response(
    number: usize,
    message: &Stored,
    items: &[MessageDataItemName<'_>],
    parts: PartialFetch,
) -> Vec<u8> {
    let mut out = format!("{number} FETCH (").into_bytes();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        write_item(item, message, parts, &mut out);
    }
    out.push(b')');
    out
}

fn write_item(item: &MessageDataItemName<'_>, message: &Stored, parts: PartialFetch, out: &mut Vec<u8>) {
    use MessageDataItemName as Name;
    let (header, text) = message::split_header(&message.bytes);
    match item {
        Name::Uid => out.extend_from_slice(format!("UID {}", message.uid).as_bytes()),
        Name::Flags => out.extend_from_slice(format!("FLAGS {}", flag_list(&message.flags)).as_bytes()),
        Name::Rfc822Size => out.extend_from_slice(format!("RFC822.SIZE {}", message.bytes.len()).as_bytes()),
        Name::InternalDate => {
            let date = DateTime::<Utc>::from_timestamp(message.seconds(), 0).unwrap_or_default();
            out.extend_from_slice(
                format!("INTERNALDATE \"{}\"", date.format("%e-%b-%Y %H:%M:%S %z")).as_bytes(),
            );
        }
        Name::Rfc822 => literal("RFC822", &message.bytes, out),
        Name::Rfc822Header => literal("RFC822.HEADER", header, out),
        Name::Rfc822Text => literal("RFC822.TEXT", text, out),
        Name::BodyExt { section, partial, .. } => {
            let (name, bytes) = match section {
                Some(Section::Header(_)) => ("HEADER".to_owned(), header.to_vec()),
                Some(Section::Text(_)) => ("TEXT".to_owned(), text.to_vec()),
                Some(Section::HeaderFields(_, names)) => {
                    let chosen = chosen(&message.bytes, |field| is_in(names.as_ref(), field));
                    (format!("HEADER.FIELDS {}", listed(names.as_ref())), chosen)
                }
                Some(Section::HeaderFieldsNot(_, names)) => {
                    let chosen = chosen(&message.bytes, |field| !is_in(names.as_ref(), field));
                    (format!("HEADER.FIELDS.NOT {}", listed(names.as_ref())), chosen)
                }
                _ => (String::new(), message.bytes.to_vec()),
            };
            match partial.filter(|_| parts != PartialFetch::Whole) {
                None => literal(&format!("BODY[{name}]"), &bytes, out),
                Some((origin, _)) if parts == PartialFetch::WholeAsPart => {
                    literal(&format!("BODY[{name}]<{origin}>"), &bytes, out);
                }
                // Past the end there is nothing, which is an empty string and no error.
                Some((origin, length)) => {
                    let from = (origin as usize).min(bytes.len());
                    let to = from.saturating_add(length.get() as usize).min(bytes.len());
                    literal(&format!("BODY[{name}]<{origin}>"), &bytes[from..to], out);
                }
            }
        }
        // `items` lets none of these through.
        _ => {}
    }
}

fn listed(names: &[AString<'_>]) -> String {
    let names: Vec<_> =
        names.iter().map(|name| String::from_utf8_lossy(name.as_ref()).to_ascii_uppercase()).collect();
    format!("({})", names.join(" "))
}

fn is_in(names: &[AString<'_>], field: &[u8]) -> bool {
    names.iter().any(|name| name.as_ref().eq_ignore_ascii_case(field))
}

/// The header fields with such names; the empty line is always there.
fn chosen(message: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let fields = message::fields(message).filter(|(name, _)| wanted(name)).map(|(_, field)| field);
    fields.chain([&b"\r\n"[..]]).collect::<Vec<_>>().concat()
}

fn literal(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{name} {{{}}}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

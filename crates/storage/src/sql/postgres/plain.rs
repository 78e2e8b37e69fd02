//! Text as PostgreSQL takes it: without NUL. What a stranger wrote (a subject, a server's words) may have one; it must not keep
//! the mail from being stored.

use std::borrow::Cow;

/// The text with a replacement character for each NUL.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

//! Another From and Reply-To in the bytes of a mail that postroom composed: the header fields are replaced, every other byte
//! stays. The same input makes the same bytes.

use super::encode;
use super::parse;
use crate::address::NamedAddress;
use crate::mail::HeaderField;
use crate::mail::field::Fields;
use crate::rules;
use crate::violation::Invalid;

/// As whom a mail is written, and where its answers go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "two header fields")]
pub struct Addressing {
    /// From.
    pub from: NamedAddress,
    /// Reply-To; none where answers go to From.
    pub reply_to: Option<NamedAddress>,
}

/// Reads From and Reply-To of a mail that was composed.
///
/// # Errors
/// [`rules::REROUTE`] with what is found: a signature that another header would break, or other than one From and at most one
/// Reply-To with one address.
pub fn addressing(bytes: &[u8]) -> Result<Addressing, Invalid> {
    let fields: Vec<HeaderField<'_>> = Fields::new(bytes).collect();
    let refused = |found: &str| Invalid::new(&rules::REROUTE).with("found", found);
    let is_signed = |field: &HeaderField<'_>| {
        let value = field.raw().to_ascii_lowercase();
        let says = |word: &[u8]| value.windows(word.len()).any(|window| window == word);
        field.is("DKIM-Signature")
            || field.is("Content-Type") && (says(b"multipart/signed") || says(b"pkcs7-mime"))
    };
    if fields.iter().any(is_signed) {
        return Err(refused("a signature"));
    }
    let one = |name: &str| {
        let mut its = fields.iter().filter(|field| field.is(name));
        match (its.next(), its.next()) {
            (None, _) => Ok(None),
            (Some(field), None) => match parse::addresses(field.raw()) {
                (addresses, problems) if problems.is_empty() => {
                    <[NamedAddress; 1]>::try_from(addresses).map(|[one]| Some(one)).map_err(drop)
                }
                _ => Err(()),
            },
            (Some(_), Some(_)) => Err(()),
        }
    };
    match (one("From"), one("Reply-To")) {
        (Ok(Some(from)), Ok(reply_to)) => Ok(Addressing { from, reply_to }),
        _ => Err(refused("not one From and at most one Reply-To")),
    }
}

/// The mail with another From and Reply-To, which stand where From stood.
///
/// # Errors
/// As for [`addressing`].
pub fn readdress(bytes: &[u8], to: &Addressing) -> Result<Vec<u8>, Invalid> {
    addressing(bytes)?;
    let mut fields = Fields::new(bytes);
    let mut out = Vec::with_capacity(bytes.len() + 256);
    let add = |name: &str, one: &NamedAddress| {
        [name, ": ", &encode::addresses(std::slice::from_ref(one)), "\r\n"].concat().into_bytes()
    };
    let mut copied = 0;
    while let Some(field) = fields.next() {
        let end = bytes.len() - fields.left();
        if field.is("From") {
            out.extend(add("From", &to.from));
            out.extend(to.reply_to.iter().flat_map(|one| add("Reply-To", one)));
        } else if !field.is("Reply-To") {
            out.extend_from_slice(&bytes[copied..end]);
        }
        copied = end;
    }
    out.extend_from_slice(&bytes[copied..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> NamedAddress {
        text.parse().expect("an address")
    }

    const MAIL: &[u8] = b"Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nFrom: =?utf-8?b?w5Y=?=\r\n <a@acme.example>\r\nReply-To: b@acme.example\r\n\
        To: x@client.example\r\nMessage-ID: <1@acme.example>\r\n\r\nFrom: not a field\r\nReply-To: neither\r\n";

    #[test]
    fn from_and_reply_to_are_replaced_and_every_other_byte_stays() {
        let was = addressing(MAIL).expect("ours");
        assert_eq!(
            (was.from.address().as_str(), was.reply_to),
            ("a@acme.example", Some(named("b@acme.example")))
        );
        let to = Addressing { from: named("Ç <c@other.example>"), reply_to: Some(named("a@acme.example")) };
        let text = String::from_utf8(readdress(MAIL, &to).expect("readdressed")).expect("7-bit");
        let want = "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nFrom: =?utf-8?b?w4c=?=\r\n <c@other.example>\r\nReply-To: a@acme.example\r\n\
            To: x@client.example\r\nMessage-ID: <1@acme.example>\r\n\r\nFrom: not a field\r\nReply-To: neither\r\n";
        assert_eq!(text, want);
        assert_eq!(addressing(text.as_bytes()).expect("ours still"), to);
        let to = Addressing { reply_to: None, ..to };
        assert_eq!(addressing(&readdress(MAIL, &to).expect("readdressed")).expect("ours still"), to);
    }

    /// Would miss a signature that is sent broken, and a mail that gets a second From.
    #[test]
    fn what_is_signed_or_not_ours_is_refused() {
        let to = addressing(MAIL).expect("ours");
        for header in [
            "From: a@acme.example\r\nDKIM-Signature: v=1\r\n",
            "From: a@acme.example\r\nContent-Type: Multipart/Signed; boundary=x\r\n",
            "From: a@acme.example\r\nContent-Type: application/pkcs7-mime\r\n",
            "From: a@acme.example\r\nFrom: b@acme.example\r\n",
            "From: a@acme.example, b@acme.example\r\n",
            "From: a@acme.example\r\nReply-To: a@acme.example\r\nReply-To: b@acme.example\r\n",
            "To: a@acme.example\r\n",
        ] {
            let mail = format!("{header}\r\ntext\r\n");
            assert!(readdress(mail.as_bytes(), &to).is_err(), "{header}");
        }
    }
}

//! Addresses of mail: domain, address, address with a display name. Parsing refuses what can't stand in a mail; the
//! MIME form of a name is made in `mime`.

use std::fmt;

use email_address::{EmailAddress, Options};

use crate::rules;
use crate::text::text_form;
use crate::violation::{Invalid, shown};

/// The domain of an address, in A-labels and lower case (RFC 5890).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Reads a domain, also an international one.
    ///
    /// # Errors
    /// [`rules::DOMAIN`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::DOMAIN).with("value", shown(text));
        let ascii = idna::domain_to_ascii_strict(text.trim()).map_err(|_| invalid())?;
        if ascii.is_empty()
            || ascii.len() > 253
            || ascii.ends_with('.')
            || ascii.parse::<std::net::IpAddr>().is_ok()
        {
            return Err(invalid());
        }
        Ok(Self(ascii))
    }

    /// The domain in A-labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether anybody can have an address there (gmail.com, outlook.com and the like): such a domain identifies no
    /// client.
    #[must_use]
    pub fn is_public_provider(&self) -> bool {
        PUBLIC_PROVIDERS.binary_search(&self.0.as_str()).is_ok()
    }

    /// Whether it is itself a public suffix such as `com` or `co.uk`, by the public suffix list.
    #[must_use]
    pub fn is_public_suffix(&self) -> bool {
        psl::suffix_str(&self.0).is_some_and(|suffix| suffix == self.0)
            && psl::suffix(self.0.as_bytes()).is_some_and(|suffix| suffix.is_known())
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Providers that give addresses to the public, sorted.
const PUBLIC_PROVIDERS: &[&str] = &[
    "126.com",
    "163.com",
    "aol.com",
    "bol.com.br",
    "fastmail.com",
    "free.fr",
    "gmail.com",
    "gmx.at",
    "gmx.ch",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hey.com",
    "hotmail.co.uk",
    "hotmail.com",
    "hotmail.com.br",
    "hotmail.de",
    "hotmail.es",
    "hotmail.fr",
    "hotmail.it",
    "icloud.com",
    "ig.com.br",
    "laposte.net",
    "libero.it",
    "live.com",
    "live.com.pt",
    "mac.com",
    "mail.com",
    "mail.ru",
    "me.com",
    "msn.com",
    "naver.com",
    "orange.fr",
    "outlook.com",
    "outlook.com.br",
    "outlook.de",
    "outlook.es",
    "outlook.fr",
    "outlook.pt",
    "pm.me",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "r7.com",
    "rediffmail.com",
    "sapo.pt",
    "t-online.de",
    "terra.com.br",
    "tutanota.com",
    "uol.com.br",
    "wanadoo.fr",
    "web.de",
    "yahoo.co.jp",
    "yahoo.co.uk",
    "yahoo.com",
    "yahoo.com.br",
    "yahoo.de",
    "yahoo.es",
    "yahoo.fr",
    "yandex.com",
    "yandex.ru",
    "ymail.com",
    "zoho.com",
];

/// A mail address (RFC 5321 `Mailbox`): the local part as given, the domain in A-labels and lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// The greatest length, in bytes (RFC 5321 section 4.5.3.1.3, less the angle brackets).
    pub const LIMIT: usize = 254;

    /// Reads `local@domain`. Domain literals are refused.
    ///
    /// # Errors
    /// [`rules::ADDRESS`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::ADDRESS).with("value", shown(text));
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(invalid());
        }
        let options = Options::default().without_domain_literal().without_display_text();
        let (local, domain) = text.rsplit_once('@').ok_or_else(invalid)?;
        let domain = Domain::parse(domain).map_err(|_| invalid())?;
        let text = format!("{local}@{domain}");
        // The crate checks the local part; the domain is A-labels by now.
        EmailAddress::parse_with_options(&text, options).map_err(|_| invalid())?;
        if text.len() > Self::LIMIT {
            return Err(invalid());
        }
        Ok(Self { at: local.len(), text })
    }

    /// `local@domain`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// What stands after the `@`.
    #[must_use]
    pub fn domain(&self) -> Domain {
        Domain(self.text[self.at + 1..].to_owned())
    }

    /// Whether the server must offer SMTPUTF8 (RFC 6531) to carry it.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }

    /// Equal to `other` when the case of the local part is disregarded, as nearly every server does. Used to recognise
    /// mail, never to name a row.
    #[must_use]
    pub fn same_mailbox(&self, other: &Self) -> bool {
        self.text.to_lowercase() == other.text.to_lowercase()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An address with an optional display name: `Name <a@b>` or `a@b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedAddress {
    name: Option<String>,
    address: Address,
}

impl NamedAddress {
    /// The greatest length of a display name, in bytes.
    pub const NAME_LIMIT: usize = 200;

    /// An address without a name.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { name: None, address }
    }

    /// Gives it a display name; a blank one is none.
    ///
    /// # Errors
    /// [`rules::DISPLAY_NAME`] when it has control characters or is too long.
    pub fn with_name(self, name: &str) -> Result<Self, Invalid> {
        let name = name.trim();
        if name.len() > Self::NAME_LIMIT || name.chars().any(char::is_control) {
            return Err(Invalid::new(&rules::DISPLAY_NAME).with("value", shown(name)));
        }
        Ok(Self { name: (!name.is_empty()).then(|| name.to_owned()), ..self })
    }

    /// Reads `Name <a@b>`, `"Name, with specials" <a@b>`, `<a@b>` or `a@b`.
    ///
    /// # Errors
    /// [`rules::ADDRESS`], [`rules::DISPLAY_NAME`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let Some((name, rest)) = text.strip_suffix('>').and_then(split_at_bracket) else {
            return Address::parse(text).map(Self::new);
        };
        Self::new(Address::parse(rest)?).with_name(&unquoted(name.trim()))
    }

    /// The display name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Splits at the first `<` that is not in a quoted string; at the last one where quotes don't match.
fn split_at_bracket(text: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    text.rsplit_once('<')
}

fn unquoted(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) else {
        return name.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

impl From<Address> for NamedAddress {
    fn from(address: Address) -> Self {
        Self::new(address)
    }
}

/// For people, for JSON and for rows; the form in a header is made by `mime`.
impl fmt::Display for NamedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => self.address.fmt(f),
            Some(name) => {
                write!(f, "\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address)
            }
        }
    }
}

text_form!(Domain, Address, NamedAddress);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_taken_with_their_domain_in_a_labels_and_hostile_ones_are_refused() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(Address::parse(text).ok().as_ref().map(Address::as_str), want, "{text:?}");
        };
        check("Ana@Acme.Example", Some("Ana@acme.example"));
        check("ana@são.example", Some("ana@xn--so-sia.example"));
        check("\"a b\"@acme.example", Some("\"a b\"@acme.example"));
        check("josé@acme.example", Some("josé@acme.example"));
        check("a@localhost", Some("a@localhost"));
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c.d",
            "a@b\r\nRCPT TO:<x@y>",
            "a\r\n@b.c",
            "a@[1.2.3.4]",
            "a@1.2.3.4",
            "<a@b.c>",
            "a\0@b.c",
            "a@b.c>",
            "a..b@c.d",
            "a@-x.example",
        ] {
            check(bad, None);
        }
        check(&format!("{}@acme.example", "a".repeat(300)), None);
    }

    #[test]
    fn the_table_of_public_providers_is_sorted_and_suffixes_are_known() {
        assert!(PUBLIC_PROVIDERS.is_sorted());
        assert!(Domain::parse("GMail.com").expect("domain").is_public_provider());
        assert!(Domain::parse("co.uk").expect("domain").is_public_suffix());
        assert!(!Domain::parse("acme.co.uk").expect("domain").is_public_suffix());
    }

    proptest! {
        #[test]
        fn a_named_address_parses_back(name in "[^\\p{C}]{0,40}", local in "[a-z0-9.+_-]{1,20}|\"[a-z<> @,;]{1,20}\"", domain in "[a-z]{1,10}\\.example") {
            let Ok(address) = Address::parse(&format!("{local}@{domain}")) else { return Ok(()) };
            let named = NamedAddress::new(address).with_name(&name).expect("no control characters");
            prop_assert_eq!(NamedAddress::parse(&named.to_string()), Ok(named));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC*") {
            let _ = NamedAddress::parse(&text);
            let _ = Domain::parse(&text);
        }
    }
}

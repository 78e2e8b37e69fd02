//! Where a mail server is and how the way to it is protected: host, port, security, trust.

use std::fmt;
use std::net::IpAddr;

use crate::rules;
use crate::text::{text_form, words};
use crate::violation::{Invalid, shown};

/// The greatest length of a host name, in bytes (RFC 1035 section 2.3.4).
pub const HOST_LIMIT: usize = 253;

/// A host name in A-labels and lower case, or an IP literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// Reads a host name (also an international one), an IPv4 address, or an IPv6 address with or without brackets.
    ///
    /// # Errors
    /// [`rules::SERVER`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::SERVER).with("value", shown(text));
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(ip.to_string()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let name = idna::domain_to_ascii_strict(name).map_err(|_| invalid())?;
        // `0x7f.1` and `2130706433` are addresses to some resolvers: a last label of digits is no host name
        // (RFC 3696 section 2).
        let numeric = |label: &str| {
            label.bytes().all(|b| b.is_ascii_digit())
                || label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        if name.is_empty() || name.len() > HOST_LIMIT || name.rsplit('.').next().is_none_or(numeric) {
            return Err(invalid());
        }
        Ok(Self(name))
    }

    /// The name or address, without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is an IP literal.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(Host);

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(std::num::NonZeroU16);

impl Port {
    /// The port, if `number` is one.
    ///
    /// # Errors
    /// [`rules::PORT`].
    pub fn new(number: u32) -> Result<Self, Invalid> {
        u16::try_from(number)
            .ok()
            .and_then(std::num::NonZeroU16::new)
            .map(Self)
            .ok_or_else(|| Invalid::new(&rules::PORT).with("value", number.to_string()))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Port,
}

impl Endpoint {
    /// `port` of `host`.
    #[must_use]
    pub fn new(host: Host, port: Port) -> Self {
        Self { host, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

words! {
    /// How the connection is protected (RFC 8314 gives the terms).
    Tls, rules::TLS;
    /// Plain text. With a password only by the box's dangerous opt-in.
    None = "none",
    /// TLS after STARTTLS or STLS (RFC 3207, 2595), required: a server that does not offer it is refused.
    StartTls = "starttls",
    /// TLS from the first byte (RFC 8314 section 3).
    Implicit = "implicit",
}

/// Certificates in PEM that a mailbox trusts besides, or instead of, the platform's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority(String);

impl Authority {
    /// The greatest size of the PEM text, in bytes.
    pub const LIMIT: usize = 64 * 1024;

    /// Takes PEM text with at least one certificate. The certificates themselves are read when TLS is set up.
    ///
    /// # Errors
    /// [`rules::AUTHORITY`].
    pub fn parse(pem: &str) -> Result<Self, Invalid> {
        let whole = pem.contains("-----BEGIN CERTIFICATE-----") && pem.contains("-----END CERTIFICATE-----");
        if !whole || pem.len() > Self::LIMIT || pem.contains("PRIVATE KEY") {
            return Err(Invalid::new(&rules::AUTHORITY).with("bytes", pem.len().to_string()));
        }
        Ok(Self(pem.trim().to_owned()))
    }

    /// The PEM text.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(Authority);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_and_nothing_that_a_resolver_may_take_for_one() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(Host::parse(text).ok().as_ref().map(Host::as_str), want, "{text}");
        };
        check("mail.Acme.example", Some("mail.acme.example"));
        check("mail.acme.example.", Some("mail.acme.example"));
        check("127.0.0.1", Some("127.0.0.1"));
        check("[::1]", Some("::1"));
        check("correio.são.example", Some("correio.xn--so-sia.example"));
        check("localhost", Some("localhost"));
        for bad in
            ["", " ", "a b", "a\r\nb", "0x7f.1", "2130706433", "a..b", "http://x", "-", "x/y", "ex\0ample"]
        {
            check(bad, None);
        }
        check(&"a.".repeat(130), None);
    }

    #[test]
    fn an_ipv6_endpoint_has_brackets() {
        let endpoint = Endpoint::new(Host::parse("::1").expect("host"), Port::new(25).expect("port"));
        assert_eq!(endpoint.to_string(), "[::1]:25");
    }
}
